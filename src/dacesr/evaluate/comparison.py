"""Arms side by side: means over pictures, and paired differences from the first arm with their intervals.

A picture's score is averaged over the seeds first. Intervals say what other pictures would change, not other seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dacesr.evaluate.scores import Score
from dacesr.evaluate.statistics import Interval, bootstrap
from dacesr.evaluate.tables import Table

METRICS = {"psnr_y": ("PSNR-Y", 3), "lpips": ("LPIPS", 4)}  # title and digits
RESAMPLING = 0  # seed of the bootstrap

Scores = Mapping[tuple[int, str], Sequence[Score]]
"""Of each seed and arm that was measured, all on the same pictures."""


class Cell(NamedTuple):
    """What is known of an arm in a degradation space, in one metric.

    Attributes:
        pictures: How many.
        mean: Over them.
        by_seed: The same for each seed.
        difference: From the first arm, over the seeds that both have; None for the first arm itself.
        difference_by_seed: The mean difference for each of these seeds.
    """

    pictures: int
    mean: float
    by_seed: dict[int, float]
    difference: Interval | None
    difference_by_seed: dict[int, float]


def compare(scores: Scores, arms: Sequence[str], space: str, metric: str) -> dict[str, Cell]:
    """The cells of arms in one space, each arm compared with the first of `arms`; arms without scores are left out.

    Raises:
        ValueError: runs were measured on different pictures.
    """
    values = {arm: _values(scores, arm, space, metric) for arm in arms}
    first = values[arms[0]]
    cells = {}
    for arm, by_seed in values.items():
        if not by_seed:
            continue
        common = [seed for seed in by_seed if seed in first and arm != arms[0]]
        differences = {seed: by_seed[seed] - first[seed] for seed in common}
        interval = None
        if differences:
            paired = torch.stack(list(differences.values())).mean(0)
            interval = bootstrap(paired, generator=torch.Generator().manual_seed(RESAMPLING))
        stacked = torch.stack(list(by_seed.values()))  # (seeds, pictures)
        cells[arm] = Cell(stacked.shape[1], stacked.mean().item(), _means(by_seed), interval, _means(differences))
    return cells


def _values(scores: Scores, arm: str, space: str, metric: str) -> dict[int, Tensor]:
    """For each seed of an arm what was measured, (pictures,), in the order of the pictures' names."""
    found, names = {}, None
    for (seed, name), measured in scores.items():
        rows = {(one.set, one.picture): one.values.get(metric) for one in measured if one.space == space}
        if names not in (None, sorted(rows)):
            raise ValueError(f"seed {seed} of {name} was measured on other pictures than the others")
        names = sorted(rows)
        if name == arm and names and None not in rows.values():
            found[seed] = torch.tensor([rows[key] for key in names], dtype=torch.float64)
    return found


def _means(values: Mapping[int, Tensor]) -> dict[int, float]:
    return {seed: value.mean().item() for seed, value in values.items()}


# --- tables


def tabulate(title: str, scores: Scores, arms: Sequence[str], spaces: Sequence[str]) -> list[Table]:
    """A table for each metric that was measured: arms by spaces."""
    tables = []
    for metric, (name, digits) in METRICS.items():
        columns = [compare(scores, arms, space, metric) for space in spaces]
        rows = [[arm, *(_text(column[arm], digits) for column in columns)] for arm in columns[0]]
        if rows:
            counts = {column[row[0]].pictures for column in columns for row in rows}
            about = f"{title}: {name} of {', '.join(map(str, counts))} pictures"
            tables.append(Table(about, ["arm", *spaces], rows))
    return tables


def _text(cell: Cell, digits: int) -> str:
    """The mean, its range over seeds, and below it the difference; * marks an interval without 0."""
    lines = [f"{cell.mean:.{digits}f}"]
    if len(cell.by_seed) > 1:
        lines[0] += f" ({min(cell.by_seed.values()):.{digits}f} to {max(cell.by_seed.values()):.{digits}f})"
    if cell.difference is not None:
        lines.append(cell.difference.text(digits))
    if len(cell.difference_by_seed) > 1:
        lines.append("seeds " + ", ".join(f"{value:+.{digits}f}" for value in cell.difference_by_seed.values()))
    return "\n".join(lines)


def as_json(scores: Scores, arms: Sequence[str], spaces: Sequence[str]) -> dict[str, Any]:
    """The cells of a table by metric, space and arm."""
    return {
        metric: {
            space: {arm: _facts(cell) for arm, cell in compare(scores, arms, space, metric).items()} for space in spaces
        }
        for metric in METRICS
    }


def _facts(cell: Cell) -> dict[str, Any]:
    return {**cell._asdict(), "difference": cell.difference._asdict() if cell.difference else None}
