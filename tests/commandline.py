"""The command line's own parser, for tests of what help and documents say: nothing is run."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from dacesr.cli import app

ROOT = typer.main.get_command(app)
REDIRECTIONS = {">", ">>", "<", "2>"}


def commands(node: Any = ROOT, path: tuple[str, ...] = ("dacesr",)) -> Iterator[tuple[str, Any]]:
    """Every command and group, with the words that name it."""
    yield " ".join(path), node
    for name, below in getattr(node, "commands", {}).items():
        yield from commands(below, (*path, name))


def command_of(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that the words after `dacesr` name, and the words left for it."""
    node, rest = ROOT, list(words)
    while rest and rest[0] in getattr(node, "commands", {}):
        node = node.commands[rest.pop(0)]
    return node, rest


def parse(words: Sequence[str]) -> None:
    """Parse the words after `dacesr` to their end, as a call would.

    Raises:
        ValueError: such a call would be wrong; the sentence is what it would say.
    """
    node, rest = command_of(words)
    asks = bool({"-h", "--help", "--version", "--install-completion", "--show-completion"} & set(rest))
    if hasattr(node, "commands") and not asks:
        raise ValueError(f"{' '.join(['dacesr', *words])}: no command of this name")
    try:
        node.make_context(node.name, rest, resilient_parsing=asks)
    except Exception as error:  # the parser's own kinds of error differ between versions of typer
        said = getattr(error, "format_message", None)
        raise ValueError(f"{' '.join(['dacesr', *words])}: {said() if said else error!r}") from error


def words_of(line: str) -> list[str]:
    """What a line of a shell gives to the command line; its redirections, and pipes to other programs, are cut off."""
    words = shlex.split(line.replace("-m dacesr.cli", "dacesr"), comments=True)
    words = words[words.index("dacesr") + 1 :]
    ends = [i for i, word in enumerate(words) if word in {*REDIRECTIONS, "|", "&&", "&", ";"}]
    return words[: min(ends, default=None)]
