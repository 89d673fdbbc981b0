"""The page that compares: what it holds, and what it does in a real browser (Debian's chromium, by Playwright)."""

import base64
import io
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import BLUE, GRAY, GREEN, RED, comparison, flat, noise
from PIL import Image

from dacesr.analysis.page import made_by, page, scenes_of
from dacesr.analysis.views import Comparison
from dacesr.analysis.windows import Window
from dacesr.evaluate.methods import Method

WINDOWS = (Window(20, 10, 30), Window(560, 400, 40))
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;<!--<script>\u2028"
SCORES = {"red": {"psnr_y": 25.0}, "blue": {"psnr_y": 27.5}, "green": {"psnr_y": 26.0}}


def coloured(**changes: Any) -> Comparison:
    """Flat pictures of 640 x 480 pixels with a black dot in one corner of each window."""
    results = {"red": flat(RED, 480, 640), "blue": flat(BLUE, 480, 640), "green": flat(GREEN, 480, 640)}
    given = {"windows": WINDOWS, "reference": flat(GRAY, 480, 640), "scores": SCORES}
    return comparison(results, **given | changes)


def text_of(*comparisons: Comparison, made: str = "Made by a test.") -> str:
    return page([scene for one in comparisons for scene in scenes_of(one)], made=made)


# --- what it holds


def test_pictures_are_embedded_without_loss() -> None:
    small, pixels, sharp = noise(0, 40, 60), noise(1, 80, 120), noise(2, 80, 120)
    found = comparison({"a": pixels}, windows=[Window(3, 5, 11)], small=small, reference=sharp)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text_of(found), re.DOTALL)
    assert data
    (scene,) = json.loads(data[1])
    for name, expected in (("input", small), ("a", pixels), ("HR", sharp)):
        kind, _, content = scene["pictures"][name].partition(",")
        assert kind == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_parts_of_large_pictures_are_scenes_of_their_own() -> None:
    first, second = scenes_of(coloured(limit=10_000))
    assert [one["title"] for one in (first, second)] == ["boat, level1, part 1", "boat, level1, part 2"]
    assert (first["windows"], second["windows"][0]["name"]) == (
        [{"name": "1: 20,10,30", "x": 20, "y": 10, "size": 30}],
        "2: 560,400,40",
    )
    place = second["windows"][0]
    assert 0 <= place["x"] <= second["width"] - 40
    assert "Only 116 x 86 of them" in first["note"]
    (whole,) = scenes_of(coloured(failed=["weak"]))
    assert "embedded" not in whole["note"]
    assert whole["note"].endswith("Failed here: weak.")


def test_nothing_in_a_name_becomes_markup() -> None:
    text = text_of(coloured(name=HOSTILE), made=HOSTILE)
    assert text.count("<script") == text_of(coloured()).count("<script") == 2
    assert "<img src" not in text
    assert "\u2028" not in text.partition('id="data">')[2].partition("</script>")[0]
    for sign in ("@DATA@", "@MADE@"):  # a name that looks like a place of the template
        assert sign in text_of(coloured(name=sign), made="")


def test_what_made_it_is_told() -> None:
    methods = [
        Method("bicubic", "", given="bicubic"),
        Method("x", "", given="x=/home/me/x.pth"),
        Method("d", "", given="default"),
    ]
    assert re.fullmatch(
        r"Made by dacesr \d[\w.]*: bicubic, x, d \(default\); enlarged 4 times; degraded with seed 7\.",
        made_by(methods, scale=4, seed=7),
    )
    assert made_by(methods, scale=2, seed=None).endswith("enlarged 2 times.")


# --- what it does


