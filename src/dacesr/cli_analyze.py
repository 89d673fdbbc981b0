"""`dacesr analyze` and `dacesr inspect`: what the networks see, as tables and figures, and in a photograph."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dacesr import completing
from dacesr.failing import fail, require, unwritable, warn

_GROUP = """What the networks see, as tables and figures.

\b
dacesr analyze compare photo.jpg -o out
dacesr analyze attribution photo.jpg -o out
"""

analysis = typer.Typer(help=_GROUP, no_args_is_help=True)

Pictures = Annotated[
    list[Path], typer.Argument(metavar="PICTURES", help="Sharp pictures, folders of them, or labelled CSVs.")
]
SelectionFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of degradations; the bundled one unless given.")
]
Scale = Annotated[
    int | None, typer.Option(min=1, max=64, help="Times smaller that degraded pictures are; the selection's own.")
]
Shorter = Annotated[int | None, typer.Option(min=8, help="Reduce pictures whose shorter side is longer, in pixels.")]

Reference = Annotated[
    str,
    typer.Option(metavar="NAME", help="The tagger that it was tuned from.", autocompletion=completing.extractors),
]


@analysis.command()
def recognition(
    pictures: Pictures,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Folder of tables and figures.")],
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Bundled name, file or hub id, or NAME=FILE; the first is the reference.",
            autocompletion=completing.extractors,
        ),
    ] = None,
    selection: SelectionFile = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures of each folder and CSV.")] = 100,
    per_class: Annotated[int, typer.Option(min=0, help="Degradations of each class; 0: all.")] = 10,
    split: Annotated[str, typer.Option(help="train, val or test of a CSV.")] = "test",
    seed: Annotated[int, typer.Option(help="Decides draws, noise and resampling.")] = 0,
    scale: Scale = None,
    shorter: Shorter = None,
) -> None:
    """Measure what extractors still see in degraded pictures: similarity of tags and embeddings with the clean ones.

    \b
    dacesr analyze recognition photos -o out
    dacesr analyze recognition corel5k.csv -o out --extractor lite-ram --extractor mine=ree.safetensors
    """
    require("matplotlib", extra="analysis", what="figures need")
    from dacesr.analysis import examples, plots
    from dacesr.analysis import recognition as measuring
    from dacesr.analysis.inputs import check_sizes, gather_pictures, load_extractors, load_selection
    from dacesr.progress import advancing
    from dacesr.tensorfile import write_whole

    try:
        chosen = load_selection(selection, scale=scale)
        extractors = load_extractors(extractor)
        clean = gather_pictures(pictures, images=images, split=split, shorter=shorter)
        check_sizes(clean, chosen.settings.scale if chosen else 1)
        conditions = measuring.sweep_conditions(seed=seed)
        if chosen is None:
            warn("no selection is bundled or given, so the four classes are left out")
        else:
            conditions += measuring.class_conditions(chosen, per_class=per_class or None, seed=seed)
        output.mkdir(parents=True, exist_ok=True)
        with advancing("degradations", len(conditions)) as advance:
            rows = measuring.measure(extractors, clean, conditions, advance=advance)
        summaries = measuring.summarise(rows, seed=seed)
        for name, text in (
            ("rows.csv", measuring.rows_csv(rows)),
            ("summary.csv", measuring.summary_csv(summaries)),
            ("summary.md", measuring.markdown(summaries)),
        ):
            write_whole(output / name, text.encode())
        plots.save(plots.sweep_figure(summaries), output / "sweeps.png")
        if chosen is not None:
            plots.save(plots.class_figure(summaries), output / "classes.png")
        reference, *others = extractors
        shown = {name: extractors[name] for name in (reference, *others[-1:])}
        ways = examples.typical(conditions, chosen)
        plots.save(plots.tag_figure(examples.show(shown, clean, ways, reference=reference)), output / "tags.png")
    except OSError as error:
        raise unwritable(output, error) from error
    except ValueError as error:
        raise fail(error) from error
    for path in sorted(output.iterdir()):
        typer.echo(str(path))


@analysis.command()
def severity(
    pictures: Pictures,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="File to write, *.json.")],
    extractor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Tuned on ruined pictures: bundled name, file or hub id, or NAME=FILE.",
            autocompletion=completing.extractors,
        ),
    ] = "lite-ree",
    reference: Reference = "lite-ram",
    selection: SelectionFile = None,
    images: Annotated[int, typer.Option(min=8, help="Pictures of each folder and CSV.")] = 200,
    per_class: Annotated[int, typer.Option(min=1, help="Degradations of each class for each picture.")] = 4,
    split: Annotated[str, typer.Option(help="train, val or test of a CSV.")] = "train",
    seed: Annotated[int, typer.Option(help="Decides draws and noise.")] = 0,
    scale: Scale = None,
    shorter: Shorter = None,
) -> None:
    """Fit what `dacesr inspect` estimates the severity of a picture's degradation with.

    \b
    dacesr analyze severity corel5k.csv photos -o severity.json
    """
    from dacesr.analysis.inputs import check_sizes, gather_pictures, load_extractors, load_selection
    from dacesr.analysis.severity import fit_severity
    from dacesr.progress import advancing

    try:
        chosen = load_selection(selection, scale=scale)
        if chosen is None:
            raise fail("no selection is bundled with this version: give one with --selection FILE")
        extractors = load_extractors([reference, extractor])
        clean = gather_pictures(pictures, images=images, split=split, shorter=shorter)
        check_sizes(clean, chosen.settings.scale)
        with advancing("pictures", len(clean)) as advance:
            head = fit_severity(extractors, clean, chosen, per_class=per_class, seed=seed, advance=advance)
        head.save(output)
    except OSError as error:
        raise unwritable(output, error) from error
    except ValueError as error:
        raise fail(error) from error
    held = head.held_out
    typer.echo(
        f"{output}: of {held.samples} held-out pictures the class of {held.accuracy:.1%} is found, of "
        f"{held.within_one:.1%} within one; true classes by those taken for 1 to 4:"
    )
    for number, row in enumerate(held.confusion, start=1):
        typer.echo(f"  {number}  {' '.join(f'{count:5d}' for count in row)}")


def inspect(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Pictures.")],
    extractor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Bundled name, file or hub id.", autocompletion=completing.extractors),
    ] = "lite",
    reference: Reference = "lite-ram",
    severity: Annotated[
        Path | None, typer.Option(metavar="FILE", help="From `dacesr analyze severity`; the bundled one unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What is in a photograph, how severely it is degraded, and how to upscale it.

    \b
    dacesr inspect photo.jpg
    dacesr inspect photos/*.jpg --json > found.json
    """
    from dataclasses import asdict

    from dacesr.inspection import Inspector, sentences

    try:
        inspector = Inspector.load(extractor, reference=reference, severity=severity)
    except ValueError as error:
        raise fail(error) from error
    found, failed = [], False
    for photo in photos:
        try:
            found.append(inspector(photo))
        except ValueError as error:
            failed = True
            warn(error)
        else:
            if not as_json:
                typer.echo(sentences(found[-1]))
    if as_json:
        typer.echo(json.dumps([{**asdict(one), "advice": one.advice._asdict()} for one in found], indent=2))
    if failed:
        raise typer.Exit(1)
