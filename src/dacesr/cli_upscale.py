"""`dacesr upscale`: pictures in, larger pictures out."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from dacesr.failing import fail


class PrecisionName(StrEnum):
    """Values of --precision."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


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
