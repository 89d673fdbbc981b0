"""Everything that a training run can be told, read from TOML: strict, and errors name the field."""

import copy
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from dacesr.config import NETWORKS, PRESETS, Config, NetworkConfig, RestorerConfig, explain
from dacesr.degradation.recipe import SPACES
from dacesr.nets.extractor import SMALLEST

Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Target = Literal["plain", "sharp"]


class ConfigError(ValueError):
    """A training config that can't be used, in one sentence that names the file and the field."""


class DataConfig(Config):
    """Where training crops come from, and how they are ruined. Paths may hold `$VARIABLES` of the environment."""

    folders: Strings = Field((), description="folders of sharp pictures, searched with their subfolders")
    meta_info: str | None = Field(None, description="list of the pictures to use, as BasicSR writes them")
    lr_folder: str | None = Field(None, description="folder of the small twins of `folders`' pictures: trains on pairs")
    drawings: Share = Field(0.0, description="share of rendered text and line drawings")
    cache_gb: NonNegativeFloat = Field(2.0, description="memory for decoded pictures")
    crop: PositiveInt = Field(192, description="side of a ground-truth crop in pixels, a multiple of the scale")
    context: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = Field(
        None, description="least and greatest side of the ground truth that is degraded as a whole and cropped then"
    )
    samples: NonNegativeInt = Field(
        0, description="distinct ones, kept with small picture and condition, after which they come again; 0: no end"
    )
    device_gb: NonNegativeFloat = Field(
        24.0, description="memory of a GPU for the ground truth of those samples, at most half of what is free"
    )
    batch: PositiveInt = Field(8, description="crops a step, in each process")
    flip: bool = Field(True, description="mirror half of the crops")
    transpose: bool = Field(False, description="swap rows and columns of half of the crops")
    pool: NonNegativeInt = Field(0, description="pairs in the pool that shuffles them across batches; 0: none")
    spaces: dict[str, PositiveFloat] = Field({"dasr": 1.0}, description="degradation spaces and their shares")

    @model_validator(mode="after")
    def _check_pool(self) -> Self:
        if 0 < self.pool < self.batch:
            raise ValueError(f"pool should be 0 or at least the batch of {self.batch}, not {self.pool}")
        return self

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.context and not self.crop <= self.context[0] <= self.context[1]:
            raise ValueError(f"context should be two sides from the crop of {self.crop} on, not {self.context}")
        if 0 < self.samples < self.batch:
            raise ValueError(f"samples should be 0 or at least the batch of {self.batch}, not {self.samples}")
        return self

    @model_validator(mode="after")
    def _check_spaces(self) -> Self:
        unknown = [name for name in self.spaces if name not in SPACES]
        if unknown or not self.spaces:
            raise ValueError(f"spaces should be some of {', '.join(SPACES)}, not {', '.join(unknown) or 'none'}")
        return self


class OptimizerConfig(Config):
    """An optimizer and the course of its learning rate."""

    name: Literal["adam", "adamw"] = Field("adam", description="adamw: weight decay apart from the gradient")
    lr: PositiveFloat = Field(2e-4, description="learning rate after the warm-up")
    betas: Annotated[tuple[Decay, Decay], Field(strict=False)] = Field((0.9, 0.99), description="of the moments")
    weight_decay: NonNegativeFloat = Field(0.0, description="of all weights")
    warmup: NonNegativeInt = Field(0, description="iterations in which the rate grows linearly from 0")
    schedule: Literal["constant", "cosine", "step"] = Field("constant", description="course after the warm-up")
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = Field(
        (), description="iterations at which `step` multiplies the rate by `gamma`"
    )
    gamma: PositiveFloat = Field(0.5, description="see milestones")
    final: Share = Field(0.0, description="where `cosine` ends, as a share of lr")
    schedule_minutes: PositiveFloat | None = Field(
        None, description="minutes of training by which `cosine` has ended, if not all iterations are done by then"
    )
    clip: NonNegativeFloat = Field(0.0, description="largest norm of the gradient; 0: not clipped")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule_minutes is not None and self.schedule != "cosine":
            raise ValueError(f"schedule_minutes goes with the schedule cosine, not with {self.schedule}")
        return self


class DiscriminatorOptimizerConfig(OptimizerConfig):
    """The same with the discriminator's own default."""

    lr: PositiveFloat = Field(1e-4, description="learning rate after the warm-up")


