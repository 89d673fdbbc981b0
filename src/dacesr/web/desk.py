"""What the page and its one public endpoint do when they are asked: gradio's events, answered from a service."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr

from dacesr.inspection import Inspection
from dacesr.serving.service import Service
from dacesr.serving.tickets import Outcome
from dacesr.serving.wishes import Refusal, Wish
from dacesr.web.looks import examples
from dacesr.web.visits import Upload, Visit, Visits
from dacesr.web.work import Step, collect, done, pack, wish_of, work_through
from dacesr.weightfiles import DEFAULT_WEIGHTS

_KEPT = 600.0  # seconds that a result of the endpoint may be fetched in
_INSPECTED = 8  # pictures that wait to be inspected, at most


class Desk:
    """Answers the events; all of it runs in one event loop."""

    def __init__(self, service: Service, visits: Visits) -> None:
        """Answer from a service."""
        self.service, self.visits = service, visits
        self._inspecting = asyncio.Lock()
        self._to_inspect = 0
        self._calls = itertools.count()

    def visit(self, request: gr.Request) -> Visit:
        """Whose request it is."""
        return self.visits.of(_session(request))

    # --- the page

    def arrived(self, files: object, request: gr.Request) -> list[Upload]:
        """Pictures have been sent, or taken away.

        Raises:
            Refusal: One is not here.
        """
        uploads = self.visits.received(files)
        self.visit(request).uploads.update(upload.path for upload in uploads)
        return uploads

    async def inspect(self, upload: Upload) -> Inspection:
        """What is in a picture.

        Raises:
            Refusal: It cannot be told.
        """
        if self._to_inspect >= _INSPECTED:
            raise Refusal("busy", f"{upload.name} is not inspected: too many pictures wait for that")
        self._to_inspect += 1
        try:
            async with self._inspecting:
                return await asyncio.to_thread(self.service.inspect, upload.path, upload.name)
        finally:
            self._to_inspect -= 1

    def model_for(self, advised: str) -> str | None:
        """The service's name for a model that is advised; None where it has it not."""
        names = self.service.models
        if advised in names:
            return advised
        return "default" if advised == DEFAULT_WEIGHTS and "default" in names else None

    def strength(self, model: str | None) -> float | None:
        """The default strength of a model; None where there is nothing to choose.

        Raises:
            Refusal: There is no such model.
        """
        return self.service.upscaler(model).strength

    async def example(self, number: int, request: gr.Request) -> str:
        """A copy of an example in the visit's folder, as gradio wants its path.

        Raises:
            Refusal: The page's files take all the space they may.
        """
        if self.visits.space() <= 0:
            raise Refusal("busy", "the server holds as many files as it may; try again later")
        path = examples()[number % len(examples())]
        visit = self.visit(request)
        room = self.visits.rooms.make()
        visit.uploads.add(room.path / path.name)
        await asyncio.to_thread(shutil.copyfile, path, room.path / path.name)
        return str(room.path / path.name)

    async def work(self, uploads: list[Upload], wish: Wish, request: gr.Request) -> AsyncGenerator[Step]:
        """Upscale what a visit sent.

        Raises:
            Refusal: It may not begin.
        """
        visit = self.visit(request)
        self.visits.begin(visit)
        try:
            async with aclosing(work_through(self.service, self.visits, visit, uploads, wish)) as steps:
                async for step in steps:
                    yield step
        finally:
            visit.working = False

    async def pack(self, request: gr.Request) -> Path:
        """A zip file of all results."""
        return await asyncio.to_thread(pack, self.visits, self.visit(request))

    def stop(self, request: gr.Request) -> None:
        """Stop a visit's work at its next tile."""
        self.visit(request).stop()

    def leave(self, request: gr.Request) -> None:
        """A visit has ended."""
        self.visits.leave(_session(request))

    # --- the endpoint

    async def upscale(self, wanted: dict[str, Any], request: gr.Request) -> tuple[str, dict[str, Any]]:
        """Upscale one picture for a client of gradio's, who may fetch it for ten minutes.

        Args:
            wanted: `picture`, as gradio's upload route describes it, and the fields of `wish_of`.
            request: Whose; when that session ends, so does the work.

        Returns:
            The result's path, and what was made.

        Raises:
            Refusal: As for `Service.submit` and its tickets; also if as many others are at work as may wait.
        """
        fields = dict(wanted)
        uploads = self.visits.received(fields.pop("picture"))
        if len(uploads) != 1:
            raise Refusal("bad_request", f"one picture at a time is upscaled here; got {len(uploads)}")
        name = f"{_session(request)}/{next(self._calls)}"
        visit = self.visits.of(name)
        visit.uploads.add(uploads[0].path)
        try:
            path, outcome = await self._one(visit, uploads[0], wish_of(**fields))
        except BaseException:
            self.visits.leave(name)
            raise
        asyncio.get_running_loop().call_later(_KEPT, self.visits.leave, name)
        return str(path), {
            "model": outcome.model,
            "format": outcome.format,
            "width": outcome.output_size[0],
            "height": outcome.output_size[1],
            "seconds": round(outcome.seconds, 3),
            "warnings": list(outcome.warnings),
        }

    async def _one(self, visit: Visit, upload: Upload, wish: Wish) -> tuple[Path, Outcome]:
        self.visits.begin(visit)
        room, source = self.visits.take_in(visit, upload)
        ticket = await asyncio.to_thread(self.service.submit, source, upload.name, wish, room=room)
        visit.give(room, ticket)
        try:
            await done(ticket)
        finally:
            self.service.cancel(ticket)  # where the call itself is ended; nothing once it is done
            visit.working = False
        outcome, path = collect(ticket, room)
        return path, outcome


def _session(request: gr.Request) -> str:
    return request.session_hash or "nobody"
