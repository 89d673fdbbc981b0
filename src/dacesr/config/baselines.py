"""Knobs of the convolutional networks to compare with."""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from dacesr.config.base import Config, Count, Width

__all__ = ["EDSRConfig", "RLFNConfig", "RRDBConfig", "SRResNetConfig", "SRVGGConfig"]


class SRVGGConfig(Config):
    """The compact network of Real-ESRGAN, `dacesr.nets.baselines.SRVGGNetCompact`: all of it is read from tensors."""

    kind: Literal["srvgg"] = "srvgg"  # of network, as checkpoints call it

    num_feat: Width = Field(64, description="channels inside")
    num_conv: Count = Field(32, description="convolutions between first and last")
    scale: Literal[1, 2, 3, 4] = Field(4, description="output pixels per input pixel along each side")
    activation: Literal["prelu"] = Field("prelu", description="after every convolution but the last")

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return self.num_conv

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: five maps or four outputs."""
        return math.ceil(1.2 * max(5 * itemsize * self.num_feat, 4 * 4 * 3 * self.scale**2))


class _BlocksConfig(Config):
    """What networks of equal blocks have in common."""

    num_feat: Width = Field(64, description="channels between the blocks")
    num_block: Count = Field(16, description="blocks of the body")

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return self.num_block


class SRResNetConfig(_BlocksConfig):
    """SRResNet without batch normalisation, `dacesr.nets.convnets.SRResNet`: all of it is read from tensors."""

    kind: Literal["srresnet"] = "srresnet"  # of network, as checkpoints call it

    scale: Literal[2, 3, 4] = Field(4, description="output pixels per input pixel along each side")

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: four maps, head and output."""
        return _bytes(itemsize, self.num_feat * (4 + _head_maps(self.scale)), self.scale)


class EDSRConfig(_BlocksConfig):
    """EDSR, `dacesr.nets.convnets.EDSR`; the defaults are the baseline of its paper.

    The first block of fields can be read from the tensors of a checkpoint, the second cannot and is stored beside them.
    """

    kind: Literal["edsr"] = "edsr"  # of network, as checkpoints call it

    scale: Literal[2, 3, 4] = Field(4, description="output pixels per input pixel along each side")

    res_scale: NonNegativeFloat = Field(1.0, description="factor of what a block adds; published: 0.1 at 256 channels")
    img_range: PositiveFloat = Field(255.0, description="what white was in training")
    rgb_mean: Annotated[tuple[float, float, float], Field(strict=False)] = Field(
        (0.4488, 0.4371, 0.4040), description="subtracted from the input, added to the output; RGB in [0, 1]"
    )

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: four maps, head and output."""
        return _bytes(itemsize, self.num_feat * (4 + _head_maps(self.scale)), self.scale)


class RRDBConfig(_BlocksConfig):
    """RRDBNet of ESRGAN and Real-ESRGAN, `dacesr.nets.convnets.RRDB`: all of it is read from tensors."""

    kind: Literal["rrdb"] = "rrdb"  # of network, as checkpoints call it

    num_block: Count = Field(23, description="blocks of the body")
    num_grow_ch: Width = Field(32, description="channels that each convolution of a dense block adds")
    scale: Literal[1, 2, 4, 8] = Field(4, description="output pixels per input pixel along each side")
    unshuffle: Literal[1, 2, 4] = Field(
        1, description="pixels a side that become channels first; Real-ESRGAN: 2 for scale 2, 4 for scale 1"
    )

    @property
    def doublings(self) -> int:
        """Times that the features are doubled in size, each with a convolution of its own."""
        return (self.scale * self.unshuffle).bit_length() - 1

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: features that grow, or the head.

        The pixels of the body are fewer where some become channels.
        """
        body = 8 * (self.num_feat + self.num_grow_ch) / self.unshuffle**2
        head = self.num_feat * (2 + _head_maps(self.scale, self.unshuffle))
        return _bytes(itemsize, max(body, head), self.scale)


class RLFNConfig(_BlocksConfig):
    """RLFN, `dacesr.nets.rlfn.RLFN`; the defaults are the network of its paper, x4.

    The first block of fields can be read from the tensors of a checkpoint, the second cannot and is stored beside them.
    """

    kind: Literal["rlfn"] = "rlfn"  # of network, as checkpoints call it

    num_feat: Width = Field(52, description="channels between the blocks; NTIRE 2022: 46")
    num_block: Count = Field(6, description="blocks of the body; NTIRE 2022: 4")
    mid_feat: Width = Field(52, description="channels inside a block; NTIRE 2022: 48")
    esa_feat: Width = Field(16, description="channels inside the spatial attention")
    scale: Literal[1, 2, 3, 4] = Field(4, description="output pixels per input pixel along each side")

    img_range: PositiveFloat = Field(255.0, description="what white was in training")

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: nine maps, and the output."""
        return _bytes(itemsize, 9 * max(self.num_feat, self.mid_feat), self.scale)


def _head_maps(scale: int, unshuffle: int = 1) -> float:
    """Maps of the input's size that a head takes: two of the output's, in a strip of a sixth of 256 x 256 pixels."""
    return 2 * scale**2 * min(1, unshuffle**2 / 6)


def _bytes(itemsize: int, channels: float, scale: int) -> int:
    """Of so many channels of the weights' type and of two outputs of fp32, with a fifth to spare."""
    return math.ceil(1.2 * (itemsize * channels + 4 * 2 * 3 * scale**2))
