"""`dacesr models`: weights listed, inspected, converted and exported."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dacesr import completing
from dacesr.cli_options import ExtractorName, Strength
from dacesr.failing import fail

_ABOUT = """List, inspect, convert and export weights.

\b
dacesr models list
dacesr models info dacesr-light
"""

models = typer.Typer(help=_ABOUT, no_args_is_help=True)

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Bundled name, weights file, or hub id.", autocompletion=completing.weights),
]


class ExportFormat(StrEnum):
    """Values of --format."""

    onnx = "onnx"
    torch = "torch"
    spandrel = "spandrel"


@models.command("list")
def list_models() -> None:
    """Names that -n takes besides files and hub ids, and what they are for.

    \b
    dacesr models list
    """
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
    source: Model,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a weights file holds.

    \b
    dacesr models info dacesr-light
    dacesr models info RealESRGAN_x4plus.pth --json
    """
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
    source: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="File to write, *.safetensors.")],
    half: Annotated[bool, typer.Option("--half", help="Store as float16.")] = False,
    lora: Annotated[str | None, typer.Option(metavar="FILE", help="Adapter to merge into a tagger.")] = None,
    tags: Annotated[Path | None, typer.Option(metavar="FILE", help="Names of a tagger's tags, one a line.")] = None,
    thresholds: Annotated[Path | None, typer.Option(metavar="FILE", help="Their thresholds, one a line.")] = None,
) -> None:
    """Write weights in dacesr's own format: safetensors with the network's config in the header.

    \b
    dacesr models convert RealESRGAN_x4plus.pth -o realesrgan.safetensors --half
    dacesr models convert ram_swin_large_14m.pth --lora DAPE.pth -o ram-dape.safetensors
    """
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


@models.command()
def export(
    source: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write, such as model.onnx.")],
    format: Annotated[
        ExportFormat, typer.Option("--format", help="torch: a program of torch.export; spandrel: for its plug-in.")
    ] = ExportFormat.onnx,
    tile: Annotated[
        int | None,
        typer.Option("-t", "--tile", min=1, metavar="N", help="For N x N pixels only; torch: 128 unless given."),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="For pictures of any size, as without --tile.")] = False,
    strength: Strength = None,
    extractor: ExtractorName = None,
) -> None:
    """Write a network for other runtimes: it is run and compared with PyTorch before the file is kept.

    \b
    dacesr models export default -o dacesr.onnx
    dacesr models export lite -o extractor.onnx
    dacesr models export light -o light.onnx --tile 128
    dacesr models export light -o light.pt2 --format torch
    """
    from dacesr.exporting import export_model
    from dacesr.spandrel_plugin import save

    if dynamic and (tile is not None or format is not ExportFormat.onnx):
        raise fail("--dynamic is for ONNX without --tile; a program of torch.export is for one size: give --tile N")
    try:
        if format is ExportFormat.spandrel:
            if tile is not None:
                raise fail("a file for spandrel takes pictures of any size: leave --tile out")
            save(source, output, strength=strength, extractor=extractor)
            typer.echo(str(output))
            return
        done = export_model(source, output, format=format.value, tile=tile, strength=strength, extractor=extractor)
    except OSError as error:
        raise fail(f"{output} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise fail(error) from error
    inputs = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in done.inputs.items())
    typer.echo(f"{output}: {inputs}; at most {done.difference:.1g} from PyTorch")
