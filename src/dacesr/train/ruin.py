"""The data of an extractor's training: sharp pictures, those that are held out, and how they are ruined."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dacesr.augmentation import LabelledCrops
from dacesr.crops import list_pictures
from dacesr.dataset import Photographs, Source
from dacesr.degradation import recipe
from dacesr.image import read
from dacesr.labelled import LabelledSet
from dacesr.nets.extractor import SMALLEST
from dacesr.train.config import ConfigError
from dacesr.train.recognition import ExtractorTraining, RuinConfig
from dacesr.train.selection import Choice, Selection, Severity

T = TypeVar("T")

HELD_OUT = "test"  # the split that is measured on


class Ruin:
    """Degrades every picture in its own way: as drawn from a space, or by a member of a selection.

    Attributes:
        classes: What is measured apart, by name: the selection's classes, or the space as a whole.
    """

    def __init__(self, config: RuinConfig) -> None:
        """Read the selection if there is one.

        Raises:
            ValueError: It cannot be used, or is for another scale.
        """
        self._space, self._scale = config.space, config.scale
        self._members: Choice = config.members
        self._selection = None if config.selection is None else Selection.load(config.selection)
        self.classes: Mapping[str, Choice] = {config.space: "all"}
        if self._selection is not None:
            if self._selection.settings.scale != config.scale:
                made = self._selection.settings.scale
                raise ConfigError(
                    f"data.scale is {config.scale}, and {config.selection} was made with a scale of {made}"
                )
            self._selection.members(self._members)
            severities: list[Severity] = sorted({member.severity for member in self._selection.ranked})
            self.classes = {f"class{severity}": severity for severity in severities}

    def __call__(self, x: Tensor, generators: Sequence[torch.Generator], choice: Choice | None = None) -> Tensor:
        """Make small, ruined pictures of sharp ones.

        Args:
            x: (b, 3, h, w) in [0, 1].
            generators: One for each.
            choice: Which of the selection's degradations; the config's unless given.

        Returns:
            (b, 3, h // scale, w // scale) in [0, 1].
        """
        if self._selection is None:
            return recipe.degrade(x, self._space, generators, self._scale)[0]
        return self._selection.degrade(x, self._members if choice is None else choice, generators)


def open_source(data: RuinConfig, warn: Callable[[str], None]) -> Source:
    """The sharp pictures to train on.

    Raises:
        ValueError: They are missing.
    """
    path = Path(data.source)
    if path.is_dir():
        return Photographs([_part(path, data.split)], warn=warn)
    return LabelledCrops(LabelledSet.open(path, split=data.split, files=data.files, warn=warn))


def held_out(config: ExtractorTraining, warn: Callable[[str], None]) -> list[Tensor]:
    """The pictures (3, h, w) in [0, 1] to measure on: centres, at even distances in the list of all.

    Raises:
        ValueError: They are missing, or one is too small to recognise anything once it is ruined.
    """
    chosen = config.validation
    path = Path(chosen.source or config.data.source)
    if path.is_dir():
        folder = _part(path, HELD_OUT)
        paths = _spread(list_pictures(folder), chosen.images)
        if not paths:
            raise ConfigError(f"{folder} holds no picture to measure on")
        pictures = {str(each): read(each)[0] for each in paths}
    else:
        files = config.data.files if chosen.source is None else None
        held = LabelledSet.open(path, split=HELD_OUT, files=files, warn=warn)
        pictures = {held.names[i]: held.pictures[i].float() / 255 for i in _spread(range(len(held)), chosen.images)}
    for name, picture in pictures.items():
        if min(picture.shape[1:]) // config.data.scale < SMALLEST:
            raise ConfigError(f"{name} is too small to recognise anything at 1/{config.data.scale} of its size")
    return [_centre(picture, chosen.crop) for picture in pictures.values()]


def _part(folder: Path, split: str) -> Path:
    """The sub-folder of a split, where a folder has one."""
    return folder / split if (folder / split).is_dir() else folder


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, at even distances."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _centre(picture: Tensor, side: int) -> Tensor:
    """At most `side` pixels a side."""
    height, width = (min(side, length) for length in picture.shape[1:])
    top, left = (picture.shape[1] - height) // 2, (picture.shape[2] - width) // 2
    return picture[:, top : top + height, left : left + width]
