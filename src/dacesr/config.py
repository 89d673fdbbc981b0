"""Every knob of the networks: frozen pydantic models that refuse unknown fields and name the field at fault."""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

Head = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"]
GroupEnd = Literal["1conv", "3conv"]
ScanOrder = Literal["raster", "alternate"]
ImageSkip = Literal["none", "bilinear"]
ModulationName = Literal["none", "release", "spatial", "global"]
Modulate = Literal["both", "multiply", "add"]
ConditionKind = Literal["re", "le"]


class Config(BaseModel):
    """Base of all configs: frozen, strict about types, no unknown fields, JSON in and out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class RestorerConfig(Config):
    """The super-resolution network `dacesr.nets.restorer.Restorer`; the defaults are the preset `base`.

    The first block of fields can be read from the tensors of a checkpoint, the second cannot and is stored beside them.
    """

    kind: ClassVar[str] = "restorer"  # as checkpoints call it

    embed_dim: PositiveInt = Field(180, le=4096, description="channels of a token, c")
    depths: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = Field(
        (2, 2, 2, 2), description="Mamba blocks (ViMM) in each group (RSSB)"
    )
    head: Head = Field("pixelshuffle", description="what turns features into pixels")
    head_dim: PositiveInt = Field(64, le=4096, description="channels inside the head; pixelshuffledirect has none")
    scale: Literal[1, 2, 3, 4] = Field(4, description="output pixels per input pixel along each side")
    group_end: GroupEnd = Field("1conv", description="convolutions that end a group, and the body")
    state_dim: PositiveInt = Field(16, le=64, description="states of the scan per channel, n")
    expand: PositiveInt = Field(2, le=16, description="inner channels of the mixer per token channel, d / c")
    conv_taps: PositiveInt = Field(4, le=64, description="taps of the mixer's causal depth-wise convolution")
    dt_rank: Annotated[PositiveInt, Field(le=4096)] | Literal["auto"] = Field(
        "auto", description="rank of delta; auto: ceil(embed_dim / 16)"
    )

    scan_order: ScanOrder = Field(
        "raster", description="alternate: row, row reversed, column, column reversed from block to block"
    )
    image_skip: ImageSkip = Field("none", description="bilinear: the enlarged input is added to the output")
    block_residual: bool = Field(False, description="a residual around each block (the paper's text; release: none)")
    modulation: ModulationName = Field("none", description="what a condition does to the tokens after each group")
    modulate: Modulate = Field("both", description="x * (1 + alpha) + beta, or only one of the two (Table VI)")
    condition: ConditionKind = Field("re", description="re: extractor tokens; le: its logits, one token (Table IV)")
    condition_dim: PositiveInt = Field(512, le=65536, description="channels of a condition token")
    rgb_mean: Annotated[tuple[float, float, float], Field(strict=False)] = Field(
        (0.4488, 0.4371, 0.4040), description="subtracted from the input, added to the output; RGB in [0, 1]"
    )

    @model_validator(mode="after")
    def _check_group_end(self) -> Self:
        if self.group_end == "3conv" and self.embed_dim < 4:
            raise ValueError(f"group_end 3conv works on embed_dim / 4 channels and embed_dim is {self.embed_dim}")
        return self

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if self.modulation == "spatial" and self.condition == "le":
            raise ValueError("condition le is one token without a grid, and modulation spatial needs one: use global")
        return self

    @property
    def learned_modulation(self) -> bool:
        """Whether the modulation has weights, so that the network was trained with a condition and needs one."""
        return self.modulation in ("spatial", "global")

    @property
    def inner_dim(self) -> int:
        """Channels inside a mixer, d."""
        return self.expand * self.embed_dim

    @property
    def delta_rank(self) -> int:
        """`dt_rank` as a number."""
        return math.ceil(self.embed_dim / 16) if self.dt_rank == "auto" else self.dt_rank

    @property
    def block_count(self) -> int:
        """Blocks of the body, each of which has tensors of its own."""
        return sum(self.depths)

    def bytes_per_pixel(self, itemsize: int) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes: six token maps, the output.

        A spatial modulation adds four maps. The mixer's and the head's wide tensors are those of a part only.
        """
        maps = 10 if self.modulation == "spatial" else 6
        return math.ceil(1.2 * itemsize * (maps * self.embed_dim + 6 * self.scale**2))

    @classmethod
    def preset(cls, name: Literal["light", "base", "large"], **changes: Any) -> Self:
        """One of the three published sizes, with any field changed.

        Args:
            name: `light` (DVMSR's student), `base` (Table II) or `large` (the options of the authors' release).
            **changes: fields to set beside the preset's own; unknown names are an error.

        Raises:
            ValueError: no such preset, or an impossible value (the message names the field).
        """
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})


PRESETS: dict[str, dict[str, Any]] = {
    "light": {"embed_dim": 60, "depths": (2,) * 4, "head": "pixelshuffledirect"},
    "base": {"embed_dim": 180, "depths": (2,) * 4, "head": "pixelshuffle"},
    "large": {"embed_dim": 192, "depths": (2,) * 8, "head": "pixelshuffle"},
}


class SRVGGConfig(Config):
    """The compact network of Real-ESRGAN, `dacesr.nets.baselines.SRVGGNetCompact`: all of it is read from tensors."""

    kind: ClassVar[str] = "srvgg"

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


NetworkConfig = RestorerConfig | SRVGGConfig
"""Of any network that upscales: these share `kind`, `scale`, `block_count` and `bytes_per_pixel`."""


def explain(error: ValidationError) -> str:
    """One line for all that pydantic found: `field: what is wrong (value)`, joined by semicolons."""
    return "; ".join(
        f"{'.'.join(str(part) for part in found['loc']) or 'config'}: {found['msg']} (got {found['input']!r})"
        for found in error.errors(include_url=False, include_context=False)
    )
