"""`dacesr analyze attribution`, `activations`, `condition` and `compare`: what networks do with a photograph, drawn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dacesr import completing
from dacesr.cli_options import Device
from dacesr.failing import fail, require, unwritable, warn

if TYPE_CHECKING:
    from dacesr.analysis.looks import Look
    from dacesr.conditioning import Guided

Photo = Annotated[Path, typer.Argument(metavar="PHOTO", help="Picture to enlarge.")]
Photos = Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Pictures to enlarge.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder of figures and tables.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "-n",
        "--model",
        metavar="MODEL",
        help="Bundled name, file or hub id; MODEL@STRENGTH; NAME=MODEL; random:NETWORK for random weights. Repeatable.",
        autocompletion=completing.models,
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


@contextmanager
def called(output: Path) -> Iterator[None]:
    """What is wrong with a call, in one sentence."""
    require("matplotlib", extra="analysis", what="figures need")
    from dacesr.memory import is_out_of_memory, keep_freed_memory

    keep_freed_memory()
    try:
        yield
    except ValueError as error:
        raise fail(error) from error
    except OSError as error:
        raise unwritable(error.filename2 or output, error) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        warn("there is too little memory: look at a smaller part")
        raise typer.Exit(1) from error


def attribution(
    photos: Photos,
    output: Output,
    model: Models = None,
    degradation: Versions = None,
    window: WindowText = None,
    size: Annotated[
        int | None, typer.Option(min=2, help="Side of the window in output pixels where none is given; 16.")
    ] = None,
    side: Side = 128,
    sigma: Annotated[float, typer.Option(help="Of the blur that the path begins with, in input pixels.")] = 1.2,
    steps: Annotated[int, typer.Option(min=1, help="Of the path.")] = 50,
    condition: Annotated[
        Literal["fixed", "attributed"], typer.Option(help="What an extractor sees: the input, or the path.")
    ] = "fixed",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Points of the path at a time; 1 on the CPU, 8 elsewhere.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Local attribution maps and diffusion index: which input pixels a detail of the output comes from (Fig. 5).

    \b
    dacesr analyze attribution photo.jpg -o out
    dacesr analyze attribution photo.jpg -o out -n default -n RLFN=rlfn.pth -n random:rrdb --window 248,200,16
    """
    with called(output):
        from dacesr.analysis import attributions, plots
        from dacesr.analysis.attribution_plots import attribution_figure
        from dacesr.evaluate.benchmark import plain
        from dacesr.evaluate.tables import as_markdown, show
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        subjects = _subjects(model or ["default"], device)
        photos = _distinct(photos)
        looks = _looks(photos, subjects, degradation or ["clean"], window, size=size, side=side, seed=seed)
        output.mkdir(parents=True, exist_ok=True)
        found, files = [], ["attribution.csv", "attribution.md"]
        total = steps * len(subjects) * sum(len(look.inputs) for look in looks)
        with advancing("steps", total) as advance:
            for look in looks:
                its = attributions.measure(
                    subjects, look, sigma=sigma, steps=steps, batch=batch,
                    through_condition=condition == "attributed", advance=advance,
                )  # fmt: skip
                found += its
                contents = {
                    f"{plain(look.picture)}_attribution.png": plots.as_png(attribution_figure(its)),
                    f"{plain(look.picture)}_attribution.npz": attributions.attributions_npz(its),
                    "attribution.csv": attributions.attributions_csv(found).encode(),
                    "attribution.md": f"{as_markdown(attributions.table(found))}\n".encode(),
                }
                for file, content in contents.items():
                    write_whole(output / file, content)
                files += list(contents)[:2]
        show([attributions.table(found)])
        for sentence in attributions.warnings(found):
            warn(sentence)
        name_files(output, *files)
        if len(looks) < len(photos):
            raise typer.Exit(1)


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
    with called(output):
        from dacesr.analysis import activations as measuring
        from dacesr.analysis import maps, plots
        from dacesr.analysis.versions import CLEAN
        from dacesr.evaluate.tables import show
        from dacesr.image import read
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        degradations = degradation or [CLEAN, "blur", "jpeg", "noise", "mixed"]
        subjects = _subjects(model or ["default"], device)
        (look,) = _looks([photo], subjects, [CLEAN, *degradations], window, usual=64, side=side, seed=seed)
        clean, inputs = look.inputs[CLEAN], {name: look.inputs[name] for name in degradations}
        another = None if other is None else read(other).to(clean.device)
        ways = measuring.find_ways(subjects, condition, other=another)
        output.mkdir(parents=True, exist_ok=True)
        with advancing("versions", len(ways) * len(inputs)) as advance:
            found = measuring.activations(ways, inputs, clean, stages=stages, advance=advance)
        write_whole(output / "activations.csv", measuring.activations_csv(found).encode())
        plots.save(maps.activation_figure(found, inputs), output / "activations.png")
        show([measuring.summary(found)], measuring.NOTES)
        typer.echo(f"looked at {look.part} (left,top,width,height) of {photo}")
        name_files(output, "activations.png", "activations.csv")


