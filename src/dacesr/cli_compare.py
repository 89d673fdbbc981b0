"""`dacesr analyze compare`: the same places of pictures by several methods, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dacesr import completing
from dacesr.cli_figures import Output, Seed, called, name_files
from dacesr.cli_options import Device
from dacesr.failing import warn

if TYPE_CHECKING:
    from dacesr.analysis.comparing import Comparer, Photo


def compare(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Pictures, or folders of them.")],
    output: Output,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--method",
            metavar="METHOD",
            help="bicubic, lanczos, bundled name, file or hub id; MODEL@STRENGTH; NAME=FOLDER of results. Repeatable.",
            autocompletion=completing.methods,
        ),
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,SIZE", help="Output pixels; the most detailed place unless given. Repeatable."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=2, help="Side of the window in output pixels, where none is given.")
    ] = None,
    spaces: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="NAME",
            help="PICTUREs are sharp: degrade them so, as bicubic, level2, .... Repeatable.",
            autocompletion=completing.spaces,
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of sharp versions of the pictures, under the same names.")
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="psnr_y, ssim_y, lpips, niqe, ... Repeatable.",
            autocompletion=completing.measures,
        ),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the files that measures need; $DACESR_DATA/metrics.")
    ] = None,
    scale: Annotated[int, typer.Option(min=1, max=8, help="Times that all methods enlarge.")] = 4,
    seed: Seed = 0,
    device: Device = "auto",
    tile: Annotated[
        str | None,
        typer.Option(metavar="auto|0|N", help="Input pixels a side; 0, whole pictures, where there are references."),
    ] = None,
) -> None:
    """Crops of the same place by several methods with their scores: sheets (Figs. 6, 7), and a page with a slider.

    \b
    dacesr analyze compare photo.jpg -o out
    dacesr analyze compare photos -o out -n bicubic -n light -n default --space bicubic --space level2
    dacesr analyze compare lr -o out --reference hr -n default -n HAT=results/hat --window 420,200,96
    """
    with called(output):
        from dacesr.analysis import comparing
        from dacesr.analysis.page import made_by
        from dacesr.analysis.windows import parse_window
        from dacesr.device import find_device
        from dacesr.evaluate.measures import metrics_folder
        from dacesr.evaluate.methods import find_methods

        measured, where = bool(spaces) or reference is not None, find_device(device)
        photos = comparing.gather_photos(pictures, sharp=bool(spaces))
        windows = [parse_window(text) for text in window or ()]
        measures, missing = comparing.find_measures(
            measure, metrics_folder(metrics), reference=measured, scale=scale, device=where
        )
        for sentence in missing:
            warn(sentence)
        tile = tile or ("0" if measured else "auto")
        if tile != "auto" and not tile.isdecimal():
            raise ValueError(f"--tile must be auto, 0 or a positive number; got {tile}")
        methods = find_methods(
            method or comparing.DEFAULT,
            scale=scale, device=device, precision="fp32", tile=int(tile) if tile.isdecimal() else tile,
        )  # fmt: skip
        comparer = comparing.Comparer(
            methods=methods, measures=measures, scale=scale, degradations=spaces or (), reference=reference,
            windows=windows, size=size, seed=seed, device=where, warn=warn,
        )  # fmt: skip
        made = made_by(methods, scale=scale, seed=seed if spaces else None)
        _write(comparer, photos, output, list(measures), made)
    if comparer.failures:
        raise typer.Exit(1)


def _write(comparer: "Comparer", photos: "Sequence[Photo]", output: Path, measures: Sequence[str], made: str) -> None:
    """Compare, and write and name the files: a sheet for each comparison, then the page and the scores of all."""
    from dacesr.analysis import comparing
    from dacesr.analysis.page import page, scenes_of
    from dacesr.analysis.sheets import save_sheet
    from dacesr.tensorfile import write_whole

    scenes, rows, sheets = [], [], []
    embedded = pixels = 0
    for found in comparer.run(photos):
        output.mkdir(parents=True, exist_ok=True)
        sheets.append(comparing.sheet_name(found, sheets))
        save_sheet(found, output / sheets[-1])
        name_files(output, sheets[-1])
        rows += [(found.name, found.degradation, *scored) for scored in found.scores.items()]
        pixels += found.kept
        if pixels <= comparing.PAGE or not scenes:
            scenes += scenes_of(found)
            embedded = len(sheets)
    if not scenes:
        warn("nothing was written")
        return
    if embedded < len(sheets):
        warn(f"the page holds the first {embedded} of {len(sheets)} comparisons: it would be too large with more")
    write_whole(output / "compare.html", page(scenes, made=made).encode())
    write_whole(output / "scores.csv", comparing.scores_csv(rows, measures).encode())
    name_files(output, "compare.html", "scores.csv")
