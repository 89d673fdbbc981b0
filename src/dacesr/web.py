"""The web page: drop pictures, see them sharpen tile by tile, compare, download. It needs the extra `web`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from dacesr.page_desk import Desk
from dacesr.page_endpoint import add_endpoint
from dacesr.page_gate import Gate, GuardedBlocks
from dacesr.page_parts import Parts
from dacesr.page_style import CSS, JS, theme
from dacesr.page_visits import Visits
from dacesr.service import Service

_LOOK, _KEPT = 600, 6 * 3600  # seconds: how often to look for old files, and how old those of people who stay may get
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
    gr.mount_gradio_app(
        app,
        _blocks(Desk(service, visits)),
        path="/",
        auth=auth,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        allowed_paths=[],
        max_file_size=service.limits.upload_bytes,
        theme=theme(),
        css=CSS,
        js=JS,
    )
    route = app.routes[-1]
    assert isinstance(route, Mount)  # what was just mounted
    route.app = Gate(route.app, visits)
    app.router.lifespan_context = _and_then(app.router.lifespan_context, visits, before)
    return app


def _blocks(desk: Desk) -> gr.Blocks:
    with GuardedBlocks(
        title="dacesr", analytics_enabled=False, delete_cache=(_LOOK, _KEPT), fill_width=False
    ) as blocks:
        blocks.guarded = desk.visits
        Parts(desk)
        add_endpoint(desk)
        blocks.unload(desk.leave)
    waiting = desk.service.limits.waiting
    return blocks.queue(max_size=4 * waiting + 16, default_concurrency_limit=waiting + 1, api_open=False)


def _and_then(lifespan: Any, visits: Visits, before: str | None) -> Any:
    """A lifespan that ends with the page's files removed and the environment as it was."""

    @asynccontextmanager
    async def longer(app: FastAPI) -> AsyncIterator[Any]:
        try:
            async with lifespan(app) as state:
                yield state
        finally:
            visits.close()
            if before is None:
                os.environ.pop(_FOLDER, None)
            else:
                os.environ[_FOLDER] = before

    return longer
