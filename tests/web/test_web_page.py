"""The web page in a real browser: from dropping a picture to the file that is downloaded."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image
from serving import Enter, Opened, Served

from dacesr.image import open_picture
from dacesr.inference import Upscaler
from dacesr.web.looks import EXAMPLES

WIDTH, HEIGHT = 120, 80


def drawn(path: Path, *, deep: bool = False, seed: int = 0, times: int = 8) -> Path:
    """A picture of coloured noise, enlarged so that it is soft, with a profile of its own and EXIF."""
    noise = np.random.default_rng(seed).integers(0, 65535, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint16)
    image = pyvips.Image.new_from_array(noise).resize(times, kernel="cubic").cast("ushort").copy(interpretation="rgb16")
    if not deep:
        image = (image / 257).cast("uchar").copy(interpretation="srgb")
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", "p3"))
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Artist", "somebody (somebody, ASCII, 9 components, 9 bytes)")
    image.write_to_file(str(path))
    return path


def pixels(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()


def test_a_picture_goes_in_and_comes_back_whole(enter: Enter, served: Served, tmp_path: Path) -> None:
    source = drawn(tmp_path / "deep.png", deep=True)
    page = enter()
    assert page.tab.title() == "dacesr"
    page.picture("light-empty")
    page.send(source)
    page.upscale()
    got = page.download(0, tmp_path)
    expected = tmp_path / "expected.png"
    Upscaler.load(served.weights).upscale(open_picture(source), expected)
    assert got.name == "deep_x4.png"
    read, wanted = (pyvips.Image.new_from_file(str(path)) for path in (got, expected))
    assert (read.width, read.height, read.format) == (4 * WIDTH, 4 * HEIGHT, "ushort")
    assert np.array_equal(read.numpy(), wanted.numpy())
    assert read.get("icc-profile-data") == wanted.get("icc-profile-data")
    assert read.get("exif-ifd0-Artist").startswith("somebody")
    assert f"{WIDTH} × {HEIGHT} became {4 * WIDTH} × {4 * HEIGHT} pixels" in page.tab.inner_text("#summary")
    page.tab.locator("#slider img").nth(1).evaluate("image => image.decode()")
    sizes = page.tab.locator("#slider img").evaluate_all(
        "all => all.map(i => [i.naturalWidth, i.naturalHeight, i.alt])"
    )
    assert sizes == [[4 * WIDTH, 4 * HEIGHT, "before"], [4 * WIDTH, 4 * HEIGHT, "after"]]


def clip(page: Opened) -> float:
    """Percent of the width that shows the input."""
    return float(page.tab.locator("#slider img").nth(1).evaluate("i => i.style.clipPath.match(/([\\d.e-]+)%\\)$/)[1]"))


def test_the_divider_follows_mouse_and_keyboard(enter: Enter, tmp_path: Path) -> None:
    page = enter()
    page.send(drawn(tmp_path / "a.jpg"))
    page.upscale()
    handle = page.tab.get_by_role("slider", name="Divider between before and after")
    handle.wait_for()
    box = page.tab.locator("#slider .slider-wrap").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.tab.mouse.move(box["x"] + box["width"] / 2, middle)
    page.tab.mouse.down()
    page.tab.mouse.move(box["x"] + 0.25 * box["width"], middle, steps=4)
    page.tab.mouse.up()
    page.served.until(lambda: abs(clip(page) - 25) < 3 or page.tab.wait_for_timeout(30), "the mouse moved it")
    before = clip(page)
    handle.focus()
    for _ in range(5):
        page.tab.keyboard.press("ArrowRight")
    page.served.until(lambda: clip(page) > before + 7 or page.tab.wait_for_timeout(30), "the arrows moved it")
    for key, end in (("Home", 0), ("End", 100)):
        page.tab.keyboard.press(key)
        page.served.until(lambda end=end: abs(clip(page) - end) < 1 or page.tab.wait_for_timeout(30), key)
        page.tab.wait_for_function("end => document.activeElement.ariaValueNow === end", arg=str(end))
    page.picture("light-done")


def test_it_grows_tile_by_tile(enter: Enter, slowly: None, tmp_path: Path) -> None:
    page = enter(color_scheme="dark")
    page.send(drawn(tmp_path / "a.png", times=18))
    page.tab.click("#start")
    page.tab.wait_for_selector("#growing img")
    seen, told = set[str](), set[str]()
    while page.tab.locator("#start").count() == 0:
        for look, where in ((seen, "#growing img"), (told, "#progress p")):
            found = page.tab.evaluate(f"(e => e && (e.src || e.innerText))(document.querySelector('{where}'))")
            look.update([found] if found else [])
        page.tab.wait_for_timeout(50)
        if len(seen) == 4 and not page.tab.locator("#start").count():
            page.picture("dark-at-work")
    assert len(seen) >= 4  # the input, and several states of it
    assert any(re.fullmatch(r"a\.png: tile \d+ of 12, about 0:\d\d left", line) for line in told), told
    background = page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, background[4:-1].split(","))) < 60


def test_many_pictures_and_one_that_is_none(enter: Enter, served: Served, tmp_path: Path) -> None:
    (tmp_path / "twice").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"<script>alert(1)</script> no picture")
    sources = [drawn(tmp_path / "a.png", seed=1), tmp_path / "bad.jpg", drawn(tmp_path / "twice" / "a.png", seed=2)]
    page = enter()
    page.send(*sources)
    page.upscale()
    assert page.tab.locator("#failures p").count() == 1
    assert page.tab.inner_text("#failures").startswith("bad.jpg")
    assert "2 pictures done, 1 not." in page.tab.inner_text("#summary")
    upscaler = Upscaler.load(served.weights)
    expected = []
    for place, source in enumerate((sources[0], sources[2])):
        upscaler.upscale(open_picture(source), tmp_path / f"expected{place}.png")
        expected.append(pixels(tmp_path / f"expected{place}.png"))
        assert np.array_equal(pixels(page.download(place, tmp_path)), expected[-1])
    with page.tab.expect_download() as waiting:
        page.tab.click("#zip")
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        assert file.namelist() == ["a_x4.png", "a_x4 (2).png"]
        for name, wanted in zip(file.namelist(), expected, strict=True):
            assert np.array_equal(pixels(Path(file.extract(name, tmp_path / "zip"))), wanted)
    first = page.tab.locator("#slider img").nth(1).get_attribute("src")
    page.tab.click("#picker input")
    page.tab.get_by_role("option", name="2. a_x4.png").click()
    page.tab.wait_for_function("first => document.querySelectorAll('#slider img')[1].src !== first", arg=first)


def test_size_format_and_metadata_are_as_wished(enter: Enter, tmp_path: Path) -> None:
    page = enter()
    page.send(drawn(tmp_path / "a.png"))
    page.tab.get_by_label("Width", exact=True).check()
    page.tab.get_by_label("Pixels").fill("200")
    page.tab.get_by_role("button", name="Format and metadata").click()
    page.tab.get_by_label("Format", exact=True).click()
    page.tab.get_by_role("option", name="webp").click()
    page.tab.get_by_label("Strip metadata").check()
    page.upscale()
    got = page.download(0, tmp_path)
    with Image.open(got) as image:
        assert (got.suffix, image.format, image.size) == (".webp", "WEBP", (200, round(HEIGHT * 200 / WIDTH)))
        assert image.getexif().get(315) is None
        assert image.info["icc_profile"]


def test_stop_stops_at_the_next_tile(enter: Enter, served: Served, slowly: None, tmp_path: Path) -> None:
    page = enter()
    page.send(drawn(tmp_path / "a.png", times=24), drawn(tmp_path / "b.png", seed=3))
    page.tab.click("#start")
    page.tab.wait_for_selector("#stop")
    served.until(lambda: served.service.load() == (1, 0), "it is at work")
    page.tab.click("#stop")
    page.finish()
    assert served.service.load() == (0, 0)
    assert "a.png is not finished" in page.tab.inner_text("#failures")
    assert page.tab.locator("#failures p").count() == 1  # b was never begun
    page.upscale()  # and it can be done again
    assert page.tab.locator("#downloads a").count() == 2


def test_who_leaves_takes_work_and_files_along(enter: Enter, served: Served, slowly: None, tmp_path: Path) -> None:
    served.until(lambda: not served.files(), "earlier visits are over")
    page = enter()
    page.send(drawn(tmp_path / "a.png"))
    page.tab.click("#start")
    served.until(lambda: served.service.load() == (1, 0), "it is at work")
    assert served.files()
    finished = served.service.finished
    page.tab.close()
    served.until(lambda: served.service.load() == (0, 0), "the work has stopped")
    served.until(lambda: not served.files(), "the files have gone")
    assert served.service.finished == finished


def test_pasted_pictures_arrive(enter: Enter, tmp_path: Path) -> None:
    page = enter()
    data = list((EXAMPLES / "portrait.jpg").read_bytes())
    page.tab.evaluate(
        """bytes => {
          const list = new DataTransfer();
          list.items.add(new File([new Uint8Array(bytes)], "pasted.jpg", { type: "image/jpeg" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: list, bubbles: true }));
        }""",
        data,
    )
    page.tab.wait_for_selector("#pictures [aria-label='pasted.jpg']")


def test_it_can_be_used_by_keyboard_alone(enter: Enter) -> None:
    page = enter()

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.tab.keyboard.press("Tab")
            if page.tab.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
                assert outline == "3px"
                return
        pytest.fail(f"Tab never came to {selector}")

    tab_to("[aria-label='Try the example portrait']")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#pictures [aria-label='portrait.jpg']")
    tab_to("#start")
    page.tab.keyboard.press("Space")
    page.tab.wait_for_selector("#slider img")
    tab_to("#downloads a")


def test_the_advice_can_be_followed(enter: Enter) -> None:
    page = enter()
    page.tab.click("[aria-label='Try the example lake']")
    page.tab.get_by_text("Degradation:").wait_for(timeout=20_000)
    assert not page.tab.get_by_label("Strength").first.is_visible()
    page.tab.get_by_role("button", name="Use this advice").click()
    page.tab.get_by_label("Strength").first.wait_for()
    assert page.tab.get_by_label("Model").input_value() == "dacesr-light"


def contrast(page: Opened, selector: str) -> float:
    """Of a text and the page behind it, as WCAG 2 reckons it."""
    colours = page.tab.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    light = sorted(
        float(np.dot((0.2126, 0.7152, 0.0722), (np.array(re.findall(r"\d+", colour)[:3], float) / 255) ** 2.2))
        for colour in colours
    )
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(enter: Enter, scheme: str, tmp_path: Path) -> None:
    page = enter(width=390, height=844, is_mobile=True, has_touch=True, color_scheme=scheme)
    source = drawn(tmp_path / f"{'a long name ' * 8}.jpg")
    page.send(source)
    page.upscale()
    page.tab.wait_for_selector("#slider img")
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 390
    for part in ("#pictures", "#start", "#slider", "#downloads", "#summary"):
        box: Any = page.tab.locator(part).bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390, part
    assert contrast(page, ".top p") > 4.5
    page.picture(f"phone-{scheme}")


def test_nothing_chosen_is_said(enter: Enter) -> None:
    page = enter()
    page.tab.click("#start")
    page.tab.get_by_text("choose a picture first").wait_for()
