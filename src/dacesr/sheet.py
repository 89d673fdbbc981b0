"""A sheet to draw on: positions and widths in pixels of the final picture, colours that stand out from one another."""

import colorsys
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from dacesr.lettering import load_font

Box = tuple[float, float, float, float]  # left, top, right, bottom
Colour = tuple[int, int, int]
Point = tuple[float, float]
_SMALLEST = 7.0  # height of letters that are made to fit, in pixels of the final picture


class Sheet:
    """A square picture in the making.

    Attributes:
        rng: All that is random.
        size: Sides in pixels of the final picture; `image` is `oversampling` times larger.
        script: Of what is written, a key of `lettering.SCRIPTS`.
        paper, ink: Two colours of different brightness.
    """

    def __init__(self, rng: random.Random, size: int, oversampling: int, *, script: str, fonts: Sequence[str]) -> None:
        """A flat, graded or smoothly uneven background, and an ink for it."""
        self.rng, self.size, self.script = rng, size, script
        self._scale, self._fonts = oversampling, fonts
        kind = rng.random()
        if kind < 0.5:
            self.paper = _shade(rng, rng.uniform(200, 255), rng.choice((0, 0, 25)))
        elif kind < 0.68:
            self.paper = _shade(rng, rng.uniform(0, 60), rng.choice((0, 0, 25)))
        else:
            self.paper = _hue(rng)
        self.ink = self.contrast(self.paper)
        self.image = _background(rng, self.paper, size * oversampling)
        self._draw = ImageDraw.Draw(self.image)

    def take_paper(self, colour: Colour) -> None:
        """Go on as if on paper of another colour."""
        self.paper = colour
        self.ink = self.contrast(colour)

    def contrast(self, colour: Colour) -> Colour:
        """A colour whose luma differs by 75 at least, mostly near black or white."""
        luma = _luma(colour)
        if self.rng.random() < 0.3:
            for _ in range(8):
                other = _hue(self.rng)
                if abs(_luma(other) - luma) >= 75:
                    return other
        low, high = (0, min(60, luma - 75)) if luma > 128 else (max(195, luma + 75), 255)
        return _shade(self.rng, self.rng.uniform(low, high), 8)

    def accent(self) -> Colour:
        """A colour of its own."""
        return _hue(self.rng)

    def near_paper(self, distance: int = 20) -> Colour:
        """A colour a little different from the paper."""
        shift = -distance if _luma(self.paper) > 128 else distance
        return _clip(*(value + shift for value in self.paper))

    def font(self) -> str:
        """One of the fonts, for `text`."""
        return self.rng.choice(self._fonts)

    def text(
        self,
        at: Point,
        words: str,
        height: float,
        *,
        font: str,
        fill: Colour | None = None,
        anchor: str = "la",
        width: float | None = None,
        outline: bool = False,
        halo: bool = False,
    ) -> None:
        """Write a line.

        Args:
            at: Where the anchor lies.
            words: What is written.
            height: Of the font, in pixels of the final picture.
            font: One of `font()`.
            fill: Its colour; the ink unless given.
            anchor: Pillow's two letters.
            width: Leave out words from the end, then write smaller, until they are not wider.
            outline: Draw only the rim of letters.
            halo: Put a rim of another brightness around them, so that they stand out from anything.
        """
        face = self._face(font, height)
        if width is not None:
            while " " in words and face.getlength(words) > width * self._scale:
                words = words.rpartition(" ")[0]
            shrink = width * self._scale / max(face.getlength(words), 1)
            if shrink < 1:
                face = self._face(font, max(height * shrink, _SMALLEST))
        colour = fill or self.ink
        rim = max(round(height * self._scale / 16), 1) if outline or halo else 0
        around = self.contrast(colour) if halo else colour
        inside = self.paper if outline else colour
        place = (at[0] * self._scale, at[1] * self._scale)
        self._draw.text(place, words, inside, face, anchor, stroke_width=rim, stroke_fill=around)

    def line(self, points: Sequence[Point], width: float, *, fill: Colour | None = None) -> None:
        """Straight lines from point to point."""
        self._draw.line(self._larger(points), fill or self.ink, self._pixels(width), joint="curve")

    def arrow(self, start: Point, tip: Point, width: float) -> None:
        """The head of an arrow that comes from `start`."""
        across, down = tip[0] - start[0], tip[1] - start[1]
        length = max((across**2 + down**2) ** 0.5, 1e-6)
        x, y = across / length * (4 + 2 * width), down / length * (4 + 2 * width)
        self.polygon([tip, (tip[0] - x - y / 2, tip[1] - y + x / 2), (tip[0] - x + y / 2, tip[1] - y - x / 2)])

    def polygon(
        self, points: Sequence[Point], *, fill: Colour | None = None, outline: Colour | None = None, width: float = 1
    ) -> None:
        """A polygon, of ink unless it gets a colour or an outline."""
        fill = self.ink if fill is None and outline is None else fill
        self._draw.polygon(self._larger(points), fill, outline, self._pixels(width))

    def diamond(self, box: Box, *, fill: Colour | None = None, outline: Colour | None = None, width: float = 1) -> None:
        """A rhomb that fills a box."""
        left, top, right, bottom = box
        x, y = (left + right) / 2, (top + bottom) / 2
        self.polygon([(left, y), (x, top), (right, y), (x, bottom)], fill=fill, outline=outline, width=width)

    def rectangle(
        self,
        box: Box,
        *,
        fill: Colour | None = None,
        outline: Colour | None = None,
        width: float = 1,
        radius: float = 0,
    ) -> None:
        """A rectangle, perhaps with round corners; width 0 leaves the outline out."""
        rim = self._pixels(width) if width else 0
        self._draw.rounded_rectangle(self._box(box), radius * self._scale, fill, outline, rim)

    def ellipse(self, box: Box, *, fill: Colour | None = None, outline: Colour | None = None, width: float = 1) -> None:
        """An ellipse that fills a box."""
        self._draw.ellipse(self._box(box), fill, outline, self._pixels(width))

    def _face(self, font: str, height: float) -> ImageFont.FreeTypeFont:
        return load_font(font, round(height * self._scale))

    def _pixels(self, width: float) -> int:
        return max(round(width * self._scale), 1)

    def _larger(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def _box(self, box: Box) -> Box:
        """Scaled; Pillow's last row and column belong to a box."""
        left, top, right, bottom = (side * self._scale for side in box)
        return left, top, max(right - 1, left), max(bottom - 1, top)


def _luma(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _clip(*values: float) -> Colour:
    red, green, blue = (min(max(round(value), 0), 255) for value in values)
    return red, green, blue


def _shade(rng: random.Random, luma: float, spread: float) -> Colour:
    return _clip(*(luma + rng.uniform(-spread, spread) for _ in range(3)))


def _hue(rng: random.Random) -> Colour:
    """A colour as of paint and print: mostly muted, one in four as strong as those of signs."""
    strong = rng.random() < 0.25
    saturation = rng.uniform(0.7, 1) if strong else rng.uniform(0.1, 0.7)
    value = rng.uniform(0.5, 1) if strong else rng.uniform(0.15, 1)
    return _clip(*(255 * part for part in colorsys.hsv_to_rgb(rng.random(), saturation, value)))


def _background(rng: random.Random, paper: Colour, side: int) -> Image.Image:
    """Flat, or a few random points between which the colour changes smoothly."""
    kind = rng.random()
    if kind < 0.5:
        return Image.new("RGB", (side, side), paper)
    points, spread = (2, rng.uniform(10, 40)) if kind < 0.75 else (rng.randint(3, 6), rng.uniform(8, 30))
    coarse = Image.new("RGB", (points, points))
    for i in range(points * points):
        shift = rng.gauss(0, spread)
        colour = _clip(*(value + shift + rng.gauss(0, spread / 4) for value in paper))
        coarse.putpixel((i % points, i // points), colour)
    return coarse.resize((side, side), Image.Resampling.BICUBIC)
