"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

import json
import os
import sys
from typing import Annotated

import typer

from dacesr.cli_analyze import analysis, inspect
from dacesr.cli_compare import compare
from dacesr.cli_evaluate import evaluation
from dacesr.cli_figures import activations, attribution, condition
from dacesr.cli_models import models
from dacesr.cli_serve import serve
from dacesr.cli_train import training
from dacesr.cli_upscale import upscale
from dacesr.failing import fail, warn

app = typer.Typer(
    name="dacesr",
    help="Upscale real photographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models, name="models")
app.add_typer(training, name="train")
app.add_typer(evaluation, name="evaluate")
app.add_typer(analysis, name="analyze")
app.command()(upscale)
app.command()(inspect)
app.command()(serve)
for _command in (attribution, activations, condition, compare):
    analysis.command()(_command)


def _version(wanted: bool) -> None:
    if wanted:
        from dacesr import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Upscale real photographs x4 with DACESR (arXiv 2602.23890), on a CPU or a GPU."""


@app.command()
def degrade(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Sharp pictures, or folders of them.")],
    space: Annotated[
        str, typer.Option(metavar="NAME", help="bicubic, level1, level2, level3, dasr, realesrgan or bsrgan.")
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="Folder, or file.")] = "out",
    seed: Annotated[int, typer.Option(help="With a picture's name it decides its degradation.")] = 0,
    scale: Annotated[int, typer.Option("-s", "--scale", min=1, max=64, help="How many times smaller.")] = 4,
    save_parameters: Annotated[
        bool, typer.Option("--save-parameters", help="OUT/parameters.json: what was drawn, sha256 of the files.")
    ] = False,
    describe: Annotated[bool, typer.Option("--describe", help="Print what was drawn, a line a picture.")] = False,
    suffix: Annotated[str, typer.Option(help="Added to the names of outputs in a folder.")] = "",
    ext: Annotated[str | None, typer.Option(help="Format of the outputs; png unless given.")] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Subfolders too; the tree is kept.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs, in pixels.")] = 2**28,
) -> None:
    """Make a test set: small, degraded pictures, the same bytes in every run.

    \b
    dacesr degrade photos -o lr --space level2 --seed 1 --save-parameters
    """
    from dacesr.degrading import Degrader, Made, plan

    try:
        degrader = Degrader(space=space, seed=seed, scale=scale, max_pixels=max_pixels)
        jobs, folder = plan(inputs, output, suffix=suffix, extension=ext, recursive=recursive, limit=limit)
    except ValueError as error:
        raise fail(error) from error
    made, errors = [], []
    for result in degrader.run(jobs, folder):
        if isinstance(result, Made):
            made.append(result)
            sizes = " -> ".join(f"{width} x {height}" for width, height in (result.before, result.after))
            typer.echo(f"{result.target}  {sizes}", err=True)
            if describe:
                typer.echo(f"{result.target}  {result.degradation}")
        else:
            errors.append(result.error)
            warn(result.error)
    if save_parameters:
        try:
            degrader.save_parameters(made, folder)
        except ValueError as error:
            errors.append(str(error))
            warn(error)
    if errors:
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, scan backends, memory, and what an upscale would use here."""
    from dacesr.doctor import facts

    found = facts()
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(f"{k:18s} {v}" for k, v in found.items()))


def _wait_briefly() -> None:
    """Let PyTorch's idle threads sleep soon (GNU OpenMP; set before it is loaded), unless the user says how they wait.

    They otherwise turn in circles for a while after every operator, on the cores that the native scan's threads want:
    on two cores a fifth to a third of an upscale (docs/performance.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def main() -> None:
    """Entry point of the `dacesr` command."""
    _wait_briefly()
    try:
        app()
    except KeyboardInterrupt:
        warn("interrupted; whole outputs are kept, the others were not written")
        sys.exit(130)


if __name__ == "__main__":
    main()
