"""Knobs of the recognition network."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dacesr.config.base import Config


class TaggerConfig(Config):
    """The recognition network `dacesr.nets.tagger.Tagger`; the defaults are RAM's, the preset `ram`."""

    kind: ClassVar[str] = "tagger"

    image_size: PositiveInt = Field(384, le=4096, description="sides of the input that it was trained on, in pixels")
    resize: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        (), description="sizes that a picture takes on the way to image_size"
    )
    patch: PositiveInt = Field(4, le=64, description="pixels a side of the first tokens")
    stem: Literal["patch", "conv"] = Field("patch", description="conv: 3x3 convolutions of stride 2 make the tokens")
    embed_dim: PositiveInt = Field(
        192, le=4096, description="channels of the first stage; each further one doubles them"
    )
    depths: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1, max_length=8)] = Field(
        (2, 2, 18, 2), description="blocks in each stage; the grid is halved between stages"
    )
    heads: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        (6, 12, 24, 48), description="attention heads in each stage"
    )
    window: PositiveInt = Field(12, le=128, description="tokens a side within which attention looks")
    mlp_ratio: PositiveInt = Field(4, le=16, description="hidden channels of a block's MLP per channel")
    local_conv: bool = Field(False, description="a depth-wise 3x3 convolution with a residual starts each block")
    width: PositiveInt = Field(512, le=65536, description="channels of the tokens that condition a restorer")
    tags: PositiveInt = Field(4585, le=1_000_000, description="names that it knows")
    label_dim: PositiveInt = Field(512, le=65536, description="channels of a tag's embedding")
    head_dim: PositiveInt = Field(768, le=65536, description="channels inside the tagging head")
    head_layers: PositiveInt = Field(2, le=64, description="layers of cross-attention and MLP")
    head_heads: PositiveInt = Field(4, le=256, description="attention heads of a layer")
    head_mlp: PositiveInt = Field(3072, le=65536, description="hidden channels of a layer's MLP")

    @model_validator(mode="after")
    def _check_shapes(self) -> Self:
        if len(self.heads) != len(self.depths):
            raise ValueError(f"heads {self.heads} and depths {self.depths} should be as many")
        if any(self.stage_dim(i) % n for i, n in enumerate(self.heads)) or self.head_dim % self.head_heads:
            raise ValueError(
                f"heads {self.heads} should divide the channels of their stages, {self.head_heads} head_dim"
            )
        if self.image_size % self.patch or (self.stem == "conv" and self.patch not in (2, 4, 8, 16)):
            raise ValueError(f"patch {self.patch} should divide image_size {self.image_size}; for conv: 2, 4, 8 or 16")
        return self

    @property
    def block_count(self) -> int:
        """Blocks of the encoder and layers of the head, each of which has tensors of its own."""
        return sum(self.depths) + self.head_layers

    def stage_dim(self, stage: int) -> int:
        """Channels of a stage, counted from 0."""
        return self.embed_dim << stage

    @property
    def grid(self) -> int:
        """Spatial tokens a side, g, for an input of `image_size`."""
        side = self.image_size // self.patch
        for _ in self.depths[1:]:
            side = -(-side // 2)
        return side

    @classmethod
    def preset(cls, name: Literal["ram", "lite"], **changes: Any) -> Self:
        """A published size, with any field changed.

        Args:
            name: `ram` (RAM's Swin-L) or `lite` (ours, for a CPU).
            **changes: fields to set beside the preset's own; unknown names are an error.

        Raises:
            ValueError: no such preset, or an impossible value (the message names the field).
        """
        if name not in TAGGER_PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(TAGGER_PRESETS)}")
        return cls(**{**TAGGER_PRESETS[name], **changes})


TAGGER_PRESETS: dict[str, dict[str, Any]] = {
    "ram": {"resize": (512,)},
    "lite": {
        "image_size": 192,
        "patch": 8,
        "stem": "conv",
        "embed_dim": 128,
        "depths": (3, 4),
        "heads": (4, 8),
        "window": 6,
        "local_conv": True,
        "head_dim": 256,
        "head_mlp": 512,
    },
}
