"""`dacesr evaluate`: networks, and anybody's results, measured on the same pictures, as tables."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dacesr import completing
from dacesr.cli_options import Device
from dacesr.failing import fail, require, require_config, unwritable, warn

if TYPE_CHECKING:
    from dacesr.evaluate.run import Outcome, Settings
    from dacesr.evaluate.sets import BenchmarkSet

_GROUP = """Measure networks on the same pictures, as tables.

\b
dacesr evaluate table1 --set Set14 --space bicubic --space level2
dacesr evaluate folder out DIV2K_valid_HR
"""

evaluation = typer.Typer(help=_GROUP, no_args_is_help=True)

METHODS_HELP = "bicubic, lanczos, bundled names, files or hub ids of weights, MODEL@STRENGTH, NAME=FOLDER of results."
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder of tables and scores.")]
Sets = Annotated[
    list[Path],
    typer.Option("--set", metavar="FOLDER", help="Pictures, in any layout of docs/evaluation.md. Repeatable."),
]
Spaces = Annotated[
    list[str] | None,
    typer.Option(
        "--space",
        metavar="NAME",
        help="Degrade sharp pictures so; those at hand, or all. Repeatable.",
        autocompletion=completing.spaces,
    ),
]
Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--measure",
        metavar="NAME",
        help="psnr_y, ssim_y, lpips, niqe, ... Repeatable.",
        autocompletion=completing.measures,
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Of the files that LPIPS, NIQE and DISTS need; $DACESR_DATA/metrics."),
]
Baseline = Annotated[str | None, typer.Option(metavar="METHOD", help="Show the differences from this one too.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first pictures of each set only.")]
Seed = Annotated[int, typer.Option(help="Of the degradations.")]
Scale = Annotated[int, typer.Option(min=1, max=8, help="Times that all methods enlarge.")]
Tile = Annotated[int, typer.Option(min=0, help="Input pixels a side; 0: whole pictures, as in papers.")]
Plot = Annotated[bool, typer.Option("--plot", help="Draw PSNR against LPIPS.")]
Minutes = Annotated[float | None, typer.Option(min=0, help="Stop and save after so long; the same command goes on.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field for all arms. Repeatable.")
]
Arms = Annotated[list[str] | None, typer.Option("--arm", metavar="NAME", help="Only this one. Repeatable.")]
AblationOutput = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="OUT", help="Folder; out/evaluate/NAME unless given.")
]
PrecisionText = Literal["auto", "fp32", "bf16", "fp16"]


# --- sets and comparisons


@evaluation.command()
def prepare(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Sharp pictures.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder of the set.")],
    spaces: Spaces = None,
    seed: Seed = 0,
    scale: Scale = 4,
    limit: Limit = None,
) -> None:
    """Make a benchmark set: sharp pictures, their degraded versions, and a manifest with the hash of every file.

    \b
    dacesr evaluate prepare DIV2K_valid_HR -o sets/DIV2K
    dacesr evaluate table1 --set sets/DIV2K
    """
    from dacesr.degrading import Failed
    from dacesr.evaluate.prepare import LEVELS, prepare_set

    failed = False
    with _called(output):
        for each in prepare_set(folder, output, spaces=spaces or LEVELS, seed=seed, scale=scale, limit=limit):
            if isinstance(each, Failed):
                failed = True
                warn(each.error)
    if (output / "manifest.json").exists():
        typer.echo(str(output / "manifest.json"))
    raise typer.Exit(1 if failed else 0)


@evaluation.command()
def table1(
    chosen: Sets,
    methods: Annotated[
        list[str] | None, typer.Argument(metavar="METHOD", help=METHODS_HELP, autocompletion=completing.methods)
    ] = None,
    spaces: Spaces = None,
    output: Output = Path("out/evaluate"),
    measure: Measures = None,
    metrics: Metrics = None,
    baseline: Baseline = None,
    plot: Plot = False,
    save_pictures: Annotated[bool, typer.Option("--save-pictures", help="Keep what networks made, as PNG.")] = False,
    limit: Limit = None,
    seed: Seed = 0,
    scale: Scale = 4,
    device: Device = "auto",
    precision: Annotated[PrecisionText, typer.Option(help="Of the arithmetic.")] = "fp32",
    tile: Tile = 0,
) -> None:
    """Table I: methods on sets. Without METHOD: bicubic, Lanczos, and all bundled models.

    \b
    dacesr evaluate table1 --set Set14 --space bicubic --space level2
    dacesr evaluate table1 DVMSR.pth default@0 default@1 HAT=results/hat --set RealSR/Canon/Test/4 --baseline HAT
    """
    from dacesr.evaluate.methods import DEFAULT

    settings = _settings(
        output=output,
        measures=measure,
        metrics=metrics,
        baseline=baseline,
        plot=plot,
        scale=scale,
        device=device,
        precision=precision,
        tile=tile,
        save_pictures=save_pictures,
    )
    with _called(output):
        sets = _sets(chosen, spaces, seed, scale, limit)
        _finish(_compare("table1", "Table I: methods on sets", methods or DEFAULT, sets, settings))


@evaluation.command()
def table2(
    networks: Annotated[
        list[str] | None, typer.Argument(metavar="NETWORK", help="light, base, srresnet, rrdb, ..., or weights.")
    ] = None,
    side: Annotated[int, typer.Option(min=8, help="Of the input, in pixels.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="How often each network is timed, in turns.")] = 5,
    timed: Annotated[bool, typer.Option("--time/--no-time", help="Measure seconds and memory.")] = True,
    chosen: Annotated[
        list[Path] | None, typer.Option("--set", metavar="FOLDER", help="Measure weights on this too. Repeatable.")
    ] = None,
    spaces: Spaces = None,
    output: Output = Path("out/evaluate"),
    metrics: Metrics = None,
    limit: Limit = None,
    device: Device = "auto",
    precision: Annotated[PrecisionText, typer.Option(help="Of the arithmetic.")] = "fp32",
) -> None:
    """Table II: parameters, multiply-adds, time and peak memory of networks, side by side in one run.

    \b
    dacesr evaluate table2
    dacesr evaluate table2 rrdb swinir base --side 128 --rounds 3
    dacesr evaluate table2 base RealESRGAN_x4plus.pth --set Set14
    """
    from dacesr.evaluate.networks import table2 as compare_networks

    settings = _settings(output=output, metrics=metrics, device=device, precision=precision)
    with _called(output):
        sets = _sets(chosen or [], spaces, 0, 4, limit)
        _finish(compare_networks(networks, sets, settings, side=side, rounds=rounds, timed=timed))


@evaluation.command()
def table3(
    methods: Annotated[
        list[str], typer.Argument(metavar="METHOD", help=METHODS_HELP, autocompletion=completing.methods)
    ],
    chosen: Sets,
    output: Output = Path("out/evaluate"),
    measure: Measures = None,
    metrics: Metrics = None,
    baseline: Baseline = None,
    limit: Limit = None,
    scale: Scale = 4,
    device: Device = "auto",
) -> None:
    """Table III: results that any program has made, against one another and our models, such as those of diffusion.

    \b
    dacesr evaluate table3 SeeSR=results/seesr StableSR=results/stablesr default --set DrealSRVal_crop128
    """
    settings = _settings(
        output=output, measures=measure, metrics=metrics, baseline=baseline, scale=scale, device=device
    )
    with _called(output):
        sets = _sets(chosen, None, 0, scale, limit)
        _finish(_compare("table3", "Table III: results on sets", methods, sets, settings))


@evaluation.command()
def folder(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of pictures.")],
    reference: Annotated[
        Path | None, typer.Argument(metavar="REFERENCE", help="Folder of what they should be; none: NIQE alone.")
    ] = None,
    output: Output = Path("out/evaluate"),
    measure: Measures = None,
    metrics: Metrics = None,
    limit: Limit = None,
    scale: Annotated[int, typer.Option(min=0, max=8, help="Border in pixels that measures on luma leave out.")] = 4,
    device: Device = "auto",
) -> None:
    """Measure a folder of pictures, against references of the same names if there are some.

    \b
    dacesr evaluate folder out DIV2K_valid_HR
    dacesr evaluate folder out --measure niqe
    """
    from dacesr.evaluate.methods import results_of
    from dacesr.evaluate.run import compare_methods
    from dacesr.evaluate.sets import pictures_of

    settings = _settings(output=output, measures=measure, metrics=metrics, scale=scale, device=device)
    with _called(output):
        chosen = pictures_of(reference or results, limit=limit, reference=reference is not None)
        title = f"{results}" + (f" against {reference}" if reference else ", without reference")
        _finish(compare_methods("folder", title, [results_of(results)], [chosen], settings))


# --- ablations


@evaluation.command()
def ablation(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; some are in configs/.")],
    output: AblationOutput = None,
    arm: Arms = None,
    changes: Changes = None,
    max_minutes: Minutes = None,
) -> None:
    """Train variants of one config equally long from the same start, and compare them on the same pictures.

    \b
    dacesr evaluate ablation configs/ablation_light.toml -o out/ablation
    dacesr evaluate ablation configs/ablation_light.toml -o out/ablation --arm none --arm re --max-minutes 60
    """
    _ablate(config, output, arm or (), changes or (), max_minutes)


AblationConfig = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of ablations.")]
ABLATIONS = Path("configs/ablation_light.toml")
ABLATION_TABLES = {  # of the paper
    "table4": ("Table IV", "what conditions the network: nothing, the representation (RE), the logits (LE)."),
    "table5": ("Table V", "whose representation it is: RAM's, DAPE's, REE's."),
    "table6": ("Table VI", "what it does: multiply, add, or both."),
}


def _ablation_table(title: str) -> Callable[..., None]:
    """A command that trains and shows one table of an ablation."""

    def command(
        config: AblationConfig = ABLATIONS,
        output: AblationOutput = None,
        changes: Changes = None,
        max_minutes: Minutes = None,
    ) -> None:
        _ablate(config, output, (), changes or (), max_minutes, table=title)

    return command


for _name, (_title, _text) in ABLATION_TABLES.items():
    _examples = f"dacesr evaluate {_name}\ndacesr evaluate {_name} my_ablation.toml -o out/mine --max-minutes 60"
    evaluation.command(_name, help=f"{_title}: {_text}\n\n\b\n{_examples}")(_ablation_table(_title))


def _ablate(
    config: Path,
    output: Path | None,
    arms: Sequence[str],
    changes: Sequence[str],
    max_minutes: float | None,
    table: str | None = None,
) -> None:
    try:
        from dacesr.evaluate.ablation import run_ablation
        from dacesr.evaluate.config import load_ablation
        from dacesr.train.loop import TrainingError
    except ModuleNotFoundError as error:
        raise fail(f'training needs {error.name}: pip install "dacesr[train]"') from error
    require_config(config)
    with _called(output or config):
        try:
            wanted = load_ablation(config, changes, output)
            done = run_ablation(wanted, arms=arms, max_minutes=max_minutes, table=table)
        except TrainingError as error:
            warn(error)
            raise typer.Exit(1) from error
    for name in ("scores.csv", "ablation.md", "ablation.tex", "ablation.json"):
        if (wanted.output / name).exists():
            typer.echo(str(wanted.output / name))
    if not done:
        warn("not all arms are trained and measured; the same command goes on")


# --- what they share


@contextmanager
def _called(output: Path) -> Iterator[None]:
    """What is wrong with a call, in one sentence."""
    from dacesr.memory import keep_freed_memory

    keep_freed_memory()
    try:
        yield
    except ValueError as error:
        raise fail(error) from error
    except BrokenPipeError as error:  # the reader of the tables has gone, as `head` does; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from error
    except OSError as error:
        raise unwritable(output, error) from error


def _settings(**chosen: Any) -> "Settings":
    from dacesr.evaluate.run import Settings

    if chosen.get("plot"):
        require("matplotlib", extra="analysis", what="the plot needs")
    return Settings(**chosen)


def _sets(
    folders: Sequence[Path], spaces: Sequence[str] | None, seed: int, scale: int, limit: int | None
) -> "list[BenchmarkSet]":
    from dacesr.evaluate.sets import find_sets

    return [one for each in folders for one in find_sets(each, spaces=spaces, seed=seed, scale=scale, limit=limit)]


def _compare(
    name: str, title: str, methods: Sequence[str], sets: "Sequence[BenchmarkSet]", settings: "Settings"
) -> "Outcome":
    from dacesr.evaluate.run import compare

    return compare(name, title, methods, sets, settings)


def _finish(outcome: "Outcome") -> None:
    """Name the files; exit code 1 where a picture could not be measured."""
    for path in outcome.files:
        typer.echo(str(path))
    if outcome.failures:
        raise typer.Exit(1)
