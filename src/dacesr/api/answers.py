"""What the HTTP API answers: errors with stable codes, and pictures straight from their rooms."""

import asyncio
import json
import os
from collections.abc import Callable
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from dacesr.serving.service import Outcome
from dacesr.serving.wishes import REFUSALS

STATUSES = {
    "bad_request": 400,
    "bad_picture": 422,
    "unknown_model": 400,
    "too_large": 413,
    "too_many_pixels": 413,
    "busy": 429,
    "too_slow": 504,
    "cancelled": 499,
    "closing": 503,
    "internal": 500,
    "unauthorized": 401,
    "bad_host": 403,
    "bad_origin": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "unsupported_type": 415,
}
"""HTTP status of every code."""

MEANINGS = {
    **REFUSALS,
    "unauthorized": "user and password are missing or wrong",
    "bad_host": "the request was made to a host name that the server does not answer to",
    "bad_origin": "the request was made by a page of another site",
    "not_found": "there is nothing at this address",
    "method_not_allowed": "the address does not take this method",
    "upload_timeout": "the upload took too long",
    "unsupported_type": "the body is of a kind that is not taken",
}
"""What every code means."""

RETRY_SECONDS = 5  # after which a client that was refused for want of room may ask again
CHUNK = 1 << 18  # bytes of a result that are read and sent at a time

MIME_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "tiff": "image/tiff",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "ppm": "image/x-portable-anymap",
    "gif": "image/gif",
}
"""Of the formats in `dacesr.formats.FORMATS`."""


def refused(code: str, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error.

    Args:
        code: Key of `STATUSES`.
        sentence: For people.
        headers: To be sent along.
    """
    extra = {"Retry-After": str(RETRY_SECONDS)} if code in ("busy", "closing") else {}
    if code == "upload_timeout":
        extra["Connection"] = "close"
    body = {"error": {"code": code, "message": sentence}}
    return JSONResponse(body, STATUSES[code], headers={**(headers or {}), **extra})


async def left(receive: Receive) -> None:
    """Return once the client has left; nothing else may wait for its messages meanwhile."""
    while (await receive())["type"] != "http.disconnect":
        pass


class PictureResponse(Response):
    """A result, sent from its file piece by piece."""

    def __init__(self, outcome: Outcome, release: Callable[[], None]) -> None:
        """Open the file, which from now on may lose its name.

        Args:
            outcome: What is sent.
            release: Called once it is sent, or the client has left.

        Raises:
            OSError: The file is gone.
        """
        self._file = open(outcome.path, "rb")  # noqa: SIM115 - until it is sent
        self._release = release
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers(
            {
                "Content-Type": MIME_TYPES[outcome.format],
                "Content-Length": str(os.fstat(self._file.fileno()).st_size),
                "Content-Disposition": _disposition(outcome.name),
                "X-Dacesr-Model": quote(outcome.model, safe=" /"),
                "X-Dacesr-Input-Size": "{}x{}".format(*outcome.input_size),
                "X-Dacesr-Output-Size": "{}x{}".format(*outcome.output_size),
                "X-Dacesr-Seconds": f"{outcome.seconds:.3f}",
                "X-Dacesr-Warnings": json.dumps(outcome.warnings),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and release it whatever happens."""
        gone = asyncio.create_task(left(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            more = True
            while more and not gone.done():
                chunk = await run_in_threadpool(self._file.read, CHUNK)
                more = bool(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
        except OSError:  # it left
            return
        finally:
            gone.cancel()
            self._file.close()
            self._release()


def _disposition(name: str) -> str:
    """A file name as RFC 6266 has it: in ASCII for old clients, and in full."""
    plain = name.encode("ascii", errors="replace").decode().replace("?", "_").replace("%", "_").replace("\\", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
