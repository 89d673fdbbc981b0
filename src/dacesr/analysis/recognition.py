"""How much extractors still see in degraded pictures (DACESR Fig. 1 and 2): rows of all pictures, means, examples.

The first extractor is the reference: it names the clean pictures, and what the others (and it) find in degraded ones is
held against that, by tags (Eq. 1, 2) and by embeddings.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.degradation.recipe import carry_out
from dacesr.degradation.sweeps import SWEEPS, Sweep
from dacesr.evaluate.tables import as_csv
from dacesr.similarity import CleanReference, Degrade, Recogniser, similarity
from dacesr.train.ranking import member_seed
from dacesr.train.selection import Member, Selection

CLASS = "class"  # the degradation whose levels are the four classes of a selection
RESAMPLES = 1000
CONFIDENCE = 0.95


class Condition(NamedTuple):
    """One way to degrade pictures.

    Attributes:
        degradation: Name of a sweep, or `CLASS`.
        level: Of the sweep, or the class.
        member: Index of the selection's member; None in sweeps.
        degrade: Does it.
        seed: Decides the noise.
    """

    degradation: str
    level: float
    member: int | None
    degrade: Degrade
    seed: int


class Row(NamedTuple):
    """What one extractor found in one degraded picture: similarities with the reference's clean one."""

    extractor: str
    degradation: str
    level: float
    member: int | None
    picture: str
    jaccard: float
    cosine: float


class Mean(NamedTuple):
    """A mean over pictures and its 95 % interval."""

    value: float
    low: float
    high: float


class Summary(NamedTuple):
    """An extractor at one level: means over `pictures` pictures, and the mean difference to the reference's."""

    extractor: str
    degradation: str
    level: float
    pictures: int
    jaccard: Mean
    cosine: Mean
    jaccard_gain: Mean
    cosine_gain: Mean


METRICS = ("jaccard", "cosine")


# --- measuring


def sweep_conditions(sweeps: Mapping[str, Sweep] = SWEEPS, *, seed: int = 0) -> list[Condition]:
    """Every level of the sweeps; noise is the same pattern at all levels."""

    def at(sweep: Sweep, level: float) -> Degrade:
        return lambda x, generator: sweep.apply(x, level, generator)

    return [
        Condition(name, level, None, at(sweep, level), seed) for name, sweep in sweeps.items() for level in sweep.levels
    ]


def class_conditions(selection: Selection, *, per_class: int | None = 10, seed: int = 0) -> list[Condition]:
    """Degradations of the four classes; classes that the selection leaves empty are left out.

    Args:
        selection: Where they are.
        per_class: How many to draw of each class, or None for all.
        seed: Decides the draw, and the noise.
    """
    conditions = []
    for severity in (1, 2, 3, 4):
        members = [member for member in selection.ranked if member.severity == severity]
        if per_class is not None and per_class < len(members):
            order = torch.randperm(len(members), generator=torch.Generator().manual_seed(member_seed(seed, severity)))
            members = [members[place] for place in sorted(order[:per_class].tolist())]
        conditions += [_of_member(selection, member, seed) for member in members]
    return conditions


def _of_member(selection: Selection, member: Member, seed: int) -> Condition:
    noise = member_seed(seed, member.index)
    return Condition(CLASS, float(member.severity), member.index, partial(_apply_member, selection, member), noise)


def _apply_member(selection: Selection, member: Member, x: Tensor, generator: torch.Generator) -> Tensor:
    return carry_out(x, [selection.draw(member, *x.shape[-2:])], [generator])


def measure(
    extractors: Mapping[str, Recogniser],
    pictures: Mapping[str, Tensor],
    conditions: Sequence[Condition],
    *,
    advance: Callable[[], None] | None = None,
) -> list[Row]:
    """Degrade all pictures in every way, and let all extractors see them.

    Args:
        extractors: By name; the first is the reference.
        pictures: Clean ones by name, (3, h, w) in [0, 1] each, on the device of the extractors.
        conditions: The ways.
        advance: Called after each.

    Returns:
        A row for each condition, extractor and picture, in this order.

    Raises:
        ValueError: There is no extractor or picture, or the extractors' embeddings differ in shape.
    """
    if not extractors:
        raise ValueError("there is no extractor to measure")
    clean = list(pictures.values())
    reference = CleanReference.of(next(iter(extractors.values())), clean)
    rows = []
    for condition in conditions:
        found = similarity(reference, extractors, clean, condition.degrade, seed=condition.seed)
        for extractor, (index, cosine) in found.items():
            for picture, *values in zip(pictures, index.tolist(), cosine.tolist(), strict=True):
                rows.append(Row(extractor, *condition[:3], picture, *values))
        if advance is not None:
            advance()
    return rows


