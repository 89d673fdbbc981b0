"""Options that several commands have."""

from typing import Annotated

import typer

from dacesr import completing

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, ...", autocompletion=completing.devices)]
Strength = Annotated[float | None, typer.Option(min=0, max=1, help="0 faithful to 1 crisp, where the model has both.")]
ExtractorName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="What sees pictures for the model; its file's own.",
        autocompletion=completing.extractors,
    ),
]
