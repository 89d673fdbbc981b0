"""Sheets as in super-resolution papers: a whole picture, and beside it one place of it by every method.

Crops are enlarged by whole numbers with repeated pixels, so a sheet holds exactly what the methods made.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dacesr.analysis.views import INPUT, REFERENCE, Comparison
from dacesr.analysis.windows import Window
from dacesr.evaluate.tables import Cell
from dacesr.tensorfile import write_whole

COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00")  # of windows; Okabe and Ito's
CROP, WHOLE = 240, 620  # sides in pixels that crops are brought near to, and whole pictures fit into
GAP, MARGIN, FRAME = 12, 18, 3
LETTERS, LINE = 15, 20  # pixels
TEXT, PAPER = "#222222", "#ffffff"


class _Entry(NamedTuple):
    """A crop, what is written below it in one line, and the numbers that follow in others."""

    name: str
    pixels: np.ndarray
    numbers: Sequence[Cell]


def sheet(comparison: Comparison) -> Image.Image:
    """The whole picture with its windows, and crops of them: input, every method, reference, names and scores below.

    Args:
        comparison: Of one picture.

    Returns:
        RGB.
    """
    pen = _Pen()
    blocks = [_block(comparison, place, pen) for place in range(len(comparison.windows))]
    height = sum(block.height for block in blocks) + GAP * (len(blocks) - 1)
    whole = _overview(comparison, pen, height)
    across = whole.width + 2 * GAP + max(block.width for block in blocks)
    page = Image.new("RGB", (across + 2 * MARGIN, max(whole.height, height) + 2 * MARGIN), PAPER)
    page.paste(whole, (MARGIN, MARGIN))
    top = MARGIN
    for block in blocks:
        page.paste(block, (MARGIN + whole.width + 2 * GAP, top))
        top += block.height + GAP
    return page


def save_sheet(comparison: Comparison, path: Path) -> None:
    """Write a sheet as PNG, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    sheet(comparison).save(content, format="png", optimize=True)
    write_whole(path, content.getvalue())


# --- crops


def zoom(window: Window) -> int:
    """By how much crops of a window are enlarged."""
    return max(round(CROP / window.size), 1)


def _block(comparison: Comparison, place: int, pen: "_Pen") -> Image.Image:
    """All crops of one window, in rows."""
    window, windows = comparison.windows[place], comparison.windows
    times, colour = zoom(window), COLOURS[place % len(COLOURS)]
    entries = _entries(comparison, window, f"{place + 1}: " if len(windows) > 1 else "")
    side = window.size * times + 2 * FRAME
    rows = _row_count(len(entries), several=len(windows) > 1)
    columns = math.ceil(len(entries) / rows)
    lines = [[pen.fitted(entry.name, side), *pen.wrapped(entry.numbers, side)] for entry in entries]
    below = LINE * max(len(each) for each in lines) + 4
    image = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + below + GAP) - GAP), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (entry, written) in enumerate(zip(entries, lines, strict=True)):
        row, column = divmod(number, columns)
        left, top = column * (side + GAP), row * (side + below + GAP)
        draw.rectangle((left, top, left + side - 1, top + side - 1), fill=colour)
        large = entry.pixels.repeat(times, 0).repeat(times, 1)
        image.paste(Image.fromarray(large), (left + FRAME, top + FRAME))
        for step, line in enumerate(written):
            middle = left + (side - pen.width(line)) // 2
            pen.write(draw, (middle, top + side + 4 + step * LINE), line)
    return image


def _entries(comparison: Comparison, window: Window, number: str) -> list[_Entry]:
    """Crops in the order of the sheet; the titles of the numbers stand below the one that has none."""
    cells = comparison.cells()
    heads = [Cell(head) for head in comparison.heads]
    titled = REFERENCE if comparison.has_reference else INPUT
    entries = [
        _Entry(name, pixels, cells.get(name, heads if name == titled else ()))
        for name, pixels in comparison.crops(window).items()
    ]
    return [entries[0]._replace(name=number + entries[0].name), *entries[1:]]


def _row_count(entries: int, *, several: bool) -> int:
    """One row of a few; two, beside which the whole picture is large, of more."""
    if several or entries <= 3:
        return math.ceil(entries / 6)
    return max(math.ceil(entries / 5), 2)


# --- the whole picture


