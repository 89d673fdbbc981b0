"""Convolutional trunks trained on ImageNet, for perceptual losses and metrics: VGG19, VGG16, AlexNet, SqueezeNet v1.1.

Layers and tensor names are torchvision's (`features.N.weight`), so its state dicts fit. The perceptual loss of ESRGAN
reads VGG19 before its ReLUs; LPIPS v0.1 reads the three others after theirs; DISTS reads VGG16 with other poolings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures in [0, 1], RGB


@dataclass(frozen=True)
class Conv:
    """A convolution with bias."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Relu:
    """A ReLU."""


@dataclass(frozen=True)
class Pool:
    """A max pooling with stride 2; `ceil` keeps a last window that sticks out."""

    kernel: int = 2
    ceil: bool = False


@dataclass(frozen=True)
class Fire:
    """A block of SqueezeNet: 1x1 convolution to `squeeze` channels, then 1x1 and 3x3 ones to `expand` channels each."""

    squeeze: int
    expand: int


Layer = Conv | Relu | Pool | Fire
Pooling = Literal["max", "l2"]
Origin = Literal["torchvision", "caffe"]


class Tap(NamedTuple):
    """A map that is returned: the layer it is read after, and its weight in a perceptual loss unless the user says."""

    place: int
    weight: float


@dataclass(frozen=True)
class Trunk:
    """A network as data.

    Attributes:
        layers: from the picture on; the place of each is the number in its tensors' names.
        taps: the maps that are returned, by name, in the order of the layers.
        smallest: side of the smallest picture it takes, in pixels.
    """

    layers: tuple[Layer, ...]
    taps: Mapping[str, Tap]
    smallest: int


def _taps(**taps: tuple[int, float]) -> Mapping[str, Tap]:
    return MappingProxyType({name: Tap(*tap) for name, tap in taps.items()})


def _vgg(*convolutions: int) -> tuple[Layer, ...]:
    """Five stages of 3x3 convolutions and ReLUs, so many in each, with a pooling in between."""
    layers: list[Layer] = []
    for count, channels in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        layers += [Pool()] if layers else []
        layers += [Conv(channels), Relu()] * count
    return tuple(layers)


_ALEXNET = (
    *(Conv(64, 11, 4, 2), Relu(), Pool(3), Conv(192, 5, 1, 2), Relu(), Pool(3)),
    *(Conv(384), Relu(), Conv(256), Relu(), Conv(256), Relu()),
)
_SQUEEZENET = (
    *(Conv(64, 3, 2, 0), Relu(), Pool(3, ceil=True), Fire(16, 64), Fire(16, 64), Pool(3, ceil=True)),
    *(Fire(32, 128), Fire(32, 128), Pool(3, ceil=True), Fire(48, 192), Fire(48, 192), Fire(64, 256), Fire(64, 256)),
)
TRUNKS: Mapping[str, Trunk] = MappingProxyType(
    {
        "vgg19": Trunk(
            layers=_vgg(2, 2, 4, 4, 4),
            taps=_taps(conv1_2=(2, 0.1), conv2_2=(7, 0.1), conv3_4=(16, 1), conv4_4=(25, 1), conv5_4=(34, 1)),
            smallest=16,
        ),
        "vgg16": Trunk(
            layers=_vgg(2, 2, 3, 3, 3),
            taps=_taps(relu1_2=(3, 0.1), relu2_2=(8, 0.1), relu3_3=(15, 1), relu4_3=(22, 1), relu5_3=(29, 1)),
            smallest=16,
        ),
        "alexnet": Trunk(
            layers=_ALEXNET,
            taps=_taps(relu1=(1, 1), relu2=(4, 1), relu3=(7, 1), relu4=(9, 1), relu5=(11, 1)),
            smallest=31,
        ),
        # Weights for Caffe's SqueezeNet, whose maps are 5 to 15 apart (1.4 at fire9) for x4 bicubic enlargements: each
        # then adds 0.3 to 1.5, the early ones most, since its strides lose detail sooner than VGG's.
        "squeezenet": Trunk(
            layers=_SQUEEZENET,
            taps=_taps(
                relu1=(1, 0.2), fire3=(4, 0.1), fire5=(7, 0.1), fire6=(9, 0.05), fire7=(10, 0.1), fire8=(11, 0.05),
                fire9=(12, 0.2),
            ),
            smallest=17,
        ),
    }
)  # fmt: skip


