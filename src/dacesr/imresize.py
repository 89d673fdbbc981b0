"""Resizing as a product of matrices: MATLAB's `imresize`, and the plain resizes of degradation pipelines.

Along one axis every resize is linear, so a picture is resized as R x C^T with a matrix of weights for the rows and one
for the columns. That is differentiable, and works on batches in which each picture has sizes of its own.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["cubic", "lanczos3"]
Mode = Literal["area", "bilinear", "bicubic", "nearest"]
MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic", "nearest")


def imresize(x: Tensor, scale: float, *, eight_bit: bool = False, kernel: Kernel = "cubic") -> Tensor:
    """Resize as MATLAB's `imresize(x, scale, kernel)` does: antialiased when shrinking, edges mirrored.

    Args:
        x: (b, c, h, w), any values.
        scale: factor of both sides, above 0.
        eight_bit: as on MATLAB's uint8 pictures, which are rounded after the rows and again after the columns; `x` is
            in [0, 1] then, and so is the result. Rounding passes the gradient through.
        kernel: `cubic` (Keys, a = -0.5), or `lanczos3`, a sinc windowed by a wider one.

    Returns:
        (b, c, ceil(h * scale), ceil(w * scale)), not clamped.

    Raises:
        ValueError: the scale is not above 0, `x` has not four dimensions, or there is no such kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"a kernel is one of {', '.join(KERNELS)}, not {kernel}")
    if not scale > 0 or x.ndim != 4:
        raise ValueError(f"imresize needs (b, c, h, w) and a scale above 0; got {tuple(x.shape)} and {scale}")
    rows, columns = (_matlab_weights(side, scale, kernel).to(x) for side in x.shape[-2:])
    if eight_bit:
        return _to_eight_bit(_to_eight_bit(rows @ x) @ columns.mT)
    return rows @ x @ columns.mT


def _to_eight_bit(x: Tensor) -> Tensor:
    """The nearest of 256 values, halves upwards as in MATLAB; the gradient passes as if nothing had been rounded."""
    levels = x.clamp(0, 1) * 255
    return (levels + ((levels + 0.5).floor() - levels).detach()) / 255


def _matlab_weights(inputs: int, scale: float, kernel: Kernel) -> Tensor:
    """(outputs, inputs): weights of MATLAB's kernel, stretched by 1 / scale where that shrinks; fp64."""
    reach, weigh = KERNELS[kernel]
    outputs = math.ceil(inputs * scale)
    stretch = max(1.0, 1 / scale)
    centre = (torch.arange(outputs, dtype=torch.float64)[:, None] + 0.5) / scale - 0.5
    taps = math.ceil(2 * reach * stretch) + 2
    place = torch.floor(centre - reach * stretch) + torch.arange(taps)
    weights = weigh((centre - place) / stretch)
    period = place.remainder(2 * inputs).long()  # mirrored: 0 1 .. n-1 n-1 .. 1 0
    return _scatter(torch.minimum(period, 2 * inputs - 1 - period), weights / weights.sum(1, keepdim=True), inputs)


def resize_weights(inputs: int, outputs: int, mode: Mode) -> Tensor:
    """Weights of `torch.nn.functional.interpolate` (no antialiasing, half-pixel centres) along one axis.

    Returns:
        (outputs, inputs) float32; rows sum to 1.

    Raises:
        ValueError: a side is below 1, or there is no such mode.
    """
    if min(inputs, outputs) < 1 or mode not in MODES:
        raise ValueError(f"cannot resize from {inputs} to {outputs} pixels by {mode!r}; modes: {', '.join(MODES)}")
    target = torch.arange(outputs)[:, None]
    first = (target * inputs).div(outputs, rounding_mode="floor")
    if mode == "nearest":
        return _scatter(first, torch.ones(outputs, 1), inputs)
    if mode == "area":
        end = ((target + 1) * inputs + outputs - 1).div(outputs, rounding_mode="floor")
        covered = torch.arange(inputs)
        weights = ((covered >= first) & (covered < end)).double()
        return (weights / weights.sum(1, keepdim=True)).float()
    centre = (target.double() + 0.5) * inputs / outputs - 0.5
    if mode == "bilinear":
        centre = centre.clamp(min=0)
    reach = 1 if mode == "bilinear" else 2
    place = centre.floor() + torch.arange(1 - reach, 1 + reach)
    distance = centre - place
    weights = 1 - distance.abs() if mode == "bilinear" else _cubic(distance, -0.75)
    return _scatter(place.clamp(0, inputs - 1).long(), weights, inputs).float()


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel (1981)."""
    r = distance.abs()
    near = ((a + 2) * r - (a + 3)) * r * r + 1
    far = a * (((r - 5) * r + 8) * r - 4)
    return torch.where(r <= 1, near, torch.where(r < 2, far, torch.zeros_like(r)))


def _lanczos3(distance: Tensor) -> Tensor:
    """Lanczos's kernel of three lobes."""
    return torch.where(distance.abs() < 3, torch.sinc(distance) * torch.sinc(distance / 3), 0)


def _scatter(place: Tensor, weights: Tensor, inputs: int) -> Tensor:
    """(outputs, taps) places and weights as a matrix (outputs, inputs); weights at the same place add up."""
    return weights.new_zeros(place.shape[0], inputs).scatter_add_(1, place, weights)


KERNELS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {  # how far a kernel reaches, in pixels, and its weights
    "cubic": (2, lambda distance: _cubic(distance, -0.5)),
    "lanczos3": (3, _lanczos3),
}
