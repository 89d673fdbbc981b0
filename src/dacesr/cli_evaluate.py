"""`dacesr evaluate`: networks measured on the same pictures, as tables."""

from pathlib import Path
from typing import Annotated

import typer

from dacesr.failing import fail

evaluation = typer.Typer(help="Measure networks on the same pictures, as tables.", no_args_is_help=True)


@evaluation.callback()
def _group() -> None:
    """Keeps `ablation` a command of its own while it is the only one."""


@evaluation.command()
def ablation(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file; some are in configs/.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Folder; out/evaluate/NAME unless given.")
    ] = None,
    arm: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this one. Repeatable.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field for all arms. Repeatable.")
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop and save after so long; the same command goes on.")
    ] = None,
) -> None:
    """Train variants of one config equally long from the same start, and compare them on the same pictures.

    \b
    dacesr evaluate ablation configs/ablation_light.toml -o out/ablation
    dacesr evaluate ablation configs/ablation_light.toml -o out/ablation --arm none --arm re --max-minutes 60
    """
    try:
        from dacesr.evaluate.ablation import run_ablation
        from dacesr.evaluate.config import load_ablation
        from dacesr.train.loop import TrainingError
    except ModuleNotFoundError as error:
        raise fail(f'training needs {error.name}: pip install "dacesr[train]"') from error
    from dacesr.memory import keep_freed_memory

    keep_freed_memory()
    try:
        wanted = load_ablation(config, changes or (), output)
        done = run_ablation(wanted, arms=arm or (), max_minutes=max_minutes)
    except ValueError as error:
        raise fail(error) from error
    except OSError as error:
        raise fail(f"{output or config}: the results cannot be written: {error.strerror or error}") from error
    except TrainingError as error:
        typer.echo(f"dacesr: {error}", err=True)
        raise typer.Exit(1) from error
    for name in ("scores.csv", "ablation.md", "ablation.json"):
        if (wanted.output / name).exists():
            typer.echo(str(wanted.output / name))
    if not done:
        typer.echo("dacesr: not all arms are trained and measured; the same command goes on", err=True)
