"""The bar that long work shows on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console, *, shown: bool = True) -> Progress:
    """What is done, of how much, and the time that is left; nothing where the console is no terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not shown or not console.is_terminal)


@contextmanager
def advancing(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on standard error; yields what moves it on, by one or by the number it is given."""
    with progress_bar(Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count=1: progress.advance(bar, count)
