"""A server of the page as tests see it, and the page in a browser."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dacesr.serving.service import Service

_SHOWN = "(name => document.querySelector(name)?.checkVisibility() ?? false)"
_SUMMARY = f"() => {_SHOWN}('#summary .says') ? document.querySelector('#summary .says').innerText : ''"


class Served:
    """A page that answers at `url`, from `service`; `folder` holds all files that clients send and get."""

    def __init__(self, url: str, service: Service, weights: Path) -> None:
        self.url, self.service, self.weights = url, service, weights
        self.folder = Path(os.environ["GRADIO_TEMP_DIR"])

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def until(self, true: Callable[[], Any], what: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"never so: {what}; there are {self.files()}"
            time.sleep(0.05)


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
        """Press the button and wait for the end, which may come before anything in between is drawn."""
        before = self.tab.evaluate(f"({_SUMMARY})()")
        self.tab.click("#start")
        self.finish(before)

    def finish(self, before: str = "") -> None:
        """Wait for the end of work, whose summary is another than the one before."""
        ended = f"before => {_SHOWN}('#start') && !{_SHOWN}('#stop') && ![before, ''].includes(({_SUMMARY})())"
        self.tab.wait_for_function(ended, arg=before, timeout=30_000)

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
