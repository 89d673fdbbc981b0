"""Metrics of picture quality (PSNR, SSIM, GMSD and LPIPS against a reference, NIQE without one) and of tagging.

Pictures are (b, 3, h, w), RGB in [0, 1], and every metric of theirs returns one float32 number per picture, (b,).
PSNR, SSIM, GMSD and NIQE follow their MATLAB programs: on 8-bit values, in float64.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.image import imresize, rgb_to_y
from dacesr.nets.features import Features

_GRAY = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray
_BLOCK = 96  # side of NIQE's blocks


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
    mean_one, mean_two = _blur(one, taps), _blur(two, taps)
    variance_one = _blur(one * one, taps) - mean_one.square()
    variance_two = _blur(two * two, taps) - mean_two.square()
    covariance = _blur(one * two, taps) - mean_one * mean_two
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
    _check_pair(a, b, smallest=3)
    one, two = _prewitt(_gray(a)), _prewitt(_gray(b))
    similarity = (2 * one * two + 170) / (one.square() + two.square() + 170)
    return similarity.flatten(1).std(1).float()


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018, Eq. 1): frozen, differentiable in both pictures.

    Args:
        features: the network whose maps are compared.
        weights: for each of its taps the weight of every channel, not negative.

    Raises:
        ValueError: the weights don't fit the channels of the taps.
    """

    def __init__(self, *, features: Features, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        found = {tap: weight.numel() for tap, weight in weights.items()}
        if found != features.channels:
            raise ValueError(f"{features.name} has channels {features.channels}, and the weights are for {found}")
        self.features = features
        self.weights = nn.ParameterDict(
            {tap: nn.Parameter(weight.flatten().float()) for tap, weight in weights.items()}
        )
        self.requires_grad_(False)
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (b, 3, h, w), RGB in [0, 1], whose values are taken as they are; (b,)."""
        _check_pair(a, b)
        maps_a, maps_b = self.features(a), self.features(b)
        distance = a.new_zeros(len(a))
        for tap, weight in self.weights.items():
            one, two = F.normalize(maps_a[tap], eps=1e-10), F.normalize(maps_b[tap], eps=1e-10)  # over channels
            difference = (one - two).square().mean((2, 3))  # (b, c)
            distance = distance + difference @ weight
        return distance


@torch.no_grad()
def lpips(a: Tensor, b: Tensor, network: LPIPS) -> Tensor:
    """LPIPS as a metric: without gradients, values clamped to [0, 1]; lower is better.

    Args:
        a: (b, 3, h, w), RGB in [0, 1].
        b: the reference (the measure is symmetric), likewise.
        network: from `dacesr.featurefile.load_lpips`, on the pictures' device.

    Returns:
        (b,) float32.

    Raises:
        ValueError: the sizes differ, or are below what the network takes.
    """
    return network(a.clamp(0, 1), b.clamp(0, 1)).float()


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
    _check(x, _BLOCK, crop_border)
    gray = _crop(_gray(x), crop_border)
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
    mean = _blur(F.pad(gray, (3, 3, 3, 3), mode="replicate"), taps)
    square = _blur(F.pad(gray.square(), (3, 3, 3, 3), mode="replicate"), taps)
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


@torch.no_grad()
def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each tag over pictures: sum over thresholds of (gain in recall) x (precision there).

    Equal scores are one threshold, so that the order of the pictures does not matter.

    Args:
        scores: (n, tags), higher for pictures that more probably have the tag (logits or probabilities).
        labels: (n, tags), 0 or 1.

    Returns:
        (tags,) float32 in [0, 1]; NaN where no picture has the tag.

    Raises:
        ValueError: the shapes differ, there is no picture, or a score is NaN.
    """
    if scores.ndim != 2 or scores.shape != labels.shape or not len(scores):
        found = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"scores and labels should be (n, tags) alike, not {found}")
    if scores.isnan().any():
        raise ValueError("scores that are NaN can't be ranked")
    count = len(scores)
    ranked, order = scores.T.sort(dim=1, descending=True)  # (tags, n)
    hits = labels.T.double().gather(1, order)
    place = torch.arange(count, device=scores.device).expand_as(ranked)
    last = F.pad(ranked[:, 1:] != ranked[:, :-1], (0, 1), value=True)  # of a run of equal scores
    end = torch.where(last, place, count).flip(1).cummin(1).values.flip(1)
    precision = (hits.cumsum(1) / (place + 1)).gather(1, end)
    return ((hits * precision).sum(1) / hits.sum(1)).float()


def mean_average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean of `average_precision` over the tags that some picture has, float32 (); NaN where none has any."""
    return average_precision(scores, labels).nanmean()


# --- shared steps


def _check_pair(a: Tensor, b: Tensor, smallest: int = 1, crop_border: int = 0) -> None:
    if a.shape != b.shape:
        raise ValueError(f"pictures of different sizes can't be compared: {tuple(a.shape)} and {tuple(b.shape)}")
    _check(a, smallest, crop_border)


def _check(x: Tensor, smallest: int, crop_border: int = 0) -> None:
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"pictures are (b, 3, h, w), not {tuple(x.shape)}")
    if crop_border < 0 or min(x.shape[2:]) - 2 * crop_border < smallest:
        size = f"{x.shape[3]}x{x.shape[2]}"
        raise ValueError(
            f"{size} pixels are too few: {smallest}x{smallest} must be left inside a border of {crop_border}"
        )


def _bytes(x: Tensor) -> Tensor:
    """8-bit values 0 to 255, as float64."""
    return (x.double().clamp(0, 1) * 255).round()


def _crop(x: Tensor, border: int) -> Tensor:
    return x[..., border : x.shape[-2] - border, border : x.shape[-1] - border]


def _planes(a: Tensor, b: Tensor, crop_border: int, y_channel: bool, smallest: int = 1) -> tuple[Tensor, Tensor]:
    """What PSNR and SSIM compare: luma (b, 1, h, w) or RGB (b, 3, h, w) of the inside, 0 to 255."""
    _check_pair(a, b, smallest, crop_border)
    one, two = (_crop(_bytes(x), crop_border) for x in (a, b))
    return (rgb_to_y(one / 255) * 255, rgb_to_y(two / 255) * 255) if y_channel else (one, two)


def _gray(x: Tensor) -> Tensor:
    """(b, 3, h, w) -> (b, 1, h, w), 0 to 255, rounded as MATLAB's rgb2gray rounds it."""
    weights = torch.tensor(_GRAY, dtype=torch.float64, device=x.device).reshape(1, 3, 1, 1)
    return (_bytes(x) * weights).sum(1, keepdim=True).round()


def _blur(x: Tensor, taps: Tensor) -> Tensor:
    """Filter each plane with the same taps down and across, where they fit; they are brought to the sum 1."""
    taps = taps / taps.sum()
    planes = x.flatten(0, 1).unsqueeze(1)
    planes = F.conv2d(F.conv2d(planes, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1))
    return planes.reshape(*x.shape[:2], *planes.shape[2:])


def _prewitt(x: Tensor) -> Tensor:
    """Gradient magnitude of a gray picture at half its size; beyond the border it is black, as in MATLAB."""
    height, width = x.shape[2:]
    half = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2)), 2)
    across = x.new_tensor([[1, 0, -1]]).expand(3, 3) / 3
    kernels = torch.stack([across, across.T]).unsqueeze(1)  # (2, 1, 3, 3)
    return F.conv2d(half, kernels, padding=1).square().sum(1, keepdim=True).sqrt()
