"""The web page: drop pictures, see them sharpen tile by tile, compare, download. It needs the extra `web`."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from dacesr.serving.service import Service
from dacesr.web.desk import Desk
from dacesr.web.endpoint import add_endpoint
from dacesr.web.gate import Gate, GuardedBlocks
from dacesr.web.parts import Parts
from dacesr.web.style import CSS, JS, theme
from dacesr.web.visits import Visits

_SWEEP = 60  # seconds from one look for files of nobody's to the next
_FOLDER = "GRADIO_TEMP_DIR"  # where gradio keeps files; it asks the environment whenever it checks a path


def add_page(app: FastAPI, service: Service, *, auth: tuple[str, str] | None = None) -> FastAPI:
    """Mount the page at `/` of an app, below whatever routes it has already.

    The page's files lie in a folder within the service's, and are gone when their owner leaves or the app stops. Until
    then the environment variable GRADIO_TEMP_DIR names that folder, so a process has one page at a time.

    Args:
        app: Gets the page, and its clean-up into its lifespan.
        service: Upscales; whoever made it closes it.
        auth: User and password that gradio asks for; None asks for nothing.

    Returns:
        The app.
    """
    visits = Visits(service)
    before = os.environ.get(_FOLDER)
    os.environ[_FOLDER] = str(visits.rooms.path)
    blocks = _in_a_loop(lambda: _mount(app, Desk(service, visits), auth))
    route = app.routes[-1]
    assert isinstance(route, Mount)  # what was just mounted
    route.app = Gate(route.app, visits)
    app.router.lifespan_context = _lifespan(app.router.lifespan_context, blocks, visits, before)
    return app


def _in_a_loop(make: Callable[[], gr.Blocks]) -> gr.Blocks:
    """Call with an event loop running; without one gradio makes several and never closes them."""

    async def made() -> gr.Blocks:
        return make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(made())
    return make()


def _mount(app: FastAPI, desk: Desk, auth: tuple[str, str] | None) -> gr.Blocks:
    blocks = _blocks(desk)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=auth,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        allowed_paths=[],
        max_file_size=desk.service.limits.upload_bytes,
        theme=theme(),
        css=CSS,
        js=JS,
    )
    return blocks


def _blocks(desk: Desk) -> gr.Blocks:
    with GuardedBlocks(title="dacesr", analytics_enabled=False) as blocks:
        blocks.guarded = desk.visits
        Parts(desk)
        add_endpoint(desk)
        blocks.unload(desk.leave)
    waiting = desk.service.limits.waiting
    blocks.queue(max_size=4 * waiting + 16, default_concurrency_limit=waiting + 1, api_open=False)
    blocks._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize  # or it reckons statistics, with pandas, after every event
    return blocks


def _lifespan(inner: Any, blocks: gr.Blocks, visits: Visits, before: str | None) -> Any:
    """A lifespan with files swept regularly; in the end they are removed, and the environment is as it was."""

    @asynccontextmanager
    async def longer(app: FastAPI) -> AsyncIterator[Any]:
        sweeping = asyncio.create_task(_sweep(blocks, visits))
        try:
            async with inner(app) as state:
                yield state
        finally:
            sweeping.cancel()
            visits.close()
            if before is None:
                os.environ.pop(_FOLDER, None)
            else:
                os.environ[_FOLDER] = before

    return longer


async def _sweep(blocks: gr.Blocks, visits: Visits) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        visits.sweep(time.time())
        for known in blocks.temp_file_sets:  # gradio never forgets what it once served
            known -= {path for path in known if not os.path.exists(path)}
