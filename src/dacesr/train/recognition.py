"""What a run that trains a tagger or an extractor can be told."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from dacesr.config import TAGGER_PRESETS, Config, TaggerConfig, explain
from dacesr.degradation.recipe import SPACES
from dacesr.nets.extractor import SMALLEST
from dacesr.train.config import ConfigError, RunConfig, Seed, Share

Shares = Annotated[tuple[Share, Share], Field(strict=False)]
Sides = Annotated[tuple[PositiveFloat, PositiveFloat], Field(strict=False)]


class LabelledConfig(Config):
    """A labelled set and what is done to its pictures. Paths may hold `$VARIABLES` of the environment."""

    source: str = Field(description="folder with a sub-folder for each tag, or CSV with file, split and tags (a|b)")
    files: str | None = Field(None, description="tar or folder that holds the files of the CSV; beside it unless given")
    minimum: PositiveInt = Field(1, description="use the tags that so many pictures have")
    held_out: Share = Field(0.1, description="share of the training pictures that only thresholds are set on")
    size: PositiveInt = Field(96, description="sides of what the network is shown while it trains, in pixels")
    batch: PositiveInt = Field(64, description="pictures a step, in each process")
    balance: Share = Field(0.5, description="0: all pictures alike; 1: those of rare tags as often as of frequent ones")
    area: Shares = Field((0.3, 1.0), description="share of the picture that a crop takes")
    aspect: Sides = Field((0.75, 1.3333), description="width over height of a crop before it is squashed")
    jitter: Share = Field(0.3, description="strength of the changes of brightness, contrast and saturation")
    grayscale: Share = Field(0.05, description="share of pictures that lose their colours")
    mixup: NonNegativeFloat = Field(0.2, description="parameter of the Beta that mixes pictures and labels; 0: none")


class AsymmetricConfig(Config):
    """The asymmetric loss: how little easy tags count, and below which probability an absent one doesn't at all."""

    gamma_negative: NonNegativeFloat = Field(4.0, description="focus on absent tags that look present")
    gamma_positive: NonNegativeFloat = Field(0.0, description="focus on present tags that look absent")
    margin: Share = Field(0.05, description="probability taken off absent tags")


class TeacherConfig(Config):
    """A network whose feature maps the tokens learn to tell as well."""

    features: str | None = Field(None, description="weight file of SqueezeNet v1.1 or VGG19; none: labels only")
    weight: PositiveFloat = Field(1.0, description="of its term beside the labels'")
    size: PositiveInt = Field(160, description="sides of what the teacher is shown, in pixels")


class TaggerValidation(Config):
    """When and how the tagger is measured."""

    every: PositiveInt = Field(1000, description="iterations between validations")
    batch: PositiveInt = Field(32, description="pictures at a time")


class TaggerTraining(RunConfig):
    """A run of `dacesr train tagger`."""

    network: TaggerConfig = Field(TaggerConfig.preset("lite"), description="preset and changes; tags are the data's")
    data: LabelledConfig = Field(description="the labelled set")
    loss: AsymmetricConfig = Field(AsymmetricConfig.model_validate({}), description="of the tags")
    teacher: TeacherConfig = Field(TeacherConfig.model_validate({}), description="a second target for the tokens")
    validation: TaggerValidation = Field(TaggerValidation.model_validate({}), description="measures while training")

    @classmethod
    def network_of(cls, fields: dict[str, Any], file: Path) -> TaggerConfig:
        """A tagger from its table: `preset` and changes."""
        fields = dict(fields)
        preset = fields.pop("preset", "lite")
        if preset not in list(TAGGER_PRESETS):
            raise ConfigError(f"{file}: network.preset should be one of {', '.join(TAGGER_PRESETS)}")
        try:
            return TaggerConfig(**{**TAGGER_PRESETS[preset], **fields})
        except ValidationError as error:
            raise ConfigError(f"{file}: network.{explain(error)}") from error

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.data.size % self.network.patch:
            raise ValueError(f"data.size {self.data.size} should be a multiple of the patch {self.network.patch}")
        return self


class RuinConfig(Config):
    """The sharp pictures of an extractor's run and how they are ruined. Paths may hold `$VARIABLES`."""

    source: str = Field(description="folder of pictures, searched with its subfolders, or a labelled CSV")
    files: str | None = Field(None, description="tar or folder that holds the files of a CSV; beside it unless given")
    split: Literal["train", "test"] = Field("train", description="pictures of the CSV, or folder in it, to train on")
    crop: PositiveInt = Field(512, description="sides of the sharp crop, in pixels")
    batch: PositiveInt = Field(8, description="pictures a step, in each process")
    scale: PositiveInt = Field(4, description="how many times smaller the ruined picture is")
    space: str = Field("realesrgan", description="degradation space, where there is no selection")
    selection: str | None = Field(None, description="file of ranked degradations, or `lite`")
    members: Literal["all", "mild", "severe"] = Field("all", description="which of the selection's degradations")

    @model_validator(mode="after")
    def _check_ruin(self) -> Self:
        if self.space not in SPACES:
            raise ValueError(f"space should be one of {', '.join(SPACES)}, not {self.space}")
        if self.members != "all" and self.selection is None:
            raise ValueError(f"members {self.members} takes a selection")
        if self.crop // self.scale < SMALLEST:
            raise ValueError(f"crop {self.crop} should be at least {SMALLEST} times the scale {self.scale}")
        return self


class ExtractorLoss(Config):
    """Weights of the two terms."""

    embedding: NonNegativeFloat = Field(1.0, description="MSE between the tokens of ruined and sharp picture (Eq. 7)")
    logits: NonNegativeFloat = Field(0.0, description="cross-entropy of the ruined picture's tags with the sharp one's")

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        if not self.embedding + self.logits:
            raise ValueError("one of embedding and logits should be above 0")
        return self


class LoraConfig(Config):
    """Low-rank updates of q and v in the encoder and of query and key in the tagging head."""

    r: PositiveInt = Field(8, description="rank")
    alpha: PositiveFloat = Field(1.0, description="the update is scaled by alpha / r")


class ExtractorValidation(Config):
    """When and on what the extractor is measured; pictures are ruined with fixed seeds."""

    every: PositiveInt = Field(500, description="iterations between validations")
    source: str | None = Field(
        None, description="folder, or labelled CSV: its split or sub-folder test; as data.source unless given"
    )
    images: PositiveInt = Field(50, description="pictures, at even distances in the list of all")
    crop: PositiveInt = Field(512, description="use the centre of pictures, at most so many pixels a side")
    seed: Seed = Field(0, description="of the degradations")


class ExtractorTraining(RunConfig):
    """A run of `dacesr train extractor`; `init` is an adapter to go on from."""

    tagger: str = Field(description="the frozen tagger that sees the sharp pictures, and the base of the LoRA")
    data: RuinConfig = Field(description="pictures and their degradation")
    loss: ExtractorLoss = Field(ExtractorLoss.model_validate({}), description="terms and their weights")
    lora: LoraConfig = Field(LoraConfig.model_validate({}), description="what is trained")
    validation: ExtractorValidation = Field(
        ExtractorValidation.model_validate({}), description="measures while training"
    )
