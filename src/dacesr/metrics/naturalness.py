"""How natural a picture looks, without a reference: NIQE, on 8-bit values and in float64."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.image import imresize
from dacesr.metrics.planes import blurred, check_picture, cropped, gray_of

_BLOCK = 96  # side of NIQE's blocks


class NiqeParameters(NamedTuple):
    """A Gaussian over the 36 features of natural pictures: mean (36,) and covariance (36, 36), float64."""

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def niqe(x: Tensor, parameters: NiqeParameters, crop_border: int = 0) -> Tensor:
    """Natural image quality evaluator (Mittal et al. 2013), without a reference; lower is better.

    As the authors' MATLAB program on gray pictures: blocks of 96x96 at full and half size, whatever their sharpness.
    Blocks without any structure are left out; where no block is left the number is NaN.

    Args:
        x: (b, 3, h, w), RGB in [0, 1]; clamped and rounded to 8 bit, then to 8-bit gray.
        parameters: from `dacesr.featurefile.load_niqe`.
        crop_border: pixels left out along each side.

    Returns:
        (b,) float32.

    Raises:
        ValueError: less than 96x96 pixels are left inside the border.
    """
    check_picture(x, _BLOCK, crop_border)
    gray = cropped(gray_of(x), crop_border)
    gray = gray[..., : gray.shape[-2] // _BLOCK * _BLOCK, : gray.shape[-1] // _BLOCK * _BLOCK]
    features = torch.cat([_block_features(gray, _BLOCK), _block_features(imresize(gray, 0.5), _BLOCK // 2)], dim=-1)
    natural = NiqeParameters(*(value.to(features) for value in parameters))
    return torch.stack([_gaussian_distance(blocks, natural) for blocks in features]).float()


def _gaussian_distance(blocks: Tensor, natural: NiqeParameters) -> Tensor:
    """Distance (Eq. 10) of the Gaussian over a picture's blocks (n, 36) from the natural one."""
    blocks = blocks[blocks.isfinite().all(1)]
    if not len(blocks):
        return blocks.new_tensor(torch.nan)
    mean = blocks.mean(0)
    centred = blocks - mean
    covariance = centred.T @ centred / max(len(blocks) - 1, 1)
    difference = natural.mean - mean
    return (difference @ torch.linalg.pinv((natural.covariance + covariance) / 2) @ difference).sqrt()


def _block_features(gray: Tensor, side: int) -> Tensor:
    """(b, 1, h, w) -> (b, blocks, 18): shape and scale of normalised luminances and of four neighbours' products."""
    places = torch.arange(-3, 4, dtype=gray.dtype, device=gray.device)
    taps = torch.exp(-places.square() / (2 * (7 / 6) ** 2))
    mean = blurred(F.pad(gray, (3, 3, 3, 3), mode="replicate"), taps)
    square = blurred(F.pad(gray.square(), (3, 3, 3, 3), mode="replicate"), taps)
    normal = (gray - mean) / ((square - mean.square()).abs().sqrt() + 1)  # Eq. 1
    normal = torch.where(normal.abs() < 1e-9, 0, normal)  # in flat areas only rounding is left
    normal = normal.unfold(2, side, side).unfold(3, side, side).flatten(1, 3)  # (b, blocks, side, side)
    shape, left, right = _fit(normal)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _fit(normal * normal.roll(shift, dims=(2, 3)))
        ratio = (torch.lgamma(2 / shape) - torch.lgamma(1 / shape)).exp()
        features += [shape, (right - left) * ratio, left, right]
    return torch.stack(features, dim=-1)


def _fit(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right scale of an asymmetric generalised Gaussian over the last two axes, by moments."""
    squares = values.square()
    left, right = ((squares * side).sum((-2, -1)) / side.sum((-2, -1)) for side in (values < 0, values > 0))
    skew = (left / right).sqrt()
    ratio = values.abs().mean((-2, -1)).square() / squares.mean((-2, -1))
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, limits = (table.to(values.device) for table in _shape_table())
    shape = shapes[torch.searchsorted(limits, ratio)]
    scale = ((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2).exp()
    return shape, left.sqrt() * scale, right.sqrt() * scale


@lru_cache(maxsize=1)
def _shape_table() -> tuple[Tensor, Tensor]:
    """Shapes 0.2 to 10 in steps of 0.001, and the ratios of moments halfway between them, which rise."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    ratios = (2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)).exp()
    return shapes, (ratios[1:] + ratios[:-1]) / 2
