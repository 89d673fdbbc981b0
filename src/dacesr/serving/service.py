"""One queue of pictures for all who ask over the network: bounded, with limits, cancellable, and nothing left behind.

The web page and the HTTP API both hand their pictures to a `Service`, which loads each model once.
"""

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from dacesr.batch import use_threads
from dacesr.engine import Precision
from dacesr.formats import FORMATS, ImageError, TooManyPixels, check_size
from dacesr.image import Picture, open_picture
from dacesr.inference import UpscaleError, Upscaler, Watch
from dacesr.inspection import Inspection, Inspector
from dacesr.jobs import Job, target_format
from dacesr.serving.offered import Offered
from dacesr.serving.rooms import Room, Rooms, result_name, safe_name
from dacesr.serving.tickets import Outcome, Status, Ticket
from dacesr.serving.wishes import Limits, Refusal, Wish

__all__ = ["Outcome", "Service", "Status", "Ticket"]

_LOG = logging.getLogger(__name__)


class Service:
    """Upscales what is submitted, in order, with a few workers.

    Attributes:
        models: Names that a wish may have, the first being what it has unless it says; a file's is its stem.
        limits: What may be asked for.
        rooms: Private folders for uploads and results.
        finished: How many pictures it has finished.
        capacity: Pictures that it holds at once, waiting or worked on.
    """

    def __init__(
        self,
        models: Iterable[str],
        *,
        limits: Limits | None = None,
        workers: int = 1,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
    ) -> None:
        """Load the models, and start.

        Args:
            models: What `Upscaler.load` takes; the only ones that clients may name.
            limits: What may be asked for.
            workers: Pictures that are worked on at once; they share torch's threads.
            device: Where.
            precision: Of the arithmetic.

        Raises:
            ValueError: No model, no worker, two models of one name, or one cannot be loaded.
        """
        if workers < 1:
            raise ValueError(f"a service needs at least one worker; got {workers}")
        self._offered = Offered(models, device=device, precision=precision)
        self.models = self._offered.names
        self.limits = limits or Limits()
        self.finished = 0
        self._changed, self._seeing = threading.Lock(), threading.Lock()
        self._inspector: Inspector | None = None
        self._tickets: list[Ticket] = []  # that wait or are worked on, in order
        self._closing = False
        self.capacity = workers + self.limits.waiting
        self.rooms = Rooms()
        share = max(1, torch.get_num_threads() // workers)
        self._pool = ThreadPoolExecutor(workers, "upscale", initializer=use_threads, initargs=(share,))

    def upscaler(self, model: str | None) -> Upscaler:
        """A model.

        Raises:
            Refusal: It is none of `models`.
        """
        return self._offered.of(model)

    def submit(self, source: Path, name: str, wish: Wish, *, room: Room, watch: Watch | None = None) -> Ticket:
        """Accept a picture.

        Args:
            source: Its file, which must stay until the ticket's future is done.
            name: What the client calls it; anything.
            wish: What is wanted.
            room: Where the result is written; the caller discards it, after the future is done.
            watch: Shown every tile's output; see `Upscaler.upscale`.

        Raises:
            Refusal: Too many wait, the picture cannot be read, or it or its result is too large.
        """
        shown = safe_name(name)
        upscaler = self.upscaler(wish.model)
        if wish.strength is not None and upscaler.strength is None:
            model = self._offered.name(wish.model)
            raise Refusal("bad_request", f"the model {model} has one set of weights, so it takes no strength")
        picture = self.open(source, shown)
        target, format = target_format(Job(Path(shown), room.path / "result", wish.ending), picture.format)
        assert target is not None  # the job has one
        self._check_result(wish.size_of(picture, upscaler.scale), format, shown)
        ticket = Ticket(source, (picture.width, picture.height), format, target, wish, room, shown, watch)
        ticket.future.set_running_or_notify_cancel()
        with self._changed:
            self._refuse_more()
            self._tickets.append(ticket)
            self._pool.submit(self._run, ticket)
        return ticket

    def check_room(self) -> None:
        """See whether a picture could be submitted now, before it is sent.

        Raises:
            Refusal: As many wait as may, or the service is closing.
        """
        with self._changed:
            self._refuse_more()

    def status(self, ticket: Ticket) -> Status:
        """How far a ticket is."""
        done, total = ticket.tiles
        if ticket.future.done():
            return Status("done", 0, done, total, 0.0)
        with self._changed:
            before = self._tickets[: self._tickets.index(ticket)] if ticket in self._tickets else []
            ahead = sum(other.began is None for other in before)
        if ticket.began is None:
            return Status("waiting", ahead, 0, 0, None)
        since = time.monotonic() - ticket.began - ticket.spent  # the last tile was done
        left = max(0.0, ticket.spent / done * (total - done) - since) if done else None
        return Status("working", 0, done, total, left)

    def cancel(self, ticket: Ticket) -> None:
        """Stop a ticket at its next tile, or take it out of the queue.

        Its future raises a `Refusal`, unless it is done by then.
        """
        ticket.left.set()
        with self._changed:
            waits = ticket in self._tickets and ticket.began is None
            if waits:
                self._tickets.remove(ticket)
        if waits:
            ticket.future.set_exception(self._gone(ticket))

    def inspect(self, source: Path, name: str) -> Inspection:
        """What is in a picture, how severely it is degraded, and how to upscale it (`dacesr inspect`).

        Raises:
            Refusal: It cannot be read, is too large, or too small to recognise anything.
        """
        self.open(source, safe_name(name))
        with self._seeing:
            if self._inspector is None:
                self._inspector = Inspector.load()
            try:
                return self._inspector(source)
            except ImageError as error:
                raise Refusal("bad_picture", str(error).replace(str(source), safe_name(name))) from error

    def load(self) -> tuple[int, int]:
        """Pictures that are worked on, and that wait."""
        with self._changed:
            working = sum(ticket.began is not None for ticket in self._tickets)
            return working, len(self._tickets) - working

    def close(self) -> None:
        """Stop all work at its next tile and remove all files."""
        with self._changed:
            self._closing = True
            tickets = list(self._tickets)
        for ticket in tickets:
            self.cancel(ticket)
        self._pool.shutdown(wait=True)
        self.rooms.close()

    def _refuse_more(self) -> None:
        if self._closing:
            raise Refusal("closing", "the server is being stopped")
        if len(self._tickets) >= self.capacity:
            raise Refusal("busy", f"{self.limits.waiting} pictures wait already; try again later")

    def _check_result(self, size: tuple[int, int], format: str, name: str) -> None:
        width, height = size
        if width * height > self.limits.result_pixels:
            most = f"{self.limits.result_pixels / 1e6:g} million"
            raise Refusal("too_many_pixels", f"the result would be {width} x {height} pixels; up to {most} are made")
        try:
            check_size(format, width, height, f"the enlargement of {name}")
        except ImageError as error:
            raise Refusal("too_many_pixels", f"{error}; choose another format") from error

    def open(self, source: Path, name: str) -> Picture:
        """Open a picture that somebody sent.

        Args:
            source: Its file.
            name: From `safe_name`.

        Raises:
            Refusal: It cannot be read, or is too large.
        """
        try:
            return open_picture(source, name=name, max_pixels=self.limits.pixels)
        except TooManyPixels as error:
            most = f"{self.limits.pixels / 1e6:g} million"
            raise Refusal("too_many_pixels", f"{name} has more than the {most} pixels allowed") from error
        except ImageError as error:
            raise Refusal("bad_picture", str(error)) from error

    def _run(self, ticket: Ticket) -> None:
        """Work on a ticket; its future tells how it ended, whatever happens."""
        with self._changed:
            if ticket not in self._tickets:  # it was cancelled
                return
            ticket.began = time.monotonic()
        outcome: Outcome | None = None
        refusal = Refusal("internal", f"{ticket.name} failed in a way that should not happen")
        try:
            outcome = self._outcome(ticket)
        except Refusal as error:
            refusal = error
        except UpscaleError as error:
            refusal = Refusal("internal", self._told(ticket, error))
        except (ValueError, OSError) as error:
            refusal = self._explained(ticket, error)
        except Exception:
            _LOG.exception("upscaling %s failed", ticket.name)
        with self._changed:
            self._tickets.remove(ticket)
            self.finished += outcome is not None
        if outcome is None:
            ticket.future.set_exception(refusal)
        else:
            ticket.future.set_result(outcome)

    def _outcome(self, ticket: Ticket) -> Outcome:
        wish, began = ticket.wish, time.monotonic()
        self._offered.warnings.take()  # what a ticket that failed left
        self._check(ticket, began)
        upscaler = self.upscaler(wish.model)
        picture = self.open(ticket.source, ticket.name)
        size = wish.size_of(picture, upscaler.scale)

        def advance(done: int, total: int) -> None:
            ticket.tiles, ticket.spent = (done, total), time.monotonic() - began
            self._check(ticket, began)

        upscaler.upscale(
            picture,
            ticket.target,
            format=ticket.format,
            size=size,
            strength=wish.strength,
            quality=wish.quality,
            strip_metadata=wish.strip_metadata,
            progress=advance,
            watch=ticket.watch,
        )
        return Outcome(
            path=ticket.target,
            name=_result_name(ticket),
            format=ticket.format,
            input_size=ticket.size,
            output_size=size,
            seconds=time.monotonic() - began,
            model=self._offered.name(wish.model),
            warnings=tuple(self._told(ticket, sentence) for sentence in self._offered.warnings.take()),
        )

    def _told(self, ticket: Ticket, sentence: object) -> str:
        """A sentence for the client, who knows neither the files of the models nor the room."""
        return self._offered.public(sentence).replace(str(ticket.target), _result_name(ticket))

    def _check(self, ticket: Ticket, began: float) -> None:
        """Refuse to go on where nobody waits any more, or it takes too long."""
        if ticket.left.is_set():
            raise self._gone(ticket)
        if time.monotonic() - began > self.limits.seconds:
            raise Refusal("too_slow", f"{ticket.name} took more than {self.limits.seconds:g} s, which is all it may")

    def _gone(self, ticket: Ticket) -> Refusal:
        if self._closing:
            return Refusal("closing", f"{ticket.name} is not finished: the server is being stopped")
        return Refusal("cancelled", f"{ticket.name} is not finished: the client left, or said stop")

    def _explained(self, ticket: Ticket, error: Exception) -> Refusal:
        """A picture that cannot be decoded is the client's affair; a file that cannot be written is not."""
        if isinstance(error, ImageError) and str(ticket.room.path) not in str(error):
            return Refusal("bad_picture", str(error))
        _LOG.error("upscaling %s failed: %s", ticket.name, error)
        return Refusal("internal", f"{ticket.name} could not be enlarged, by no fault of its own")


def _result_name(ticket: Ticket) -> str:
    return result_name(ticket.name, FORMATS[ticket.format].extensions[0])
