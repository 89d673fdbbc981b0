"""How a command says that something failed, or that its call is wrong."""

import typer


def warn(sentence: object) -> None:
    """Say something on standard error."""
    typer.echo(f"dacesr: {sentence}", err=True)


def fail(sentence: object) -> typer.Exit:
    """Say why a call is wrong; the exit to raise (code 2)."""
    warn(sentence)
    return typer.Exit(2)
