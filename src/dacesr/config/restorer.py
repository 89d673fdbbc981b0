"""Knobs of DACESR's own network."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from dacesr.config.base import Config

Head = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv"]
GroupEnd = Literal["1conv", "3conv"]
ScanOrder = Literal["raster", "alternate"]
ImageSkip = Literal["none", "bilinear"]
ModulationName = Literal["none", "release", "spatial", "global"]
Modulate = Literal["both", "multiply", "add"]
ConditionKind = Literal["re", "le"]


class RestorerConfig(Config):
    """The super-resolution network `dacesr.nets.restorer.Restorer`; the defaults are the preset `base`.

    The first block of fields can be read from the tensors of a checkpoint, the second cannot and is stored beside them.
    """

    kind: Literal["restorer"] = "restorer"  # of network, as checkpoints call it

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

    def bytes_per_pixel(self, itemsize: int, whole: bool = False) -> int:
        """An upper estimate of what the network holds for each input pixel, in bytes, without gradients.

        Four token maps and the output; a spatial modulation adds four maps. On the CPU the wide tensors of a block and
        of the head are those of a part only and do not count.

        Args:
            itemsize: bytes of a weight.
            whole: whether blocks and head take all pixels at once, as they do on a GPU: then their tensors count.
        """
        maps = 8 if self.modulation == "spatial" else 4
        held = itemsize * (maps * self.embed_dim + 6 * self.scale**2)
        return math.ceil(1.2 * (held + (max(self._block_bytes(itemsize), self._head_bytes(itemsize)) if whole else 0)))

    def _block_bytes(self, itemsize: int) -> int:
        """Of a mixer's tensors for one token: input and gate, after the convolution, after the scan; delta, B and C."""
        selection = self.delta_rank + 2 * self.state_dim
        return itemsize * (4 * self.inner_dim + selection) + max(4, itemsize) * (self.inner_dim + selection)

    def _head_bytes(self, itemsize: int) -> int:
        """Of two maps of the size of the output for one input pixel."""
        return itemsize * 2 * self.scale**2 * (3 if self.head == "pixelshuffledirect" else self.head_dim)

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
