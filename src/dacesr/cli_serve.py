"""`dacesr serve`: the web page and its HTTP API."""

from typing import Annotated

import typer

from dacesr.failing import fail


def serve(
    model: Annotated[str, typer.Option("-n", "--model", help="Bundled name, weights file, or hub id.")] = "default",
) -> None:
    """Serve the web page and the HTTP API."""
    raise fail(f"not there yet: {model}")
