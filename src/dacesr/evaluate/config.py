"""An ablation: variants of one training config, trained equally long from the same start, and compared.

- arm: a variant: changes to the config, as `--set` takes them
- run: the training of one arm with one seed, in OUT/SEED/ARM
- table: arms that are compared with the first of them
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from dacesr.config import Config, NetworkConfig, explain
from dacesr.degradation.recipe import SPACES
from dacesr.train.config import ConfigError, RestorerTraining, Seed, Strings, make_config, read_config, with_changes

ArmName = Annotated[str, Field(pattern=r"^\w[\w-]*$")]
MODULATION = {"modulation", "modulate", "condition", "condition_dim"}  # fields in which arms may differ at the start
SHARED = ("seed", "iterations", "output")  # fields in which they may not
START = "start.safetensors"  # the weights from which all arms of a seed start


class AblationConfig(Config):
    """The table `[ablation]` of a training config."""

    arms: dict[ArmName, Strings] = Field(min_length=1, description="variants: changes as --set takes them")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = Field((0,), description="each trains all")
    tables: dict[str, Strings] = Field({}, description="arms by title, the first compared with; none: one of all arms")
    sets: Strings = Field(min_length=1, description="folders of sharp pictures")
    spaces: Strings = Field(("bicubic", "level1", "level2", "level3"), min_length=1, description="degradation spaces")
    limit: PositiveInt | None = Field(None, description="use the first pictures of each set only")
    crop: PositiveInt | None = Field(None, description="use the centre of pictures, at most so many pixels a side")
    features: str | None = Field(None, description="weight file of the network under LPIPS")
    lpips: str | None = Field(None, description="LPIPS's linear weights for that network")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for title, arms in self.tables.items():
            unknown = [name for name in arms if name not in self.arms]
            if unknown or not arms:
                raise ValueError(
                    f"tables: {title!r} should name some of {', '.join(self.arms)}, not {', '.join(unknown) or 'none'}"
                )
        unknown = [name for name in self.spaces if name not in SPACES]
        if unknown:
            raise ValueError(f"spaces should be some of {', '.join(SPACES)}, not {', '.join(unknown)}")
        for field in ("seeds", "sets", "spaces"):
            if len(set(getattr(self, field))) < len(getattr(self, field)):
                raise ValueError(f"{field} should be named once each")
        if (self.lpips is None) != (self.features is None):
            raise ValueError("lpips and features go together")
        return self


class _Table(Config):
    """Puts the table's name before those of its fields in errors."""

    ablation: AblationConfig


@dataclass(frozen=True)
class Ablation:
    """What a file asks for.

    Attributes:
        file: It.
        output: Folder of all runs and tables.
        config: The table `[ablation]`.
        runs: The training of each seed and arm, in order.
    """

    file: Path
    output: Path
    config: AblationConfig
    runs: dict[tuple[int, str], RestorerTraining]

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Arms by title of the table."""
        return self.config.tables or {"Arms": tuple(self.config.arms)}

    def title(self, name: str) -> str:
        """The title of a table from its first words, such as `Table IV` for `Table IV: condition`.

        Raises:
            ConfigError: there is no such table.
        """
        found = next((title for title in self.tables if title == name or title.startswith(f"{name}:")), None)
        if found is None:
            raise ConfigError(f"{self.file}: ablation.tables has no {name}, only {', '.join(self.tables)}")
        return found

    @property
    def scale(self) -> int:
        """Of all networks."""
        return next(iter(self.runs.values())).network.scale


def load_ablation(
    path: str | os.PathLike[str], changes: Sequence[str] = (), output: str | os.PathLike[str] | None = None
) -> Ablation:
    """Read an ablation: a config of `dacesr train restorer` with a table `[ablation]`.

    Args:
        path: TOML file.
        changes: `key=value` for all arms, which an arm's own changes follow; `ablation.limit=3` reaches the table.
        output: Folder; the file's `output`, or out/evaluate/NAME of the file, unless given.

    Raises:
        ConfigError: the file is missing, no TOML, or a field of it or of an arm is unknown or impossible.
    """
    file = Path(path)
    content = read_config(file, changes)
    if "ablation" not in content:
        raise ConfigError(f"{file}: ablation: the table is missing; it says what is to be compared")
    try:
        config = _Table.model_validate({"ablation": content.pop("ablation")}).ablation
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error)}") from error
    folder = Path(output or content.get("output") or Path("out", "evaluate", file.stem))
    base = make_config(content, file)
    runs = {
        (seed, arm): _run(content, file, base, arm, list(config.arms[arm]), folder / str(seed) / arm)
        for seed in config.seeds
        for arm in config.arms
    }
    return Ablation(file, folder, config, runs)


def _run(
    content: dict[str, Any], file: Path, base: RestorerTraining, arm: str, changes: list[str], folder: Path
) -> RestorerTraining:
    """The training of an arm in a folder OUT/SEED/ARM."""
    try:
        own = make_config(with_changes(content, file, changes), file)
    except ConfigError as error:
        raise ConfigError(f"{file}: ablation.arms.{arm}: {str(error).removeprefix(f'{file}: ')}") from error
    if different := [field for field in SHARED if getattr(own, field) != getattr(base, field)]:
        raise ConfigError(f"{file}: ablation.arms.{arm} changes {different[0]}, which all arms share")
    if own.network.scale != base.network.scale:
        raise ConfigError(f"{file}: ablation.arms.{arm} changes network.scale, which all arms share")
    changed: dict[str, Any] = {"seed": int(folder.parent.name), "output": str(folder)}
    if own.init is None and bare(own.network) == bare(base.network):
        changed["init"] = str(folder.parent / START)
    return own.model_copy(update=changed)


def bare(network: NetworkConfig) -> NetworkConfig:
    """The same network without modulation."""
    return type(network).model_validate(network.model_dump(exclude=MODULATION))
