"""Activation maps: means over the channels of a network's features after each of its stages (DACESR Fig. 8).

    h, w  sides of the input

A column of the figure is a `Way`: a network, and what conditions it. How much of the picture's structure survives a
degradation is the Pearson correlation of a map with that of the clean picture, at the same stage, in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from dacesr.analysis.modulations import rms, with_extractor, without_modulation
from dacesr.analysis.stages import SHOWN, pick, run, stages_of
from dacesr.analysis.versions import CLEAN
from dacesr.conditioning import Guided, Network
from dacesr.config import RestorerConfig
from dacesr.evaluate.tables import Table, as_csv
from dacesr.nets.extractor import Extractor
from dacesr.taggerfile import load_extractor
from dacesr.weightfiles import recognition_names

OWN, OF_CLEAN, NONE, OTHER = "own", "clean", "none", "other"
BY_OWN = {OWN, OF_CLEAN, OTHER}  # those that take a network's own extractor
PAPER = ("lite-ram", "lite-dape")  # Fig. 8 shows them beside the extractor that the network was trained with
NOTES = """r: Pearson correlation of a map with that of the clean picture, mean over the stages shown; 1: all of its
structure is there. change: RMS difference from the first condition's map, in standard deviations of that map, the
largest of all stages and degradations; near 0: the columns look alike because they are.
"""

See = Callable[[Tensor, Tensor], Tensor | None]
"""(picture, clean picture), each (1, 3, h, w) -> a condition (1, t, width), or None."""


@dataclass(frozen=True)
class Way:
    """A network and what conditions it.

    Attributes:
        model: What the network is called.
        condition: What conditions it, as figures name it; empty where nothing can.
        net: The network.
        see: What it is conditioned on.
    """

    model: str
    condition: str
    net: Network
    see: See


class Activation(NamedTuple):
    """One map, and what it is like.

    Attributes:
        version: The degradation of the input, or "clean".
        model: What the network is called.
        condition: What conditions it.
        stage: Where in the network.
        values: (h, w), on the CPU.
        correlation: Pearson's, with the map of the clean picture; None where one of the two is constant.
        change: RMS difference from the map with the model's first condition, in standard deviations of that map; None
            where it is constant.
    """

    version: str
    model: str
    condition: str
    stage: str
    values: Tensor
    correlation: float | None
    change: float | None


# --- ways


def find_ways(
    subjects: Mapping[str, Guided], conditions: Sequence[str] | None = None, *, other: Tensor | None = None
) -> list[Way]:
    """What the figure's columns are, from left to right.

    Args:
        subjects: Networks by name.
        conditions: Of those that take one: `own`, what their extractor sees in the picture; `clean`, what it sees in
            the clean one; `none`, the modulation taken away; `other`, what it sees in `other`; or a bundled name, file
            or hub id of another extractor. Unless given: the bundled extractors of Fig. 8 and `own`, or where they
            aren't bundled or don't fit `own` and `none`; beside them `other`, if it is there. A network that comes
            without an extractor has no `own`, `clean` and `other`.
        other: Another picture, (1, 3, any, any) in [0, 1].

    Raises:
        ValueError: No network takes conditions and some are named, extractors or the other picture are missing, or an
            extractor can't be loaded or doesn't fit.
    """
    if (conditions or other is not None) and not any(map(_conditioned, subjects.values())):
        raise ValueError(f"{', '.join(subjects)}: no condition is taken, so there is none to choose")
    if OTHER in (conditions or ()) and other is None:
        raise ValueError(f"the condition {OTHER!r} needs another picture: give one with --other PHOTO")
    seen = [*(conditions or ()), *([] if other is None else [OTHER])]
    if BY_OWN & set(seen) and not any(guided.extractor for guided in subjects.values()):
        raise ValueError(f"{', '.join(subjects)}: no extractor comes with it, so name one with --condition")
    load = cache(load_extractor)  # each once, for all networks
    found = []
    for name, guided in subjects.items():
        config = _conditioned(guided)
        wanted = seen if conditions or config is None else [*_usual(config, load), *seen]
        chosen = dict.fromkeys(each for each in wanted if guided.extractor or each not in BY_OWN)
        if config is None or not (conditions or guided.extractor) or not chosen:
            found.append(Way(name, "", guided.net, lambda x, clean: None))
        else:
            found += [Way(name, *_condition(name, guided, each, load, other)) for each in chosen]
    names = [(way.model, way.condition) for way in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two extractors for {twice[0]} are called {twice[1]}: rename one of the files")
    return found


def _conditioned(guided: Guided) -> RestorerConfig | None:
    """The config of a network that takes a condition; None of others."""
    config = guided.config
    return config if isinstance(config, RestorerConfig) and config.modulation != "none" else None


def _usual(config: RestorerConfig, load: Callable[[str], Extractor]) -> tuple[str, ...]:
    """The conditions to show unless some are named."""
    fitting = (
        name in recognition_names() and load(name).condition_dim(config.condition) == config.condition_dim
        for name in PAPER
    )
    return (*PAPER, OWN) if all(fitting) else (OWN, NONE)


def _condition(
    model: str, guided: Guided, wanted: str, load: Callable[[str], Extractor], other: Tensor | None
) -> tuple[str, Network, See]:
    """What figures call a condition, the network that takes it, and what it is."""
    if wanted == NONE:
        return wanted, without_modulation(guided.net), lambda x, clean: None
    if wanted not in BY_OWN:
        another = with_extractor(guided, load(wanted), model, wanted)
        return _short(wanted), guided.net, lambda x, clean: another.condition(x)
    if other is not None and wanted == OTHER:
        seen = guided.condition(other)
        return wanted, guided.net, lambda x, clean: seen
    return wanted, guided.net, lambda x, clean: guided.condition(clean if wanted == OF_CLEAN else x)


def _short(source: str) -> str:
    return Path(source).stem if Path(source).is_file() else source


# --- maps


def activations(
    ways: Sequence[Way],
    versions: Mapping[str, Tensor],
    clean: Tensor,
    *,
    stages: int = SHOWN,
    advance: Callable[[int], None] | None = None,
) -> list[Activation]:
    """Maps of all ways for all versions of a picture.

    Args:
        ways: What looks at it.
        versions: By their names (1, 3, h, w) in [0, 1], on the networks' device.
        clean: The picture itself, likewise.
        stages: Of each network, at most; at even distances, the last among them.
        advance: Told of each version that was done in each way.

    Returns:
        By ways, then versions, then stages.

    Raises:
        ValueError: There is no stage to show.
    """
    found: list[Activation] = []
    first: dict[tuple[str, str, str], Tensor] = {}  # the map with a model's first condition
    for way in ways:
        references = activation_maps(way, clean, clean, stages=stages)
        for version, x in versions.items():
            maps = references if version == CLEAN else activation_maps(way, x, clean, stages=stages)
            for stage, values in maps.items():
                base = first.setdefault((way.model, version, stage), values)
                numbers = correlation(values, references[stage]), _difference(values, base)
                found.append(Activation(version, way.model, way.condition, stage, values, *numbers))
            if advance:
                advance(1)
    return found


def activation_maps(way: Way, x: Tensor, clean: Tensor, *, stages: int = SHOWN) -> dict[str, Tensor]:
    """The mean over channels at each stage, (h, w) by the stage's name.

    Args:
        way: Network and what conditions it.
        x: (1, 3, h, w) in [0, 1].
        clean: The same before it was degraded.
        stages: As for `activations`.
    """
    chosen = pick(stages_of(way.net), stages)
    _, maps = run(way.net, x, way.see(x, clean), chosen, lambda stage, features: features.mean(1))
    return {stage: values[0] for stage, values in maps.items()}


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's of two tensors of one shape; None where one is constant."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    size = float(a.norm() * b.norm())
    return float((a * b).sum()) / size if size else None


def _difference(values: Tensor, base: Tensor) -> float | None:
    deviation = float(base.double().std(correction=0))
    return rms(values.double() - base.double()) / deviation if deviation else None


# --- tables


def activations_csv(found: Sequence[Activation]) -> str:
    """A line for each map, with a header."""
    header = ("degradation", "model", "condition", "stage", "mean", "std", "correlation_with_clean", "change")
    rows = []
    for one in found:
        values = one.values.double()
        numbers = float(values.mean()), float(values.std(correction=0)), one.correlation, one.change
        rows.append([*one[:4], *("" if number is None else f"{number:.6g}" for number in numbers)])
    return as_csv(header, rows)


def summary(found: Sequence[Activation]) -> Table:
    """For each way how much structure survives each degradation, and how much it differs from the model's first way."""
    versions = [version for version in dict.fromkeys(one.version for one in found) if version != CLEAN]
    head = ["model", "condition", *(f"r, {version}" for version in versions), "change"]
    rows = []
    ways = dict.fromkeys((one.model, one.condition) for one in found)
    first = dict(reversed(ways))  # of each model
    for model, condition in ways:
        own = [one for one in found if (one.model, one.condition) == (model, condition)]
        means = [_mean([one.correlation for one in own if one.version == version]) for version in versions]
        changes = [one.change for one in own if one.change is not None]
        compared = changes and condition != first[model]
        rows.append([model, condition, *means, f"{max(changes):.4f}" if compared else ""])
    return Table("Activation maps", head, rows, names=2)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else ""
