"""`dacesr upscale`: pictures in, larger pictures out."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dacesr import completing
from dacesr.cli_options import Device, ExtractorName, Strength
from dacesr.failing import fail, require, warn

if TYPE_CHECKING:
    from dacesr.batch import Telling
    from dacesr.making import Settings


class PrecisionName(StrEnum):
    """Values of --precision."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class EngineName(StrEnum):
    """Values of --engine."""

    local = "local"
    ray = "ray"


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
    model: Annotated[
        str,
        typer.Option("-n", "--model", help="Bundled name, weights file, or hub id.", autocompletion=completing.models),
    ] = "default",
    tile: Annotated[
        str, typer.Option("-t", "--tile", metavar="auto|0|N", help="Tile in input pixels; 0: none.")
    ] = "auto",
    overlap: Annotated[int, typer.Option(min=0, help="Input pixels that neighbouring tiles share.")] = 32,
    device: Device = "auto",
    precision: Annotated[PrecisionName, typer.Option(help="Of the arithmetic.")] = PrecisionName.auto,
    strength: Strength = None,
    extractor: ExtractorName = None,
    tags: Annotated[bool, typer.Option("--tags", help="Tell what is seen in each picture.")] = False,
    suffix: Annotated[str, typer.Option(help="Added to the names of outputs in a folder.")] = "_x4",
    ext: Annotated[
        str | None,
        typer.Option(help="Format of the outputs: png, jpg, webp, tiff, avif, ...", autocompletion=completing.formats),
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP and AVIF.")] = None,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Subfolders too; the tree is kept.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave outputs that are there.")] = False,
    strip_metadata: Annotated[bool, typer.Option("--strip-metadata", help="Keep only the colour profile.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger inputs, in pixels.")] = 2**28,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, help="Pictures at a time, sharing the cores.", show_default="1")
    ] = None,
    engine: Annotated[EngineName, typer.Option(help="local, or ray: many machines.")] = EngineName.local,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster; RAY_ADDRESS, else one made here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A report on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Upscale pictures.

    \b
    dacesr upscale photo.jpg
    dacesr upscale album --recursive -o big --ext png
    dacesr upscale photo.jpg -o poster.png --width 3840
    """
    from dacesr.batch import Telling
    from dacesr.making import Options, Settings
    from dacesr.memory import keep_freed_memory
    from dacesr.places import is_url

    keep_freed_memory()
    if sum(x is not None for x in (scale, width, height)) > 1:
        raise fail("-s, --width and --height exclude one another")
    if tile != "auto" and not tile.isdecimal():
        raise fail(f"--tile must be auto, 0 or a positive number; got {tile}")
    if as_json and output == "-":
        raise fail("--json and -o - both want standard output")
    if engine is EngineName.local:
        if ray_address is not None:
            raise fail("--ray-address is for --engine ray")
        for place in filter(is_url, (*inputs, output)):
            raise fail(f"{place} is a URL: --engine ray reads and writes such places")
    options = Options(
        scale=scale,
        width=width,
        height=height,
        tile=int(tile) if tile.isdecimal() else "auto",
        overlap=overlap,
        quality=quality,
        strip_metadata=strip_metadata,
        skip_existing=skip_existing,
        max_pixels=max_pixels,
    )
    settings = Settings(
        model=model, precision=precision.value, strength=strength, extractor=extractor, tags=tags, options=options
    )
    places = {"inputs": inputs, "output": output, "suffix": suffix, "extension": ext, "recursive": recursive}
    telling = Telling(quiet=quiet, say_tags=not as_json)
    try:
        if engine is EngineName.ray:
            said = _by_ray(places, settings, telling, device=device, workers=jobs, address=ray_address)
        else:
            said = _here(places, settings, telling, device=device, workers=jobs or 1)
    except ValueError as error:
        raise fail(error) from error
    if as_json:
        typer.echo(json.dumps(said, indent=2))
    if any(result["error"] for result in said["results"]):
        raise typer.Exit(1)


def _here(
    places: dict[str, Any], settings: "Settings", telling: "Telling", *, device: str, workers: int
) -> dict[str, Any]:
    """The report of a run in this process."""
    from dacesr.batch import Batch, report
    from dacesr.jobs import plan_jobs
    from dacesr.making import Sentences

    planned = plan_jobs(**places)
    maker = settings.load(device, Sentences())
    results = Batch(maker, telling, skip_existing=settings.options.skip_existing).run(planned, workers)
    return report(maker.upscaler, results)


def _by_ray(
    places: dict[str, Any],
    settings: "Settings",
    telling: "Telling",
    *,
    device: str,
    workers: int | None,
    address: str | None,
) -> dict[str, Any]:
    """The report of a run on Ray."""
    for package in ("ray", "pyarrow", "fsspec"):
        require(package, extra="ray", what="--engine ray needs")
    from dacesr.batch import report
    from dacesr.distributed import ClusterError, connected, lay_out, plan, run
    from dacesr.making import Sentences

    planned, folder = plan(**places)
    upscaler = settings.load("cpu", Sentences()).upscaler  # finds out whether it can be
    try:
        with connected(address):
            layout = lay_out(device, workers, len(planned))
            results, precision = run(planned, folder, settings, layout, telling)
    except ClusterError as error:
        warn(error)
        raise typer.Exit(1) from error
    precision = precision or upscaler.precision  # where all was done already, what would be used
    return report(upscaler, results, engine="ray", workers=layout.workers, device=layout.device, precision=precision)