def condition(
    photo: Photo,
    output: Output,
    model: Annotated[
        str,
        typer.Option(
            "-n",
            "--model",
            metavar="MODEL",
            help="Bundled name, file or hub id, or MODEL@STRENGTH.",
            autocompletion=completing.models,
        ),
    ] = "default",
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What conditions it; its own unless given.", autocompletion=completing.extractors
        ),
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
    with called(output):
        from dacesr.analysis import maps, modulations, plots
        from dacesr.analysis.versions import CLEAN
        from dacesr.checkpoint import load_extractor
        from dacesr.image import read
        from dacesr.progress import advancing
        from dacesr.tensorfile import write_whole

        degradations = degradation or [CLEAN]
        subjects = _subjects([model], device)
        [(name, guided)] = subjects.items()
        (look,) = _looks([photo], subjects, [CLEAN, *degradations], window, usual=64, side=side, seed=seed)
        if extractor is not None:
            guided = modulations.with_extractor(guided, load_extractor(extractor), name, extractor)
        clean, inputs = look.inputs[CLEAN], {version: look.inputs[version] for version in degradations}
        another = None if other is None else (other.name, read(other).to(clean.device))
        modulations.conditioned(guided, name)
        output.mkdir(parents=True, exist_ok=True)
        with advancing("versions", len(inputs)) as advance:
            found = modulations.examine(guided, inputs, model=name, clean=clean, other=another, advance=advance)
        write_whole(output / "condition.csv", modulations.examinations_csv(found).encode())
        plots.save(maps.condition_figure(found), output / "condition.png")
        for line in modulations.sentences(found):
            typer.echo(line)
        typer.echo(f"looked at {look.part} (left,top,width,height) of {photo}")
        name_files(output, "condition.png", "condition.csv")


# --- what they share


def _subjects(models: Sequence[str], device: str) -> "dict[str, Guided]":
    from dacesr.analysis.subjects import load_subjects
    from dacesr.device import find_device

    return load_subjects(models, device=find_device(device))


def _looks(
    photos: Sequence[Path],
    subjects: "Mapping[str, Guided]",
    degradations: Sequence[str],
    window: str | None,
    *,
    size: int | None = None,
    usual: int = 16,
    side: int,
    seed: int,
) -> "list[Look]":
    """Parts of the photos; those that cannot be looked at are named, and ValueError if none is left."""
    from dacesr.analysis.looks import look_at
    from dacesr.analysis.versions import check_versions
    from dacesr.analysis.windows import parse_window

    check_versions(degradations)
    at = None if window is None else parse_window(window)
    guided = next(iter(subjects.values()))
    device = next(guided.parameters()).device
    looks: list[Look] = []
    failures: list[ValueError] = []
    for photo in photos:
        try:
            look = look_at(
                photo, degradations, scale=guided.config.scale, side=side, window=at, size=size, usual=usual,
                seed=seed, device=device,
            )  # fmt: skip
            looks.append(look)
        except ValueError as error:
            failures.append(error if str(photo) in str(error) else ValueError(f"{photo}: {error}"))
    if not looks:
        raise failures[0]
    for error in failures:
        warn(error)
    return looks


def _distinct(photos: Sequence[Path]) -> list[Path]:
    """The photos, each once; files are named after them, so two must not have one name."""
    from dacesr.evaluate.benchmark import plain

    photos = list({photo.resolve(): photo for photo in photos}.values())
    names = [plain(photo.stem) for photo in photos]
    if twice := next((photo for photo in photos if names.count(plain(photo.stem)) > 1), None):
        raise ValueError(f"{twice} is not the only picture called {twice.stem}, and files are named after pictures")
    return photos


def name_files(output: Path, *names: str) -> None:
    """Name the files that were written."""
    for name in names:
        typer.echo(str(output / name))
