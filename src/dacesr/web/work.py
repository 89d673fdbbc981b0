"""Pictures of one visit through the service, one after the other, told step by step to whoever shows it."""

import asyncio
import contextlib
import logging
import math
import sys
import zipfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from dacesr.formats import ImageError
from dacesr.image import open_picture
from dacesr.serving.rooms import Room, safe_name
from dacesr.serving.service import Service
from dacesr.serving.tickets import Outcome, Status, Ticket
from dacesr.serving.wishes import Refusal, Wish
from dacesr.web.preview import Preview, compare
from dacesr.web.visits import Result, Upload, Visit, Visits

_LOG = logging.getLogger(__name__)

_EVERY = 0.3  # seconds from one look to the next
_AGAIN = 1.0  # and to the next try where too many pictures wait


@dataclass(frozen=True)
class Step:
    """How far the pictures of a visit are.

    Attributes:
        number, count: Of the picture at work, from 1, and of all.
        name: Of the picture.
        status: Of its ticket; None before it is accepted.
        jpeg: How it looks now, where that has changed.
        result: It, if it is finished.
        refused: Why there is none, if it is refused.
    """

    number: int
    count: int
    name: str
    status: Status | None = None
    jpeg: bytes | None = None
    result: Result | None = None
    refused: Refusal | None = None


async def work_through(
    service: Service, visits: Visits, visit: Visit, uploads: Sequence[Upload], wish: Wish
) -> AsyncGenerator[Step]:
    """Upscale pictures one after the other; one that is refused does not stop the others.

    Closing the iterator, like `Visit.stop`, stops the work at its next tile.
    """
    for number, upload in enumerate(uploads, start=1):
        step = Step(number, len(uploads), upload.name)
        try:
            async with aclosing(_one(service, visits, visit, upload, wish)) as steps:
                async for told in steps:
                    yield replace(told, number=number, count=len(uploads))
        except Refusal as refusal:
            yield replace(step, refused=refusal)
            if refusal.code in ("cancelled", "closing"):
                return
        except Exception:
            _LOG.exception("showing %s failed", upload.name)
            yield replace(step, refused=Refusal("internal", f"{upload.name} failed in a way that should not happen"))


async def _one(service: Service, visits: Visits, visit: Visit, upload: Upload, wish: Wish) -> AsyncGenerator[Step]:
    step = Step(1, 1, upload.name)
    room, source = visits.take_in(visit, upload)
    ticket: Ticket | None = None
    finished = False
    try:
        preview = await asyncio.to_thread(_prepare, service, source, upload.name, wish)
        step = replace(step, jpeg=await asyncio.to_thread(preview.jpeg))
        yield step
        while ticket is None:
            if visit.stopped:
                raise Refusal("cancelled", f"{upload.name} is not finished: you said stop")
            try:
                ticket = await asyncio.to_thread(
                    service.submit, source, upload.name, wish, room=room, watch=preview.take
                )
            except Refusal as refusal:
                if refusal.code != "busy":
                    raise
                yield replace(step, jpeg=None)
                await asyncio.sleep(_AGAIN)
        visit.give(room, ticket)
        shown = 0
        while not await done(ticket, within=_EVERY):
            changed, shown = preview.changes != shown, preview.changes
            jpeg = await asyncio.to_thread(preview.jpeg) if changed else None
            yield replace(step, status=service.status(ticket), jpeg=jpeg)
        result = await asyncio.to_thread(_finished, ticket, room, source)
        visit.results.append(result)
        finished = True
        yield replace(step, status=service.status(ticket), jpeg=None, result=result)
    finally:
        if not finished:
            if ticket is not None:
                service.cancel(ticket)
            visit.drop(room)


async def done(ticket: Ticket, *, within: float | None = None) -> bool:
    """Wait until a ticket is done, for so many seconds at most; whether it is."""
    rings, loop = asyncio.Event(), asyncio.get_running_loop()

    def ring(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
            loop.call_soon_threadsafe(rings.set)

    ticket.future.add_done_callback(ring)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(rings.wait(), within)
    return ticket.future.done()


def collect(ticket: Ticket, room: Room) -> tuple[Outcome, Path]:
    """What a ticket that is done gave, and its file, now under its own name.

    Raises:
        Refusal: It gave nothing.
    """
    outcome = ticket.future.result()
    path = room.path / outcome.name
    try:
        outcome.path.rename(path)
    except OSError as error:
        raise Refusal("internal", f"{ticket.name} cannot be handed out: {error.strerror}") from error
    return outcome, path


def _prepare(service: Service, source: Path, name: str, wish: Wish) -> Preview:
    """What shows the picture as it grows.

    Raises:
        Refusal: It cannot be decoded or is too large, or there is no such model.
    """
    scale = service.upscaler(wish.model).scale
    picture = service.open(source, name)
    try:
        return Preview(picture, wish.size_of(picture, scale))
    except ImageError as error:
        raise Refusal("bad_picture", str(error)) from error


def _finished(ticket: Ticket, room: Room, source: Path) -> Result:
    """What a ticket gave, under its name, and drawn for the screen.

    Raises:
        Refusal: It gave nothing, or nothing that can be shown.
    """
    outcome, path = collect(ticket, room)
    try:
        before, after = compare(open_picture(source, max_pixels=sys.maxsize), path, room.path)
    except (OSError, ImageError) as error:
        _LOG.error("showing %s failed: %s", ticket.name, error)
        raise Refusal("internal", f"{ticket.name} cannot be shown, by no fault of its own") from error
    return Result(outcome.name, source, path, before, after, outcome)


def pack(visits: Visits, visit: Visit) -> Path:
    """A zip file of all results, no two of one name, in a room of the visit."""
    room = visits.rooms.make()
    visit.rooms[room] = None
    target = room.path / "pictures.zip"
    taken: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for result in visit.results:
            name, again = result.name, 2
            while name in taken:
                name, again = f"{Path(result.name).stem} ({again}){Path(result.name).suffix}", again + 1
            taken.add(name)
            file.write(result.path, name)
    return target


def wish_of(
    *,
    model: object = None,
    scale: object = None,
    width: object = None,
    height: object = None,
    strength: object = None,
    format: object = None,
    quality: object = None,
    strip_metadata: object = False,
) -> Wish:
    """A wish from what a client sends, of any JSON types; nothing, 0 and empty text leave the choice to the service.

    Raises:
        Refusal: A value is of another kind, or impossible.
    """
    texts = {"model": model, "format": format}
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise Refusal("bad_request", f"{name} must be text; got {safe_name(str(value)[:40])}")
    if not isinstance(strip_metadata, bool | None):
        raise Refusal("bad_request", "strip_metadata must be true or false")
    return Wish(
        model=str(model) if model else None,
        scale=_number("scale", scale) or None,
        width=_whole("width", width),
        height=_whole("height", height),
        strength=_number("strength", strength),
        format=str(format) if format else None,
        quality=_whole("quality", quality),
        strip_metadata=bool(strip_metadata),
    )


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal("bad_request", f"{name} must be a number; got {safe_name(str(value)[:40])}")
    return float(value)


def _whole(name: str, value: object) -> int | None:
    number = _number(name, value)
    if number is None or number == 0:
        return None
    if number != int(number):
        raise Refusal("bad_request", f"{name} must be a whole number; got {number:g}")
    return int(number)
