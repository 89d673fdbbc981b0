"""Networks to compare with, under the parameter names of their own releases, so that published weights fit.

All of them are listed here. SRVGGNetCompact is Real-ESRGAN's fast network (arXiv 2107.10833 and its release), which
also runs in Upscayl:

    x -> 3x3 conv, PReLU -> num_conv x (3x3 conv, PReLU) -> 3x3 conv to 3 * scale^2 -> pixel shuffle -> + nearest(x)
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import EDSRConfig, HATConfig, RLFNConfig, RRDBConfig, SRResNetConfig, SRVGGConfig, SwinIRConfig
from dacesr.nets.convnets import EDSR, RRDB, SRResNet
from dacesr.nets.dasr import DASR, DASRConfig
from dacesr.nets.hat import HAT
from dacesr.nets.inputs import check_image
from dacesr.nets.kdsr import KDSR, KDSRConfig
from dacesr.nets.rlfn import RLFN
from dacesr.nets.swinir import SwinIR

__all__ = [
    "BASELINES",
    "DASR",
    "EDSR",
    "HAT",
    "KDSR",
    "RLFN",
    "RRDB",
    "Baseline",
    "SRResNet",
    "SRVGGConfig",
    "SRVGGNetCompact",
    "SwinIR",
]


class SRVGGNetCompact(nn.Module):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped."""

    def __init__(self, config: SRVGGConfig) -> None:
        """Make the network of `config`, randomly initialised."""
        super().__init__()
        self.config = config
        widths = [3, *[config.num_feat] * (config.num_conv + 1)]
        self.body = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.body.append(nn.Conv2d(inputs, outputs, 3, padding=1))
            self.body.append(nn.PReLU(outputs))
        self.body.append(nn.Conv2d(config.num_feat, 3 * config.scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale.

        Args:
            x: (b, 3, h, w), RGB in [0, 1], h and w at least 1.

        Returns:
            (b, 3, scale*h, scale*w), dtype of `x`; the weights decide in what precision the convolutions compute.

        Raises:
            ValueError: `x` isn't (b, 3, h, w) of at least 1x1.
        """
        check_image(x)
        weight = next(self.parameters())
        out = x.to(weight.dtype, memory_format=torch.channels_last)
        for layer in self.body:
            out = layer(out)
        residual = F.pixel_shuffle(out, self.config.scale)
        return residual.to(x.dtype) + F.interpolate(x, scale_factor=self.config.scale, mode="nearest")


Baseline = SRVGGNetCompact | SRResNet | EDSR | RRDB | RLFN | SwinIR | HAT | DASR | KDSR

BASELINES: dict[str, tuple[type[Any], type[Any]]] = {
    "srvgg": (SRVGGConfig, SRVGGNetCompact),
    "srresnet": (SRResNetConfig, SRResNet),
    "edsr": (EDSRConfig, EDSR),
    "rrdb": (RRDBConfig, RRDB),
    "rlfn": (RLFNConfig, RLFN),
    "swinir": (SwinIRConfig, SwinIR),
    "hat": (HATConfig, HAT),
    "dasr": (DASRConfig, DASR),
    "kdsr": (KDSRConfig, KDSR),
}
"""Config and network of each kind."""
