"""A comparison from its names to its files: what `dacesr evaluate table1`, `table3` and `folder` have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from dacesr.device import find_device
from dacesr.engine import Precision
from dacesr.evaluate.benchmark import Benchmark, Result, plain
from dacesr.evaluate.measures import LPIPS_ORDER, Measure, load_measures, metrics_folder
from dacesr.evaluate.methods import Method, find_methods
from dacesr.evaluate.results import NOTES, Mean, difference_tables, interval_tables, summarise, tables, write_report
from dacesr.evaluate.sets import BenchmarkSet
from dacesr.evaluate.tables import show
from dacesr.evaluate.version import code_version


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How methods are measured and where results go.

    Attributes:
        output: Folder of results.
        measures: Names; None for the usual ones.
        metrics: Folder of the files that measures need; None for that in `$DACESR_DATA`.
        baseline: Method from which differences are shown; None for none.
        plot: Draw PSNR against LPIPS.
        scale: Of all methods.
        device: Of networks and measures.
        precision: Of networks.
        tile: As for `Upscaler`; 0, the whole picture, is what is done in papers.
        save_pictures: Keep what networks made.
    """

    output: Path
    measures: Sequence[str] | None = None
    metrics: Path | None = None
    baseline: str | None = None
    plot: bool = False
    scale: int = 4
    device: str = "cpu"
    precision: Precision = "fp32"
    tile: int | str = 0
    save_pictures: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))


@dataclass(frozen=True)
class Outcome:
    """The files that were written, and a sentence for each picture that could not be measured."""

    files: list[Path]
    failures: list[str]


def compare(name: str, title: str, methods: Sequence[str], sets: Sequence[BenchmarkSet], settings: Settings) -> Outcome:
    """Measure methods, as they are named on the command line (`find_methods`), on sets; see `compare_methods`.

    Raises:
        ValueError: See there, and `find_methods`.
        OSError: A file can't be written.
    """
    found = find_methods(
        methods, scale=settings.scale, device=settings.device, precision=settings.precision, tile=settings.tile
    )
    names = {method.given: method.name for method in found}
    if settings.baseline in names:  # as it was typed, which may be a path
        settings = replace(settings, baseline=names[settings.baseline])
    return compare_methods(name, title, found, sets, settings)


def compare_methods(
    name: str, title: str, methods: Sequence[Method], sets: Sequence[BenchmarkSet], settings: Settings
) -> Outcome:
    """Measure methods on sets, write the tables into the folder of results, and show them on standard output.

    Args:
        name: Of the files: NAME.md, .tex, .csv, .json and .png.
        title: Of the tables.
        methods: Their rows.
        sets: What they are measured on.
        settings: How.

    Raises:
        ValueError: A name, a file or a folder is not what it should be; the sentence says which.
        OSError: A file can't be written.
    """
    if settings.baseline is not None and settings.baseline not in [method.name for method in methods]:
        listed = ", ".join(method.name for method in methods)
        raise ValueError(f"the baseline {settings.baseline} is none of the methods {listed}")
    _check_distinct([method.name for method in methods], "methods", "give one another name, as in NAME=MODEL")
    _check_distinct([f"{one.name} {one.version}" for one in sets], "sets", "rename a folder")
    results, measures, failures = measure_methods(methods, sets, settings)
    means = summarise(results, measures)
    if not means:
        why = failures[0] if failures else f"{', '.join(measures)} need references or larger pictures"
        raise ValueError(f"nothing could be measured: {why}")
    shown = tables(means, measures)
    if settings.baseline is not None:
        shown += difference_tables(results, measures, settings.baseline)
    facts = {
        "code": code_version(),
        "sets": [{"set": one.name, "version": one.version, "manifest": one.manifest} for one in sets],
        "methods": {method.name: method.key for method in methods},
    }
    files = write_report(settings.output, name, title, shown, interval_tables(means, measures), means, facts)
    if settings.plot:
        files.append(_plot(settings.output / f"{name}.png", means, measures))
    show(shown, NOTES)
    return Outcome(files, failures)


def measure_methods(
    methods: Sequence[Method], sets: Sequence[BenchmarkSet], settings: Settings
) -> tuple[list[Result], dict[str, Measure], list[str]]:
    """Scores of methods on sets, the measures they have, and a sentence for each picture that has none.

    Raises:
        ValueError: See `load_measures`, or a file of scores is damaged.
        OSError: A file can't be written.
    """
    device = find_device(settings.device)
    measures, missing = load_measures(
        settings.measures, metrics_folder(settings.metrics), scale=settings.scale, device=device
    )
    if settings.plot and not ("psnr_y" in measures and any(name in measures for name in LPIPS_ORDER)):
        raise ValueError("the plot needs the measures psnr_y and lpips")
    for sentence in missing:
        settings.console.print(f"dacesr: {sentence}", markup=False)
    benchmark = Benchmark(
        methods=methods,
        sets=sets,
        measures=measures,
        output=settings.output,
        device=device,
        console=settings.console,
        save_pictures=settings.save_pictures,
    )
    return benchmark.run(), measures, benchmark.failures


def _check_distinct(names: Sequence[str], what: str, advice: str) -> None:
    """Names must differ also where they are those of files."""
    files = [plain(name) for name in names]
    for place, name in enumerate(names):
        if (first := files.index(files[place])) < place:
            both = name if names[first] == name else f"{names[first]} and {name}, which are one as names of files"
            raise ValueError(f"two {what} are called {both}: {advice}")


def _plot(path: Path, means: Sequence[Mean], measures: dict[str, Measure]) -> Path:
    from dacesr.analysis.plots import save
    from dacesr.evaluate.plots import plane

    save(plane(means, measures), path)
    return path
