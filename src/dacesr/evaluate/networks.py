"""Table II: what networks cost, measured side by side, and how good those are that have weights."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from dacesr.checkpoint import describe
from dacesr.config import NETWORKS, PRESETS, NetworkConfig, RestorerConfig, TaggerConfig
from dacesr.device import find_device
from dacesr.evaluate.complexity import Complexity, count
from dacesr.evaluate.costs import Cost, measure
from dacesr.evaluate.measures import Measure
from dacesr.evaluate.methods import find_methods, short_name
from dacesr.evaluate.results import MAIN, Mean, as_facts, score_column, summarise
from dacesr.evaluate.run import Outcome, Settings, measure_methods
from dacesr.evaluate.sets import BenchmarkSet
from dacesr.evaluate.tables import Cell, Table, as_cell, as_csv, as_markdown, latex_file, ranks, show, write_files
from dacesr.nets.baselines import BASELINES

DEFAULT = ("srresnet", "edsr", "swinir", "rrdb", "dasr", "kdsr", "hat", "rlfn", "srvgg", "light", "base")
OURS = "base"  # what the others' time and memory are compared with
NOTES = """Multiply-adds of convolutions, matrix products and attention; those of the selective scan stand apart, as the
paper leaves them out. Time and memory are of random weights, in turns, in one run; see docs/evaluation.md.
"""


class Published(NamedTuple):
    """A row of the paper's Table II: millions of parameters, GMAC at 256 x 256, milliseconds on a V100."""

    parameters: float
    gmacs: float
    milliseconds: float


PAPER = {
    "srresnet": Published(1.52, 166, 113),
    "edsr": Published(1.52, 130, 105),
    "swinir": Published(11.72, 539, 1719),
    "rrdb": Published(16.70, 1176, 460),
    "dasr": Published(8.07, 184, 142),
    "kdsr": Published(18.85, 867, 217),
    "base": Published(3.65, 266, 232),
}


@dataclass(frozen=True)
class Measured:
    """A network, what it costs, and what it reaches.

    Attributes:
        name: Preset, kind, or weights file.
        complexity: Parameters and multiply-adds.
        cost: Seconds and memory of one picture.
        published: What the paper says of it, if it does.
    """

    name: str
    complexity: Complexity
    cost: Cost | None
    published: Published | None


def find_networks(names: Sequence[str]) -> dict[str, NetworkConfig]:
    """Configs by name: a preset of ours, a kind of network at its published size, or that of a weights file.

    Raises:
        ValueError: There is neither a network nor a file of that name.
    """
    return {name: _config(name) for name in dict.fromkeys(names)}


def _config(name: str) -> NetworkConfig:
    if name in PRESETS:
        return RestorerConfig.model_validate(PRESETS[name])
    if name in BASELINES:
        return NETWORKS[name].model_validate({})
    try:
        config = describe(name).config
    except ValueError as error:
        if Path(name).exists() or "/" in name or "." in name:
            raise
        known = ", ".join((*PRESETS, *BASELINES))
        raise ValueError(f"{name} is neither a network ({known}) nor weights") from error
    if config is None or isinstance(config, TaggerConfig):
        raise ValueError(f"{name} holds no network that upscales")
    return config


def table2(
    names: Sequence[str] | None,
    sets: Sequence[BenchmarkSet],
    settings: Settings,
    *,
    side: int,
    rounds: int,
    timed: bool,
) -> Outcome:
    """Measure networks side by side, write the table into the folder of results, and show it on standard output.

    Args:
        names: As for `find_networks`; None for `DEFAULT`.
        sets: What those that are weights are measured on.
        settings: How.
        side: Of the input, in pixels.
        rounds: How often each is timed.
        timed: Whether they are.

    Raises:
        ValueError: A name, a file or a folder is not what it should be; the sentence says which.
        OSError: A file can't be written.
    """
    networks = find_networks(names or DEFAULT)
    device = find_device(settings.device)
    means, measures, failures = _quality([name for name in networks if _is_weights(name)], sets, settings)
    costs = {}
    if timed:
        costs = measure(
            networks,
            side=side,
            device=device,
            precision=settings.precision,
            rounds=rounds,
            console=settings.console,
        )
    measured = [
        Measured(name, count(config, side), costs.get(name), PAPER.get(name)) for name, config in networks.items()
    ]
    table = network_table(measured, side, means, measures)
    facts = {"side": side, "device": str(device), **_machine(), "means": list(map(as_facts, means))}
    files = _write(settings.output, table, measured, facts)
    show([table], NOTES)
    return Outcome(files, failures)


