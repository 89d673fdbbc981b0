"""RLFN, residual local feature network (Kong et al. 2022, arXiv 2205.07514), under its authors' parameter names.

    x -> 3x3 conv -> f;  f + conv(blocks(f)) -> 3x3 conv to 3 * scale^2 -> pixel shuffle
    block (RLFB):  x -> (3x3 conv, LeakyReLU) x 3 -> + x -> 1x1 conv -> attention (ESA)

Also the pruned one that won NTIRE 2022's challenge of efficient super-resolution, the baseline of those after it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import RLFNConfig
from dacesr.nets.heads import conv3x3, in_strips
from dacesr.nets.inputs import check_image, reflect_to

__all__ = ["RLFN", "RLFNConfig"]

SMALLEST = 15  # pixels a side from which the attention's strided convolution and 7x7 pooling leave anything


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA, Fig. 3): a gate for each value, from a coarse look at its surroundings."""

    def __init__(self, *, dim: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, inner, 1)
        self.conv_f = nn.Conv2d(inner, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=2)
        self.conv3 = conv3x3(inner, inner)
        self.conv4 = nn.Conv2d(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same; h and w at least `SMALLEST`."""
        narrow = self.conv1(x)
        coarse = self.conv3(F.max_pool2d(self.conv2(narrow), 7, stride=3))
        surroundings = F.interpolate(coarse, x.shape[-2:], mode="bilinear")
        return x * self.conv4(surroundings + self.conv_f(narrow)).sigmoid_()


class Block(nn.Module):
    """Residual local feature block (RLFB, Fig. 2b)."""

    def __init__(self, *, config: RLFNConfig) -> None:
        super().__init__()
        dim, inner = config.num_feat, config.mid_feat
        self.c1_r, self.c2_r, self.c3_r = conv3x3(dim, inner), conv3x3(inner, inner), conv3x3(inner, dim)
        self.c5 = nn.Conv2d(dim, dim, 1)
        self.esa = SpatialAttention(dim=dim, inner=config.esa_feat)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        out = x
        for conv in (self.c1_r, self.c2_r, self.c3_r):
            out = F.leaky_relu(conv(out), 0.05, inplace=True)
        return self.esa(self.c5(out + x))


class RLFN(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    The weights decide in what precision the convolutions compute (`net.to(torch.bfloat16)`), but the input should stay
    fp32. The network sees [0, `config.img_range`], as in its training.
    """

    def __init__(self, config: RLFNConfig) -> None:
        """Make the network of `config`, drawn as PyTorch does."""
        super().__init__()
        self.config = config
        self.conv_1 = conv3x3(3, config.num_feat)
        for number in range(1, config.num_block + 1):
            self.add_module(f"block_{number}", Block(config=config))
        self.conv_2 = conv3x3(config.num_feat, config.num_feat)
        self.upsampler = nn.Sequential(
            conv3x3(config.num_feat, 3 * config.scale**2),
            nn.PixelShuffle(config.scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """As `dacesr.nets.convnets.SRResNet.forward`.

        A side below `SMALLEST`, for which the authors' code fails, is enlarged to it by reflection, which is cut off
        again.
        """
        check_image(x)
        (height, width), scale = x.shape[-2:], self.config.scale
        ranged = reflect_to(x, max(SMALLEST, height), max(SMALLEST, width)) * self.config.img_range
        features = self.conv_1(ranged.to(self.conv_1.weight.dtype, memory_format=torch.channels_last))
        out = features
        for number in range(1, self.config.num_block + 1):
            out = self.get_submodule(f"block_{number}")(out)
        out = in_strips(self.upsampler, self.conv_2(out) + features, scale)
        return out[:, :, : scale * height, : scale * width].to(x.dtype) / self.config.img_range
