"""The server process: a socket, an end that leaves nothing behind, and no patience with clients that never ask."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20  # that a client may take to ask
STALLED_SECONDS = 60  # after which a client that takes nothing of its answer is hung up on
LAST_SECONDS = 2  # that answers may take to leave once the server ends
MOST_CONNECTIONS = 512


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; who connects before the server runs has to wait.

    Args:
        host: Name or IP address of this machine.
        port: 0 for any that is free.

    Raises:
        OSError: It is taken, not of this machine, or not allowed.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound


def address_of(bound: socket.socket) -> str:
    """What to type into a browser on this machine."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Listener(uvicorn.Server):
    """Runs an application until SIGINT, SIGTERM or SIGHUP."""

    def __init__(self, app: Any, *, started: Callable[[], None], stop: Callable[[], None], abandon: Callable[[], None]):
        """Take an ASGI application.

        Args:
            app: The application.
            started: Called once it answers.
            stop: Ends its work and may take a while; called in a thread, before open requests are waited for.
            abandon: Called before the process ends at once, at the second signal.
        """
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        super().__init__(config)
        self._when_started, self._stop, self._abandon = started, stop, abandon

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As the parent does."""
        await super().startup(sockets)
        self._when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the work, let answers leave, and hang up on who still listens, such as an open page."""
        await asyncio.to_thread(self._stop)
        end = asyncio.get_running_loop().time() + LAST_SECONDS / 2
        while self.server_state.tasks and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        for connection in list(self.server_state.connections):
            if isinstance(connection, H11Protocol):
                connection.transport.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear signals, which are no error of the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.signal(number, self.handle_exit) for number in map(signal.Signals.__getitem__, names)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; at the second signal, end."""
        if self.should_exit:
            self._abandon()
            os._exit(128 + sig)
        self.should_exit = True


class _Protocol(H11Protocol):
    """Closes connections whose client takes too long to ask, takes no answer, or goes on sending after it."""

    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(STALLED_SECONDS, self.transport.abort)  # closing would wait for the client

    def resume_writing(self) -> None:
        self._flow_on()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        self._flow_on()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, as everything else is answered."""
        body = b'{"error":{"code":"bad_request","message":"the request is no valid HTTP"}}'
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        start = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        said = [self.conn.send(event) or b"" for event in (start, h11.Data(data=body), h11.EndOfMessage())]
        self.transport.write(b"".join(said))
        self.transport.close()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._rest()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _flow_on(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
