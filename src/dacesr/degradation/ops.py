"""Blur, resize, noise and sharpening on batches of pictures, on any device; JPEG is beside, in `jpeg.py`.

Pictures of one batch may have sizes of their own: `sizes` lists (height, width) of what is valid at the top left of a
common canvas, the rest is filling. Without `sizes` the canvas is the picture.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.degradation import kernels
from dacesr.degradation.jpeg import jpeg
from dacesr.imresize import Mode, resize_weights

__all__ = ["extend", "filter2d", "gaussian_noise", "jpeg", "poisson_noise", "resize", "usm_sharpen"]

Sizes = Sequence[tuple[int, int]]

_GRAY = (0.2989, 0.5870, 0.1140)  # luma of the gray Poisson noise


def filter2d(x: Tensor, kernel: Tensor, sizes: Sizes | None = None, reach: Sequence[int] | None = None) -> Tensor:
    """Correlate every channel with a kernel; the edges are mirrored (without the edge pixel itself).

    A picture narrower than the kernel's reach is continued by its edge pixels instead.

    Args:
        x: (b, c, h, w).
        kernel: (k, k) for all pictures or (b, k, k), k odd.
        sizes: what of each canvas is valid.
        reach: how far each kernel goes from its centre, where zeros lie around it; k // 2 unless given.

    Returns:
        (b, c, h, w).

    Raises:
        ValueError: shapes that do not fit, or an even kernel.
    """
    b, c = x.shape[:2]
    k = kernel.shape[-1]
    if kernel.ndim not in (2, 3) or kernel.shape[-2] != k or k % 2 == 0 or kernel.shape[:-2] not in ((), (b,)):
        raise ValueError(f"the kernel should be (k, k) or ({b}, k, k) with k odd, not {tuple(kernel.shape)}")
    padded = extend(x, k // 2, sizes, reach or [k // 2] * b)
    weights = kernel.to(x).expand(b, k, k).repeat_interleave(c, 0).unsqueeze(1)
    return F.conv2d(padded.reshape(1, b * c, *padded.shape[-2:]), weights, groups=b * c).reshape(x.shape)


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
    valid = sizes or [(height, width)] * x.shape[0]
    reach = mirror or [max(height, width)] * len(valid)  # which no picture can give
    mirrored = [min(size) > needed for size, needed in zip(valid, reach, strict=True)]
    whole = all(size == (height, width) for size in valid)
    if whole and (not any(mirrored) or (all(mirrored) and min(height, width) > margin)):
        return F.pad(x, (margin,) * 4, mode="reflect" if mirrored[0] else "replicate") if margin else x
    rows = _places(height, margin, [size[0] for size in valid], mirrored).to(x.device)
    columns = _places(width, margin, [size[1] for size in valid], mirrored).to(x.device)
    batch = torch.arange(x.shape[0], device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _places(canvas: int, margin: int, sides: list[int], mirrored: list[bool]) -> Tensor:
    """(b, canvas + 2 * margin): for each place along an axis the pixel to take, for every picture."""
    place = torch.arange(-margin, canvas + margin).expand(len(sides), -1)
    last = torch.tensor(sides)[:, None] - 1
    reflected = torch.where(place > last, 2 * last - place, place.abs())
    return torch.where(torch.tensor(mirrored)[:, None], reflected, place).clamp(min=0).minimum(last)


def resize(x: Tensor, targets: Sizes, modes: Sequence[Mode], sizes: Sizes | None = None) -> Tensor:
    """Resize each picture to a size and in a mode of its own, without antialiasing (as `interpolate` does).

    Args:
        x: (b, c, h, w).
        targets: (height, width) of each result.
        modes: `area`, `bilinear`, `bicubic` or `nearest`, for each.
        sizes: what of each canvas is valid.

    Returns:
        (b, c, max height, max width); each result at the top left, zeros around it.

    Raises:
        ValueError: a side is below 1, or there is no such mode.
    """
    valid = sizes or [(x.shape[-2], x.shape[-1])] * len(targets)
    canvas = [max(target[axis] for target in targets) for axis in (0, 1)]
    rows, columns = (
        torch.stack(
            [
                F.pad(weights, (0, x.shape[axis - 2] - weights.shape[1], 0, canvas[axis] - weights.shape[0]))
                for weights in (
                    resize_weights(size[axis], target[axis], mode)
                    for size, target, mode in zip(valid, targets, modes, strict=True)
                )
            ]
        ).to(x)
        for axis in (0, 1)
    )
    return rows[:, None] @ x @ columns[:, None].mT


def gaussian_noise(
    x: Tensor,
    sigma: Tensor,
    gray: Tensor,
    generators: Sequence[torch.Generator],
    sizes: Sizes | None = None,
) -> Tensor:
    """Add white Gaussian noise and clip to [0, 1].

    Args:
        x: (b, c, h, w) in [0, 1].
        sigma: (b,) standard deviation of each picture's noise, in the units of `x`.
        gray: (b,) bool, the same noise for all channels.
        generators: one per picture, on `x`'s device.
        sizes: what of each canvas is valid; the rest gets no noise.
    """

    def draw(picture: Tensor, alike: bool, generator: torch.Generator) -> Tensor:
        channels = 1 if alike else len(picture)
        return torch.randn((channels, *picture.shape[1:]), generator=generator, device=x.device)

    return _with_noise(x, draw, sigma, gray, generators, sizes)


def poisson_noise(
    x: Tensor,
    scale: Tensor,
    gray: Tensor,
    generators: Sequence[torch.Generator],
    sizes: Sizes | None = None,
) -> Tensor:
    """Add Poisson (shot) noise and clip to [0, 1]; no gradient flows through the noise.

    With vals = 2^ceil(log2(distinct 8-bit values of the picture)): noise = Poisson(x vals) / vals - x, times the scale
    (Real-ESRGAN's `generate_poisson_noise_pt`). The gray variant draws it on luma, the same for all channels.

    Args:
        x: (b, 3, h, w) in [0, 1].
        scale: (b,) factor of each picture's noise.
        gray: (b,) bool.
        generators: one per picture, on `x`'s device.
        sizes: what of each canvas is valid; the rest gets no noise and does not count for the distinct values.
    """

    def draw(picture: Tensor, alike: bool, generator: torch.Generator) -> Tensor:
        base = (picture * picture.new_tensor(_GRAY)[:, None, None]).sum(0, keepdim=True) if alike else picture
        values = base.mul(255).round().clamp(0, 255)
        distinct = torch.bincount(values.flatten().long(), minlength=256).count_nonzero()
        vals = torch.exp2(torch.ceil(torch.log2(distinct.to(x))))
        return torch.poisson(values / 255 * vals, generator=generator) / vals - values / 255

    return _with_noise(x, draw, scale, gray, generators, sizes)


def _with_noise(
    x: Tensor,
    draw: Callable[[Tensor, bool, torch.Generator], Tensor],
    level: Tensor,
    gray: Tensor,
    generators: Sequence[torch.Generator],
    sizes: Sizes | None,
) -> Tensor:
    """Add level * draw(picture, gray, generator), made for the valid part of each picture; clip to [0, 1]."""
    valid = sizes or [(x.shape[-2], x.shape[-1])] * len(generators)
    drawn = []
    for picture, alike, (height, width), generator in zip(x.detach(), gray.tolist(), valid, generators, strict=True):
        noise = draw(picture[:, :height, :width], alike, generator).expand(x.shape[1], -1, -1)
        drawn.append(F.pad(noise, (0, x.shape[-1] - width, 0, x.shape[-2] - height)))
    return (x + torch.stack(drawn).to(x) * level.to(x)[:, None, None, None]).clamp(0, 1)


def usm_sharpen(x: Tensor, weight: float = 0.5, radius: int = 51, threshold: float = 10) -> Tensor:
    """Unsharp masking of what stands out, as Real-ESRGAN sharpens its ground truth.

    residual = x - blur(x); where |255 residual| > threshold, x + weight * residual clipped to [0, 1]; the mask is
    softened by the same Gaussian.

    Args:
        x: (b, 3, h, w) in [0, 1].
        weight: of the residual.
        radius: odd side of the Gaussian, whose sigma follows OpenCV's rule 0.3 ((radius - 1) / 2 - 1) + 0.8.
        threshold: of the residual, in 8-bit levels.

    Returns:
        (b, 3, h, w) in [0, 1].
    """
    sigma = 0.3 * ((radius - 1) / 2 - 1) + 0.8
    profile = kernels.gaussian(radius, sigma, sigma).sum(0)  # the kernel is the outer product of it

    def blur(image: Tensor) -> Tensor:
        return _filter_separably(image, profile)

    residual = x - blur(x)
    mask = blur(((residual.abs() * 255) > threshold).to(x))
    return mask * (x + weight * residual).clamp(0, 1) + (1 - mask) * x


def _filter_separably(x: Tensor, profile: Tensor) -> Tensor:
    """`filter2d` with the outer product of a symmetric profile (k,) of sum 1."""
    reach = len(profile) // 2
    padded = extend(x, reach, mirror=[reach] * x.shape[0])
    weights = profile.to(x).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(padded, weights, groups=x.shape[1]), weights.mT, groups=x.shape[1])
