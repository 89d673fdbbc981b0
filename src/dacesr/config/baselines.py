"""Knobs of the convolutional networks to compare with."""

import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from dacesr.config.base import Config


class SRVGGConfig(Config):
    """The compact network of Real-ESRGAN, `dacesr.nets.baselines.SRVGGNetCompact`: all of it is read from tensors."""

    kind: Literal["srvgg"] = "srvgg"  # of network, as checkpoints call it

    num_feat: Annotated[PositiveInt, Field(le=1024)] = Field(64, description="channels inside")
    num_conv: Annotated[PositiveInt, Field(le=1024)] = Field(32, description="convolutions between first and last")
    scale: Literal[1, 2, 3, 4] = Field(4, description="output pixels per input pixel along each side")
    activation: Literal["prelu"] = Field("prelu", description="after every convolution but the last")

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return self.num_conv

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: three maps or four outputs."""
        return math.ceil(1.2 * max(3 * itemsize * self.num_feat, 4 * 4 * 3 * self.scale**2))