def _is_weights(name: str) -> bool:
    return name not in PRESETS and name not in BASELINES


def _quality(
    names: Sequence[str], sets: Sequence[BenchmarkSet], settings: Settings
) -> tuple[list[Mean], Mapping[str, Measure], list[str]]:
    """Means of PSNR-Y and LPIPS of weights on sets, the measures, and what failed."""
    if not names or not sets:
        return [], {}, []
    methods = find_methods(
        names, scale=settings.scale, device=settings.device, precision=settings.precision, tile=settings.tile
    )
    results, measures, failures = measure_methods(methods, sets, settings)
    means = [mean for mean in summarise(results, measures) if mean.measure in MAIN]
    return means, measures, failures


def _machine() -> dict[str, object]:
    return {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}


def _write(output: Path, table: Table, measured: Sequence[Measured], facts: Mapping[str, object]) -> list[Path]:
    """Write table2.md, .tex, .csv and .json."""
    rows = [[as_cell(part).text for part in row] for row in table.rows]
    contents = {
        "md": f"# Table II: networks\n\n{NOTES}\n{as_markdown(table)}\n",
        "tex": latex_file([table]),
        "csv": as_csv([head.replace("\n", " ") for head in table.head], rows),
        "json": json.dumps({**facts, "networks": list(map(_facts, measured))}, indent=1) + "\n",
    }
    return write_files(output, "table2", contents)


def network_table(
    measured: Sequence[Measured], side: int, means: Sequence[Mean], measures: Mapping[str, Measure]
) -> Table:
    """Rows of Table II; columns of the paper's own numbers, of ours, and of quality where it was measured."""
    times = [one.cost and one.cost.seconds for one in measured]
    memory = [one.cost and one.cost.peak_bytes and one.cost.peak_bytes / 2**20 for one in measured]
    scans = [one.complexity.scan_macs / 1e9 or None for one in measured]
    columns = {
        "parameters\nM": [f"{one.complexity.parameters / 1e6:.2f}" for one in measured],
        "M in the\npaper": [f"{one.published.parameters:.2f}" if one.published else "" for one in measured],
        "GMAC": [f"{one.complexity.macs / 1e9:.1f}" for one in measured],
        "GMAC in\nthe paper": [
            f"{one.published.gmacs:.0f}" if one.published and side == 256 else "" for one in measured
        ],
        "GMAC of\nthe scan": ["" if macs is None else f"{macs:.1f}" for macs in scans],
    }
    cells: dict[str, Sequence[str | Cell]] = dict(columns)
    if any(times):
        cells |= {"seconds": _numbers(times, 3), f"seconds\nover {OURS}": _ratios(measured, times)}
    if any(memory):
        cells |= {"peak\nMiB": _numbers(memory, 0), f"peak\nover {OURS}": _ratios(measured, memory)}
    for chosen, version, name in dict.fromkeys((mean.set, mean.version, mean.measure) for mean in means):
        own = {mean.method: mean for mean in means if (mean.set, mean.version, mean.measure) == (chosen, version, name)}
        column = [own.get(short_name(one.name)) for one in measured]
        cells[f"{chosen} {version}\n{measures[name].title}"] = score_column(column, measures[name])
    cells = {head: column for head, column in cells.items() if any(as_cell(part).text for part in column)}
    rows = [
        [short_name(one.name) if _is_weights(one.name) else one.name, *(column[place] for column in cells.values())]
        for place, one in enumerate(measured)
    ]
    return Table(f"Networks, input of {side} x {side}", ["network", *cells], rows)


def _numbers(values: Sequence[float | None], digits: int) -> list[Cell]:
    order = ranks(values, higher=False)
    return [Cell("" if v is None else f"{v:.{digits}f}", None, rank) for v, rank in zip(values, order, strict=True)]


def _ratios(measured: Sequence[Measured], values: Sequence[float | None]) -> list[Cell]:
    own = next((value for one, value in zip(measured, values, strict=True) if one.name == OURS), None)
    return [Cell("" if value is None or not own else f"{value / own:.2f}") for value in values]


def _facts(one: Measured) -> dict[str, object]:
    parts = {"complexity": one.complexity, "cost": one.cost, "published": one.published}
    return {"name": one.name, **{name: None if part is None else part._asdict() for name, part in parts.items()}}
