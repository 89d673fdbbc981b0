"""Differences of pixels and their gradients: PSNR, SSIM and GMSD, on 8-bit values and in float64."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.image import rgb_to_y
from dacesr.metrics.planes import blurred, check_pair, cropped, eight_bit, gray_of


def psnr(a: Tensor, b: Tensor, crop_border: int = 4, y_channel: bool = True) -> Tensor:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args:
        a: (b, 3, h, w), RGB in [0, 1]; clamped and rounded to 8 bit first.
        b: the reference (the measure is symmetric), likewise.
        crop_border: pixels left out along each side.
        y_channel: compare luma (`rgb_to_y`) instead of R, G and B together.

    Returns:
        (b,) float32.

    Raises:
        ValueError: the sizes differ, or nothing is left inside the border.
    """
    one, two = _planes(a, b, crop_border, y_channel)
    return (10 * torch.log10(255**2 / (one - two).square().mean((1, 2, 3)))).float()


def ssim(a: Tensor, b: Tensor, crop_border: int = 4, y_channel: bool = True) -> Tensor:
    """Structural similarity (Wang et al. 2004), at most 1: 11x11 Gaussian window of sigma 1.5, inside the picture only.

    Args:
        a: (b, 3, h, w), RGB in [0, 1]; clamped and rounded to 8 bit first.
        b: the reference (the measure is symmetric), likewise.
        crop_border: pixels left out along each side.
        y_channel: compare luma (`rgb_to_y`) instead of averaging over R, G and B.

    Returns:
        (b,) float32.

    Raises:
        ValueError: the sizes differ, or less than 11x11 pixels are left inside the border.
    """
    one, two = _planes(a, b, crop_border, y_channel, smallest=11)
    places = torch.arange(-5, 6, dtype=one.dtype, device=one.device)
    taps = torch.exp(-places.square() / (2 * 1.5**2))
    mean_one, mean_two = blurred(one, taps), blurred(two, taps)
    variance_one = blurred(one * one, taps) - mean_one.square()
    variance_two = blurred(two * two, taps) - mean_two.square()
    covariance = blurred(one * two, taps) - mean_one * mean_two
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_one * mean_two + c1) / (mean_one.square() + mean_two.square() + c1)
    structure = (2 * covariance + c2) / (variance_one + variance_two + c2)
    return (luminance * structure).mean((1, 2, 3)).float()


def gmsd(a: Tensor, b: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al. 2014, Eq. 2-6): 0 for equal pictures, lower is better.

    Args:
        a: (b, 3, h, w), RGB in [0, 1]; clamped and rounded to 8 bit, then to 8-bit gray.
        b: the reference (the measure is symmetric), likewise.

    Returns:
        (b,) float32.

    Raises:
        ValueError: the sizes differ, or are below 3x3 pixels.
    """
    check_pair(a, b, smallest=3)
    one, two = _prewitt(gray_of(a)), _prewitt(gray_of(b))
    similarity = (2 * one * two + 170) / (one.square() + two.square() + 170)
    return similarity.flatten(1).std(1).float()


def _planes(a: Tensor, b: Tensor, crop_border: int, y_channel: bool, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """What PSNR and SSIM compare: luma (b, 1, h, w) or RGB (b, 3, h, w) of the inside, 0 to 255."""
    check_pair(a, b, smallest, crop_border)
    one, two = (cropped(eight_bit(x), crop_border) for x in (a, b))
    return (rgb_to_y(one / 255) * 255, rgb_to_y(two / 255) * 255) if y_channel else (one, two)


def _prewitt(x: Tensor) -> Tensor:
    """Gradient magnitude of a gray picture at half its size; beyond the border it is black, as in MATLAB."""
    height, width = x.shape[2:]
    half = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)
    across = x.new_tensor([[1, 0, -1]]).expand(3, 3) / 3
    kernels = torch.stack([across, across.T]).unsqueeze(1)  # (2, 1, 3, 3)
    return F.conv2d(half, kernels, padding=1).square().sum(1, keepdim=True).sqrt()