class Opened:
    """A page in a browser, and all that it said and asked for."""

    def __init__(self, tab: Any, path: Path) -> None:
        self.tab, self.said, self.requests = tab, list[str](), list[str]()
        tab.on("console", lambda message: self.said.append(message.text))
        tab.on("pageerror", lambda error: self.said.append(str(error)))
        tab.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.goto(path.as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until the pictures are decoded and drawn."""
        self.tab.evaluate(
            "Promise.all([...document.images].map(i => i.decode())).then(() => new Promise(requestAnimationFrame))"
        )

    def colours(self, *shares: float, row: float = 0.5) -> list[tuple[int, ...]]:
        """Colours of the visible picture at shares of its width."""
        self.settle()
        with Image.open(io.BytesIO(self.tab.locator("#stage").screenshot())) as image:
            pixels = image.convert("RGB")
            return [pixels.getpixel((round(share * pixels.width), round(row * pixels.height))) for share in shares]  # pyright: ignore

    def until(self, expression: str) -> None:
        """Wait for what becomes true soon, such as scrolling; Playwright's own way needs an `eval` in the page."""
        end = time.monotonic() + 10
        while not self.tab.evaluate(expression):
            assert time.monotonic() < end, f"never became true: {expression}"
            self.tab.wait_for_timeout(20)

    def clip(self) -> float:
        """Where the picture on the right begins, in pixels of the whole picture."""
        return float(self.tab.locator("#above").evaluate("e => e.style.clipPath.match(/([\\d.]+)px\\)$/)[1]"))


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium") or pytest.skip("needs chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def enter(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Write a page of comparisons and open it; nothing may have been said or asked for in the end."""
    contexts, opened = [], []

    def write_and_open(*comparisons: Comparison, width: int = 1000, height: int = 900, **options: Any) -> Opened:
        path = tmp_path / "compare.html"
        path.write_text(text_of(*comparisons or (coloured(),)), "utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        opened.append(Opened(contexts[-1].new_page(), path))
        return opened[-1]

    yield write_and_open
    for one in opened:
        assert one.said == []
        assert [url for url in one.requests if not url.startswith("data:image/webp;base64,")] == [
            (tmp_path / "compare.html").as_uri()
        ]
    for context in contexts:
        context.close()


def test_two_pictures_meet_at_the_divider(enter: Open) -> None:
    opened = enter()
    assert opened.tab.title() == "dacesr: side by side"
    assert (opened.tab.input_value("#left"), opened.tab.input_value("#right")) == ("red", "green")
    assert opened.colours(0.05, 0.45, 0.55, 0.95) == [RED, RED, GREEN, GREEN]
    assert opened.tab.locator("#below").get_attribute("alt") == "boat, level1: red"
    assert "Made by a test." in opened.tab.inner_text("footer")


def test_the_divider_follows_the_mouse(enter: Open) -> None:
    opened = enter()
    box = opened.tab.locator("#canvas").bounding_box()
    at = lambda share: box["x"] + share * box["width"]  # noqa: E731
    opened.tab.mouse.move(at(0.8), box["y"] + 20)
    assert opened.clip() == 320  # the mouse alone does nothing
    opened.tab.mouse.down()
    assert opened.clip() == pytest.approx(0.8 * 640, abs=1)
    opened.tab.mouse.move(at(0.25), box["y"] + 200)
    assert opened.clip() == pytest.approx(0.25 * 640, abs=1)
    assert opened.colours(0.2, 0.3) == [RED, GREEN]
    opened.tab.mouse.move(at(1.5), box["y"] + 200)  # outside, still held
    assert opened.clip() == 640
    opened.tab.mouse.up()
    opened.tab.mouse.move(at(0.5), box["y"] + 200)
    assert opened.clip() == 640


def test_the_divider_follows_the_keyboard(enter: Open) -> None:
    opened = enter()
    slider = opened.tab.get_by_role("slider", name="Divider between left and right")
    slider.focus()
    for _ in range(10):
        opened.tab.keyboard.press("ArrowRight")
    assert opened.clip() == pytest.approx(0.6 * 640, abs=1)
    assert opened.colours(0.58, 0.62) == [RED, GREEN]
    assert slider.get_attribute("aria-valuetext") == "60 % red, then green"
    opened.tab.keyboard.press("Home")
    assert opened.colours(0.05, 0.95) == [GREEN, GREEN]
    opened.tab.keyboard.press("End")
    assert opened.colours(0.05, 0.95) == [RED, RED]


def test_either_side_can_be_chosen(enter: Open) -> None:
    opened = enter()
    left, right = (opened.tab.get_by_label(name, exact=True) for name in ("Left", "Right"))
    assert left.locator("option").all_inner_texts() == ["input", "red", "blue", "green", "HR"]
    left.select_option("blue")
    right.select_option("red")
    assert opened.colours(0.3, 0.7) == [BLUE, RED]
    left.select_option("HR")
    assert opened.colours(0.3, 0.7) == [GRAY, RED]


def test_zoom_repeats_pixels_and_the_divider_stays_in_sight(enter: Open) -> None:
    pixels = noise(5, 300, 500)
    small = noise(6, 150, 250)
    opened = enter(comparison({"a": pixels}, windows=[Window(0, 0, 20)], small=small), width=800, height=600)
    assert opened.tab.input_value("#left") == "input"
    for times in (1, 2, 4):
        opened.tab.locator(f"[name=zoom][value='{times}']").check(force=True)
        opened.tab.locator("#stage").evaluate("e => e.scrollTo(0, 0)")
        opened.settle()
        with Image.open(io.BytesIO(opened.tab.locator("#stage").screenshot())) as image:
            shown = np.asarray(image.convert("RGB"))
        divider = round(opened.clip())
        visible = min(500 * times, opened.tab.locator("#stage").evaluate("e => e.clientWidth"))
        assert divider == pytest.approx(visible / 2, abs=1)
        border, rows = 1, slice(150, 190)  # below the window, above the grip
        for whole, columns in (
            (pixels.repeat(times, 0).repeat(times, 1), slice(divider + 6, divider + 60)),
            (small.repeat(2 * times, 0).repeat(2 * times, 1), slice(divider - 60, divider - 6)),
        ):
            seen = shown[border:, border:][rows, columns]
            assert np.array_equal(seen, whole[rows, columns])
    stage = opened.tab.locator("#stage")
    stage.evaluate("e => e.scrollTo(700, 300)")
    opened.settle()
    opened.until("document.getElementById('above').style.clipPath.match(/([\\d.]+)px\\)$/)[1] > 1000")
    assert opened.clip() == pytest.approx(700 + visible / 2, abs=1)


def test_zoom_and_panning_by_keyboard(enter: Open) -> None:
    opened = enter()
    opened.tab.locator("[name=zoom][value='1']").focus()
    opened.tab.keyboard.press("ArrowRight")
    assert opened.tab.locator("#canvas").bounding_box()["width"] == 1280
    stage = opened.tab.locator("#stage")
    stage.evaluate("e => e.scrollTo(0, 0)")
    stage.focus()
    opened.tab.keyboard.press("ArrowRight")
    opened.until("document.getElementById('stage').scrollLeft > 10")
    opened.tab.locator("[name=zoom][value='2']").focus()
    for _ in range(2):
        opened.tab.keyboard.press("ArrowLeft")
    assert opened.tab.locator("#canvas").bounding_box()["width"] == 640  # it fits as it is


def test_buttons_jump_to_windows(enter: Open) -> None:
    opened = enter(width=420, height=800)
    for window, name in zip(WINDOWS, ("1: 20,10,30", "2: 560,400,40"), strict=True):
        opened.tab.get_by_role("button", name=name).click()
        assert opened.tab.locator("[name=zoom]:checked").get_attribute("value") == "4"
        stage = opened.tab.locator("#stage").bounding_box()
        frame = opened.tab.locator(".window").nth(WINDOWS.index(window)).bounding_box()
        assert frame["width"] == pytest.approx(4 * window.size, abs=0.1)
        assert stage["x"] <= frame["x"] <= frame["x"] + frame["width"] <= stage["x"] + stage["width"]
        assert stage["y"] <= frame["y"] <= frame["y"] + frame["height"] <= stage["y"] + stage["height"]


def test_pictures_have_their_own_scores_and_notes(enter: Open) -> None:
    plain = comparison({"red": flat(RED, 40, 60), "blue": flat(BLUE, 40, 60)}, windows=[Window(1, 2, 8)], name="cat",
                       degradation="", failed=["green"])  # fmt: skip
    opened = enter(coloured(), plain)
    table = opened.tab.get_by_role("table")
    assert table.locator("thead th").all_inner_texts() == ["method", "PSNR-Y ↑"]
    assert [row.split() for row in table.locator("tbody tr").all_text_contents()] == [
        ["red25.00"], ["blue27.50", "(best)"], ["green26.00", "(second)"],
    ]  # fmt: skip
    assert table.locator("strong").all_inner_texts() == ["27.50"]
    assert table.locator("u").all_inner_texts() == ["26.00"]
    opened.tab.get_by_label("Left", exact=True).select_option("blue")
    opened.tab.get_by_label("Picture", exact=True).select_option("cat")
    assert opened.colours(0.3, 0.7) == [BLUE, GRAY]  # what is chosen stays; where it is missing, the input is shown
    assert opened.tab.locator("#left option").all_inner_texts() == ["input", "red", "blue"]
    assert not opened.tab.locator("#scores").is_visible()
    assert opened.tab.inner_text("#note").endswith("Failed here: green.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(enter: Open, scheme: str) -> None:
    many = {f"a network with a rather long name {place}": flat(RED, 480, 640) for place in range(9)}
    scores = {name: {"psnr_y": 25.0, "ssim_y": 0.5, "gmsd": 0.5, "ssim_rgb": 0.5} for name in many}
    crowded = comparison(many, windows=[Window(8 * place, 9, 20) for place in range(9)], scores=scores,
                         measured=("psnr_y", "ssim_y", "gmsd", "ssim_rgb"), name="x" * 200)  # fmt: skip
    opened = enter(coloured(), crowded, width=360, height=700, is_mobile=True, has_touch=True, color_scheme=scheme)
    for place in range(2):
        opened.tab.select_option("#scene", str(place))
        for zoom in ("fit", "1", "4"):
            opened.tab.locator(f"[name=zoom][value='{zoom}']").check(force=True)
            assert opened.tab.evaluate("document.documentElement.scrollWidth") == 360
            box = opened.tab.locator("#stage").bounding_box()
            assert 0 <= box["x"] < box["x"] + box["width"] <= 360
    background, ink = (
        opened.tab.evaluate(f"getComputedStyle(document.body).{part}") for part in ("backgroundColor", "color")
    )
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, ink)]
    assert (bright[0] > 650 > 150 > bright[1]) if scheme == "light" else (bright[0] < 150 < 650 < bright[1])


def test_touching_moves_the_divider_where_nothing_is_to_be_panned(enter: Open) -> None:
    opened = enter(width=360, height=700, is_mobile=True, has_touch=True)
    box = opened.tab.locator("#stage").bounding_box()
    before = opened.clip()
    opened.tab.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + 50)
    assert opened.clip() == before
    opened.tab.locator("[name=zoom][value=fit]").check(force=True)
    box = opened.tab.locator("#stage").bounding_box()
    opened.tab.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + 50)
    assert opened.colours(0.15, 0.25) == [RED, GREEN]


def test_hostile_names_are_only_shown(enter: Open) -> None:
    opened = enter(coloured(name=HOSTILE))
    shown = opened.tab.locator("#scene option").evaluate("e => e.textContent")
    assert shown == f"{HOSTILE}, level1"
    assert opened.tab.locator("script").count() == 2
    assert opened.tab.locator("img").count() == 2
    assert opened.colours(0.3, 0.7) == [RED, GREEN]


def test_no_other_script_may_run_and_nothing_be_fetched(enter: Open) -> None:
    opened = enter()
    ran = opened.tab.evaluate(
        """async () => {
          const added = document.createElement("script");
          added.textContent = "document.title = 'taken'";
          document.body.append(added);
          try { await fetch("https://example.org"); return "fetched"; } catch { return document.title; }
        }"""
    )
    assert ran == "dacesr: side by side"
    assert len(opened.said) >= 2
    assert all("Content Security Policy" in sentence or "Refused to" in sentence for sentence in opened.said)
    opened.said.clear()