# --- means and their intervals


def summarise(rows: Sequence[Row], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Summary]:
    """Means over pictures with intervals from the bootstrap; of a class first over its degradations.

    Every mean is taken of the same resampled pictures, and differences are of the same picture. (So an interval says
    what other pictures would change, not other degradations.)

    Args:
        rows: From `measure`; the extractor of the first is the reference.
        seed: Decides the resampling.
        resamples: How many.
    """
    if not rows:
        return []
    pictures = list(dict.fromkeys(row.picture for row in rows))
    place = {name: i for i, name in enumerate(pictures)}
    sums: dict[tuple[str, str, float], Tensor] = {}  # (pictures, 3): both similarities and the number of rows
    for row in rows:
        key = row.extractor, row.degradation, row.level
        table = sums.setdefault(key, torch.zeros(len(pictures), 3, dtype=torch.float64))
        table[place[row.picture]] += torch.tensor((row.jaccard, row.cosine, 1), dtype=torch.float64)
    means = {key: table[:, :2] / table[:, 2:] for key, table in sums.items()}
    drawn = torch.randint(len(pictures), (resamples, len(pictures)), generator=torch.Generator().manual_seed(seed))
    found = []
    for (extractor, degradation, level), values in means.items():
        gain = values - means[rows[0].extractor, degradation, level]
        intervals = [_mean(part, drawn) for part in (*values.T, *gain.T)]
        found.append(Summary(extractor, degradation, level, len(pictures), *intervals))
    return found


def _mean(values: Tensor, drawn: Tensor) -> Mean:
    tail = (1 - CONFIDENCE) / 2
    low, high = values[drawn].mean(1).quantile(values.new_tensor((tail, 1 - tail))).tolist()
    return Mean(values.mean().item(), low, high)


# --- tables


def rows_csv(rows: Sequence[Row]) -> str:
    """All rows, with a header."""
    return as_csv(Row._fields, ([*row[:3], "" if row.member is None else row.member, *row[4:]] for row in rows))


def summary_csv(summaries: Sequence[Summary]) -> str:
    """All means, with a header; `_low` and `_high` are the interval."""
    means = Summary._fields[4:]
    header = [*Summary._fields[:4], *(f"{name}{end}" for name in means for end in ("", "_low", "_high"))]
    return as_csv(header, ([*one[:4], *(f"{value:.6f}" for mean in one[4:] for value in mean)] for one in summaries))


def markdown(summaries: Sequence[Summary]) -> str:
    """Tables of all levels: of each metric the means, then the differences to the reference."""
    if not summaries:
        return ""
    names = list(dict.fromkeys(one.extractor for one in summaries))
    by_place = {(one.extractor, one.degradation, one.level): one for one in summaries}
    parts = [
        f"Means over {summaries[0].pictures} pictures and their 95 % intervals. The reference, which names the clean "
        f"pictures, is {names[0]}; differences to it are of the same picture, in bold where their interval excludes 0."
    ]
    for degradation in dict.fromkeys(one.degradation for one in summaries):
        levels = list(dict.fromkeys(one.level for one in summaries if one.degradation == degradation))
        for field in METRICS:
            for part, columns in ((field, names), (f"{field}_gain", names[1:])):
                if columns:
                    cells = [[getattr(by_place[name, degradation, at], part) for name in columns] for at in levels]
                    parts.append(_table(degradation, part, levels, columns, cells))
    return "\n\n".join(parts) + "\n"


def _table(
    degradation: str, part: str, levels: Sequence[float], columns: Sequence[str], cells: Sequence[Sequence[Mean]]
) -> str:
    gain = part.endswith("_gain")
    title = f"{part.removesuffix('_gain')}, difference to the reference" if gain else part
    unit = f" ({SWEEPS[degradation].unit})" if degradation in SWEEPS else " (1 mild to 4 severe)"
    lines = [f"**{degradation}{unit}: {title}**", "", f"| {degradation} | {' | '.join(columns)} |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for level, row in zip(levels, cells, strict=True):
        lines.append(f"| {level:g} | {' | '.join(_cell(mean, gain) for mean in row)} |")
    return "\n".join(lines)


def _cell(mean: Mean, gain: bool) -> str:
    if not gain:
        return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
    text = f"{mean.value:+.3f}"
    sure = mean.low > 0 or mean.high < 0
    return f"{f'**{text}**' if sure else text} ({mean.low:+.3f} to {mean.high:+.3f})"