def _overview(comparison: Comparison, pen: "_Pen", height: int) -> Image.Image:
    """The whole picture with frames around the windows, and what is shown below it; as high as the crops or less."""
    tall, wide = comparison.size
    lines = _caption(comparison)
    room = max(height - LINE * len(lines) - 8, CROP)
    ratio = min(WHOLE / wide, room / tall)
    size = max(round(wide * ratio), 1), max(round(tall * ratio), 1)
    picture = Image.fromarray(comparison.whole).resize(size, Image.Resampling.LANCZOS)
    across = max(size[0], *(pen.width(line) for line in lines))
    image = Image.new("RGB", (across, size[1] + 8 + LINE * len(lines)), PAPER)
    image.paste(picture)
    draw = ImageDraw.Draw(image)
    for place, window in enumerate(comparison.windows):
        number = f"{place + 1}" if len(comparison.windows) > 1 else ""
        _frame(draw, pen, window, ratio, COLOURS[place % len(COLOURS)], number, size)
    for step, line in enumerate(lines):
        pen.write(draw, (0, size[1] + 8 + step * LINE), line)
    return image


def _caption(comparison: Comparison) -> list[list[Cell]]:
    kind = REFERENCE if comparison.has_reference else INPUT
    tall, wide = comparison.size
    lines = [[Cell(f"{_short(comparison.title)} ({kind})", rank=1)]]
    for place, window in enumerate(comparison.windows, start=1):
        number = f"{place}: " if len(comparison.windows) > 1 else ""
        lines.append([Cell(f"window {number}{window} (x,y,size) of {wide} x {tall}")])
    if comparison.heads:
        lines.append([Cell("Scores: of the whole picture;"), Cell("best", rank=1), Cell("second", rank=2)])
    if comparison.failed:
        lines.append([Cell(_short(f"Failed: {', '.join(comparison.failed)}"))])
    return lines


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:47]}…"


def _frame(
    draw: ImageDraw.ImageDraw,
    pen: "_Pen",
    window: Window,
    ratio: float,
    colour: str,
    number: str,
    size: tuple[int, int],
) -> None:
    """A frame around a window in a picture that is `ratio` times as large as the output, and its number beside it."""
    left, top = round(window.x * ratio), round(window.y * ratio)
    side = max(round(window.size * ratio), 4)
    for distance, shade in ((4, "#000000"), (3, colour), (2, colour), (1, colour), (0, "#000000")):
        box = (left - distance, top - distance, left + side - 1 + distance, top + side - 1 + distance)
        draw.rectangle(box, outline=shade)
    if number:
        line = [Cell(number, rank=1)]
        wide = pen.width(line) + 8
        x = min(max(left - 4, 0), size[0] - wide)
        y = top - LINE - 4 if top >= LINE + 4 else min(top + side + 4, size[1] - LINE)
        draw.rectangle((x, y, x + wide, y + LINE), fill=colour, outline="#000000")
        pen.write(draw, (x + 4, y), line, fill="#000000")


# --- letters


class _Pen:
    """Writes lines of words; those of rank 1 are bold, those of rank 2 underlined."""

    def __init__(self) -> None:
        from matplotlib import get_data_path

        folder = Path(get_data_path(), "fonts", "ttf")
        self._fonts = [ImageFont.truetype(folder / name, LETTERS) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")]
        self._blank = math.ceil(self._fonts[0].getlength(" "))

    def width(self, line: Sequence[Cell]) -> int:
        """Of a line, in pixels."""
        return sum(map(self._length, line)) + self._blank * (len(line) - 1)

    def write(self, draw: ImageDraw.ImageDraw, at: tuple[int, int], line: Sequence[Cell], fill: str = TEXT) -> None:
        """Write a line below and right of a point."""
        x, y = at
        for word in line:
            base = y + LETTERS
            draw.text((x, base), word.text, fill, self._font(word), anchor="ls")
            if word.rank == 2:
                draw.line((x, base + 3, x + self._length(word) - 1, base + 3), fill)
            x += self._length(word) + self._blank

    def wrapped(self, numbers: Sequence[Cell], width: int) -> list[list[Cell]]:
        """Numbers with strokes between them, in as many lines as they need."""
        lines: list[list[Cell]] = [[]]
        for place, number in enumerate(numbers):
            stroke = [Cell("/")] if place else []
            if lines[-1] and self.width([*lines[-1], *stroke, number]) > width:
                lines[-1] += stroke
                lines.append([number])
            else:
                lines[-1] += [*stroke, number]
        return lines if numbers else []

    def fitted(self, name: str, width: int) -> list[Cell]:
        """A name, its middle left out where it is too wide."""
        short, letters = name, len(name)
        while self.width([Cell(short)]) > width and letters > 3:
            letters -= 1
            short = f"{name[: letters // 2]}…{name[len(name) - (letters - letters // 2 - 1) :]}"
        return [Cell(short)]

    def _font(self, word: Cell) -> ImageFont.FreeTypeFont:
        return self._fonts[word.rank == 1]

    def _length(self, word: Cell) -> int:
        return math.ceil(self._font(word).getlength(word.text))
