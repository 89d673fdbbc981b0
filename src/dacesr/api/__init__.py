"""The HTTP API: pictures in, larger pictures out, JSON for everything else; and the page beside it."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dacesr import __version__
from dacesr.api import openapi
from dacesr.api.answers import PictureResponse, left, refused
from dacesr.api.guarding import Guard
from dacesr.api.receiving import receive_upload
from dacesr.formats import FORMATS
from dacesr.inspection import Inspection
from dacesr.serving.rooms import Room
from dacesr.serving.service import Outcome, Service, Ticket
from dacesr.serving.wishes import Refusal, Wish

PAGE_UPLOADS = 8  # the largest pictures, that may be dropped on the page at once
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_UPLOAD = ("bad_request", "bad_picture", "too_large", "too_many_pixels", "unsupported_type", "upload_timeout", "busy")


def create_app(
    service: Service,
    *,
    auth: tuple[str, str] | None = None,
    page: bool = True,
    hosts: Iterable[str] = (),
    origins: Iterable[str] = (),
) -> FastAPI:
    """The application: the API below /api and, if wanted, the web page at /.

    Args:
        service: Does the work; whoever made it closes it.
        auth: User and password that every request has to give (HTTP Basic).
        page: Whether the page is there.
        hosts: Names that the server answers to, besides IP addresses and localhost.
        origins: Hosts whose pages may use the server, besides its own page.
    """
    app = FastAPI(title="dacesr", openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/api", _Api(service).app)
    _answer_errors(app)
    if page:
        from dacesr.web import add_page

        app = add_page(app, service)
    app.add_middleware(
        Guard,
        auth=auth,
        hosts=tuple(hosts),
        origins=tuple(origins),
        page_upload_bytes=PAGE_UPLOADS * service.limits.upload_bytes,
    )
    return app


class _Hold:
    """A request's place among those that may be there at once, and its room; both given back once."""

    def __init__(self, places: threading.Semaphore, service: Service) -> None:
        if not places.acquire(blocking=False):
            raise Refusal("busy", "as many requests as can be held are under way; try again later")
        self._places = places
        try:
            self.room: Room = service.rooms.make()
        except OSError as error:
            places.release()
            raise Refusal("closing", "the server has no room for uploads, or is being stopped") from error

    def release(self, *_: object) -> None:
        self.room.discard()
        self._places.release()


