"""`dacesr analyze attribution`, `activations`, `condition` and `compare`: what networks do with a photograph, drawn."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dacesr.failing import fail

if TYPE_CHECKING:
    from torch import Tensor

    from dacesr.analysis.windows import Window
    from dacesr.conditioning import Guided

Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="Picture to enlarge.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder of figures and tables.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "-n",
        "--model",
        metavar="MODEL",
        help="Bundled name, file or hub id; MODEL@STRENGTH; NAME=MODEL; random:NETWORK for random weights. Repeatable.",
    ),
]
Versions = Annotated[
    list[str] | None,
    typer.Option(
        "--degradation",
        metavar="NAME",
        help="clean, blur, blur=2.5, noise=20, jpeg=30, mixed, level1, ..., of the input. Repeatable.",
    ),
]
WindowText = Annotated[
    str | None,
    typer.Option("--window", metavar="X,Y,SIZE", help="Output pixels; the most detailed place unless given."),
]
Side = Annotated[int, typer.Option(min=0, help="Input pixels a side around the window; 0: the whole picture.")]
Seed = Annotated[int, typer.Option(help="Of the degradations.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...")]


@contextmanager
def _called(output: Path) -> Iterator[None]:
    """What is wrong with a call, in one sentence."""
    if importlib.util.find_spec("matplotlib") is None:
        raise fail('figures need matplotlib: pip install "dacesr[analysis]"')
    from dacesr.memory import keep_freed_memory

    keep_freed_memory()
    try:
        yield
    except ValueError as error:
        raise fail(error) from error
    except OSError as error:
        raise fail(f"{output} cannot be written: {error.strerror or error}") from error


def attribution(
    photo: Photo,
    output: Output,
    model: Models = None,
    degradation: Versions = None,
    window: WindowText = None,
    size: Annotated[int, typer.Option(min=2, help="Side of the window in output pixels, where none is given.")] = 16,
    side: Side = 128,
    sigma: Annotated[float, typer.Option(help="Of the blur that the path begins with, in input pixels.")] = 1.2,
    steps: Annotated[int, typer.Option(min=1, help="Of the path.")] = 50,
    condition: Annotated[
        Literal["fixed", "attributed"], typer.Option(help="What an extractor sees: the input, or the path.")
    ] = "fixed",
    batch: Annotated[int, typer.Option(min=1, help="Points of the path at a time.")] = 2,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Local attribution maps and diffusion index: which input pixels a detail of the output comes from (Fig. 5).

    \b
    dacesr analyze attribution photo.jpg -o out
    dacesr analyze attribution photo.jpg -o out -n default -n RLFN=rlfn.pth -n random:rrdb --window 248,200,16
    """
    with _called(output):
        from dacesr.analysis import attributions, plots
        from dacesr.analysis.attribution_plots import attribution_figure
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        subjects, inputs, at = _looked_at(
            photo, model or ["default", "light"], degradation or ["clean"], window,
            size=size, side=side, seed=seed, device=device,
        )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        with advancing("steps", steps * len(subjects) * len(inputs)) as advance:
            found = attributions.measure(
                subjects, inputs, at, sigma=sigma, steps=steps, batch=batch,
                through_condition=condition == "attributed", advance=advance,
            )  # fmt: skip
        plots.save(attribution_figure(inputs, found), output / "attribution.png")
        write_whole(output / "attribution.csv", attributions.as_csv(found).encode())
        write_whole(output / "attribution.npz", attributions.as_npz(found))
        for line in attributions.sentences(found):
            typer.echo(line)
        _name(output, "attribution.png", "attribution.csv", "attribution.npz")


Other = Annotated[Path | None, typer.Option(metavar="PHOTO", help="Another picture, for its condition.")]


def activations(
    photo: Photo,
    output: Output,
    model: Models = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="own, clean (of the clean picture), none, other (of --other), or an extractor. Repeatable.",
        ),
    ] = None,
    other: Other = None,
    degradation: Versions = None,
    window: WindowText = None,
    side: Side = 128,
    stages: Annotated[int, typer.Option(min=1, help="Of each network, at even distances.")] = 4,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """What networks make of a degraded photograph after each group, with one condition and another (Fig. 8).

    \b
    dacesr analyze activations photo.jpg -o out
    dacesr analyze activations photo.jpg -o out -n default -n light --condition own --condition none --degradation blur
    """
    with _called(output):
        from dacesr.analysis import activations as measuring
        from dacesr.analysis import maps, plots
        from dacesr.analysis.versions import CLEAN
        from dacesr.evaluate.tables import show
        from dacesr.image import read
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        degradations = degradation or ["blur", "jpeg", "noise", "mixed"]
        subjects, inputs, _ = _looked_at(
            photo, model or ["default"], [CLEAN, *degradations], window,
            size=min(side or 64, 64), side=side, seed=seed, device=device,
        )  # fmt: skip
        clean, inputs = inputs[CLEAN], {name: inputs[name] for name in degradations}
        another = None if other is None else read(other).to(clean.device)
        ways = measuring.find_ways(subjects, condition, other=another)
        output.mkdir(parents=True, exist_ok=True)
        with advancing("versions", len(ways) * len(inputs)) as advance:
            found = measuring.activations(ways, inputs, clean, stages=stages, advance=advance)
        write_whole(output / "activations.csv", measuring.activations_csv(found).encode())
        plots.save(maps.activation_figure(found, inputs), output / "activations.png")
        show([measuring.summary(found)], measuring.NOTES)
        _name(output, "activations.png", "activations.csv")


