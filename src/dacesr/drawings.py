"""Pictures of signs, print, tables, diagrams, charts and patterns, drawn from a random state with the system's fonts.

People want text and lines to be readable first of all, and photographs hold little of them. Everything is drawn two to
four times larger, some of it turned and seen at an angle, then reduced by averaging.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dacesr.lettering import find_fonts, random_word, random_words
from dacesr.sheet import Sheet
from dacesr.sources import Sample

_LEAST = 96  # sides of what is drawn, in pixels; a smaller sample is a part of it


class Drawings:
    """Draws samples; the same generator state gives the same picture where the same fonts are installed."""

    paired = False

    def __init__(
        self,
        fonts: Sequence[str | Path] | None = None,
        scripts: Sequence[str] = ("latin", "latin", "latin", "accented", "cyrillic", "greek"),
    ) -> None:
        """Find the fonts.

        Args:
            fonts: Font files and folders of them; the system's unless given.
            scripts: Keys of `lettering.SCRIPTS`; one named twice is drawn twice as often, one without font not at all.

        Raises:
            ValueError: A script or file is unknown, or no font can write any of the scripts.
        """
        self._fonts = find_fonts(fonts, scripts)
        self._scripts = [script for script in scripts if script in self._fonts]

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """Draw a picture of `size` x `size` pixels, which is to be degraded."""
        rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
        draw, oversampling = rng.choice(_SCENES)
        script = rng.choice(self._scripts)
        tilted = rng.random() < 0.35
        extent = max(math.ceil(size * 1.4) if tilted else size, _LEAST)
        sheet = Sheet(rng, extent, oversampling, script=script, fonts=self._fonts[script])
        draw(sheet)
        cut = _tilt if tilted else _crop
        image = cut(rng, sheet.image, size * oversampling)
        pixels = np.array(image.reduce(oversampling))
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), None)


def _crop(rng: random.Random, image: Image.Image, side: int) -> Image.Image:
    left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.crop((left, top, left + side, top + side))


def _tilt(rng: random.Random, image: Image.Image, side: int) -> Image.Image:
    """The middle of a square image, turned a little or rarely by any angle, and seen a little from the side."""
    angle = rng.uniform(-math.pi, math.pi) if rng.random() < 0.1 else rng.gauss(0, 0.15)
    middle, half = image.width / 2, side / 2
    corners: list[float] = []
    for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1)):  # upper left, then anticlockwise, as QUAD wants them
        near = rng.uniform(0.8, 1)
        across, down = x * half * near, y * half * near
        corners.append(middle + across * math.cos(angle) - down * math.sin(angle))
        corners.append(middle + across * math.sin(angle) + down * math.cos(angle))
    return image.transform((side, side), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)


def _sign(sheet: Sheet) -> None:
    """A plate or not, and a few large words in the middle."""
    rng, size = sheet.rng, sheet.size
    margin, inset = rng.uniform(-0.1, 0.12) * size, rng.uniform(0, 0.2) * size
    if rng.random() < 0.6:
        plate, radius = sheet.accent(), rng.choice((0, 0, 0.05, 0.12)) * size
        box = (margin, inset, size - margin, size - inset)
        sheet.rectangle(box, fill=plate, outline=sheet.contrast(plate), width=rng.choice((0, 1, 2, 4)), radius=radius)
        sheet.take_paper(plate)
    heights = [rng.uniform(16, 60) for _ in range(rng.randint(1, 5))]
    shrink = min(1, (size - 2 * inset - 8) / (1.25 * sum(heights)))
    y = size / 2 - sum(heights) * shrink * 0.62
    font, width = sheet.font(), size - 2 * margin - 8
    for height in heights:
        ink, outline = sheet.ink if rng.random() < 0.6 else sheet.contrast(sheet.paper), rng.random() < 0.08
        words = random_words(rng, sheet.script, rng.choice((1, 1, 2, 3)))
        at = (size / 2, y)
        sheet.text(at, words, height * shrink, font=font, fill=ink, anchor="ma", width=width, outline=outline)
        y += height * shrink * 1.25


def _page(sheet: Sheet) -> None:
    """Lines of print, perhaps in two columns, under a heading."""
    rng, size = sheet.rng, sheet.size
    left, y = rng.uniform(-20, 12), rng.uniform(-20, 10)
    height, font = rng.uniform(8, 17), sheet.font()
    columns = rng.choice((1, 1, 2)) if height < 12 else 1
    leading = height * rng.uniform(1.15, 1.6)
    if rng.random() < 0.5:
        head = rng.uniform(1.4, 2.5) * height
        sheet.text((left, y), random_words(rng, sheet.script, 4), head, font=sheet.font(), fill=sheet.ink)
        y += head * 1.4
    wide = (size - left) / columns
    while y < size:
        for column in range(columns):
            if rng.random() < 0.93:
                count = round(wide / height / 3.2) + 1 if rng.random() < 0.85 else 2
                x = left + column * wide
                sheet.text((x, y), random_words(rng, sheet.script, count), height, font=font, width=wide - height)
        y += leading


def _table(sheet: Sheet) -> None:
    """Names and numbers between rules: labels, receipts, timetables."""
    rng, size = sheet.rng, sheet.size
    height, font = rng.uniform(8, 22), sheet.font()
    row, y = height * rng.uniform(1.3, 2), rng.uniform(-10, 10)
    pitch = height * rng.uniform(3.2, 5)
    columns = [size - 4 - i * pitch for i in range(rng.randint(1, 3))]
    names = columns[-1] - 3 * height
    ruled, boxed, striped = rng.random() < 0.7, rng.random() < 0.5, rng.random() < 0.3
    width, band = rng.choice((0.5, 1, 1, 2)), sheet.near_paper()
    number = 0
    while y < size:
        if striped and number % 2:
            sheet.rectangle((0, y, size, y + row), fill=band)
        if ruled:
            sheet.line([(0, y), (size, y)], width)
        middle = y + row / 2
        words = random_words(rng, sheet.script, 3)
        sheet.text((4, middle), words, height, font=font, anchor="lm", width=names)
        for x in columns:
            sheet.text((x - 4, middle), str(rng.randrange(10 ** rng.randint(1, 4))), height, font=font, anchor="rm")
        y, number = y + row, number + 1
    for x in columns if boxed else ():
        sheet.line([(x, 0), (x, size)], width)


def _collage(sheet: Sheet) -> None:
    """Words of all sizes and colours on patches of colour, as on packages and posters."""
    rng, size = sheet.rng, sheet.size
    for _ in range(rng.randint(0, 3)):
        x, y = rng.uniform(-0.2, 0.8) * size, rng.uniform(-0.2, 0.8) * size
        box = (x, y, x + rng.uniform(0.2, 1) * size, y + rng.uniform(0.1, 0.6) * size)
        rng.choice((sheet.rectangle, sheet.ellipse))(box, fill=sheet.accent())
    y = rng.uniform(-20, 5)
    while y < size:
        height = 8 * 7.5 ** rng.random()  # 8 to 60, small ones more often
        x = rng.uniform(-0.1, 0.4) * size
        sheet.text((x, y), random_words(rng, sheet.script, 4), height, font=sheet.font(), halo=rng.random() < 0.3)
        y += height * rng.uniform(1.1, 1.6)


def _diagram(sheet: Sheet) -> None:
    """Boxes with words in a grid, joined by arrows."""
    rng, size = sheet.rng, sheet.size
    columns, rows = rng.randint(2, 3), rng.randint(2, 4)
    across, down = size / columns, size / rows
    width, font, height = rng.choice((0.75, 1, 1.5, 2.5)), sheet.font(), rng.uniform(8, 14)
    shapes = rng.choices((sheet.rectangle, sheet.ellipse, sheet.diamond), k=2)
    centres = [((i + 0.5) * across, (j + 0.5) * down) for i in range(columns) for j in range(rows)]
    for _ in range(len(centres)):
        start, end = rng.sample(centres, 2)
        if abs(start[0] - end[0]) < across * 1.1 and abs(start[1] - end[1]) < down * 1.1:
            inward = 0.45 if start[0] == end[0] else 0.6
            tip = tuple(a + (b - a) * inward for a, b in zip(start, end, strict=True))
            sheet.arrow(start, (tip[0], tip[1]), width)
            sheet.line([start, end], width)
    for x, y in centres:
        box = (x - across * 0.36, y - down * 0.28, x + across * 0.36, y + down * 0.28)
        fill = sheet.accent() if rng.random() < 0.4 else sheet.near_paper()
        rng.choice(shapes)(box, fill=fill, outline=sheet.ink, width=width)
        ink = sheet.contrast(fill)
        sheet.text((x, y), random_word(rng, sheet.script), height, font=font, fill=ink, anchor="mm", width=across * 0.7)


def _chart(sheet: Sheet) -> None:
    """Axes with numbers, and bars or curves between them."""
    rng, size = sheet.rng, sheet.size
    left, bottom, top = rng.uniform(22, 40), size - rng.uniform(16, 30), rng.uniform(8, 26)
    ticks, font, height = rng.randint(3, 7), sheet.font(), rng.uniform(8, 12)
    step = rng.choice((1, 2, 5, 10, 20, 25, 100))
    faint = sheet.near_paper(40)
    for tick in range(ticks + 1):
        y = bottom - (bottom - top) * tick / ticks
        sheet.line([(left, y), (size, y)], 0.75, fill=faint)
        sheet.text((left - 4, y), str(tick * step), height, font=font, anchor="rm")
    count = rng.randint(4, 10)
    wide = (size - left) / count
    colours = [sheet.contrast(sheet.paper) if rng.random() < 0.6 else sheet.accent() for _ in range(3)]
    if rng.random() < 0.5:
        for i in range(count):
            x, y = left + (i + 0.15) * wide, bottom - rng.random() * (bottom - top)
            sheet.rectangle(
                (x, y, x + 0.7 * wide, bottom), fill=colours[0], outline=sheet.ink, width=rng.choice((0, 1))
            )
    else:
        for colour in colours[: rng.randint(1, 3)]:
            points = [(left + (i + 0.5) * wide, bottom - rng.random() * (bottom - top)) for i in range(count)]
            sheet.line(points, rng.uniform(0.75, 3), fill=colour)
            for x, y in points if rng.random() < 0.5 else ():
                sheet.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    for i in range(count):
        sheet.text((left + (i + 0.5) * wide, bottom + 4), str(i), height, font=font, anchor="ma")
    sheet.line([(left, top), (left, bottom), (size, bottom)], rng.uniform(0.75, 2))
    sheet.text((left + 10, 2), random_words(rng, sheet.script, 3), height * 1.2, font=font)


def _checks(sheet: Sheet) -> None:
    """A checkerboard, or the windows of a front."""
    rng, size = sheet.rng, sheet.size
    across, down = rng.uniform(3, 30), rng.uniform(3, 30)
    down = across if rng.random() < 0.5 else down
    share, chess, width = rng.uniform(0.35, 0.85), rng.random() < 0.4, rng.choice((0, 0, 1))
    colour = sheet.ink if rng.random() < 0.7 else sheet.accent()
    for i in range(math.ceil(size / across)):
        for j in range(math.ceil(size / down)):
            x, y = i * across, j * down
            if chess and (i + j) % 2:
                sheet.rectangle((x, y, x + across, y + down), fill=colour)
            elif not chess:
                box = (x, y, x + share * across, y + share * down)
                sheet.rectangle(box, fill=colour, outline=sheet.ink, width=width)


def _hatching(sheet: Sheet) -> None:
    """Parallel lines, even or in the widths of a bar code, in one direction or two, perhaps within shapes."""
    rng, size = sheet.rng, sheet.size
    code = rng.random() < 0.25
    for angle in rng.sample((0, 0.5, 0.25, 0.75, rng.random(), rng.random()), k=rng.choice((1, 1, 2))):
        x, y = math.cos(angle * math.pi), math.sin(angle * math.pi)
        width = rng.uniform(0.5, 4)
        pitch = width * rng.uniform(1.5, 5) + 1
        place = -0.75 * size
        while place < 0.75 * size:
            middle = (size / 2 + place * y, size / 2 - place * x)
            ends = [(middle[0] + side * size * x, middle[1] + side * size * y) for side in (-0.75, 0.75)]
            sheet.line(ends, width * (rng.randint(1, 4) if code else 1))
            place += pitch * (rng.randint(2, 4) if code else 1)


def _rings(sheet: Sheet) -> None:
    """Rings around a point, or rays from it."""
    rng, size = sheet.rng, sheet.size
    x, y = rng.uniform(0, size), rng.uniform(0, size)
    if rng.random() < 0.5:
        width = rng.uniform(0.75, 4)
        pitch = width + rng.uniform(2, 8)
        for i in range(math.ceil(size / pitch), 0, -1):
            r = i * pitch
            sheet.ellipse((x - r, y - r, x + r, y + r), outline=sheet.ink, width=width)
        return
    count, reach = rng.randint(8, 48), 1.5 * size
    for i in range(count):
        angles = (2 * math.pi * (i + side) / count for side in (0, 0.5))
        sheet.polygon([(x, y), *((x + reach * math.cos(a), y + reach * math.sin(a)) for a in angles)], fill=sheet.ink)


def _shapes(sheet: Sheet) -> None:
    """Polygons, ellipses and lines over one another."""
    rng, size = sheet.rng, sheet.size
    for _ in range(rng.randint(6, 24)):
        x, y, r = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(0.04, 0.35) * size
        fill = sheet.accent() if rng.random() < 0.7 else None
        outline, width = sheet.ink if fill is None or rng.random() < 0.3 else None, rng.uniform(0.75, 5)
        kind = rng.random()
        if kind < 0.3:
            angles = sorted(rng.uniform(0, 2 * math.pi) for _ in range(rng.randint(3, 7)))
            points = [(x + r * math.cos(a), y + r * math.sin(a)) for a in angles]
            sheet.polygon(points, fill=fill, outline=outline, width=width)
        elif kind < 0.6:
            draw = rng.choice((sheet.ellipse, sheet.rectangle))
            draw((x - r, y - r * rng.uniform(0.3, 1), x + r, y + r), fill=fill, outline=outline, width=width)
        else:
            points = [(x + rng.gauss(0, r), y + rng.gauss(0, r)) for _ in range(rng.choice((2, 2, 3, 5)))]
            sheet.line(points, width, fill=fill)


# scene and how many times larger it is drawn: letters are smooth already, lines and outlines are not
_SCENES: tuple[tuple[Callable[[Sheet], None], int], ...] = (
    (_sign, 2),
    (_sign, 2),
    (_page, 2),
    (_page, 2),
    (_table, 2),
    (_collage, 2),
    (_diagram, 3),
    (_chart, 3),
    (_checks, 3),
    (_hatching, 4),
    (_rings, 4),
    (_shapes, 4),
)
