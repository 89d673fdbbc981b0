"""Resizing as a product of matrices: MATLAB's `imresize`, and the plain resizes of degradation pipelines.

Along one axis every resize is linear, so a picture is resized as R x C^T with a matrix of weights for the rows and one
for the columns. That is differentiable, and works on batches in which each picture has sizes of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["cubic", "lanczos3"]
Mode = Literal["area", "bilinear", "bicubic", "nearest"]
Side = int | Tensor  # of one picture, or (b, 1, 1)
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
    rows, columns = (upload(_matlab_weights(side, scale, kernel).to(x.dtype), x.device) for side in x.shape[-2:])
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


def resize_matrices(
    inputs: Sequence[int],
    outputs: Sequence[int],
    modes: Sequence[Mode],
    canvas: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Weights of `interpolate` (PyTorch, no antialiasing, half-pixel centres) along one axis of many pictures.

    They are made together, on a device that is not waited for.

    Args:
        inputs: pixels of each picture along the axis.
        outputs: pixels of each result.
        modes: of each.
        canvas: rows and columns of every matrix, at least the largest of `outputs` and of `inputs`.
        device: where they are made.

    Returns:
        (b, *canvas) float32; rows sum to 1, and rows and columns beyond a picture's are 0.

    Raises:
        ValueError: a side is below 1, or there is no such mode.
    """
    for before, after, mode in zip(inputs, outputs, modes, strict=True):
        if min(before, after) < 1 or mode not in MODES:
            raise ValueError(f"cannot resize from {before} to {after} pixels by {mode!r}; modes: {', '.join(MODES)}")
    source, result, code = inputs[0], outputs[0], torch.tensor([MODES.index(mode) for mode in modes])
    if len(modes) > 1:  # for one picture plain numbers do, which are cheaper
        numbers = torch.stack([torch.tensor([*inputs]), torch.tensor([*outputs]), code])
        source, result, code = upload(numbers, device)[..., None, None]
    target = torch.arange(canvas[0], device=device)[None, :, None]
    first = (target * source).div(result, rounding_mode="floor")
    if set(modes) == {"area"}:
        found = _means(target, first, source, result, canvas[1])
    else:
        found = _tapped(target, first, source, result, code, modes, canvas[1])
        if "area" in modes:
            means = _means(target, first, source, result, canvas[1])
            found = torch.where(code == MODES.index("area"), means, found)
    if len(modes) == 1 and canvas == (outputs[0], inputs[0]):
        return found
    return found * ((target < result) & (torch.arange(canvas[1], device=device) < source))


def _means(target: Tensor, first: Tensor, source: Side, result: Side, columns: int) -> Tensor:
    """(b, rows, columns): weights of the mean over what a pixel covers; beyond a result anything finite."""
    end = ((target + 1) * source + result - 1).div(result, rounding_mode="floor")
    covered = torch.arange(columns, device=target.device)
    return ((covered >= first) & (covered < end)) * (1 / (end - first).double()).float()


def _tapped(
    target: Tensor, first: Tensor, source: Side, result: Side, code: Tensor, modes: Sequence[Mode], columns: int
) -> Tensor:
    """(b, rows, columns): the weights of modes that take up to four neighbours; beyond a result anything finite."""

    def chosen(bilinear: Callable[[], Tensor], nearest: Callable[[], Tensor], bicubic: Callable[[], Tensor]) -> Tensor:
        """Each picture's; what no picture needs is not computed."""
        makers = {"bilinear": bilinear, "nearest": nearest, "bicubic": bicubic}
        present = [(MODES.index(mode), make()) for mode, make in makers.items() if mode in modes]
        found = present[0][1]
        for number, values in present[1:]:
            found = torch.where(code == number, values, found)
        return found

    exact = (target.double() + 0.5) * source / result - 0.5
    centre = chosen(lambda: exact.clamp(min=0), lambda: first.double(), lambda: exact)
    place = centre.floor() + torch.arange(-1, 3, device=centre.device)
    distance = centre - place

    def linear() -> Tensor:
        return (1 - distance.abs()).clamp(min=0)

    weights = chosen(linear, linear, lambda: _cubic(distance, -0.75))
    return _scatter(place.clamp(min=0).clamp(max=source - 1).long(), weights, columns).float()


def upload(host: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device; what comes from the CPU is not waited for: the caller's stream copies it in its turn."""
    if host.device.type == "cpu" and torch.device(device).type == "cuda":
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)


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
    """(..., outputs, taps) places and weights as matrices (..., outputs, inputs); weights at the same place add up.

    A device that adds in parallel takes one tap after the other, so that it always adds in the same order.
    """
    matrix = weights.new_zeros(*place.shape[:-1], inputs)
    together = place.shape[-1] if place.device.type == "cpu" else 1
    for places, parts in zip(place.split(together, -1), weights.split(together, -1), strict=True):
        matrix.scatter_add_(-1, places, parts)
    return matrix


KERNELS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {  # how far a kernel reaches, in pixels, and its weights
    "cubic": (2, lambda distance: _cubic(distance, -0.5)),
    "lanczos3": (3, _lanczos3),
}
