"""`dacesr analyze attribution`, `activations`, `condition` and `compare`: what networks do with a photograph, drawn."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dacesr.failing import fail

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
