"""Example pictures with what extractors see in them, clean and ever more degraded (DACESR Fig. 1)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.analysis.recognition import CLASS, Condition
from dacesr.degradation.sweeps import SWEEPS
from dacesr.similarity import CleanReference, Recogniser
from dacesr.sources import sample_generator
from dacesr.train.selection import Selection

STEPS = 4  # degraded versions of an example


class Example(NamedTuple):
    """A picture, (3, h, w) in [0, 1], how it was degraded, and the tags each extractor gives it."""

    title: str
    picture: Tensor
    tags: dict[str, tuple[str, ...]]


class Strip(NamedTuple):
    """One picture from clean to severely degraded; `clean` are the reference's tags of the clean one."""

    clean: tuple[str, ...]
    examples: list[Example]


def show(
    extractors: Mapping[str, Recogniser],
    pictures: Mapping[str, Tensor],
    conditions: Sequence[Condition],
    *,
    reference: str,
    count: int = 2,
) -> list[Strip]:
    """Let extractors name the pictures in which the reference sees most.

    Args:
        extractors: By name, the reference among them.
        pictures: Clean ones by name, (3, h, w) in [0, 1] each.
        conditions: How to degrade them, the mildest first.
        reference: Names the clean pictures.
        count: How many pictures.
    """
    clean = CleanReference.of(extractors[reference], list(pictures.values()))
    order = sorted(range(len(pictures)), key=lambda place: (-len(clean.tags[place]), place))
    return [
        _strip(extractors, list(pictures.values())[place], clean.tags[place], conditions) for place in order[:count]
    ]


def _strip(
    extractors: Mapping[str, Recogniser], picture: Tensor, clean: tuple[str, ...], conditions: Sequence[Condition]
) -> Strip:
    versions = [("clean", picture)]
    for condition in conditions:
        generator = torch.Generator(picture.device).manual_seed(sample_generator(condition.seed, 0).initial_seed())
        versions.append((title(condition), condition.degrade(picture[None], generator)[0]))
    with torch.inference_mode():
        return Strip(
            clean,
            [
                Example(name, one, {own: it.names(it.recognise(one[None]).logits)[0] for own, it in extractors.items()})
                for name, one in versions
            ],
        )


def title(condition: Condition) -> str:
    """What a picture degraded so is called in a figure."""
    if condition.degradation != CLASS:
        unit = SWEEPS[condition.degradation].unit.partition(" ")[0]
        return f"{condition.degradation}, {unit} {condition.level:g}"
    return f"class {condition.level:g}" + {1: " (mild)", 4: " (severe)"}.get(int(condition.level), "")


def typical(conditions: Sequence[Condition], selection: Selection | None) -> list[Condition]:
    """Of conditions some that make an example: of each class the one in the middle of its ranking, else of blur."""
    if selection is None:
        blurs = [condition for condition in conditions if condition.degradation == "blur"]
        return [blurs[max((step + 1) * len(blurs) // STEPS - 1, 0)] for step in range(STEPS) if blurs]
    rank = {member.index: place for place, member in enumerate(selection.ranked)}
    found = []
    for severity in (1, 2, 3, 4):
        own = [c for c in conditions if c.degradation == CLASS and c.level == severity and c.member is not None]
        own.sort(key=lambda condition: rank[condition.member or 0])
        found += own[len(own) // 2 :][:1]
    return found
