"""Knobs of the networks to compare with that adapt to how a picture was degraded."""

import math
from typing import Annotated, Literal

from pydantic import Field

from dacesr.config.base import Config, Count, Width

__all__ = ["DASRConfig", "KDSRConfig"]


class DASRConfig(Config):
    """DASR, `dacesr.nets.dasr.DASR`; the defaults are the published one, and all of it is read from tensors."""

    kind: Literal["dasr"] = "dasr"  # of network, as checkpoints call it

    num_feat: Width = Field(64, description="channels between the blocks")
    num_block: Count = Field(16, description="blocks of the body")
    num_expert: Count = Field(5, description="kernels that each convolution is mixed from")
    predictor_feat: Width = Field(64, description="channels inside the predictor of the degradation")
    num_param: Width = Field(33, description="parameters that describe a degradation")
    scale: Literal[2, 3, 4] = Field(4, description="output pixels per input pixel along each side")

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return self.num_block

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: maps of the body, two outputs."""
        return _bytes(itemsize, max(4 * self.num_feat, 3 * self.predictor_feat), self.scale)


class KDSRConfig(Config):
    """KDSR, `dacesr.nets.kdsr.KDSR`; the defaults are the published one for real photographs (KDSR-GAN).

    The first block of fields can be read from the tensors of a checkpoint, the second cannot and is stored beside them.
    """

    kind: Literal["kdsr"] = "kdsr"  # of network, as checkpoints call it

    num_feat: Width = Field(128, description="channels between the blocks")
    num_block: Count = Field(42, description="blocks of the body")
    encoder_block: Count = Field(6, description="residual blocks of the estimator of the degradation")
    scale: Literal[2, 3, 4, 8] = Field(4, description="output pixels per input pixel along each side")

    rgb_mean: Annotated[tuple[float, float, float], Field(strict=False)] = Field(
        (0.4488, 0.4371, 0.4040), description="subtracted from the input, added to the output; RGB in [0, 1]"
    )

    @property
    def block_count(self) -> int:
        """Blocks of body and estimator, each of which has tensors of its own."""
        return self.num_block + self.encoder_block

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: the estimator's last two maps."""
        return _bytes(itemsize, (2 + 4) * self.num_feat, self.scale)


def _bytes(itemsize: int, channels: int, scale: int) -> int:
    """Of so many channels of the weights' type and of two outputs of fp32, with a fifth to spare."""
    return math.ceil(1.2 * (itemsize * channels + 4 * 2 * 3 * scale**2))
