"""Knobs of the transformers with windows to compare with."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dacesr.config.base import Config
from dacesr.config.restorer import GroupEnd, Head

__all__ = ["HATConfig", "SwinIRConfig", "WindowConfig"]


class WindowConfig(Config):
    """What SwinIR and HAT have in common; all of it is read from the tensors of a checkpoint."""

    embed_dim: PositiveInt = Field(180, le=4096, description="channels of a token")
    depths: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = Field(
        (6,) * 6, description="blocks in each group"
    )
    heads: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        (6,) * 6, description="attention heads in each group"
    )
    window: Annotated[PositiveInt, Field(ge=2, le=64)] = Field(8, description="tokens a side within which blocks look")
    mlp_ratio: PositiveInt = Field(2, le=16, description="hidden channels of a block's MLP per channel")
    head_dim: PositiveInt = Field(64, le=4096, description="channels inside the head; pixelshuffledirect has none")
    scale: Literal[1, 2, 3, 4, 8] = Field(4, description="output pixels per input pixel along each side")

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads {self.heads} and depths {self.depths} should be as many")
        if any(self.embed_dim % count for count in self.heads):
            raise ValueError(f"heads {self.heads} should divide embed_dim {self.embed_dim}")
        return self

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return sum(self.depths)


class SwinIRConfig(WindowConfig):
    """SwinIR, `dacesr.nets.swinir.SwinIR`; the defaults are the real-world model of medium size, x4."""

    kind: Literal["swinir"] = "swinir"  # of network, as checkpoints call it

    head: Head = Field("nearest+conv", description="what turns features into pixels")
    group_end: GroupEnd = Field("1conv", description="convolutions that end a group, and the body")

    @model_validator(mode="after")
    def _check_group_end(self) -> Self:
        if self.group_end == "3conv" and self.embed_dim < 4:
            raise ValueError(f"group_end 3conv works on embed_dim / 4 channels and embed_dim is {self.embed_dim}")
        return self

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: five token maps, the output."""
        return math.ceil(1.2 * itemsize * (5 * self.embed_dim + 6 * self.scale**2))


class HATConfig(WindowConfig):
    """HAT, `dacesr.nets.hat.HAT`; the defaults are the model of medium size, x4, also that of Real-HAT."""

    kind: Literal["hat"] = "hat"  # of network, as checkpoints call it

    window: Annotated[PositiveInt, Field(ge=2, le=64)] = Field(16, description="tokens a side within which blocks look")
    overlap: Annotated[int, Field(ge=0, le=64)] = Field(
        4, description="tokens beyond each edge of a window that the last attention of a group looks at"
    )
    conv_dim: PositiveInt = Field(60, le=4096, description="channels between a block's two convolutions")
    squeeze_dim: PositiveInt = Field(6, le=4096, description="channels inside the attention over channels")
    head: Literal["pixelshuffle"] = Field("pixelshuffle", description="what turns features into pixels")
    group_end: Literal["1conv"] = Field("1conv", description="convolutions that end a group, and the body")

    conv_scale: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="weight of a block's convolutions; no tensor tells it, and all published models have 0.01"
    )

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: eight token maps, the output."""
        return math.ceil(1.2 * itemsize * (8 * self.embed_dim + 6 * self.scale**2))