class LossConfig(Config):
    """Weights of the terms (Eq. 8), the target of each, and the feature network of the perceptual one."""

    pixel: NonNegativeFloat = Field(1.0, description="weight of L1")
    perceptual: NonNegativeFloat = Field(0.0, description="weight of the L1 between feature maps")
    gan: NonNegativeFloat = Field(0.0, description="weight of the vanilla GAN term; 0: no discriminator")
    features: str | None = Field(None, description="weight file of VGG19 or SqueezeNet for the perceptual term")
    pixel_target: Target = Field("plain", description="sharp: the USM-sharpened ground truth")
    perceptual_target: Target = Field("plain", description="likewise")
    gan_target: Target = Field("plain", description="the GAN's real pictures, likewise")
    sharp_source: bool = Field(False, description="degrade the sharpened ground truth, as the release does")

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        if not self.pixel + self.perceptual + self.gan:
            raise ValueError("one of pixel, perceptual and gan should be above 0")
        return self


class DiscriminatorConfig(Config):
    """The U-Net discriminator and its optimizer."""

    width: PositiveInt = Field(64, description="features of its first convolution")
    optimizer: DiscriminatorOptimizerConfig = Field(
        DiscriminatorOptimizerConfig.model_validate({}), description="of the discriminator"
    )


class ValidationConfig(Config):
    """What is measured while training, on pictures degraded with fixed seeds."""

    every: PositiveInt = Field(5000, description="iterations between validations")
    folder: str | None = Field(None, description="folder of sharp pictures; none: no validation")
    spaces: Strings = Field(("bicubic", "level1", "level2", "level3"), description="degradation spaces")
    limit: PositiveInt | None = Field(None, description="use the first pictures only")
    crop: PositiveInt | None = Field(None, description="use the centre of pictures, at most so many pixels a side")
    seed: Seed = Field(0, description="of the degradations")
    features: str | None = Field(None, description="weight file of the network under LPIPS")
    lpips: str | None = Field(None, description="LPIPS's linear weights for that network")
    compare: Strings = Field((), description="weight files that are measured beside, once, such as a model of today")
    images: NonNegativeInt = Field(3, description="pictures in the grids")


class RunConfig(Config):
    """What every run has, whatever it trains."""

    iterations: PositiveInt = Field(description="steps in all")
    init: str | None = Field(None, description="weights to start from: file, bundled name or hub id")
    seed: Seed = Field(0, description="of everything random: weights, pictures, degradations")
    output: str | None = Field(None, description="run folder; out/train/NAME of the config file unless given")
    optimizer: OptimizerConfig = Field(OptimizerConfig.model_validate({}), description="of the network")
    ema: Decay = Field(0.999, description="decay of the averaged weights, which are validated and exported; 0: none")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="autocast; auto: bf16 where it is faster")
    threads: NonNegativeInt = Field(0, description="of the CPU; 0: as PyTorch chooses")
    log_every: PositiveInt = Field(100, description="iterations between lines of the log")
    save_every: PositiveInt = Field(1000, description="iterations between saved states")

    @classmethod
    def network_of(cls, fields: dict[str, Any], file: Path) -> Any:
        """The network's config from its table in a file: as it is, unless the kind of run knows presets."""
        return fields