def condition(
    photo: Photo,
    output: Output,
    model: Annotated[
        str, typer.Option("-n", "--model", metavar="MODEL", help="Bundled name, file or hub id, or MODEL@STRENGTH.")
    ] = "default",
    extractor: Annotated[
        str | None, typer.Option(metavar="NAME", help="What conditions it; its own unless given.")
    ] = None,
    other: Other = None,
    degradation: Versions = None,
    window: WindowText = None,
    side: Side = 128,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """What the condition of a network does: to its features, and to the picture that it makes.

    \b
    dacesr analyze condition photo.jpg -o out
    dacesr analyze condition photo.jpg -o out --other cat.jpg --degradation clean --degradation mixed
    """
    with _called(output):
        from dacesr.analysis import maps, modulations, plots
        from dacesr.analysis.versions import CLEAN
        from dacesr.checkpoint import load_extractor
        from dacesr.image import read
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        degradations = degradation or [CLEAN]
        subjects, inputs, _ = _looked_at(
            photo, [model], [CLEAN, *degradations], window,
            size=min(side or 64, 64), side=side, seed=seed, device=device,
        )  # fmt: skip
        [(name, guided)] = subjects.items()
        if extractor is not None:
            guided = modulations.with_extractor(guided, load_extractor(extractor), name, extractor)
        clean, inputs = inputs[CLEAN], {version: inputs[version] for version in degradations}
        another = None if other is None else (other.name, read(other).to(clean.device))
        modulations.conditioned(guided, name)
        output.mkdir(parents=True, exist_ok=True)
        with advancing("versions", len(inputs)) as advance:
            found = modulations.examine(guided, inputs, model=name, clean=clean, other=another, advance=advance)
        write_whole(output / "condition.csv", modulations.examinations_csv(found).encode())
        plots.save(maps.condition_figure(found), output / "condition.png")
        for line in modulations.sentences(found):
            typer.echo(line)
        _name(output, "condition.png", "condition.csv")


# --- what they share


def _looked_at(
    photo: Path,
    models: Sequence[str],
    degradations: Sequence[str],
    window: str | None,
    *,
    size: int,
    side: int,
    seed: int,
    device: str,
) -> "tuple[dict[str, Guided], dict[str, Tensor], Window]":
    """Networks, the versions of the photo's part that they are given, and the window within it."""
    from dacesr.analysis.subjects import load_subjects
    from dacesr.analysis.versions import check_versions, versions
    from dacesr.analysis.windows import cut_around, find_window, parse_window
    from dacesr.device import find_device
    from dacesr.image import read

    check_versions(degradations)
    at = None if window is None else parse_window(window)
    where = find_device(device)
    subjects = load_subjects(models, device=where)
    scale = next(iter(subjects.values())).config.scale
    picture = read(photo).to(where)
    part, at = cut_around(picture, at or find_window(picture, scale, size), scale, side)
    return subjects, versions(part, degradations, seed=seed), at


def _name(output: Path, *names: str) -> None:
    """Name the files that were written."""
    for name in names:
        typer.echo(str(output / name))


# --- side by side


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
        ),
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y,SIZE", help="Output pixels; the most detailed place unless given. Repeatable."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=2, help="Side of the window in output pixels, where none is given.")
    ] = None,
    degradation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="PICTUREs are sharp: degrade them so, as bicubic, level2, .... Repeatable."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of sharp versions of the pictures, under the same names.")
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="psnr_y, ssim_y, lpips, niqe, ... Repeatable.")
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
    dacesr analyze compare photos -o out -n bicubic -n light -n default --degradation bicubic --degradation level2
    dacesr analyze compare lr -o out --reference hr -n default -n HAT=results/hat --window 420,200,96
    """
    if tile not in (None, "auto") and not tile.isdecimal():
        raise fail(f"--tile must be auto, 0 or a positive number; got {tile}")
    with _called(output):
        from dacesr.analysis import comparing
        from dacesr.analysis.page import made_by, page, scenes_of
        from dacesr.analysis.sheets import save_sheet
        from dacesr.analysis.windows import parse_window
        from dacesr.device import find_device
        from dacesr.evaluate.measures import metrics_folder
        from dacesr.evaluate.methods import find_methods
        from dacesr.tensorfile import write_whole

        def warn(sentence: str) -> None:
            typer.echo(f"dacesr: {sentence}", err=True)

        measured, where = bool(degradation) or reference is not None, find_device(device)
        photos = comparing.gather_photos(pictures, sharp=bool(degradation))
        windows = [parse_window(text) for text in window or ()]
        measures, missing = comparing.find_measures(
            measure, metrics_folder(metrics), reference=measured, scale=scale, device=where
        )
        for sentence in missing:
            warn(sentence)
        tile = tile or ("0" if measured else "auto")
        methods = find_methods(
            method or comparing.DEFAULT,
            scale=scale, device=device, precision="fp32", tile=int(tile) if tile.isdecimal() else tile,
        )  # fmt: skip
        comparer = comparing.Comparer(
            methods=methods, measures=measures, scale=scale, degradations=degradation or (), reference=reference,
            windows=windows, size=size, seed=seed, device=where, warn=warn,
        )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        scenes, rows, sheets = [], [], []
        for found in comparer.run(photos):
            sheets.append(comparing.sheet_name(found, sheets))
            save_sheet(found, output / sheets[-1])
            _name(output, sheets[-1])
            scenes += scenes_of(found)
            rows += [(found.name, found.degradation, *scored) for scored in found.scores.items()]
        if scenes:
            made = made_by(methods, scale=scale, seed=seed if degradation else None)
            write_whole(output / "compare.html", page(scenes, made=made).encode())
            write_whole(output / "scores.csv", comparing.scores_csv(rows, list(measures)).encode())
            _name(output, "compare.html", "scores.csv")
    if comparer.failures:
        raise typer.Exit(1)
