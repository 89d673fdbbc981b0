"""Windows: squares of a network's output that a figure looks at, and the part of its input around them.

b  pictures     c  channels     h, w  sides
"""

import math
import re
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PATTERN = re.compile(r"(?P<x>\d+),(?P<y>\d+),(?P<size>\d+)")
FLAT = 1e-12  # squared gradients below that count as none, so that the square root has a derivative


class Window(NamedTuple):
    """A square of an output, in its pixels: left edge, top edge, side."""

    x: int
    y: int
    size: int

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.size}"

    def of(self, output: Tensor) -> Tensor:
        """The window's pixels of an output (b, c, h, w)."""
        return output[..., self.y : self.y + self.size, self.x : self.x + self.size]


def parse_window(text: str) -> Window:
    """The window that "x,y,size" stands for.

    Raises:
        ValueError: The text is no such thing, or the side is below 2 pixels, between which there is no detail.
    """
    found = PATTERN.fullmatch(text.replace(" ", ""))
    if found is None or int(found["size"]) < 2:
        raise ValueError(f"a window is x,y,size in pixels of the output, size 2 or more, as in 96,64,16; got {text!r}")
    return Window(int(found["x"]), int(found["y"]), int(found["size"]))


def check_window(window: Window, height: int, width: int) -> None:
    """ValueError unless a window lies within an output of that size."""
    if window.x + window.size > width or window.y + window.size > height:
        raise ValueError(f"the window {window} (x,y,size) does not lie within the output of {width} x {height} pixels")


def gradients(x: Tensor) -> Tensor:
    """How much each channel changes from pixel to pixel: sqrt(dx^2 + dy^2) of forward differences.

    Args:
        x: (b, c, h, w), at least 2 x 2.

    Returns:
        (b, c, h - 1, w - 1); place (i, j) compares pixel (i, j) with those below it and to its right.
    """
    down, right = x[..., 1:, :-1] - x[..., :-1, :-1], x[..., :-1, 1:] - x[..., :-1, :-1]
    return (down.square() + right.square()).clamp_min(FLAT).sqrt()


def find_window(x: Tensor, scale: int, size: int) -> Window:
    """The window with most detail, `gradients`, in the input; away from the edges where there is room.

    Args:
        x: Input, (1, 3, h, w) in [0, 1].
        scale: Output pixels per input pixel along each side.
        size: Of the window, in output pixels.

    Raises:
        ValueError: The output is smaller than the window, or the input below 2 pixels a side.
    """
    height, width = x.shape[-2:]
    if min(height, width) < 2:
        raise ValueError(f"{width} x {height} pixels are too few to look for detail in")
    check_window(Window(0, 0, size), height * scale, width * scale)
    side = math.ceil(size / scale)  # in input pixels
    detail = gradients(x).sum(1, keepdim=True)
    wanted = min(side, *detail.shape[-2:])
    sums = F.avg_pool2d(detail, wanted, stride=1)[0, 0]
    margins = [min(side, (count - 1) // 2) for count in sums.shape]
    inner = sums[margins[0] : sums.shape[0] - margins[0], margins[1] : sums.shape[1] - margins[1]]
    row, column = divmod(int(torch.argmax(inner)), inner.shape[1])
    left, top = (column + margins[1]) * scale, (row + margins[0]) * scale
    return Window(min(left, width * scale - size), min(top, height * scale - size), size)


class Part(NamedTuple):
    """A part of an input, and a window within its output.

    Attributes:
        pixels: (b, 3, h, w).
        window: In pixels of the part's output.
        left, top: Of the part, in pixels of the input.
    """

    pixels: Tensor
    window: Window
    left: int = 0
    top: int = 0


def cut_around(x: Tensor, window: Window, scale: int, side: int) -> Part:
    """The part of an input around a window.

    Args:
        x: Input, (b, 3, h, w).
        window: In output pixels.
        scale: Output pixels per input pixel along each side.
        side: Of the part, in input pixels; less where the picture is smaller, 0 for all of it.

    Returns:
        The part, with the window in its middle as far as the picture's edges let it.

    Raises:
        ValueError: The window is larger than the part, or does not lie within the output.
    """
    height, width = x.shape[-2:]
    check_window(window, height * scale, width * scale)
    if not side:
        return Part(x, window)
    top, left = (
        _start(first, window.size, scale, side, whole) for first, whole in ((window.y, height), (window.x, width))
    )
    pixels = x[..., top : top + side, left : left + side].contiguous()
    return Part(pixels, window._replace(x=window.x - left * scale, y=window.y - top * scale), left, top)


def _start(first: int, size: int, scale: int, side: int, whole: int) -> int:
    """Where a part of an axis begins, so that `size` output pixels from `first` on lie in it, in its middle if may be.

    `side` and `whole` are the part's and the axis's length, in input pixels.
    """
    side = min(side, whole)
    lowest, highest = max(math.ceil((first + size) / scale) - side, 0), min(first // scale, whole - side)
    if lowest > highest:
        raise ValueError(f"the window, {size} pixels a side, is larger than the output of {side} input pixels a side")
    return min(max(round((first + size / 2) / scale - side / 2), lowest), highest)
