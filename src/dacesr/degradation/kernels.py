"""Blur kernels on an odd grid, each with sum 1: Gaussian, generalized Gaussian, plateau, and the sinc low-pass.

With p = (x, y) from the centre (x along the columns), rotation t and S = U diag(sigma_x^2, sigma_y^2) U^T, where
U = [[cos t, -sin t], [sin t, cos t]], the first three are functions of d^2 = p^T S^-1 p:

    Gaussian               exp(-d^2 / 2)
    generalized Gaussian   exp(-(d^2)^beta / 2)        (Liu et al. 2020)
    plateau                1 / (1 + (d^2)^beta)

Source: Real-ESRGAN (arXiv 2107.10833, Sec. 3). Angles are in radians, sigmas in pixels; every kernel is float32 and
symmetric about its centre, so correlation and convolution are the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Family = Literal["gaussian", "generalized", "plateau", "sinc"]


@dataclass(frozen=True)
class Shape:
    """What a kernel is made from; numbers that its family does not have are 0.

    Attributes:
        family: The formula.
        size: Odd side.
        sigma_x: Pixels.
        sigma_y: Pixels.
        theta: Radians.
        beta: Exponent.
        cutoff: Radians per pixel.
    """

    family: Family
    size: int
    sigma_x: float = 0.0
    sigma_y: float = 0.0
    theta: float = 0.0
    beta: float = 0.0
    cutoff: float = 0.0


def gaussian(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0) -> Tensor:
    """Gaussian kernel (size, size); isotropic where the sigmas are equal.

    Raises:
        ValueError: the size is even or below 1, or a sigma is not above 0.
    """
    return stack([Shape("gaussian", size, sigma_x, sigma_y, theta)])[0]


def generalized_gaussian(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Generalized Gaussian kernel (size, size): a larger beta gives a flatter top and steeper sides.

    Raises:
        ValueError: as for `gaussian`, or beta is not above 0.
    """
    return stack([Shape("generalized", size, sigma_x, sigma_y, theta, beta)])[0]


def plateau(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Plateau-shaped kernel (size, size).

    Raises:
        ValueError: as for `gaussian`, or beta is not above 0.
    """
    return stack([Shape("plateau", size, sigma_x, sigma_y, theta, beta)])[0]


def sinc(cutoff: float, size: int, pad_to: int = 0) -> Tensor:
    """Circular ideal low-pass filter, cut off at the grid's edge: overshoots and rings, as sharpened pictures do.

    Args:
        cutoff: c, in radians per pixel, above 0 and at most pi: c J1(c r) / (2 pi r), at the centre c^2 / (4 pi).
        size: odd side of the filter.
        pad_to: odd side of the result, zeros around the filter; 0 for none.

    Returns:
        (size, size) or (pad_to, pad_to).

    Raises:
        ValueError: a size is even, or the cutoff is not above 0.
    """
    kernel = stack([Shape("sinc", size, cutoff=cutoff)])[0]
    return pad(kernel, pad_to) if pad_to else kernel


def stack(shapes: Sequence[Shape]) -> Tensor:
    """Kernels made together, each family's at once, with zeros around the smaller ones.

    Returns:
        (b, k, k), k the largest size.

    Raises:
        ValueError: as for the single kernels.
    """
    for shape in shapes:
        _check(shape)
    side = max(shape.size for shape in shapes)
    found = torch.empty(len(shapes), side, side)
    families: set[Family] = {shape.family for shape in shapes}
    for family in families:
        members = [i for i, shape in enumerate(shapes) if shape.family == family]
        found[members] = _family(family, [shapes[i] for i in members], side)
    return found


def _family(family: Family, shapes: Sequence[Shape], side: int) -> Tensor:
    """(b, side, side) of one family."""
    steps = torch.arange(side, dtype=torch.float64) - side // 2
    x, y = steps[None, :], steps[:, None]  # x along the columns, y along the rows
    if family == "sinc":
        values = _low_pass(torch.hypot(x, y), _column([shape.cutoff for shape in shapes]))
    else:
        squared = _distance(x, y, shapes)
        values = _PROFILES[family](squared, _column([shape.beta for shape in shapes]))
    if any(shape.size < side for shape in shapes):
        reach = _column([shape.size // 2 for shape in shapes])
        values = values * ((x.abs() <= reach) & (y.abs() <= reach))
    return (values / values.sum((-2, -1), keepdim=True)).float()


_PROFILES: dict[Family, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": lambda squared, beta: torch.exp(-0.5 * squared),
    "generalized": lambda squared, beta: torch.exp(-0.5 * squared**beta),
    "plateau": lambda squared, beta: 1 / (1 + squared**beta),
}


def _low_pass(r: Tensor, cutoff: Tensor) -> Tensor:
    safe = torch.where(r == 0, 1.0, r)
    values = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    return torch.where(r == 0, cutoff**2 / (4 * math.pi), values)


def _distance(x: Tensor, y: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """d^2 (b, side, side), fp64."""
    cos, sin = (_column([turn(shape.theta) for shape in shapes]) for turn in (math.cos, math.sin))
    along, across = cos * x + sin * y, cos * y - sin * x
    sigma_x, sigma_y = _column([shape.sigma_x for shape in shapes]), _column([shape.sigma_y for shape in shapes])
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _column(values: Sequence[float]) -> Tensor:
    """(b, 1, 1), fp64."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def _check(shape: Shape) -> None:
    if shape.size < 1 or shape.size % 2 == 0:
        raise ValueError(f"the side of a kernel should be odd; got {shape.size}")
    if shape.family == "sinc":
        if not shape.cutoff > 0:
            raise ValueError(f"the cutoff should be above 0; got {shape.cutoff}")
        return
    if not (shape.sigma_x > 0 and shape.sigma_y > 0):
        raise ValueError(f"sigma should be above 0; got {shape.sigma_x} and {shape.sigma_y}")
    if shape.family != "gaussian" and not shape.beta > 0:
        raise ValueError(f"beta should be above 0; got {shape.beta}")


def pad(kernel: Tensor, size: int) -> Tensor:
    """Zeros around a kernel (k, k), up to an odd side that is at least as long.

    Raises:
        ValueError: the size is even or shorter.
    """
    margin, rest = divmod(size - kernel.shape[-1], 2)
    if margin < 0 or rest:
        raise ValueError(f"a kernel of {kernel.shape[-1]} cannot be padded to {size}")
    return torch.nn.functional.pad(kernel, (margin,) * 4)
