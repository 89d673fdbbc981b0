"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

import json
import os
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dacesr import completing
from dacesr.cli_analyze import analysis, inspect
from dacesr.cli_compare import compare
from dacesr.cli_evaluate import evaluation
from dacesr.cli_figures import activations, attribution, condition
from dacesr.cli_models import models
from dacesr.cli_serve import serve
from dacesr.cli_train import training
from dacesr.cli_upscale import upscale
from dacesr.failing import fail, warn

_FIRST = """\b
The first three commands:
  dacesr upscale photo.jpg    four times as large: out/photo_x4.jpg
  dacesr inspect photo.jpg    what it shows, how ruined it is, what to try
  dacesr serve                a web page for all this, on this computer
`dacesr COMMAND -h` has examples of each, and its options."""


class _Commands(TyperGroup):
    """The commands; a picture in place of one is a call that many make first."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the parent does."""
        if args[0] not in self.commands and os.path.exists(args[0]):
            ctx.fail(f"No such command '{args[0]}'. To enlarge it: dacesr upscale {shlex.quote(args[0])}")
        return super().resolve_command(ctx, args)


INTERRUPTED = 130

app = typer.Typer(
    name="dacesr",
    cls=_Commands,
    epilog=_FIRST,
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Upscale real photographs x4 with DACESR (arXiv 2602.23890), on a CPU or a GPU."""


@app.command()
def degrade(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Sharp pictures, or folders of them.")],
    space: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="bicubic, level1, level2, level3, dasr, realesrgan or bsrgan.",
            autocompletion=completing.spaces,
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="Folder, or file.")] = "out",
    seed: Annotated[int, typer.Option(help="With a picture's name it decides its degradation.")] = 0,
    scale: Annotated[int, typer.Option("-s", "--scale", min=1, max=64, help="How many times smaller.")] = 4,
    save_parameters: Annotated[
        bool, typer.Option("--save-parameters", help="OUT/parameters.json: what was drawn, sha256 of the files.")
    ] = False,
    describe: Annotated[bool, typer.Option("--describe", help="Print what was drawn, a line a picture.")] = False,
    suffix: Annotated[str, typer.Option(help="Added to the names of outputs in a folder.")] = "",
    ext: Annotated[
        str | None, typer.Option(help="Format of the outputs; png unless given.", autocompletion=completing.formats)
    ] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Subfolders too; the tree is kept.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures.")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs, in pixels.")] = 2**28,
) -> None:
    """Make a test set: small, degraded pictures, the same bytes in every run.

    \b
    dacesr degrade photos -o lr --space level2 --seed 1 --save-parameters
    dacesr degrade photo.png -o small.png --space bicubic --scale 2
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
def doctor(
    check: Annotated[bool, typer.Option("--check", help="Upscale a drawn picture too, in some seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Facts about this computer for a bug report, and whether upscaling works here.

    No paths, no names, nothing is sent anywhere. Exit code 1 where something is broken.

    \b
    dacesr doctor
    dacesr doctor --check
    dacesr doctor --check --json > doctor.json
    """
    from dacesr import doctor as examining

    found = examining.facts() | ({"check": examining.check()} if check else {})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        typer.echo("\n".join(f"{name:18s} {value}" for name, value in found.items()))
        hint = "" if check else "; `dacesr doctor --check` also tests an upscale"
        typer.echo(f"\nIn a bug report, put this below the command that failed and what it said{hint}.")
    if any(value.startswith(examining.BROKEN) for value in found.values()):
        raise typer.Exit(1)


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
    except SystemExit as exit:  # typer makes one of Ctrl-C
        if exit.code == INTERRUPTED:
            warn("interrupted; whole outputs are kept, the others were not written")
        raise
    except (MemoryError, RuntimeError) as error:
        from dacesr.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        warn("there is too little memory to go on: end other programs, or do less at a time; whole outputs are kept")
        sys.exit(1)


if __name__ == "__main__":
    main()
