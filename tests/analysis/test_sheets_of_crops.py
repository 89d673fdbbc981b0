"""Sheets of crops: the exact pixels, the frames, the words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from comparisons import BLUE, GREEN, RED, comparison, flat, noise
from PIL import Image, ImageDraw

pytest.importorskip("matplotlib")

from dacesr.analysis import sheets
from dacesr.analysis.sheets import MARGIN, save_sheet, sheet, zoom
from dacesr.analysis.windows import Window
from dacesr.evaluate.tables import Cell

WINDOWS = (Window(10, 6, 20), Window(41, 33, 25))


def found_in(page: np.ndarray, part: np.ndarray) -> bool:
    """Whether a part occurs in a page, pixel for pixel."""
    height, width = part.shape[:2]
    corners = (page[: -height + 1, : -width + 1] == part[0, 0]).all(-1)
    return any(
        np.array_equal(page[row : row + height, column : column + width], part) for row, column in np.argwhere(corners)
    )


def enlarged(pixels: np.ndarray, window: Window) -> np.ndarray:
    crop = pixels[window.y : window.y + window.size, window.x : window.x + window.size]
    return crop.repeat(zoom(window), 0).repeat(zoom(window), 1)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Words and ranks, as they are written on a sheet."""
    words: list[tuple[str, int]] = []
    write = sheets._Pen.write

    def write_down(
        pen: sheets._Pen, draw: ImageDraw.ImageDraw, at: tuple[int, int], line: Sequence[Cell], **more: str
    ) -> None:
        words.extend((cell.text, cell.rank) for cell in line)
        write(pen, draw, at, line, **more)

    monkeypatch.setattr(sheets._Pen, "write", write_down)
    return words


@pytest.mark.parametrize("limit", [1_500_000, 900])  # all of the picture is kept, or a part for each window
def test_the_file_holds_the_exact_pixels_of_every_crop(tmp_path: Path, limit: int) -> None:
    small, results = noise(0, 40, 50), {"one": noise(1, 80, 100), "two": noise(2, 80, 100)}
    reference = noise(3, 80, 100)
    found = comparison(results, windows=WINDOWS, reference=reference, small=small, limit=limit)
    assert len(found.views) == (1 if limit > 8000 else 2)
    save_sheet(found, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.mode == "RGB"
        page = np.asarray(image)
    for window in WINDOWS:
        for pixels in (small.repeat(2, 0).repeat(2, 1), *results.values(), reference):
            assert found_in(page, enlarged(pixels, window))
        assert not found_in(page, enlarged(noise(4, 80, 100), window))
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_zoom_is_a_whole_number_near_to_the_size_of_crops() -> None:
    assert [zoom(Window(0, 0, size)) for size in (16, 64, 100, 128, 300, 1000)] == [15, 4, 2, 2, 1, 1]


def test_names_and_scores_stand_below(written: list[tuple[str, int]]) -> None:
    results = {name: flat(colour, 80, 100) for name, colour in (("a", RED), ("b", GREEN), ("c", BLUE))}
    scores = {
        name: {"psnr_y": psnr, "gmsd": gmsd} for name, psnr, gmsd in (("a", 25, 0.3), ("b", 27, 0.1), ("c", 26, 0.2))
    }
    sheet(comparison(results, windows=WINDOWS[:1], reference=results["a"], scores=scores, measured=("psnr_y", "gmsd")))
    assert [text for text, _ in written if text != "/"] == [
        *("input", "a", "25.00", "0.3000", "b", "27.00", "0.1000", "c", "26.00", "0.2000", "HR", "PSNR-Y ↑", "GMSD ↓"),
        *("boat, level1 (HR)", "window 10,6,20 (x,y,size) of 100 x 80", "Scores: of the whole picture;"),
        *("best", "second"),
    ]
    ranked = dict(written)
    assert (ranked["27.00"], ranked["26.00"], ranked["25.00"], ranked["0.1000"]) == (1, 2, 0, 1)


def test_nothing_is_written_of_scores_where_there_are_none(written: list[tuple[str, int]]) -> None:
    sheet(comparison({"a": flat(RED, 80, 100)}, windows=WINDOWS, degradation="", failed=["b"]))
    assert [text for text, _ in written] == [
        *("1: input", "a", "2: input", "a", "1", "2", "boat (input)"),
        *("window 1: 10,6,20 (x,y,size) of 100 x 80", "window 2: 41,33,25 (x,y,size) of 100 x 80", "Failed: b"),
    ]


def test_best_is_bold_and_second_underlined() -> None:
    pen, pictures = sheets._Pen(), []
    for rank in range(3):
        image = Image.new("L", (80, 30), 255)
        pen.write(ImageDraw.Draw(image), (5, 2), [Cell("27.48", rank=rank)], fill="#000000")
        pictures.append(255 - np.asarray(image).astype(int))
    plain, bold, underlined = pictures
    assert bold.sum() > 1.2 * plain.sum()
    line = underlined - plain
    assert (line.min(), line.max()) == (0, 255)
    assert np.count_nonzero(line.any(1)) == 1  # one row, below the letters
    assert line.any(1).argmax() > np.flatnonzero(plain.any(1)).max()


def test_windows_are_drawn_on_the_whole_picture() -> None:
    page = np.asarray(sheet(comparison({"a": flat(RED, 80, 100)}, windows=WINDOWS, reference=flat(BLUE, 80, 100))))
    picture = page[:, : MARGIN + sheets.WHOLE]
    blue = np.argwhere((picture == BLUE).all(-1))
    (top, left), (bottom, right) = blue.min(0), blue.max(0) + 1
    assert (right - left) / (bottom - top) == pytest.approx(100 / 80, rel=0.01)
    for window, colour in zip(WINDOWS, ((0xE6, 0x9F, 0), (0x56, 0xB4, 0xE9)), strict=True):
        own = np.argwhere((picture == colour).all(-1)[top:bottom, left:right])
        ratio = (right - left) / 100
        assert own.max(0)[1] == pytest.approx((window.x + window.size) * ratio, abs=5)
        assert own.max(0)[0] == pytest.approx((window.y + window.size) * ratio, abs=5)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_many_methods_and_long_names_stay_within_the_margins(count: int) -> None:
    names = [f"{place} a network with a very long name, and a strength@{place}" for place in range(count)]
    results = {name: flat(RED, 80, 100) for name in names}
    scores = {name: dict.fromkeys(("psnr_y", "ssim_y", "gmsd", "ssim_rgb"), 0.5) for name in names}
    found = comparison(
        results, windows=WINDOWS[:1], reference=flat(BLUE, 80, 100), scores=scores, name="long " * 40,
        measured=("psnr_y", "ssim_y", "gmsd", "ssim_rgb"), failed=["name"] * 40,
    )  # fmt: skip
    image = sheet(found)
    page = np.asarray(image)
    for border in (page[:MARGIN], page[-MARGIN:], page[:, :MARGIN], page[:, -MARGIN:]):
        assert (border == 255).all()
    assert image.width < 2200
    side = zoom(WINDOWS[0]) * WINDOWS[0].size + 2 * sheets.FRAME
    pen = sheets._Pen()
    fitted = pen.fitted(names[0], side)
    assert pen.width(fitted) <= side
    assert fitted[0].text.startswith("0 a net")
    assert fitted[0].text.endswith("th@0")
    assert all(pen.width(line) <= side for line in pen.wrapped([Cell("0.5000")] * 9, side))
