"""Uploads on their way into a private room: a form with a picture, or the picture itself, never whole in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from dacesr.serving.rooms import Room
from dacesr.serving.wishes import Limits, Refusal

IDLE_SECONDS = 20  # without a byte, after which an upload is given up
FORM_BYTES = 1 << 16  # that a form may have besides its picture
FIELD_BYTES = 512  # of a field that is no picture, and of its headers' values
MOST_FIELDS = 16


@dataclass
class Upload:
    """What was sent.

    Attributes:
        path: The picture's file.
        name: What the client calls it; anything.
        fields: Names and values of the form's other fields, in order.
    """

    path: Path
    name: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)


async def receive_upload(request: Request, room: Room, limits: Limits) -> Upload:
    """Take the picture of a request.

    Args:
        request: Its body is multipart/form-data with the picture as `file`, or the picture itself with a content type
            of image/*, application/octet-stream or none.
        room: Where its file is written.
        limits: Of these, `upload_bytes` and `upload_seconds` hold.

    Raises:
        Refusal: The body is too large or slow, of another kind, empty, or a form that is damaged.
        ClientDisconnect: The client left.
    """
    upload = Upload(room.path / "upload")
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    with open(upload.path, "xb", buffering=0) as file:
        if kind == b"multipart/form-data":
            form = _Form(options.get(b"boundary", b""), upload, file.write, limits.upload_bytes)
            async for chunk in _chunks(request, limits, limits.upload_bytes + FORM_BYTES):
                form.feed(chunk)
            form.end()
        elif not given or kind.startswith(b"image/") or kind == b"application/octet-stream":
            async for chunk in _chunks(request, limits, limits.upload_bytes):
                file.write(chunk)
        else:
            raise Refusal(
                "unsupported_type",
                f"a body of type {given[:60]!r} is not taken: send a form with the picture as its field file (curl -F "
                "file=@photo.jpg), or the picture as it is (curl -T photo.jpg)",
            )
        if file.tell() == 0:
            raise Refusal("bad_request", "there is no picture in the request: it is the field file, or the body")
    return upload


async def _chunks(request: Request, limits: Limits, most: int) -> AsyncIterator[bytes]:
    """The body, refused as soon as it is known to have more than `most` bytes, or to take too long."""
    too_large = Refusal("too_large", f"the upload has more than the {limits.upload_bytes / (1 << 20):g} MB allowed")
    announced = request.headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit() or int(announced) > most:
        raise too_large
    clock = asyncio.get_running_loop().time
    end, size, more = clock() + limits.upload_seconds, 0, True
    while more:
        try:
            async with asyncio.timeout_at(min(end, clock() + IDLE_SECONDS)):
                message = await request.receive()
        except TimeoutError as error:
            raise Refusal("upload_timeout", "the upload took too long: try again, or send a smaller file") from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise too_large
        yield chunk


class _Form:
    """Reads multipart/form-data (RFC 7578) as it arrives."""

    def __init__(self, boundary: bytes, upload: Upload, write: Callable[[bytes], object], most: int) -> None:
        self._upload, self._write, self._most = upload, write, most
        self._size = -1  # of the picture; none yet
        self._headers: dict[str, bytes] = {}
        self._header = [b"", b""]
        self._name, self._value, self._is_file, self._ended = "", b"", False, False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._more_header(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._more_header(1, data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name_part,
                    "on_part_data": self._more,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Refusal("bad_request", f"the form is damaged: {error}") from error
        if not boundary:
            raise Refusal("bad_request", "the form's content type names no boundary")

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Refusal("bad_request", f"the form is damaged: {error}") from error

    def end(self) -> None:
        if not self._ended:
            raise Refusal("bad_request", "the form is cut short")

    def _begin(self) -> None:
        self._headers, self._value = {}, b""

    def _more_header(self, part: int, data: bytes) -> None:
        self._header[part] += data
        if len(self._header[part]) > 8 * FIELD_BYTES:
            raise Refusal("bad_request", "the form has a header that is too long")

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[name.decode("latin-1").lower()] = value
        self._header = [b"", b""]

    def _name_part(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", b""))
        name = options.get(b"name", b"").decode(errors="replace")
        if kind != b"form-data" or not name:
            raise Refusal("bad_request", "the form has a part without a name")
        self._name, self._is_file = name, name == "file"
        if self._is_file:
            if self._size >= 0:
                raise Refusal("bad_request", "the field file is there twice: one picture is taken at a time")
            self._size = 0
            self._upload.name = options.get(b"filename", b"").decode(errors="replace")
        elif b"filename" in options:
            raise Refusal("bad_request", f"the picture's field is called file, not {name[:40]!r}")
        elif len(self._upload.fields) >= MOST_FIELDS:
            raise Refusal("bad_request", f"the form has more than {MOST_FIELDS} fields")

    def _more(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._size += end - start
            if self._size > self._most:
                raise Refusal("too_large", f"the picture has more than the {self._most / (1 << 20):g} MB allowed")
            self._write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_BYTES:
            raise Refusal("bad_request", f"the field {self._name[:40]!r} is longer than {FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if not self._is_file:
            self._upload.fields.append((self._name, self._value.decode(errors="replace")))

    def _end(self) -> None:
        self._ended = True
