"""`dacesr serve`: the web page and its HTTP API."""

from typing import TYPE_CHECKING, Annotated

import typer

from dacesr import completing
from dacesr.cli_options import Device
from dacesr.cli_upscale import PrecisionName
from dacesr.failing import fail, require, warn

if TYPE_CHECKING:
    import socket

    from dacesr.engine import Precision
    from dacesr.serving.wishes import Limits

_LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--model",
            help="A model to offer: bundled name, weights file, or hub id; may be repeated. All bundled ones.",
            autocompletion=completing.models,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASSWORD",
            envvar="DACESR_AUTH",
            show_envvar=True,
            help="Ask for these; in the environment nobody else on the machine sees them.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Host name that the server is reached by, as behind a proxy; may be repeated."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Pictures at a time, sharing the threads.")] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Pictures that may wait; more are refused.")] = 32,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MB", help="Of one picture's file.")] = 64,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Of a picture; a result may have 16 times as many.")
    ] = 24_000_000,
    max_seconds: Annotated[float, typer.Option(min=1, help="That one picture may take.")] = 600,
    device: Device = "auto",
    precision: Annotated[PrecisionName, typer.Option(help="Of the arithmetic.")] = PrecisionName.auto,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The web page, or the HTTP API alone.")] = True,
) -> None:
    """Serve the web page and the HTTP API, on this computer unless told otherwise.

    \b
    dacesr serve
    dacesr serve --open -n dacesr-light
    DACESR_AUTH=me:secret dacesr serve --host 0.0.0.0 --allow-host photos.example.org
    """
    require("gradio", extra="web", what="the server needs")
    from dacesr.api.listening import address_of, bind

    credentials = _credentials(auth)
    allowed = [_host_name(name) for name in allow_host or []]
    try:
        bound = bind(host, port)
    except OSError as error:
        where, why = f"{host}:{port}", error.strerror or error
        raise fail(f"the server cannot listen at {where}: {why}; choose another with --host and --port") from error
    if host not in _LOCAL and credentials is None:
        warn("everyone who reaches this machine can use the server: --auth USER:PASSWORD asks for a password")
    from dacesr.serving.wishes import Limits

    limits = Limits(
        waiting=queue,
        upload_bytes=max_upload << 20,
        pixels=max_pixels,
        result_pixels=16 * max_pixels,
        seconds=max_seconds,
    )
    with bound:
        _run(
            bound,
            address_of(bound),
            models=model or _bundled(),
            limits=limits,
            workers=workers,
            place=(device, precision.value),
            auth=credentials,
            host=host,
            allowed=allowed,
            page=page,
            open_page=open_page and page,
        )


def _run(
    bound: "socket.socket",
    address: str,
    *,
    models: list[str],
    limits: "Limits",
    workers: int,
    place: "tuple[str, Precision]",
    auth: tuple[str, str] | None,
    host: str,
    allowed: list[str],
    page: bool,
    open_page: bool,
) -> None:
    import webbrowser

    from dacesr.api import create_app
    from dacesr.api.listening import Listener
    from dacesr.memory import keep_freed_memory
    from dacesr.serving.service import Service

    keep_freed_memory()
    device, precision = place
    try:
        service = Service(models, limits=limits, workers=workers, device=device, precision=precision)
    except ValueError as error:
        raise fail(error) from error

    def say() -> None:
        typer.echo(f"dacesr: at {address} until Ctrl-C", err=True)
        if open_page:
            webbrowser.open(address)

    try:
        app = create_app(service, auth=auth, page=page, hosts=[*allowed, host], origins=allowed)
        Listener(app, started=say, stop=service.close, abandon=service.rooms.close).run(sockets=[bound])
    finally:
        service.close()


def _credentials(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise fail("--auth, or DACESR_AUTH, must be a user and a password with a colon between them")
    return user, password


def _host_name(given: str) -> str:
    """A name as browsers send it, without what some would type around it."""
    from urllib.parse import urlsplit

    try:
        name = urlsplit(given if "://" in given else f"//{given}").hostname
    except ValueError:
        name = None
    if not name:
        raise fail(f"--allow-host takes a host name such as photos.example.org; got {given!r}")
    return name


def _bundled() -> list[str]:
    """The bundled models, the default first."""
    from dacesr.weightfiles import DEFAULT_WEIGHTS, bundled_names

    return sorted(bundled_names(), key=lambda name: name != DEFAULT_WEIGHTS)
