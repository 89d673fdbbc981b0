"""DASR, degradation-adaptive super-resolution (Liang et al. 2022, arXiv 2203.14216), under its release's names.

    b  pictures    c  channels between the blocks    h, w  rows and columns    k  experts

A small network predicts from the picture how it was degraded, 33 numbers, and from these one weight for each of k
experts. The experts are SRResNets of the same shape; every convolution's kernel and bias is the weighted sum of
theirs, so that each picture goes through one network, made for it.

    predictor:  x -> (5x5 conv, LeakyReLU) x 6, the fourth with stride 2 -> average over the picture -> parameters
                -> linear -> linear -> weights
    network:    that of `dacesr.nets.convnets.SRResNet`, with mixed convolutions

The authors train with a third loss besides those of any network here, the distance of the predicted parameters from
the true ones. Our recipes don't have it: they train end to end, so the 33 numbers need not mean the degradation.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config.adaptive import DASRConfig
from dacesr.nets.heads import STEPS, in_strips
from dacesr.nets.inputs import check_image

__all__ = ["DASR", "DASRConfig", "Prediction"]

HIDDEN = 15  # features between the parameters of a degradation and the experts' weights


class Prediction(NamedTuple):
    """What the predictor says of each picture.

    Attributes:
        parameters: (b, num_param), of the degradation; each is about 0 to 1 where it was trained to tell them.
        weights: (b, num_expert), of the experts, neither positive nor of sum 1 by construction.
    """

    parameters: Tensor
    weights: Tensor


class MixedConv(nn.Module):
    """3x3 convolution with a kernel and bias of each picture's own: the weighted sum of the experts' (Sec. 3.3)."""

    def __init__(self, *, inputs: int, outputs: int, experts: int) -> None:
        """Start all experts with the same weights, drawn small; the authors start them from one trained SRResNet."""
        super().__init__()
        kernel = nn.init.kaiming_normal_(torch.empty(outputs, inputs, 3, 3)) * 0.1
        self.weight = nn.Parameter(kernel.repeat(experts, 1, 1, 1, 1))  # (k, outputs, inputs, 3, 3)
        self.bias = nn.Parameter(torch.zeros(experts, outputs))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(b, inputs, h, w) and experts' weights (b, k) -> (b, outputs, h, w)."""
        batch, channels, height, width = x.shape
        kernels = (weights @ self.weight.flatten(1)).view(-1, *self.weight.shape[2:])
        biases = (weights @ self.bias).flatten()
        side_by_side = x.reshape(1, batch * channels, height, width)
        out = F.conv2d(side_by_side, kernels, biases, padding=1, groups=batch)
        return out.reshape(batch, -1, height, width)


class Block(nn.Module):
    """x + conv(ReLU(conv(x))) with mixed convolutions."""

    def __init__(self, *, dim: int, experts: int) -> None:
        super().__init__()
        self.conv1 = MixedConv(inputs=dim, outputs=dim, experts=experts)
        self.conv2 = MixedConv(inputs=dim, outputs=dim, experts=experts)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(b, c, h, w) and experts' weights (b, k) -> (b, c, h, w)."""
        return x + self.conv2(F.relu(self.conv1(x, weights), inplace=True), weights)


class DASR(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

    The weights decide in what precision the convolutions compute (`net.to(torch.bfloat16)`), but the input should stay
    fp32. A picture given in tiles is judged tile by tile. Parameter names are those of both files of the release taken
    together: net_p.pth has `ConvNet` and `MappingNet`, the predictor, net_g.pth has the rest.
    """

    def __init__(self, config: DASRConfig) -> None:
        """Make the network of `config`, experts all alike and the predictor as PyTorch draws it."""
        super().__init__()
        self.config = config
        dim, self._steps = config.num_feat, STEPS[config.scale]
        mixed = partial(MixedConv, experts=config.num_expert)
        self.conv_first = mixed(inputs=3, outputs=dim)
        self.body = nn.ModuleList(Block(dim=dim, experts=config.num_expert) for _ in range(config.num_block))
        for number, step in enumerate(self._steps, start=1):
            self.add_module(f"upconv{number}", mixed(inputs=dim, outputs=step**2 * dim))
        self.conv_hr, self.conv_last = mixed(inputs=dim, outputs=dim), mixed(inputs=dim, outputs=3)
        self.ConvNet = _predictor(config)
        self.MappingNet = nn.Sequential(nn.Linear(config.num_param, HIDDEN), nn.Linear(HIDDEN, config.num_expert))

    def predict(self, x: Tensor) -> Prediction:
        """How pictures were degraded and how the experts are mixed for them.

        Args:
            x: (b, 3, h, w), RGB in [0, 1], h and w at least 1.

        Raises:
            ValueError: `x` isn't (b, 3, h, w) of at least 1x1.
        """
        check_image(x)
        parameters = self.ConvNet(self._cast(x)).mean((2, 3))
        return Prediction(parameters, self.MappingNet(parameters))

    def forward(self, x: Tensor) -> Tensor:
        """As `dacesr.nets.convnets.SRResNet.forward`."""
        weights = self.predict(x).weights
        out = _lrelu(self.conv_first(self._cast(x), weights))
        for block in self.body:
            out = block(out, weights)
        out = in_strips(partial(self._head, weights=weights), out, self.config.scale).to(x.dtype)
        return out + F.interpolate(x, scale_factor=self.config.scale, mode="bilinear")

    def _head(self, out: Tensor, weights: Tensor) -> Tensor:
        for number, step in enumerate(self._steps, start=1):
            out = _lrelu(F.pixel_shuffle(self.get_submodule(f"upconv{number}")(out, weights), step))
        return self.conv_last(_lrelu(self.conv_hr(out, weights)), weights)

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.conv_first.weight.dtype, memory_format=torch.channels_last)


def _predictor(config: DASRConfig) -> nn.Sequential:
    """(b, 3, h, w) -> (b, num_param, h/2, w/2), rounded up."""
    widths = [3, *[config.predictor_feat] * 5, config.num_param]
    layers = []
    for number in range(6):
        stride = 2 if number == 3 else 1
        layers.append(nn.Conv2d(widths[number], widths[number + 1], 5, stride=stride, padding=2))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return nn.Sequential(*layers)


def _lrelu(x: Tensor) -> Tensor:
    """LeakyReLU, written over its input."""
    return F.leaky_relu(x, 0.1, inplace=True)
