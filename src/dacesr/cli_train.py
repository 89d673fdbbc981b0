"""`dacesr train`: networks from a TOML config; the same command resumes a run."""

from pathlib import Path
from typing import Annotated

import typer

from dacesr import completing
from dacesr.failing import fail, require_config, unwritable, warn

_GROUP = """Train networks from a TOML config.

\b
dacesr train restorer configs/restorer_light_stage1.toml --dry-run
dacesr train restorer configs/restorer_light_stage1.toml --set data.batch=8
"""

training = typer.Typer(help=_GROUP, no_args_is_help=True)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; some are in configs/.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: data.batch=16. Repeatable.")
]
MaxMinutes = Annotated[float | None, typer.Option(min=0, help="Stop and save after so long; the same command goes on.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved config, size, memory and time; write nothing.")
]


@training.command()
def restorer(config: Config, changes: Changes = None, max_minutes: MaxMinutes = None, dry_run: DryRun = False) -> None:
    """Train the super-resolution network.

    \b
    dacesr train restorer configs/restorer_light_stage1.toml --max-minutes 60
    accelerate launch -m dacesr.cli train restorer configs/paper_stage1.toml
    """
    _train("RestorerTraining", config, changes, max_minutes, dry_run)


@training.command()
def tagger(config: Config, changes: Changes = None, max_minutes: MaxMinutes = None, dry_run: DryRun = False) -> None:
    """Train a tagger on labelled pictures.

    \b
    dacesr train tagger configs/tagger_warmup.toml
    dacesr train tagger configs/tagger_lite.toml
    """
    _train("TaggerTraining", config, changes, max_minutes, dry_run)


@training.command()
def extractor(config: Config, changes: Changes = None, max_minutes: MaxMinutes = None, dry_run: DryRun = False) -> None:
    """Tune a tagger on ruined pictures with LoRA: DAPE, REE, DAPE-FT-1 and DAPE-FT-2.

    \b
    dacesr train extractor configs/dape_lite.toml
    dacesr train extractor configs/ree_lite.toml
    """
    _train("ExtractorTraining", config, changes, max_minutes, dry_run)


@training.command()
def selection(
    source: Annotated[Path, typer.Argument(metavar="SHARP", help="Folder of sharp pictures, or labelled CSV.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Selection file to write, *.json.")],
    extractor: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Tagger that names clean and degraded pictures.",
            autocompletion=completing.extractors,
        ),
    ] = "lite-ram",
    count: Annotated[int, typer.Option(min=4, help="How many degradations.")] = 1000,
    images: Annotated[int, typer.Option(min=1, help="How many pictures each is applied to.")] = 30,
    scale: Annotated[int, typer.Option("-s", "--scale", min=1, max=64, help="How many times smaller they get.")] = 4,
    space: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where degradations are drawn from.", autocompletion=completing.spaces),
    ] = "realesrgan",
    seed: Annotated[int, typer.Option(help="With its number it decides a degradation.")] = 0,
    split: Annotated[str | None, typer.Option(help="train, val or test of a labelled source.")] = None,
    tau1: Annotated[float | None, typer.Option(min=0, max=1, help="Mild is above; the best quarter.")] = None,
    tau2: Annotated[float | None, typer.Option(min=0, max=1, help="Severe is below; the worst quarter.")] = None,
    max_minutes: MaxMinutes = None,
) -> None:
    """Rank random degradations by what a tagger still sees, for DAPE-FT and REE to be tuned on a class of them.

    \b
    dacesr train selection photos -o severe.json --extractor ram.pth --tau1 0.710 --tau2 0.297
    """
    from dacesr.checkpoint import load_extractor
    from dacesr.device import choose_device
    from dacesr.memory import keep_freed_memory
    from dacesr.train.ranking import rank_degradations, sharp_pictures

    keep_freed_memory()
    if (tau1 is None) != (tau2 is None):
        raise fail("--tau1 and --tau2 go together")
    try:
        device = choose_device()
        rank_degradations(
            output,
            load_extractor(extractor).to(device),
            {name: picture.to(device) for name, picture in sharp_pictures(source, images, split=split).items()},
            tagger=extractor,
            space=space,
            scale=scale,
            seed=seed,
            count=count,
            thresholds=(tau1, tau2) if tau1 is not None and tau2 is not None else None,
            max_minutes=max_minutes,
        )
    except ValueError as error:
        raise fail(error) from error
    except OSError as error:
        raise unwritable(output, error) from error


def _train(kind: str, config: Path, changes: list[str] | None, max_minutes: float | None, dry_run: bool) -> None:
    """Read the config of that kind and run it."""
    try:
        from dacesr.train.config import load_config
        from dacesr.train.loop import TrainingError, describe_run, train
        from dacesr.train.tasks import TRAININGS
    except ModuleNotFoundError as error:
        raise fail(f'training needs {error.name}: pip install "dacesr[train]"') from error
    from dacesr.memory import keep_freed_memory

    keep_freed_memory()
    require_config(config)
    try:
        run = load_config(config, changes, TRAININGS[kind])
        if dry_run:
            typer.echo(describe_run(run))
        else:
            train(run, max_minutes=max_minutes)
    except ValueError as error:
        raise fail(error) from error
    except TrainingError as error:
        warn(error)
        raise typer.Exit(1) from error
