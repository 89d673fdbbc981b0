"""What was measured, as means with intervals, as tables in the manner of the paper's Table I, and as CSV and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from dacesr.evaluate.benchmark import MEGAPIXELS, SECONDS, Result
from dacesr.evaluate.comparison import RESAMPLING
from dacesr.evaluate.measures import LPIPS_ORDER, Measure
from dacesr.evaluate.statistics import Interval, bootstrap
from dacesr.evaluate.tables import Cell, Table, as_csv, as_markdown, latex_file, ranks, write_files

COST = "seconds_per_megapixel"
MAIN = ("psnr_y", *LPIPS_ORDER)  # what the first table of a set shows, as in the paper; a second one has the others
NOTES = """Means over pictures; in brackets how many of them, where a method could not do all. The best of a column is
bold; the second is underlined, in Markdown in italics. Intervals hold the mean of other pictures like these with 95 %
confidence (bootstrap).
"""


class Mean(NamedTuple):
    """A measure's mean over the pictures of a set, and its 95 % interval over other pictures like these.

    Attributes:
        method: Its name.
        set: The set's name.
        version: Of the low-resolution pictures.
        measure: Name of the measure, or `COST` (which has no interval: all seconds over all megapixels).
        mean: Over the pictures.
        low: Of the interval.
        high: Of the interval.
        pictures: How many were measured.
        wanted: How many the set has.
        file: With the score of each picture.
    """

    method: str
    set: str
    version: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    pictures: int
    wanted: int
    file: str


def summarise(results: Sequence[Result], measures: Mapping[str, Measure]) -> list[Mean]:
    """Means of all that was measured; what a method has no number for is left out."""
    means = []
    for one in results:
        for name in measures:
            values = [score.values[name] for score in one.scores if name in score.values]
            if values:
                mean, low, high = _interval(values)
                means.append(Mean(*one[:3], name, mean, low, high, len(values), one.wanted, one.file))
        timed = [score.values for score in one.scores if SECONDS in score.values]
        if timed:
            cost = sum(each[SECONDS] for each in timed) / sum(each[MEGAPIXELS] for each in timed)
            means.append(Mean(*one[:3], COST, cost, None, None, len(timed), one.wanted, one.file))
    return means


def _interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean, and its interval where several numbers, all of them finite, have one."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return sum(values) / len(values), None, None
    return bootstrap(torch.tensor(values, dtype=torch.float64), generator=torch.Generator().manual_seed(RESAMPLING))


def _distinct(means: Sequence[Mean], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(mean, field) for mean in means))


# --- tables


def tables(means: Sequence[Mean], measures: Mapping[str, Measure]) -> list[Table]:
    """For each set a table of methods by versions: PSNR-Y, LPIPS and the time first, the other measures then."""
    main = {name: measure for name, measure in measures.items() if name in MAIN}
    others = {name: measure for name, measure in measures.items() if name not in MAIN}
    shown = []
    for chosen in _distinct(means, "set"):
        own = [mean for mean in means if mean.set == chosen]
        counts = sorted({mean.wanted for mean in own})
        title = f"{chosen}, {' or '.join(map(str, counts))} picture{'s' if counts != [1] else ''}"
        shown.append(_table(title, own, main or others, timed=True))
        if main and others:
            shown.append(_table(title, own, others, timed=False))
    return [table for table in shown if len(table.head) > 1]


def _table(title: str, means: Sequence[Mean], measures: Mapping[str, Measure], *, timed: bool) -> Table:
    methods = _distinct(means, "method")
    head, columns = ["method"], []
    for version in _distinct(means, "version"):
        for name, measure in measures.items():
            own = {mean.method: mean for mean in means if (mean.version, mean.measure) == (version, name)}
            if own:
                head.append(f"{version}\n{measure.title}")
                columns.append(score_column([own.get(method) for method in methods], measure))
    costs = [[mean.mean for mean in means if (mean.method, mean.measure) == (method, COST)] for method in methods]
    if timed and any(costs):
        head.append("s per\nmegapixel")
        columns.append([Cell(f"{sum(cost) / len(cost):.3f}" if cost else "") for cost in costs])
    rows = [[method, *(column[place] for column in columns)] for place, method in enumerate(methods)]
    return Table(title, head, rows)


def score_column(means: Sequence[Mean | None], measure: Measure) -> list[Cell]:
    """Cells of a column of means, the best of them marked; empty where there is none."""
    order = ranks([None if mean is None else mean.mean for mean in means], higher=measure.higher)
    return [Cell("") if mean is None else _cell(mean, measure, rank) for mean, rank in zip(means, order, strict=True)]


def _cell(mean: Mean, measure: Measure, rank: int) -> Cell:
    some = f" ({mean.pictures})" if mean.pictures < mean.wanted else ""
    return Cell(f"{mean.mean:.{measure.digits}f}{some}", mean.file, rank)


def interval_tables(means: Sequence[Mean], measures: Mapping[str, Measure]) -> list[Table]:
    """For each set the 95 % intervals of all means, methods by versions and measures."""
    shown = []
    for chosen in _distinct(means, "set"):
        own = [mean for mean in means if mean.set == chosen and mean.measure in measures]
        places = list(dict.fromkeys((mean.version, mean.measure) for mean in own))
        head = ["method", *(f"{version}\n{measures[name].title}" for version, name in places)]
        rows = []
        for method in _distinct(own, "method"):
            known = {(mean.version, mean.measure): mean for mean in own if mean.method == method}
            rows.append([method, *(_range(known.get(place), measures[place[1]].digits) for place in places)])
        shown.append(Table(f"{chosen}, 95 % intervals", head, rows))
    return shown


def _range(mean: Mean | None, digits: int) -> str:
    return "" if mean is None or mean.low is None else f"{mean.low:.{digits}f} to {mean.high:.{digits}f}"


def difference_tables(results: Sequence[Result], measures: Mapping[str, Measure], baseline: str) -> list[Table]:
    """For each set the mean difference of every method from one of them on the same pictures, with its interval.

    Raises:
        ValueError: There is no such method among the results.
    """
    methods = list(dict.fromkeys(result.method for result in results))
    if baseline not in methods:
        raise ValueError(f"{baseline} is none of the methods {', '.join(methods)}")
    shown = []
    for chosen in dict.fromkeys(result.set for result in results):
        own = {(one.method, one.version): one for one in results if one.set == chosen}
        versions = list(dict.fromkeys(version for _, version in own))
        head, columns = ["method"], []
        others = [method for method in methods if method != baseline]
        for version in versions:
            for name, measure in measures.items():
                head.append(f"{version}\n{measure.title}")
                base = own[baseline, version]
                columns.append([_difference(own[other, version], base, name, measure.digits) for other in others])
        rows = [[method, *(column[place] for column in columns)] for place, method in enumerate(others)]
        shown.append(Table(f"{chosen}, differences from {baseline} (* where the interval leaves out 0)", head, rows))
    return shown


def _difference(one: Result, base: Result, name: str, digits: int) -> str:
    theirs = {score.picture: score.values[name] for score in base.scores if name in score.values}
    values = [
        score.values[name] - theirs[score.picture]
        for score in one.scores
        if name in score.values and score.picture in theirs
    ]
    values = [value for value in values if math.isfinite(value)]  # of two equal pictures the difference is none
    if not values:
        return ""
    mean, low, high = _interval(values)
    return f"{mean:+.{digits}f}" if low is None or high is None else Interval(mean, low, high).text(digits)


# --- files


def write_report(
    output: Path,
    name: str,
    title: str,
    shown: Sequence[Table],
    more: Sequence[Table],
    means: Sequence[Mean],
    facts: Mapping[str, object],
) -> list[Path]:
    """Write NAME.md, NAME.tex, NAME.csv and NAME.json into a folder.

    Args:
        output: It; links in the Markdown are relative to it.
        name: Of the files.
        title: Heading of the Markdown.
        shown: Tables for Markdown and LaTeX.
        more: Tables for Markdown alone.
        means: Rows of the CSV, and part of what the JSON holds.
        facts: What the JSON holds beside them: what was measured by which code.

    Raises:
        OSError: A file can't be written.
    """
    markdown = "\n\n".join([f"# {title}", NOTES.rstrip(), *map(as_markdown, [*shown, *more])]) + "\n"
    texts = {
        "md": markdown,
        "tex": latex_file(shown),
        "csv": _csv(means),
        "json": _json({"title": title, **facts}, means),
    }
    return write_files(output, name, texts)


def _csv(means: Sequence[Mean]) -> str:
    rows = ([f"{value:.6f}" if isinstance(value, float) else value for value in mean] for mean in means)
    return as_csv(Mean._fields, rows)


def _json(facts: Mapping[str, object], means: Sequence[Mean]) -> str:
    return json.dumps({**facts, "means": list(map(as_facts, means))}, indent=1, allow_nan=False) + "\n"


def as_facts(mean: Mean) -> dict[str, object]:
    """A mean for JSON, which has no infinity: null, as PSNR of equal pictures."""
    facts = mean._asdict()
    return {**facts, "mean": mean.mean if math.isfinite(mean.mean) else None}
