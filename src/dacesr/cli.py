"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dacesr.cli_analyze import analysis, inspect
from dacesr.cli_compare import compare
from dacesr.cli_evaluate import evaluation
from dacesr.cli_figures import activations, attribution, condition
from dacesr.cli_train import training
from dacesr.failing import fail, warn

app = typer.Typer(
    name="dacesr",
    help="Upscale real photographs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(help="List, inspect and convert weights.", no_args_is_help=True)
app.add_typer(models, name="models")
app.add_typer(training, name="train")
app.add_typer(evaluation, name="evaluate")
app.add_typer(analysis, name="analyze")
app.command()(inspect)
for _command in (attribution, activations, condition, compare):
    analysis.command()(_command)


class PrecisionName(StrEnum):
    """Values of --precision."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


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
def upscale(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help="Pictures, folders, or - for stdin.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="Folder, file, or - for stdout.")
    ] = "out",
    scale: Annotated[
        float | None, typer.Option("-s", "--scale", min=0.01, max=64, help="Times the input's size; the model's own.")
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width of the output; the height follows.")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Height of the output; the width follows.")] = None,
    model: Annotated[str, typer.Option("-n", "--model", help="Bundled name, weights file, or hub id.")] = "default",
    tile: Annotated[
        str, typer.Option("-t", "--tile", metavar="auto|0|N", help="Tile in input pixels; 0: none.")
    ] = "auto",
    overlap: Annotated[int, typer.Option(min=0, help="Input pixels that neighbouring tiles share.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")] = "auto",
    precision: Annotated[PrecisionName, typer.Option(help="Of the arithmetic.")] = PrecisionName.auto,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 faithful to 1 crisp, where the model has both.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What sees pictures for the model; its file's own.")
    ] = None,
    tags: Annotated[bool, typer.Option("--tags", help="Tell what is seen in each picture.")] = False,
    suffix: Annotated[str, typer.Option(help="Added to the names of outputs in a folder.")] = "_x4",
    ext: Annotated[str | None, typer.Option(help="Format of the outputs: png, jpg, webp, tiff, avif, ...")] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF.")] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Subfolders too; the tree is kept.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave outputs that are there.")] = False,
    strip_metadata: Annotated[bool, typer.Option("--strip-metadata", help="Keep only the colour profile.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs, in pixels.")] = 2**28,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Pictures at a time, sharing the threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="A report on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Upscale pictures.

    \b
    dacesr upscale photo.jpg
    dacesr upscale album --recursive -o big --ext png
    dacesr upscale photo.jpg -o poster.png --width 3840
    """
    from dacesr.batch import Batch, Options, Sentences
    from dacesr.checkpoint import load_extractor
    from dacesr.inference import Upscaler
    from dacesr.jobs import plan_jobs
    from dacesr.memory import keep_freed_memory

    keep_freed_memory()
    if sum(x is not None for x in (scale, width, height)) > 1:
        raise fail("-s, --width and --height exclude one another")
    if tile != "auto" and not tile.isdecimal():
        raise fail(f"--tile must be auto, 0 or a positive number; got {tile}")
    if as_json and output == "-":
        raise fail("--json and -o - both want standard output")
    sentences = Sentences()
    try:
        planned = plan_jobs(inputs, output, suffix=suffix, extension=ext, recursive=recursive)
        upscaler = Upscaler.load(
            model, device=device, precision=precision.value, warn=sentences, strength=strength, extractor=extractor
        )
        upscaler.prepare()
        recogniser = upscaler.extractor or load_extractor("lite").to(upscaler.device) if tags else None
        tiling = int(tile) if tile.isdecimal() else "auto"
        upscaler.tile_size(tiling, overlap)
    except ValueError as error:
        raise fail(error) from error
    options = Options(
        scale=scale,
        width=width,
        height=height,
        tile=tiling,
        overlap=overlap,
        quality=quality,
        strip_metadata=strip_metadata,
        skip_existing=skip_existing,
        max_pixels=max_pixels,
    )
    batch = Batch(upscaler, options, warnings=sentences, quiet=quiet, recogniser=recogniser, say_tags=not as_json)
    results = batch.run(planned, workers=jobs)
    if as_json:
        typer.echo(json.dumps(batch.report(results), indent=2))
    if any(result.error for result in results):
        raise typer.Exit(1)


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


@models.command("list")
def list_models() -> None:
    """Names that -n takes besides files and hub ids, and what they are for."""
    from dacesr.weightfiles import bundled_descriptions, recognition_descriptions

    try:
        found, recognition = bundled_descriptions(), recognition_descriptions()
    except ValueError as error:
        raise fail(error) from error
    for name, description in (*found.items(), *([("recognition:", "")] if recognition else []), *recognition.items()):
        typer.echo(f"{name:20s} {description}".rstrip())
    if not found:
        typer.echo("no weights are bundled with this version: give a file with -n FILE")


@models.command()
def info(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="Bundled name, weights file, or hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a weights file holds."""
    from dacesr.checkpoint import describe

    try:
        found = describe(source)
    except (ValueError, OSError) as error:
        raise fail(error) from error
    facts: dict[str, object] = {
        "file": str(found.path),
        "architecture": found.architecture or "unknown",
        "scale": found.scale,
        "parameters": found.parameters,
        "stored as": f"{found.dtype}, {found.container}" + (f", under {found.key}" if found.key else ""),
        "sha256": found.sha256,
        "config": found.config.model_dump(mode="json") if found.config else None,
        **found.metadata,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        typer.echo(f"{name:16s} {f'{value:,}' if isinstance(value, int) else value if value is not None else '-'}")


@models.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="Weights file of the release, or hub id.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="File to write, *.safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Store as float16.")] = False,
    lora: Annotated[str | None, typer.Option(metavar="FILE", help="Adapter to merge into a tagger.")] = None,
    tags: Annotated[Path | None, typer.Option(metavar="FILE", help="Names of a tagger's tags, one a line.")] = None,
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="Their thresholds, one a line.")] = None,
) -> None:
    """Write weights in dacesr's own format: safetensors with the network's config in the header."""
    import torch

    from dacesr.checkpoint import convert as write

    try:
        dtype = torch.float16 if half else torch.float32
        write(source, output, dtype=dtype, lora=lora, tags=tags, thresholds=thresholds)
    except OSError as error:
        raise fail(f"{output} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise fail(error) from error
    typer.echo(str(output))


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
