"""A server of the page in a thread, with a tiny network, and a browser to look at it (Debian's chromium)."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from serving import Enter, Opened, Served

from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.serving.service import Service
from dacesr.serving.wishes import Limits

pytest.importorskip("gradio", reason="needs the extra web")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page; what it leaves behind is checked in the end."""
    import uvicorn
    from fastapi import FastAPI

    from dacesr.web import add_page

    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear")
    save_restorer(weights, Restorer(config).eval())
    from gradio import utils

    patch = pytest.MonkeyPatch()
    patch.setattr(utils, "get_heartbeat_rate", lambda: 0.2)  # it is 15 s, in which nobody notices who has left
    before = os.environ.get("GRADIO_TEMP_DIR")
    service = Service([str(weights), "dacesr-light"], limits=Limits(waiting=4, upload_bytes=2 << 20, pixels=1_000_000))
    app = add_page(FastAPI(openapi_url=None), service)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        held = Served(f"http://127.0.0.1:{port}", service, weights)
        yield held
    finally:
        server.should_exit = True
        thread.join(20)
        service.close()
        patch.undo()
    assert not thread.is_alive()
    assert not held.folder.exists()
    assert os.environ.get("GRADIO_TEMP_DIR") == before


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or pytest.skip("needs chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def enter(browser: Any, served: Served) -> Iterator[Enter]:
    """Open the page; in the end nothing may have been complained about, nor asked of other hosts."""
    contexts, opened = list[Any](), list[Opened]()

    def open_page(width: int = 1280, height: int = 860, **options: Any) -> Opened:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        opened.append(Opened(contexts[-1].new_page(), served))
        return opened[-1]

    yield open_page
    for context in contexts:
        context.close()
    for one in opened:
        assert (one.said, one.strangers) == ([], [])


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, each of which takes a while."""
    from dacesr import inference
    from dacesr.tilerunner import TileRunner

    whole = TileRunner._tile

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return whole(*args)

    monkeypatch.setattr(TileRunner, "_tile", slow)
    monkeypatch.setattr(inference, "LARGEST_TILE", 96)
