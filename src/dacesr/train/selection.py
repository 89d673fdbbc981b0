"""Selections of degradations (DACESR Sec. III-B): the file that training draws mild or severe degradations from.

A degradation is a seed: with it, its parameters are drawn again for pictures of any size. `dacesr.train.ranking` makes
the file.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator
from torch import Tensor

from dacesr.config import Config, explain
from dacesr.degradation.recipe import SPACES, Degradation, carry_out, draw
from dacesr.tensorfile import write_whole
from dacesr.weightfiles import RECOGNITION, WEIGHTS

FORMAT = 1

Severity = Literal[1, 2, 3, 4]
Choice = Literal["all", "mild", "severe", 1, 2, 3, 4]
CHOICES: dict[Choice, tuple[Severity, ...]] = {
    "all": (1, 2, 3, 4),
    "mild": (1,),
    "severe": (4,),
    **{severity: (severity,) for severity in (1, 2, 3, 4)},
}


class SelectionError(ValueError):
    """A selection file that cannot be used, in one sentence that names it."""


class Settings(Config):
    """What scores depend on; runs with the same settings can go on from one another."""

    space: str
    scale: PositiveInt
    seed: int
    tagger: str = Field(description="as the caller names it")
    tagger_hash: str
    pictures: Annotated[tuple[str, ...], Field(strict=False)] = Field(description="names of the clean pictures")
    pictures_hash: str


class Member(Config):
    """One degradation of a selection.

    Attributes:
        index: Of its draw, from 0.
        seed: Decides its parameters, for pictures of any size.
        description: Of its steps, for a picture of 512 x 512.
        vector: DASR's numbers where the space has them, 4 digits.
        score: Mean Jaccard similarity over the pictures.
        cosine: Mean cosine similarity of the embeddings.
        severity: Class, 1 mild to 4 severe.
    """

    index: NonNegativeInt
    seed: NonNegativeInt
    description: str
    vector: Annotated[tuple[float, ...], Field(strict=False)] | None
    score: float = Field(ge=0, le=1)
    cosine: float = Field(ge=-1.001, le=1.001)
    severity: Severity


class Selection(Config):
    """Ranked degradations, the mildest first, and how they came about.

    Attributes:
        settings: What the scores depend on.
        tau1: Scores above it are mild; between classes 1 and 2 where these are quarters.
        tau2: Scores below it are severe; between classes 3 and 4 where these are quarters.
        ranked: The degradations.
    """

    format: Literal[1] = FORMAT
    settings: Settings
    tau1: float
    tau2: float
    ranked: Annotated[tuple[Member, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _check_space(self) -> Self:
        if self.settings.space not in SPACES:
            raise ValueError(f"no degradation space {self.settings.space!r}; there are {', '.join(SPACES)}")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a selection file, or the bundled one of a name such as `lite`.

        Raises:
            SelectionError: The file is missing or is no selection; the sentence names it and the field at fault.
        """
        bundled = WEIGHTS / RECOGNITION / f"{path}.selection.json"
        place = bundled if bundled.is_file() and not Path(path).exists() else Path(path)
        try:
            return cls.model_validate_json(place.read_bytes())
        except OSError as error:
            raise SelectionError(f"the selection {path} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            raise SelectionError(f"{path} is no selection file: {explain(error)[:300]}") from error

    def save(self, path: str | Path) -> None:
        """Write the file as a whole, a line for each member.

        Raises:
            OSError: It cannot be written.
        """
        head = self.model_dump(mode="json", exclude={"ranked"})
        lines = ",\n".join(member.model_dump_json() for member in self.ranked)
        text = json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "ranked": [\n{lines}\n]\n}}\n'
        write_whole(Path(path), text.encode())

    def members(self, choice: Choice = "all") -> tuple[Member, ...]:
        """The degradations of a class, or of all; the mildest first.

        Raises:
            ValueError: There is no such choice, or no degradation is of that class.
        """
        if choice not in CHOICES:
            raise ValueError(f"no class {choice!r} of degradations; there are {', '.join(map(str, CHOICES))}")
        found = tuple(member for member in self.ranked if member.severity in CHOICES[choice])
        if not found:
            raise ValueError(f"the selection holds no degradation of the class {choice}")
        return found

    def draw(self, member: Member, height: int, width: int) -> Degradation:
        """The parameters of a member for pictures of height x width."""
        generator = torch.Generator().manual_seed(member.seed)
        return draw(self.settings.space, height, width, self.settings.scale, generator)

    def degrade(self, x: Tensor, choice: Choice, generators: Sequence[torch.Generator]) -> Tensor:
        """Degrade each picture by a member drawn for it.

        Args:
            x: (b, 3, h, w) in [0, 1].
            choice: Which members are drawn from.
            generators: One per picture: decides the member and the noise.

        Returns:
            (b, 3, h // scale, w // scale) in [0, 1], of 8-bit values.

        Raises:
            ValueError: As `members`, or another number of generators than of pictures.
        """
        members = self.members(choice)
        height, width = x.shape[-2:]
        places = [int(torch.randint(len(members), (), generator=each, device=each.device)) for each in generators]
        return carry_out(x, [self.draw(members[place], height, width) for place in places], generators)
