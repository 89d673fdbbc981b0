"""Pictures of different sizes on one canvas: (height, width) of what is valid at its top left, the rest is filling.

Without sizes the canvas is the picture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.imresize import upload

Sizes = Sequence[tuple[int, int]]


def valid_sizes(x: Tensor, sizes: Sizes | None) -> Sizes:
    """The sizes, or that of the canvas for each picture of (b, c, h, w)."""
    return sizes or [(x.shape[-2], x.shape[-1])] * x.shape[0]


def largest(sizes: Sizes) -> tuple[int, int]:
    """(height, width) of the smallest canvas that holds pictures of these sizes."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def fit(x: Tensor, height: int, width: int) -> Tensor:
    """Pictures (b, c, h, w) on a canvas of this size: the top left of them, zeros where they do not reach."""
    x = x[..., :height, :width]
    if x.shape[-2:] == (height, width):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def mirrors(sizes: Sizes, needed: Sequence[int]) -> list[bool]:
    """Whether each picture has as many pixels beyond its edge pixels as its mirror image has to give."""
    return [min(size) > pixels for size, pixels in zip(sizes, needed, strict=True)]


def extend(x: Tensor, margin: int, sizes: Sizes | None = None, mirror: Sequence[int] | None = None) -> Tensor:
    """Continue pictures beyond their edges, by `margin` pixels beyond the canvas.

    Args:
        x: (b, c, h, w).
        margin: pixels to add on each side.
        sizes: what of each canvas is valid; what lies outside is overwritten.
        mirror: for each picture, how many pixels its mirror image (about the edge pixel) has to give; edge pixels are
            repeated where the picture has fewer, and without `mirror`.

    Returns:
        (b, c, h + 2 * margin, w + 2 * margin).
    """
    height, width = x.shape[-2:]
    valid = valid_sizes(x, sizes)
    mirrored = mirrors(valid, mirror) if mirror else [False] * len(valid)
    whole = all(size == (height, width) for size in valid)
    if whole and (not any(mirrored) or (all(mirrored) and min(height, width) > margin)):
        return F.pad(x, (margin,) * 4, mode="reflect" if mirrored[0] else "replicate") if margin else x
    sides = (_places(x.shape[axis - 2], margin, [size[axis] for size in valid], mirrored) for axis in (0, 1))
    places = upload(torch.cat([*sides], dim=1), x.device)
    rows, columns = places.split([height + 2 * margin, width + 2 * margin], dim=1)
    batch = torch.arange(x.shape[0], device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _places(canvas: int, margin: int, sides: list[int], mirrored: list[bool]) -> Tensor:
    """(b, canvas + 2 * margin): for each place along an axis the pixel to take, for every picture."""
    place = torch.arange(-margin, canvas + margin).expand(len(sides), -1)
    last = torch.tensor(sides)[:, None] - 1
    reflected = torch.where(place > last, 2 * last - place, place.abs())
    return torch.where(torch.tensor(mirrored)[:, None], reflected, place).clamp(min=0).minimum(last)
