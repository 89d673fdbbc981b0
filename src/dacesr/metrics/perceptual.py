"""Distances of the maps that trained networks make of two pictures: LPIPS and DISTS."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.metrics.planes import check_pair
from dacesr.nets.features import Features

TITLES = {"alexnet": "AlexNet", "vgg16": "VGG16", "squeezenet": "SqueezeNet"}  # networks as their authors call them
_STABLE = 1e-6  # c1 and c2 of DISTS


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

    @property
    def label(self) -> str:
        """What to call its numbers: `LPIPS (AlexNet)`; of a network that it was not published with, that too."""
        title = TITLES.get(self.features.name, self.features.name)
        unpublished = self.features.origin == "caffe"
        return f"LPIPS ({title} of Caffe, not the published one)" if unpublished else f"LPIPS ({title})"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (b, 3, h, w), RGB in [0, 1], whose values are taken as they are; (b,)."""
        check_pair(a, b)
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


class DISTS(nn.Module):
    """Deep image structure and texture similarity (Ding et al. 2020): frozen, differentiable in both pictures.

    Each channel of the picture and of VGG16's maps has a texture term (means alike) and a structure term (correlation).
    As in the authors' program, weights are divided by their sum, and c1 and c2 are 1e-6. That program shrinks pictures
    to 256 pixels on the shorter side when it reads files; here nothing is resized.

    Args:
        features: VGG16 with `pooling="l2"`.
        alpha: weights of the texture terms: 3 channels of the picture, then those of every tap; 1475 in all.
        beta: likewise, of the structure terms.

    Attributes:
        channels: of the picture and of every tap.
        label: what to call its numbers.

    Raises:
        ValueError: the features are others, or the weights don't fit the channels.
    """

    label = "DISTS"

    def __init__(self, *, features: Features, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        if (features.name, features.pooling) != ("vgg16", "l2"):
            raise ValueError(f"DISTS is defined on vgg16 with l2 pooling, not {features.name} with {features.pooling}")
        self.channels = [3, *features.channels.values()]
        count, found = sum(self.channels), (alpha.numel(), beta.numel())
        if found != (count, count):
            raise ValueError(f"DISTS has {count} weights alpha and as many beta, not {found[0]} and {found[1]}")
        total = alpha.sum() + beta.sum()
        self.features = features
        self.alpha, self.beta = (nn.Parameter((weight / total).flatten().float()) for weight in (alpha, beta))
        self.requires_grad_(False)
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (b, 3, h, w), RGB in [0, 1], whose values are taken as they are; (b,)."""
        check_pair(a, b)
        pairs = zip([a, *self.features(a).values()], [b, *self.features(b).values()], strict=True)
        weights = zip(self.alpha.split(self.channels), self.beta.split(self.channels), strict=True)
        distance = a.new_zeros(len(a))
        for (one, two), (alpha, beta) in zip(pairs, weights, strict=True):
            texture, structure = _similarities(one, two)
            # the weights' sum is 1: 1 - (alpha texture + beta structure), and exactly 0 where all is alike
            distance = distance + (1 - texture) @ alpha + (1 - structure) @ beta
        return distance


def _similarities(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Texture and structure of each channel: maps (b, c, h, w) -> (b, c) twice."""
    mean_one, mean_two = (x.mean((2, 3), keepdim=True) for x in (one, two))
    centred_one, centred_two = one - mean_one, two - mean_two
    variances = centred_one.square().mean((2, 3)) + centred_two.square().mean((2, 3))
    covariance = (centred_one * centred_two).mean((2, 3))
    product, squares = mean_one * mean_two, mean_one.square() + mean_two.square()  # (b, c, 1, 1)
    texture = (2 * product + _STABLE) / (squares + _STABLE)
    return texture.flatten(1), (2 * covariance + _STABLE) / (variances + _STABLE)


@torch.no_grad()
def dists(a: Tensor, b: Tensor, network: DISTS) -> Tensor:
    """DISTS as a metric: without gradients, values clamped to [0, 1]; 0 for equal pictures, lower is better.

    Args:
        a: (b, 3, h, w), RGB in [0, 1].
        b: the reference (the measure is symmetric), likewise.
        network: from `dacesr.featurefile.load_dists`, on the pictures' device.

    Returns:
        (b,) float32.

    Raises:
        ValueError: the sizes differ, or are below 16x16 pixels.
    """
    return network(a.clamp(0, 1), b.clamp(0, 1)).float()
