"""How a command says that its call is wrong."""

import typer


def fail(sentence: object) -> typer.Exit:
    """Say why a call is wrong; the exit to raise (code 2)."""
    typer.echo(f"dacesr: {sentence}", err=True)
    return typer.Exit(2)
