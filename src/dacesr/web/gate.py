"""What of gradio's routes is open, and that no path or address given by a client is followed."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dacesr.web.style import ICON
from dacesr.web.visits import Visits

_FILE, _UPLOAD = "/gradio_api/file=", "/gradio_api/upload"
_MOST_UPLOADS = 64  # under way at once
_OPEN = re.compile(  # the page, and what it and gradio's client call; all other routes of gradio are shut
    r"""/ | /config/? | /theme\.css | /(assets|static|svelte)/.* | /login(_check)?/? | /logout/?
    | /gradio_api/( info/? | startup-events | app_id/? | login_check/? | token/? | user/? | queue/(join|data|status)
    | call/(v2/)?upscale(/\w+)? | upload | upload_progress | heartbeat/[\w-]+ | cancel | reset/? | theme\.css )""",
    re.VERBOSE,
)
_HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([\w-]+)")  # open as long as somebody is there


class Gate:
    """Stands before gradio's routes: lets through what the page needs, files of the page's folder, bounded uploads."""

    def __init__(self, app: ASGIApp, visits: Visits) -> None:
        """Stand before an app."""
        self._app, self._visits = app, visits
        self._arriving: set[_Arriving] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        arriving = _Arriving(scope, receive)
        answer = await self._own_answer(scope, arriving) if scope["type"] == "http" else None
        try:
            await (answer or self._app)(scope, arriving.receive, send)
        except ClientDisconnect:  # as may happen at any time
            pass
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):  # such as events of a session that is over
                raise
            await send({"type": "http.response.body"})
        finally:
            self._arriving.discard(arriving)
            if answer is None and (session := _HEARTBEAT.fullmatch(scope.get("path", ""))):
                self._visits.leave(session[1])  # gradio tells so itself, unless it was just sending something

    async def _own_answer(self, scope: Scope, arriving: "_Arriving") -> Response | None:
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if path == "/favicon.ico":
            return Response(ICON, media_type="image/svg+xml")
        if path.startswith(_FILE):
            if self._visits.holds(Path(path.removeprefix(_FILE))):
                return None
            return PlainTextResponse("There is no such file.", 404)
        if not _OPEN.fullmatch(path):
            return PlainTextResponse("There is nothing here.", 404)
        if path == _UPLOAD:
            return await self._upload_refusal(arriving)
        return None

    async def _upload_refusal(self, arriving: "_Arriving") -> PlainTextResponse | None:
        """Why an upload is refused; one that is not takes its space at once, as others may come before it is there."""
        if arriving.rest is None:
            return PlainTextResponse("An upload must say its length.", 411)
        space = await asyncio.to_thread(self._visits.space)
        if arriving.rest > space - sum(other.rest or 0 for other in self._arriving):
            return PlainTextResponse("The server holds as many files as it may; try again later.", 507)
        if len(self._arriving) >= _MOST_UPLOADS:
            return PlainTextResponse("As many uploads as may be are under way; try again later.", 503)
        self._arriving.add(arriving)
        return None


class _Arriving:
    """A request's body on its way.

    Attributes:
        rest: Bytes that are still to come; None where it does not say how many.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        lengths = [value for name, value in scope.get("headers", ()) if name == b"content-length"]
        self.rest = int(lengths[0]) if lengths and lengths[0].isdigit() else None
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        if self.rest is not None:
            self.rest = max(0, self.rest - len(message.get("body", b"")))
        return message


class GuardedBlocks(gr.Blocks):
    """Blocks that take files only from the page's own folder.

    Gradio would fetch a file that a client gives as an address, and copy one that is given as a path to where it
    is served.
    """

    guarded: Visits

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **options: Any) -> Any:
        """Gradio's own, once all files are known to be uploads."""
        for path in _paths(inputs):
            if not isinstance(path, str) or not self.guarded.holds(Path(path)):
                raise gr.Error("bad_request: files must be uploaded, not named", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *args, **options)


def _paths(value: Any) -> Iterator[Any]:
    """All values that gradio could take for the path of a file."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)
