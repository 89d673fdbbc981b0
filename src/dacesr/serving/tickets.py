"""Pictures that a service has accepted: how far they are, and what came of them."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from dacesr.inference import Watch
from dacesr.serving.rooms import Room
from dacesr.serving.wishes import Wish


@dataclass(frozen=True)
class Outcome:
    """A finished picture.

    Attributes:
        path: Its file, in the room of its ticket.
        name: For the client.
        format: Key of `dacesr.formats.FORMATS`.
        input_size, output_size: (width, height) in pixels.
        seconds: That it took, without waiting.
        model: That made it.
        warnings: Sentences on what could not be kept.
    """

    path: Path
    name: str
    format: str
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    seconds: float
    model: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Status:
    """How far a picture is.

    Attributes:
        state: `waiting`, `working` or `done` (also refused and cancelled).
        ahead: Pictures that wait before it.
        done, total: Tiles; total is 0 before they are counted.
        seconds_left: As the tiles so far tell; None before the first.
    """

    state: str
    ahead: int
    done: int
    total: int
    seconds_left: float | None


@dataclass(eq=False)
class Ticket:
    """A picture that a service has accepted.

    Attributes:
        source: Its file.
        size: (width, height) in pixels.
        format: Key of `dacesr.formats.FORMATS`, of the result.
        target: The file of the result.
        name: What the client calls it, made safe.
        future: Gives the `Outcome`, or raises the `Refusal`; it cannot be cancelled, see `Service.cancel`.
    """

    source: Path
    size: tuple[int, int]
    format: str
    target: Path
    wish: Wish
    room: Room
    name: str
    watch: Watch | None
    future: "Future[Outcome]" = field(default_factory=Future)
    began: float | None = None
    tiles: tuple[int, int] = (0, 0)
    spent: float = 0.0  # seconds on the tiles that are done
    left: threading.Event = field(default_factory=threading.Event)
