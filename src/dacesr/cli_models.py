"""`dacesr models`: weights listed, inspected and converted."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dacesr.failing import fail

models = typer.Typer(help="List, inspect and convert weights.", no_args_is_help=True)


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
