"""What stands before the page and the API: host names, origins, a password, sizes of bodies, headers for browsers."""

import asyncio
import base64
import binascii
import ipaddress
import math
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dacesr.api.answers import refused
from dacesr.api.receiving import IDLE_SECONDS

SMALL_BODY = 1 << 20  # bytes of what is no upload

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make browsers hide the origin of the page's own requests
    "Content-Security-Policy": "frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Refused(Exception):
    """A body has more bytes than allowed, or does not come."""


class Guard:
    """ASGI middleware that refuses what has no business here.

    A page of another site could make a visitor's browser send requests to a server on the visitor's own computer, by
    its address or by a host name that is made to point there. So the host must be an IP address, `localhost`, or one
    that the server was told; and what a page asks must come from this server's own page.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: tuple[str, str] | None = None,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        page_upload_bytes: int,
    ) -> None:
        """Stand before an application.

        Args:
            app: The application.
            auth: User and password that every request has to give (HTTP Basic).
            hosts: Names by which the server is known, besides IP addresses and localhost.
            origins: Hosts whose pages may use the server at any port, besides its own page.
            page_upload_bytes: Of one upload to the page; the API counts for itself.
        """
        self._app = app
        self._secret = None if auth is None else ":".join(auth).encode()
        self._hosts, self._origins = ({name.lower().rstrip(".") for name in names} for names in (hosts, origins))
        self._page_upload_bytes = page_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal:
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
            return
        send = _with_headers(send, no_store=scope["path"].startswith("/api/"))
        if refusal:
            code, sentence = refusal
            asks = {"WWW-Authenticate": 'Basic realm="dacesr", charset="UTF-8"'} if code == "unauthorized" else None
            await refused(code, sentence, asks)(scope, receive, send)
        elif scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[str, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(_hostname(host)):
            named = f"the server does not answer to {host[:60]!r}: start it with --allow-host to make it"
            return "bad_host", named
        if self._is_foreign(scope, headers, host):
            return "bad_origin", "pages of other sites may not use this server; --allow-host admits them by their host"
        if self._secret is not None and not secrets.compare_digest(_credentials(headers), self._secret):
            return "unauthorized", "user and password are needed (curl -u USER:PASSWORD)"
        return None

    def _is_ours(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_foreign(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether a page of another site makes the request; following a link from one is no such thing."""
        origin = headers.get("origin")
        if origin is not None:
            return (
                _place(urlsplit(origin).netloc) != _place(host)
                and _hostname(urlsplit(origin).netloc) not in self._origins
            )
        crosses = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return crosses and scope.get("method", "GET") not in ("GET", "HEAD")

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, refusing a body that is too large or too slow once it is known to be."""
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        most = self._page_upload_bytes if is_upload else SMALL_BODY
        announced = Headers(scope=scope).get("content-length", "0")
        too_large = "too_large", f"the request has more than the {most / (1 << 20):g} MB allowed"
        if not announced.isascii() or not announced.isdigit() or int(announced) > most:
            await refused(*too_large)(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        end = math.inf if is_upload else clock() + IDLE_SECONDS
        size, started, more = 0, False, True
        refusal: tuple[str, str] | None = None

        async def counted() -> Message:
            nonlocal size, more, refusal
            try:
                async with asyncio.timeout_at(min(end, clock() + IDLE_SECONDS) if more else None):
                    message = await receive()
            except TimeoutError as error:
                refusal = "upload_timeout", "the request took too long to arrive: try again"
                raise _Refused from error
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > most:
                refusal = too_large
                raise _Refused
            return message

        async def noticed(message: Message) -> None:
            nonlocal started
            if refusal:  # the application's own answer to an error that it does not know
                return
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noticed)
        except Exception:
            if not refusal:
                raise
        if refusal and not started:
            await refused(*refusal)(scope, receive, send)


def _with_headers(send: Send, no_store: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            if no_store:
                headers["Cache-Control"] = "no-store"
        await send(message)

    return sending


def _credentials(headers: Headers) -> bytes:
    """User and password as `user:password` in UTF-8; empty where they are missing or garbled."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _hostname(place: str) -> str:
    """The name in `name:port`, of IPv6 addresses without brackets."""
    try:
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _place(place: str) -> tuple[str, int | None]:
    """Name and port; None for the usual ones."""
    try:
        port = urlsplit(f"//{place}").port
    except ValueError:
        port = -1
    return _hostname(place), None if port in (80, 443) else port
