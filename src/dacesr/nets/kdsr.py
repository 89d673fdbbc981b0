"""KDSR for real photographs (Xia et al. 2023, arXiv 2211.16928, its KDSR-GAN), under its release's names.

    b  pictures    c  channels between the blocks    h, w  rows and columns

An estimator gives each picture a vector of its degradation, c numbers, and every block of the network makes of it
3x3 kernels of the picture's own, one for each channel.

    estimator (KD-IDE):    x -> 3x3 conv -> 6 x residual block -> 3x3 convs to 2c, 2c, 4c -> average over the picture
                           -> three linear layers; LeakyReLU after all but the blocks
    network (IDR-DCSR):    x - mean -> 3x3 conv -> f;  f + conv(blocks(f)) -> (3x3 conv, pixel shuffle) x steps
                           -> 3x3 conv to RGB -> + mean
    block (IDR-DCRB):      x + conv(LeakyReLU(depth-wise conv with the picture's kernels (x)))

This is the student, which sees the degraded picture only. Its authors train the estimator to agree with that of a
teacher, which sees the original too; our recipes don't have this loss and train end to end.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config.adaptive import KDSRConfig
from dacesr.nets.heads import STEPS, conv3x3, in_strips
from dacesr.nets.inputs import check_image

__all__ = ["KDSR", "KDSRConfig"]


class ResidualBlock(nn.Module):
    """x + conv(LeakyReLU(conv(x)))."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(dim, dim), _lrelu(), conv3x3(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same."""
        return x + self.body(x)


class Estimator(nn.Module):
    """The degradation of a picture as a vector: the knowledge distillation based implicit estimator (KD-IDE)."""

    def __init__(self, *, dim: int, blocks: int) -> None:
        super().__init__()
        self.E = nn.Sequential(
            *(conv3x3(3, dim), _lrelu()),
            *(ResidualBlock(dim=dim) for _ in range(blocks)),
            *(conv3x3(dim, 2 * dim), _lrelu()),
            *(conv3x3(2 * dim, 2 * dim), _lrelu()),
            *(conv3x3(2 * dim, 4 * dim), _lrelu()),
        )
        self.mlp = nn.Sequential(nn.Linear(4 * dim, 4 * dim), _lrelu(), nn.Linear(4 * dim, 4 * dim), _lrelu())
        self.compress = nn.Sequential(nn.Linear(4 * dim, dim), _lrelu())

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w), RGB in [0, 1] -> (b, c)."""
        return self.compress(self.mlp(self.E(x).mean((2, 3))))


class DynamicConv(nn.Module):
    """Depth-wise 3x3 convolution with kernels made of each picture's degradation (IDR-DDC)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(nn.Linear(dim, dim, bias=False), _lrelu(), nn.Linear(dim, 9 * dim, bias=False))

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """(b, c, h, w) and (b, c) -> (b, c, h, w)."""
        batch, channels, height, width = x.shape
        kernels = self.kernel(degradation).view(batch * channels, 1, 3, 3)
        side_by_side = x.reshape(1, batch * channels, height, width)
        return F.conv2d(side_by_side, kernels, padding=1, groups=batch * channels).reshape(x.shape)


class Block(nn.Module):
    """x + conv(LeakyReLU(dynamic conv(x))), the degradation-based convolution residual block (IDR-DCRB)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.da_conv1 = DynamicConv(dim=dim)
        self.conv1 = conv3x3(dim, dim)

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """(b, c, h, w) and (b, c) -> (b, c, h, w)."""
        return x + self.conv1(F.leaky_relu(self.da_conv1(x, degradation), 0.1, inplace=True))


class Blocks(nn.Module):
    """The blocks one after the other."""

    def __init__(self, *, dim: int, blocks: int) -> None:
        super().__init__()
        self.body = nn.ModuleList(Block(dim=dim) for _ in range(blocks))

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """(b, c, h, w) and (b, c) -> (b, c, h, w)."""
        for block in self.body:
            x = block(x, degradation)
        return x


class Generator(nn.Module):
    """The network that the estimator steers (IDR-DCSR)."""

    def __init__(self, *, config: KDSRConfig) -> None:
        super().__init__()
        dim, steps = config.num_feat, STEPS[config.scale]
        layers = [layer for step in steps for layer in (conv3x3(dim, step**2 * dim), nn.PixelShuffle(step))]
        self.head = nn.Sequential(conv3x3(3, dim))
        self.body = nn.ModuleList([Blocks(dim=dim, blocks=config.num_block), conv3x3(dim, dim)])
        self.tail = nn.Sequential(nn.Sequential(*layers), conv3x3(dim, 3))
        self._scale = config.scale

    def forward(self, x: Tensor, degradation: Tensor) -> Tensor:
        """(b, 3, h, w), RGB less its mean, and (b, c) -> (b, 3, scale*h, scale*w) less its mean."""
        features = self.head(x)
        blocks, conv = self.body
        return in_strips(self.tail, conv(blocks(features, degradation)) + features, self._scale)


class KDSR(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    The weights decide in what precision the convolutions compute (`net.to(torch.bfloat16)`), but the input should stay
    fp32. A picture given in tiles is judged tile by tile.
    """

    def __init__(self, config: KDSRConfig) -> None:
        """Make the network of `config`, drawn as PyTorch does."""
        super().__init__()
        self.config = config
        self.G = Generator(config=config)
        self.E_st = Estimator(dim=config.num_feat, blocks=config.encoder_block)

    def forward(self, x: Tensor) -> Tensor:
        """As `dacesr.nets.convnets.SRResNet.forward`."""
        check_image(x)
        mean = x.new_tensor(self.config.rgb_mean).view(1, 3, 1, 1)
        return self.G(self._cast(x - mean), self.E_st(self._cast(x))).to(x.dtype) + mean

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(next(self.parameters()).dtype, memory_format=torch.channels_last)


def _lrelu() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.1, inplace=True)