class FireModule(nn.Module):
    """What `Fire` describes; every convolution is followed by a ReLU."""

    def __init__(self, in_channels: int, fire: Fire) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, fire.squeeze, 1)
        self.expand1x1 = nn.Conv2d(fire.squeeze, fire.expand, 1)
        self.expand3x3 = nn.Conv2d(fire.squeeze, fire.expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 2 * expand, h, w)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class HanningPool(nn.Module):
    """L2 pooling with stride 2 in a Hanning window of 5, whose outermost weights are 0 (DISTS: Ding et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, ceil(h / 2), ceil(w / 2)), not negative."""
        taps = x.new_tensor([0.25, 0.5, 0.25])
        window = torch.outer(taps, taps).expand(x.shape[1], 1, 3, 3)
        means = F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1])
        return (means + 1e-12).sqrt()


def _build(layer: Layer, channels: int, pooling: Pooling) -> tuple[nn.Module, int]:
    """The module of a layer, and the channels it returns."""
    match layer:
        case Conv(out, kernel, stride, padding):
            return nn.Conv2d(channels, out, kernel, stride, padding), out
        case Fire():
            return FireModule(channels, layer), 2 * layer.expand
        case Pool() if pooling == "l2":
            return HanningPool(), channels
        case Pool(kernel, ceil):
            return nn.MaxPool2d(kernel, stride=2, ceil_mode=ceil), channels
        case Relu():
            return nn.ReLU(), channels


class Features(nn.Module):
    """A trunk that returns some of its maps: frozen, always in eval mode, differentiable in its input.

    Args:
        name: "vgg19", "vgg16", "alexnet" or "squeezenet".
        pooling: "max", as the networks were trained, or "l2" (`HanningPool`) in its place, as DISTS has it.
        origin: where its weights were trained: LPIPS has weights of its own for torchvision's only.

    Attributes:
        name: as given.
        pooling: as given.
        origin: as given.
        trunk: its table.
        channels: of each tap, by its name.
        weights: of each tap in a perceptual loss by default, by its name.

    Raises:
        ValueError: there is no such network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, pooling: Pooling = "max", origin: Origin = "torchvision") -> None:
        super().__init__()
        if name not in TRUNKS:
            raise ValueError(f"a feature network is one of {', '.join(TRUNKS)}, not {name}")
        self.name, self.pooling, self.origin = name, pooling, origin
        self.trunk = TRUNKS[name]
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)
        self.features = nn.Sequential()
        after: list[int] = []  # channels after each layer
        for layer in self.trunk.layers:
            module, out = _build(layer, after[-1] if after else 3, pooling)
            self.features.append(module)
            after.append(out)
        self.channels = {name: after[tap.place] for name, tap in self.trunk.taps.items()}
        self.weights = {name: tap.weight for name, tap in self.trunk.taps.items()}
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        """Stay in eval mode, also as a part of something that trains."""
        return super().train(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps of a picture by the names of the taps, in the order of the layers.

        Args:
            x: (b, 3, h, w), RGB in [0, 1]; normalised here, never resized.

        Raises:
            ValueError: x isn't RGB, or is smaller than the network takes.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"{self.name} takes RGB pictures (b, 3, h, w), not {tuple(x.shape)}")
        if min(x.shape[2:]) < self.trunk.smallest:
            smallest = self.trunk.smallest
            raise ValueError(f"{self.name} takes {smallest}x{smallest} pixels or more, not {x.shape[3]}x{x.shape[2]}")
        x = (x - self.mean) / self.std
        names = {tap.place: name for name, tap in self.trunk.taps.items()}
        maps: dict[str, Tensor] = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in names:
                maps[names[place]] = x
        return maps