class _Api:
    """The operations."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._places = threading.Semaphore(2 * service.capacity)  # uploads and downloads have places too
        self._inspecting = asyncio.Semaphore(1)
        self.app = FastAPI(
            title="dacesr",
            version=__version__,
            summary="Upscales photographs.",
            openapi_url="/openapi.json",
            docs_url=None,  # the pages of FastAPI load their scripts from elsewhere
            redoc_url=None,
        )
        _answer_errors(self.app)
        described = openapi.errors(*_UPLOAD, "unknown_model", "too_slow", "closing", "internal")
        self._add(
            "/upscale",
            self.upscale,
            response_class=Response,
            responses={200: openapi.pictures(), **described},
            openapi_extra=openapi.upload(openapi.FIELDS),
        )
        inspected = openapi.errors(*_UPLOAD, "closing", "internal")
        self._add("/inspect", self.inspect, responses=inspected, openapi_extra=openapi.upload({}))
        self.app.add_api_route("/models", self.models, methods=["GET"], operation_id="models")
        self.app.add_api_route("/health", self.health, methods=["GET"], operation_id="health")

    def _add(self, path: str, operation: Callable[..., Any], **said: Any) -> None:
        """Have an operation take uploads by POST and, as `curl -T` sends them, by PUT."""
        self.app.add_api_route(path, operation, methods=["POST"], operation_id=operation.__name__, **said)
        self.app.add_api_route(path, operation, methods=["PUT"], include_in_schema=False, **said)

    async def upscale(self, request: Request) -> Response:
        """Enlarge a picture: sent as the field `file` of a form, or as the body with query parameters."""
        Wish.of(_named(request.query_params.multi_items())[1])  # before the picture is sent
        self._service.check_room()
        hold = _Hold(self._places, self._service)
        ticket: Ticket | None = None
        try:
            upload = await receive_upload(request, hold.room, self._service.limits)
            name, pairs = _named([*request.query_params.multi_items(), *upload.fields])
            wish = Wish.of(pairs)
            ticket = await run_in_threadpool(
                self._service.submit, upload.path, name or upload.name, wish, room=hold.room
            )
            outcome = await self._outcome(request, ticket)
            return PictureResponse(outcome, hold.release)
        except FileNotFoundError as error:
            hold.release()
            raise Refusal("closing", "the server is being stopped") from error
        except BaseException:
            if ticket is None:
                hold.release()
            else:
                self._service.cancel(ticket)
                ticket.future.add_done_callback(hold.release)
            raise

    async def inspect(self, request: Request) -> dict[str, Any]:
        """What is in a picture, how severely it is degraded, and how to upscale it."""
        hold = _Hold(self._places, self._service)
        try:
            upload = await receive_upload(request, hold.room, self._service.limits)
            name, unknown = _named([*request.query_params.multi_items(), *upload.fields])
            if unknown:
                raise Refusal("bad_request", f"there is no field {unknown[0][0][:40]!r}; there are file and name")
            async with self._inspecting:
                found = await run_in_threadpool(self._service.inspect, upload.path, name or upload.name)
            return _inspection(found)
        finally:
            hold.release()

    def models(self) -> dict[str, Any]:
        """Models that may be named, the first being the one that is used otherwise; formats and limits."""
        limits = self._service.limits
        loaded = [(name, self._service.upscaler(name)) for name in self._service.models]
        return {
            "models": [{"name": name, "scale": up.scale, "strength": up.strength} for name, up in loaded],
            "formats": list(FORMATS),
            "limits": dict(vars(limits)),
        }

    def health(self) -> dict[str, Any]:
        """That the server is up, and how much it has to do."""
        working, waiting = self._service.load()
        return {
            "status": "ok",
            "version": __version__,
            "working": working,
            "waiting": waiting,
            "finished": self._service.finished,
        }

    async def _outcome(self, request: Request, ticket: Ticket) -> Outcome:
        """What comes of a ticket, unless its client leaves before."""
        gone = asyncio.create_task(left(request.receive))
        made = asyncio.wrap_future(ticket.future)
        made.add_done_callback(lambda future: future.cancelled() or future.exception())  # it may be nobody's by then
        try:
            await asyncio.wait((made, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not made.done():
            raise ClientDisconnect
        return made.result()


def _named(pairs: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The picture's name among fields, and the other fields."""
    names = [value for field, value in pairs if field == "name"]
    if len(names) > 1:
        raise Refusal("bad_request", "the field name is there twice")
    return "".join(names), [(field, value) for field, value in pairs if field != "name"]


def _inspection(found: Inspection) -> dict[str, Any]:
    return {
        "width": found.width,
        "height": found.height,
        "tags": [{"name": name, "probability": round(probability, 4)} for name, probability in found.tags],
        "severity": found.severity,
        "probabilities": found.probabilities and [round(probability, 4) for probability in found.probabilities],
        "advice": found.advice._asdict(),
    }


def _answer_errors(app: FastAPI) -> None:
    """Make all errors of an application JSON with a code."""

    async def of_refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refused(error.code, str(error))

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
        sentence = {
            "not_found": "there is nothing at this address: see /api/openapi.json",
            "method_not_allowed": f"this address does not take {request.method[:20]}",
        }.get(code, str(error.detail))
        return refused(code, sentence, dict(error.headers or {}))

    async def of_leaving(_: Request, error: Exception) -> Response:
        return refused("cancelled", "the client left")

    async def of_anything(_: Request, error: Exception) -> Response:
        return refused("internal", "the server failed in a way that should not happen")

    app.add_exception_handler(Refusal, of_refusal)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(ClientDisconnect, of_leaving)
    app.add_exception_handler(Exception, of_anything)
