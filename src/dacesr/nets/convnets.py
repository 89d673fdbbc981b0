"""Convolutional networks to compare with, under BasicSR's parameter names: SRResNet, EDSR and RRDBNet.

    b  pictures    c  channels between the blocks    h, w  rows and columns

SRResNet is the one of ESRGAN's authors (BasicSR's MSRResNet): that of Ledig et al. 2017 (arXiv 1609.04802) without
batch normalisation and with an image skip. EDSR is of Lim et al. 2017 (arXiv 1707.02921), RRDBNet of Wang et al. 2018
(ESRGAN, arXiv 1809.00219) and 2021 (Real-ESRGAN, arXiv 2107.10833).

In all of them the weights decide in what precision the convolutions compute (`net.to(torch.bfloat16)`), but the input
should stay fp32. Without gradients what follows the body is done in strips of rows (`dacesr.nets.heads`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import EDSRConfig, RRDBConfig, SRResNetConfig
from dacesr.nets.heads import STEPS, conv3x3, in_strips
from dacesr.nets.inputs import check_image, reflect_to

__all__ = ["EDSR", "RRDB", "EDSRConfig", "RRDBConfig", "SRResNet", "SRResNetConfig"]


class ResidualBlock(nn.Module):
    """x + res_scale * conv(ReLU(conv(x))) (Lim et al. 2017, Fig. 2c and Sec. 3.3)."""

    def __init__(self, *, dim: int, res_scale: float = 1.0) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1, self.conv2 = conv3x3(dim, dim), conv3x3(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        return torch.add(x, self.conv2(F.relu(self.conv1(x), inplace=True)), alpha=self.res_scale)


class SRResNet(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    3x3 conv, LeakyReLU -> blocks -> (3x3 conv, pixel shuffle, LeakyReLU) x steps -> 3x3 conv, LeakyReLU -> 3x3 conv
    to RGB -> + bilinear(x)
    """

    def __init__(self, config: SRResNetConfig) -> None:
        """Make the network of `config`; as BasicSR draws it, it hardly differs from bilinear enlargement."""
        super().__init__()
        self.config = config
        dim, self._steps = config.num_feat, STEPS[config.scale]
        self.conv_first = conv3x3(3, dim)
        self.body = nn.Sequential(*(ResidualBlock(dim=dim) for _ in range(config.num_block)))
        for number, step in enumerate(self._steps, start=1):
            self.add_module(f"upconv{number}", conv3x3(dim, step**2 * dim))
        self.conv_hr, self.conv_last = conv3x3(dim, dim), conv3x3(dim, 3)
        _calm(self)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale.

        Args:
            x: (b, 3, h, w), RGB in [0, 1], h and w at least 1.

        Returns:
            (b, 3, scale*h, scale*w), dtype of `x`.

        Raises:
            ValueError: `x` isn't (b, 3, h, w) of at least 1x1.
        """
        check_image(x)
        features = _lrelu(self.conv_first(_cast(x, self.conv_first)), 0.1)
        out = in_strips(self._head, self.body(features), self.config.scale).to(x.dtype)
        return out + F.interpolate(x, scale_factor=self.config.scale, mode="bilinear")

    def _head(self, out: Tensor) -> Tensor:
        for number, step in enumerate(self._steps, start=1):
            out = _lrelu(F.pixel_shuffle(self.get_submodule(f"upconv{number}")(out), step), 0.1)
        return self.conv_last(_lrelu(self.conv_hr(out), 0.1))


class EDSR(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    x - mean, times the range -> 3x3 conv -> f;  f + conv(blocks(f)) -> (3x3 conv, pixel shuffle) x steps -> 3x3 conv
    to RGB -> by the range, + mean
    """

    def __init__(self, config: EDSRConfig) -> None:
        """Make the network of `config`, drawn as PyTorch does."""
        super().__init__()
        self.config = config
        dim, steps = config.num_feat, STEPS[config.scale]
        self.conv_first = conv3x3(3, dim)
        blocks = (ResidualBlock(dim=dim, res_scale=config.res_scale) for _ in range(config.num_block))
        self.body = nn.Sequential(*blocks)
        self.conv_after_body = conv3x3(dim, dim)
        layers = ((conv3x3(dim, step**2 * dim), nn.PixelShuffle(step)) for step in steps)
        self.upsample = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.conv_last = conv3x3(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        """As `SRResNet.forward`."""
        check_image(x)
        mean = x.new_tensor(self.config.rgb_mean).view(1, 3, 1, 1)
        features = self.conv_first(_cast((x - mean) * self.config.img_range, self.conv_first))
        out = self.conv_after_body(self.body(features)) + features
        return in_strips(self._head, out, self.config.scale).to(x.dtype) / self.config.img_range + mean

    def _head(self, out: Tensor) -> Tensor:
        return self.conv_last(self.upsample(out))


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what came in and all that the earlier ones made of it (ESRGAN, Fig. 4)."""

    def __init__(self, *, dim: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(dim, growth)
        self.conv2 = conv3x3(dim + growth, growth)
        self.conv3 = conv3x3(dim + 2 * growth, growth)
        self.conv4 = conv3x3(dim + 3 * growth, growth)
        self.conv5 = conv3x3(dim + 4 * growth, dim)
        _calm(self)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        grown = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            grown = torch.cat((grown, _lrelu(conv(grown), 0.2)), 1)
        return torch.add(x, self.conv5(grown), alpha=0.2)


class DenseBlocks(nn.Module):
    """Three dense blocks with a residual around them: the residual in residual dense block of ESRGAN, Fig. 4."""

    def __init__(self, *, dim: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(dim=dim, growth=growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=0.2)


class RRDB(nn.Module):
    """RRDBNet: RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    (pixel unshuffle) -> 3x3 conv -> f;  f + conv(blocks(f)) -> (pixels repeated, 3x3 conv, LeakyReLU) x doublings ->
    3x3 conv, LeakyReLU -> 3x3 conv to RGB
    """

    def __init__(self, config: RRDBConfig) -> None:
        """Make the network of `config`; as in ESRGAN the dense blocks are drawn small (Sec. 3.1), the rest is not."""
        super().__init__()
        self.config = config
        dim = config.num_feat
        self.conv_first = conv3x3(3 * config.unshuffle**2, dim)
        blocks = (DenseBlocks(dim=dim, growth=config.num_grow_ch) for _ in range(config.num_block))
        self.body = nn.Sequential(*blocks)
        self.conv_body = conv3x3(dim, dim)
        for number in range(1, config.doublings + 1):
            self.add_module(f"conv_up{number}", conv3x3(dim, dim))
        self.conv_hr, self.conv_last = conv3x3(dim, dim), conv3x3(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        """As `SRResNet.forward`. What is missing to a multiple of `unshuffle` is reflected and cut off again."""
        check_image(x)
        (height, width), unit, scale = x.shape[-2:], self.config.unshuffle, self.config.scale
        folded = F.pixel_unshuffle(reflect_to(x, height + -height % unit, width + -width % unit), unit)
        features = self.conv_first(_cast(folded, self.conv_first))
        out = self.conv_body(self.body(features)) + features
        out = in_strips(self._head, out, scale * unit)
        return out[:, :, : scale * height, : scale * width].to(x.dtype)

    def _head(self, out: Tensor) -> Tensor:
        for number in range(1, self.config.doublings + 1):
            out = F.interpolate(out, scale_factor=2, mode="nearest")
            out = _lrelu(self.get_submodule(f"conv_up{number}")(out), 0.2)
        return self.conv_last(_lrelu(self.conv_hr(out), 0.2))


def _lrelu(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU, written over its input."""
    return F.leaky_relu(x, slope, inplace=True)


def _cast(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """An input in the dtype of a convolution's weights and in channels_last memory."""
    return x.to(conv.weight.dtype, memory_format=torch.channels_last)


@torch.no_grad()
def _calm(net: nn.Module) -> None:
    """Draw convolutions from a normal distribution at a tenth of the scale of He et al. 2015, without biases."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight).mul_(0.1)
            assert module.bias is not None  # all of these networks' have one
            nn.init.zeros_(module.bias)
