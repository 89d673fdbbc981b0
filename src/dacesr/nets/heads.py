"""Heads that turn features into an enlarged picture, under the names that SwinIR's family has in common.

pixelshuffle        3x3 conv, LeakyReLU, (3x3 conv, pixel shuffle) x steps, 3x3 conv to RGB
pixelshuffledirect  3x3 conv to 3 * scale^2, pixel shuffle
nearest+conv        3x3 conv, LeakyReLU, (pixels repeated, 3x3 conv, LeakyReLU) x steps, 3x3 conv, LeakyReLU, RGB
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

Layers = dict[str, nn.Module]

STRIP = 1 << 13  # input pixels that a head takes at a time on the CPU where no gradient is wanted
STRIP_BYTES = 1 << 31  # of a map as wide as the features and as large as the output, which a GPU takes at a time
HALO = 4  # rows around a strip that its convolutions look at: below 3 in every head
STEPS = {1: (), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}  # enlargements that make a scale


class HeadConfig(Protocol):
    """What a head is made from."""

    @property
    def embed_dim(self) -> int:
        """Channels of the features."""
        ...

    @property
    def head_dim(self) -> int:
        """Channels inside the head."""
        ...

    @property
    def scale(self) -> int:
        """Output pixels per input pixel along each side, one of `STEPS`."""
        ...


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def shuffled(x: Tensor, factor: int) -> Tensor:
    """Pixel shuffle (b, c*f*f, h, w) -> (b, c, f*h, f*w), one copy from channels_last memory to the same."""
    (b, _, height, width), cells = x.shape, x.unflatten(1, (-1, factor, factor))  # (b, c, f, f, h, w)
    return cells.permute(0, 4, 2, 5, 3, 1).reshape(b, factor * height, factor * width, -1).permute(0, 3, 1, 2)


class _PixelShuffle(nn.PixelShuffle):
    """PyTorch's, whose result on a GPU is channels_first, so that the next convolution would turn it back."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if input.device.type == "cpu" else shuffled(input, self.upscale_factor)


def _conv_before_upsample(config: HeadConfig) -> nn.Sequential:
    return nn.Sequential(conv3x3(config.embed_dim, config.head_dim), nn.LeakyReLU(0.01, inplace=True))


def _pixelshuffle(config: HeadConfig) -> Layers:
    """Steps on `head_dim` channels, then RGB."""
    width = config.head_dim
    steps = STEPS[config.scale]
    upsample = [layer for step in steps for layer in (conv3x3(width, step**2 * width), _PixelShuffle(step))]
    return {
        "conv_before_upsample": _conv_before_upsample(config),
        "upsample": nn.Sequential(*upsample),
        "conv_last": conv3x3(width, 3),
    }


def _pixelshuffledirect(config: HeadConfig) -> Layers:
    """One convolution to RGB for every output pixel."""
    return {
        "upsample": nn.Sequential(conv3x3(config.embed_dim, 3 * config.scale**2), _PixelShuffle(config.scale)),
    }


def _nearest_conv(config: HeadConfig) -> Layers:
    """Steps by repeating pixels, a convolution after each."""
    width = config.head_dim
    layers: Layers = {"conv_before_upsample": _conv_before_upsample(config)}
    for number, step in enumerate(STEPS[config.scale], start=1):
        layers[f"repeat{number}"] = nn.Upsample(scale_factor=step, mode="nearest")
        layers[f"conv_up{number}"] = conv3x3(width, width)
        layers[f"act_up{number}"] = nn.LeakyReLU(0.2, inplace=True)
    layers |= {"conv_hr": conv3x3(width, width), "act_hr": nn.LeakyReLU(0.2, inplace=True)}
    return layers | {"conv_last": conv3x3(width, 3)}


HEADS: dict[str, Callable[[HeadConfig], Layers]] = {
    "pixelshuffle": _pixelshuffle,
    "pixelshuffledirect": _pixelshuffledirect,
    "nearest+conv": _nearest_conv,
}


def _strip_rows(features: Tensor, scale: int) -> int:
    """Rows of a strip: few on the CPU, where caches count; on a GPU as many as keep it busy and leave memory free."""
    height, width = features.shape[-2:]
    if features.device.type == "cpu":
        return STRIP // width
    return STRIP_BYTES // (features.numel() // height * scale**2 * features.itemsize)


def in_strips(head: Callable[[Tensor], Tensor], features: Tensor, scale: int) -> Tensor:
    """Apply a head; without gradients to strips of rows, which gives the same and keeps its wide maps small.

    Args:
        head: (b, c, h, w) -> (b, 3, scale*h, scale*w).
        features: (b, c, h, w).
        scale: of the head.

    Returns:
        (b, 3, scale*h, scale*w).
    """
    height = features.shape[-2]
    rows = height
    if not (torch.compiler.is_compiling() or torch.is_grad_enabled()):
        rows = max(HALO, _strip_rows(features, scale))
    if height <= rows:
        return head(features)
    strips = []
    for top in range(0, height, rows):
        first, end = max(0, top - HALO), min(height, top + rows)
        strip = head(features[:, :, first : end + HALO])
        strips.append(strip[:, :, (top - first) * scale : (end - first) * scale])
    return torch.cat(strips, dim=2)
