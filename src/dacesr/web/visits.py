"""Who is at the web page, and their files: each has a private folder, which goes when they leave."""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dacesr.serving.rooms import Room, Rooms, safe_name
from dacesr.serving.service import Service
from dacesr.serving.tickets import Outcome, Ticket
from dacesr.serving.wishes import Refusal

_IDLE = 6 * 3600  # seconds after which somebody who does nothing is thought to have left
_UNCLAIMED = 600  # and after which a file that belongs to nobody is removed


@dataclass(frozen=True)
class Upload:
    """A picture that somebody sent: its file, and what they call it."""

    path: Path
    name: str


@dataclass(frozen=True)
class Result:
    """A finished picture, kept until its owner leaves.

    Attributes:
        name: For its owner, and of its file.
        source: The input.
        path: The result.
        before, after: For the screen.
        outcome: What the service says.
    """

    name: str
    source: Path
    path: Path
    before: Path
    after: Path
    outcome: Outcome


@dataclass(eq=False)
class Visit:
    """Somebody at the page, from opening it to leaving.

    Attributes:
        results: What was made for them last.
        stopped: They said stop, or left.
        working: Their pictures are at work.
        used: When they last asked for something, in seconds since the epoch.
    """

    service: Service
    rooms: dict[Room, Ticket | None] = field(default_factory=dict)
    uploads: set[Path] = field(default_factory=set)
    results: list[Result] = field(default_factory=list)
    stopped: bool = False
    working: bool = False
    used: float = field(default_factory=time.time)

    def give(self, room: Room, ticket: Ticket) -> None:
        """Say what is at work in a room; where they have left meanwhile, it is cancelled."""
        if room in self.rooms:
            self.rooms[room] = ticket
        else:
            _discard(room, ticket)
        if self.stopped:
            self.service.cancel(ticket)

    def stop(self) -> None:
        """Cancel what is at work or waits."""
        self.stopped = True
        for ticket in self.rooms.values():
            if ticket is not None:
                self.service.cancel(ticket)

    def clear(self) -> None:
        """Stop, and remove all rooms as soon as nobody writes there."""
        self.stop()
        self.results = []
        for room in list(self.rooms):
            self.drop(room)

    def drop(self, room: Room) -> None:
        """Remove one room as soon as nobody writes there."""
        if room in self.rooms:
            _discard(room, self.rooms.pop(room))


def _discard(room: Room, ticket: Ticket | None) -> None:
    if ticket is None:
        room.discard()
    else:
        ticket.future.add_done_callback(lambda _: room.discard())


class Visits:
    """All visits, by the name that gradio gives a session; used from one event loop.

    Attributes:
        rooms: Where all files of the page are.
    """

    def __init__(self, service: Service) -> None:
        """Make the page's folder within the service's."""
        self._service = service
        self._visits: dict[str, Visit] = {}
        self.rooms = Rooms(service.rooms.path)
        limits = service.limits
        self._room_for = (limits.waiting + 1) * limits.upload_bytes

    def of(self, session: str) -> Visit:
        """The visit of a session; begun if there is none."""
        visit = self._visits.setdefault(session, Visit(self._service))
        visit.used = time.time()
        return visit

    def begin(self, visit: Visit) -> None:
        """Let a visit begin with new pictures; the results of earlier ones go.

        Raises:
            Refusal: It is at work, or as many visits are as pictures may wait, or their files take too much space.
        """
        if visit.working:
            raise Refusal("busy", "your pictures are at work already")
        if sum(other.working for other in self._visits.values()) > self._service.limits.waiting or self.space() <= 0:
            raise Refusal("busy", "as many people as the server can bear wait already; try again later")
        visit.clear()
        visit.stopped, visit.working = False, True

    def leave(self, session: str) -> None:
        """End a visit, and those whose names begin with its own and a slash: work stops at its next tile, files go."""
        for name in [name for name in self._visits if name == session or name.startswith(f"{session}/")]:
            self._end(self._visits.pop(name))

    def _end(self, visit: Visit) -> None:
        visit.clear()
        wanted = {path for other in self._visits.values() for path in other.uploads}
        for path in visit.uploads - wanted:  # two who send the same file share it
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End all visits and remove the page's folder."""
        for session in list(self._visits):
            self.leave(session)
        self.rooms.close()

    def space(self) -> int:
        """Bytes that may still come: as many files of the largest size as pictures may wait, less what is there."""
        held = 0
        for folder, _, names in os.walk(self.rooms.path):
            for name in names:
                try:
                    held += os.stat(os.path.join(folder, name)).st_size
                except FileNotFoundError:  # gone meanwhile
                    continue
        return self._room_for - held

    def holds(self, path: Path) -> bool:
        """Whether a path, links and dots followed, is a file of the page's folder."""
        try:
            whole = path.resolve()
            return whole.is_relative_to(self.rooms.path.resolve()) and whole.is_file()
        except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a loop of links
            return False

    def sweep(self, now: float) -> None:
        """End visits that nobody used for long, and remove files of nobody's, such as uploads that broke off.

        Args:
            now: Seconds since the epoch.
        """
        for name, visit in list(self._visits.items()):
            if not visit.working and now - visit.used > _IDLE:
                self.leave(name)
        visits = list(self._visits.values())
        wanted = {path for visit in visits for path in visit.uploads}
        rooms = {room.path for visit in visits for room in visit.rooms}
        for folder, _, names in os.walk(self.rooms.path, topdown=False):
            where = Path(folder)
            if where in rooms:
                continue
            for name in names:
                with contextlib.suppress(OSError):  # gone meanwhile
                    if where / name not in wanted and now - (where / name).lstat().st_mtime > _UNCLAIMED:
                        (where / name).unlink()
            if where != self.rooms.path and now - where.stat().st_mtime > _UNCLAIMED:
                with contextlib.suppress(OSError):  # not empty
                    where.rmdir()

    def received(self, files: Any) -> list[Upload]:
        """What gradio's upload route holds, as an event tells it.

        Args:
            files: JSON from a client: None, a file's record, or a list of those.

        Raises:
            Refusal: It is something else, or names a file that was not uploaded.
        """
        records = files if isinstance(files, list) else [] if files is None else [files]
        uploads = []
        for record in records:
            path = Path(str(record.get("path"))) if isinstance(record, dict) else Path()
            if not self.holds(path):
                raise Refusal("bad_request", "one of the pictures is not here any more: send it again")
            name = record.get("orig_name") or path.name
            if path.stat().st_size > self._service.limits.upload_bytes:
                most = f"{self._service.limits.upload_bytes / 1e6:.0f} MB"
                raise Refusal("too_large", f"{safe_name(str(name))} has more than the {most} that a file may have")
            uploads.append(Upload(path, safe_name(str(name))))
        return uploads

    def take_in(self, visit: Visit, upload: Upload) -> tuple[Room, Path]:
        """A new room of a visit with a copy of an upload, which nobody else removes.

        Raises:
            Refusal: The disk is full, or the upload has gone.
        """
        room = self.rooms.make()
        visit.rooms[room] = None
        source = room.path / "source"
        try:
            try:
                os.link(upload.path, source)
            except OSError:
                shutil.copyfile(upload.path, source)
        except OSError as error:
            raise Refusal("bad_request", f"{upload.name} is not here any more: send it again") from error
        return room, source