class RestorerTraining(RunConfig):
    """A run of `dacesr train restorer`."""

    network: NetworkConfig = Field(
        RestorerConfig.preset("light"), description="preset and changes, or kind and its fields"
    )
    extractor: str | None = Field(None, description="what conditions the network: bundled name, file or hub id")
    data: DataConfig = Field(DataConfig.model_validate({}), description="crops and their degradation")
    loss: LossConfig = Field(LossConfig.model_validate({}), description="terms and their weights")
    discriminator: DiscriminatorConfig = Field(
        DiscriminatorConfig.model_validate({}), description="used where loss.gan is above 0"
    )
    validation: ValidationConfig = Field(ValidationConfig.model_validate({}), description="measures while training")
    accumulate: PositiveInt = Field(1, description="batches whose gradients are added up before a step")
    channels_last: bool = Field(True, description="memory format of networks and pictures")
    cuda_graph: bool = Field(
        True, description="with CUDA and one process: record the gradients' work once and replay it every step"
    )

    @classmethod
    def network_of(cls, fields: dict[str, Any], file: Path) -> NetworkConfig:
        """A network from its table: `preset` and changes, or the fields of `kind`."""
        fields = dict(fields)
        kind, preset = fields.pop("kind", "restorer"), fields.pop("preset", None)
        if kind not in list(NETWORKS) or preset not in [None, *PRESETS]:  # lists: any value of TOML can be looked up
            raise ConfigError(
                f"{file}: network.kind should be one of {', '.join(NETWORKS)} and network.preset one of "
                f"{', '.join(PRESETS)}"
            )
        try:
            return NETWORKS[kind](**{**PRESETS.get(preset or "", {}), **fields})
        except ValidationError as error:
            raise ConfigError(f"{file}: network.{explain(error)}") from error

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        """What concerns more than one table."""
        if self.data.crop % self.network.scale:
            raise ValueError(f"data.crop {self.data.crop} should be a multiple of the scale {self.network.scale}")
        if any(side % self.network.scale for side in self.data.context or ()):
            raise ValueError(f"data.context {self.data.context} should be multiples of the scale {self.network.scale}")
        if self.loss.gan and self.data.crop % 8:
            raise ValueError(f"data.crop {self.data.crop} should be a multiple of 8 for the discriminator")
        if self.loss.perceptual and not self.loss.features:
            raise ValueError(
                "loss.features should name the weight file of the perceptual network: torchvision's VGG19 "
                "(vgg19-dcbb9e9d.pth, https://download.pytorch.org/models) or SqueezeNet v1.1"
            )
        modulation = self.network.modulation if isinstance(self.network, RestorerConfig) else "none"
        if self.extractor is not None and modulation == "none":
            raise ValueError(f"network.modulation should say what the condition from extractor {self.extractor} does")
        if self.extractor is None and isinstance(self.network, RestorerConfig) and self.network.learned_modulation:
            raise ValueError(f"extractor should name what conditions the network's {modulation} modulation")
        if self.extractor is not None and self.data.crop // self.network.scale < SMALLEST:
            raise ValueError(f"data.crop {self.data.crop} leaves less than {SMALLEST} pixels for the extractor")
        if (self.validation.lpips is None) != (self.validation.features is None):
            raise ValueError("validation.lpips and validation.features go together")
        return self


Run = TypeVar("Run", bound=RunConfig)


def load_config(
    path: str | os.PathLike[str], changes: list[str] | None = None, training: type[Run] = RestorerTraining
) -> Run:
    """Read a training config.

    Args:
        path: TOML file.
        changes: `key=value` with a dotted key and a TOML value (or bare text), as in `data.batch=16`.
        training: What is to be trained.

    Raises:
        ConfigError: the file is missing, no TOML, or a field is unknown or impossible.
    """
    file = Path(path)
    return make_config(read_config(file, changes or ()), file, training)


def read_config(file: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a TOML file, changed and with `$VARIABLES` replaced; errors as for `load_config`."""
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of no number with thousands of digits either
        raise ConfigError(f"{file} is not TOML: {error}") from error
    return with_changes(content, file, changes)


def with_changes(content: dict[str, Any], file: Path, changes: Sequence[str]) -> dict[str, Any]:
    """A copy of a file's content, changed and with `$VARIABLES` replaced; errors as for `load_config`."""
    content = copy.deepcopy(content)
    for change in changes:
        _set(content, change)
    return _expanded(content, file)


def make_config(content: dict[str, Any], file: Path, training: type[Run] = RestorerTraining) -> Run:
    """The config of a file's content; errors as for `load_config`."""
    content = {"output": str(Path("out", "train", file.stem)), **content}
    if isinstance(content.get("network"), dict):
        content["network"] = training.network_of(content["network"], file)
    try:
        return training.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error)}") from error


def _set(content: dict[str, Any], change: str) -> None:
    """Apply one `key=value`."""
    key, equals, text = change.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key.strip()):
        raise ConfigError(f"--set takes key=value, as in data.batch=16; got {change!r}")
    *path, last = key.strip().split(".")
    for name in path:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {change}: {name} is no table of the config")
    try:
        content[last] = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        content[last] = text.strip()


def _expanded(value: Any, file: Path) -> Any:
    """Replace `$VARIABLES` in every text."""
    if isinstance(value, dict):
        return {key: _expanded(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, file) for item in value]
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    if missing := re.search(r"\$\{?(\w+)", expanded):
        needed = f"{file}: {value} needs the environment variable {missing[1]}, which is not set"
        raise ConfigError(f"{needed}; export it, or name another place with --set")
    return expanded
