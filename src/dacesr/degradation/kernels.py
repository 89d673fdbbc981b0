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

import torch
from torch import Tensor


def gaussian(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0) -> Tensor:
    """Gaussian kernel (size, size); isotropic where the sigmas are equal.

    Raises:
        ValueError: the size is even or below 1, or a sigma is not above 0.
    """
    return _normalised(torch.exp(-0.5 * _distance(size, sigma_x, sigma_y, theta)))


def generalized_gaussian(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Generalized Gaussian kernel (size, size): a larger beta gives a flatter top and steeper sides.

    Raises:
        ValueError: as for `gaussian`, or beta is not above 0.
    """
    _check_beta(beta)
    return _normalised(torch.exp(-0.5 * _distance(size, sigma_x, sigma_y, theta) ** beta))


def plateau(size: int, sigma_x: float, sigma_y: float, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Plateau-shaped kernel (size, size).

    Raises:
        ValueError: as for `gaussian`, or beta is not above 0.
    """
    _check_beta(beta)
    return _normalised(1 / (1 + _distance(size, sigma_x, sigma_y, theta) ** beta))


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
    if not cutoff > 0:
        raise ValueError(f"the cutoff should be above 0; got {cutoff}")
    x, y = _grid(size)
    r = torch.hypot(x, y)
    safe = torch.where(r == 0, 1.0, r)
    values = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    kernel = _normalised(torch.where(r == 0, cutoff**2 / (4 * math.pi), values))
    return pad(kernel, pad_to) if pad_to else kernel


def pad(kernel: Tensor, size: int) -> Tensor:
    """Zeros around a kernel (k, k), up to an odd side that is at least as long.

    Raises:
        ValueError: the size is even or shorter.
    """
    margin, rest = divmod(size - kernel.shape[-1], 2)
    if margin < 0 or rest:
        raise ValueError(f"a kernel of {kernel.shape[-1]} cannot be padded to {size}")
    return torch.nn.functional.pad(kernel, (margin,) * 4)


def _distance(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """d^2 on the grid (size, size), fp64."""
    if not (sigma_x > 0 and sigma_y > 0):
        raise ValueError(f"sigma should be above 0; got {sigma_x} and {sigma_y}")
    x, y = _grid(size)
    along = math.cos(theta) * x + math.sin(theta) * y
    across = math.cos(theta) * y - math.sin(theta) * x
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """x along the columns (1, size) and y along the rows (size, 1), from the centre."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the side of a kernel should be odd; got {size}")
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    return steps[None, :], steps[:, None]


def _normalised(kernel: Tensor) -> Tensor:
    return (kernel / kernel.sum()).float()


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ValueError(f"beta should be above 0; got {beta}")
