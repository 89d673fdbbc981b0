"""How a command says that something failed, or that its call is wrong, and what to do next."""

import difflib
import errno
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import typer


def warn(sentence: object) -> None:
    """Say something on standard error."""
    typer.echo(f"dacesr: {sentence}", err=True)


def fail(sentence: object) -> typer.Exit:
    """Say why a call is wrong; the exit to raise (code 2)."""
    warn(sentence)
    return typer.Exit(2)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that suggests the known name most like one; nothing where none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unwritable(place: object, error: OSError) -> typer.Exit:
    """Say that an output can't be written, and what to do; the exit to raise (code 2)."""
    step = "make room, or choose" if error.errno == errno.ENOSPC else "choose"
    return fail(f"{place} cannot be written: {error.strerror or error}; {step} another place with -o")


def require(package: str, *, extra: str, what: str) -> None:
    """Refuse a call that needs an optional package which is not installed.

    Args:
        package: Its name in an import.
        extra: That of this package which brings it.
        what: Beginning of the sentence, such as "figures need".

    Raises:
        typer.Exit: It is missing (code 2).
    """
    if importlib.util.find_spec(package) is None:
        raise fail(f'{what} {package}: pip install "dacesr[{extra}]"')


def require_config(path: Path) -> None:
    """Refuse a TOML file that is not there.

    Raises:
        typer.Exit: It is missing (code 2).
    """
    if not path.exists():
        raise fail(f"{path} does not exist: name a TOML file of yours, or one in the folder configs of the repository")
