"""Metrics of picture quality (PSNR, SSIM, GMSD, LPIPS and DISTS against a reference, NIQE without one) and of tagging.

Pictures are (b, 3, h, w), RGB in [0, 1], and every metric of theirs returns one float32 number per picture, (b,).
PSNR, SSIM, GMSD and NIQE follow their MATLAB programs: on 8-bit values, in float64.
"""

from dacesr.metrics.naturalness import NiqeParameters, niqe
from dacesr.metrics.perceptual import DISTS, LPIPS, dists, lpips
from dacesr.metrics.pixels import gmsd, psnr, ssim
from dacesr.metrics.tagging import average_precision, mean_average_precision

__all__ = [
    "DISTS",
    "LPIPS",
    "NiqeParameters",
    "average_precision",
    "dists",
    "gmsd",
    "lpips",
    "mean_average_precision",
    "niqe",
    "psnr",
    "ssim",
]
