"""What metrics have in common: checks of pictures, 8-bit values, gray, borders, windows."""

import torch
from torch import Tensor
from torch.nn import functional as F

_GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray


def check_pair(a: Tensor, b: Tensor, smallest: int = 1, crop_border: int = 0) -> None:
    """Refuse two batches that can't be compared, or whose pictures leave too little (see `check_picture`).

    Raises:
        ValueError: the sentence says both sizes.
    """
    if a.shape != b.shape and a.ndim == b.ndim == 4:
        if a.shape[2:] != b.shape[2:]:
            sizes = " and ".join(f"{x.shape[3]}x{x.shape[2]}" for x in (a, b))
            raise ValueError(f"pictures of different sizes can't be compared: {sizes}")
        raise ValueError(f"batches of different shapes can't be compared: {tuple(a.shape)} and {tuple(b.shape)}")
    for x in (a, b):
        check_picture(x, smallest, crop_border)


def check_picture(x: Tensor, smallest: int, crop_border: int = 0) -> None:
    """Refuse what isn't pictures (b, 3, h, w), or leaves less than `smallest` pixels a side inside the border.

    Raises:
        ValueError: the sentence says the shape or the size.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"pictures are (b, 3, h, w), not {tuple(x.shape)}")
    if crop_border < 0 or min(x.shape[2:]) - 2 * crop_border < smallest:
        size = f"{x.shape[3]}x{x.shape[2]}"
        raise ValueError(
            f"{size} pixels are too few: {smallest}x{smallest} must be left inside a border of {crop_border}"
        )


def eight_bit(x: Tensor) -> Tensor:
    """8-bit values 0 to 255 of values in [0, 1], as float64."""
    return (x.double().clamp(0, 1) * 255).round()


def cropped(x: Tensor, border: int) -> Tensor:
    """(b, c, h, w) -> (b, c, h - 2 * border, w - 2 * border)."""
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def gray_of(x: Tensor) -> Tensor:
    """(b, 3, h, w) -> (b, 1, h, w), 0 to 255, rounded as MATLAB's rgb2gray rounds it."""
    weights = torch.tensor(_GRAY, dtype=torch.float64, device=x.device).reshape(1, 3, 1, 1)
    return (eight_bit(x) * weights).sum(1, keepdim=True).round()


def blurred(x: Tensor, taps: Tensor) -> Tensor:
    """Filter each plane with the same taps down and across, where they fit; they are brought to the sum 1."""
    taps = taps / taps.sum()
    planes = x.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(F.conv2d(planes, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1))
    return planes.reshape(*x.shape[:2], *planes.shape[2:])
