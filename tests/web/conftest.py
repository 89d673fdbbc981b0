"""A server of the page in a thread, with a tiny network, and a browser to look at it (Debian's chromium)."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.service import Service
from dacesr.wishes import Limits

pytest.importorskip("gradio", reason="needs the extra web")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run")  # fmt: skip


class Served:
    """A page that answers at `url`, from `service`; `folder` holds all files that clients send and get."""

    def __init__(self, url: str, service: Service, weights: Path) -> None:
        self.url, self.service, self.weights = url, service, weights
        self.folder = Path(os.environ["GRADIO_TEMP_DIR"])

    @property
    def model(self) -> str:
        return str(self.weights)

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def until(self, true: Callable[[], Any], what: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"never so: {what}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page; what it leaves behind is checked in the end."""
    import uvicorn
    from fastapi import FastAPI

    from dacesr.web import add_page

    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_restorer(weights, Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect")).eval())
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


class Opened:
    """The page in a browser, and what that complained about and asked of others."""

    def __init__(self, tab: Any, served: Served) -> None:
        self.tab, self.served = tab, served
        self.said, self.strangers = list[str](), list[str]()
        tab.on("console", lambda message: message.type == "error" and self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("request", lambda request: self._asked(request.url))
        tab.goto(served.url)
        tab.wait_for_selector("#start")
        tab.wait_for_timeout(100)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.served.url, "data:", "blob:")):
            self.strangers.append(url)

    def send(self, *paths: Path) -> None:
        """Choose pictures."""
        self.tab.locator("#pictures input[type=file]").set_input_files([str(path) for path in paths])
        self.tab.wait_for_selector(f"#pictures [aria-label='{paths[-1].name}']")

    def upscale(self) -> None:
        """Press the button and wait for the end."""
        self.tab.click("#start")
        self.tab.wait_for_selector("#stop")
        self.finish()

    def finish(self) -> None:
        self.tab.wait_for_selector("#start", timeout=30_000)

    def download(self, place: int, folder: Path) -> Path:
        """Fetch a result as a person does."""
        with self.tab.expect_download() as waiting:
            self.tab.locator("#downloads a").nth(place).click()
        target = folder / waiting.value.suggested_filename
        waiting.value.save_as(target)
        return target

    def picture(self, name: str) -> None:
        """Keep how it looks, in the folder that DACESR_SCREENSHOTS names."""
        if folder := os.environ.get("DACESR_SCREENSHOTS"):
            self.tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


Enter = Callable[..., Opened]


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
        time.sleep(0.25)
        return whole(*args)

    monkeypatch.setattr(TileRunner, "_tile", slow)
    monkeypatch.setattr(inference, "LARGEST_TILE", 96)
