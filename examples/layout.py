"""What sheets of pictures are made of: pictures as they are shown, their most detailed part, cells, rows, pages."""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple, NoReturn

import pyvips
import torch

from dacesr.image import open_picture, write
from dacesr.jobs import EXTENSIONS

CELL = (384, 288)  # a multiple of 2, 3 and 4
GAP = 12
LABEL, ABOVE = 30, 6  # a line of text, and the room above its tallest letters
BACKGROUND: list[float] = [250, 250, 248]
INK: list[float] = [40, 40, 44]
FRAME: list[float] = [214, 60, 40]
LINE, SMALLEST_FRAME = 2, 9


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def all_of(cls, image: pyvips.Image) -> "Box":
        """The whole of an image."""
        return cls(0, 0, image.width, image.height)

    def times(self, scale: int) -> "Box":
        """The same part of a picture whose sides are `scale` times as long."""
        return Box(*(scale * side for side in self))

    def within(self, other: "Box") -> "Box":
        """The same part, counted from the corner of another box."""
        return self._replace(left=self.left - other.left, top=self.top - other.top)

    def grown(self, margin: int, limits: "Box") -> "Box":
        """With a margin on each side, as far as another box reaches."""
        left, top = max(limits.left, self.left - margin), max(limits.top, self.top - margin)
        right = min(limits.left + limits.width, self.left + self.width + margin)
        bottom = min(limits.top + limits.height, self.top + self.height + margin)
        return Box(left, top, right - left, bottom - top)


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, by name.

    Raises:
        ValueError: There are none.
    """
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in EXTENSIONS and path.name[0] != ".")
    if not found:
        raise ValueError(f"{folder} holds no pictures")
    return found


def load(path: Path) -> pyvips.Image:
    """Read a picture as it is shown: sRGB uint8, upright, transparency laid over white.

    Raises:
        ImageError: The file cannot be read; the sentence names it.
    """
    picture = open_picture(path)
    image = picture.colour
    if picture.metadata.profile:
        image = picture.metadata.attach(image).icc_transform("srgb", embedded=True, depth=8)
    image = image.colourspace("srgb")
    if picture.alpha is not None:
        alpha = (picture.alpha * (255 / picture.max_value)).rint().cast("uchar")
        image = image.bandjoin(alpha).flatten(background=[255.0])
    return image.cast("uchar").copy(interpretation="srgb")


def detailed_part(image: pyvips.Image, size: tuple[int, int] = CELL, limits: Box | None = None) -> Box:
    """The part with the largest mean gradient, of a (width, height) or what there is of it, within limits."""
    limits = limits or Box.all_of(image)
    width, height = min(size[0], limits.width), min(size[1], limits.height)
    step = 4  # pixels that are taken together
    edges = image.crop(*limits).colourspace("b-w").sobel().cast("float").shrink(step, step, ceil=True)
    across, down = max(1, width // step), max(1, height // step)
    sums = edges.conv(pyvips.Image.black(across, down) + 1, precision="float")
    inside = sums.crop(across // 2, down // 2, edges.width - across + 1, edges.height - down + 1)
    _, x, y = inside.maxpos()
    left = min(x * step, limits.width - width)
    top = min(y * step, limits.height - height)
    return Box(limits.left + left, limits.top + top, width, height)


def thumbnail(image: pyvips.Image, part: Box, size: tuple[int, int] = CELL) -> pyvips.Image:
    """The image made to fit a (width, height) that is smaller, with a frame around a part of it."""
    scale = min(size[0] / image.width, size[1] / image.height, 1.0)
    small = image.resize(scale)
    width = min(max(round(part.width * scale), SMALLEST_FRAME), small.width)
    height = min(max(round(part.height * scale), SMALLEST_FRAME), small.height)
    left = min(round(part.left * scale), small.width - width)
    top = min(round(part.top * scale), small.height - height)
    return _framed(small, Box(left, top, width, height))


def _framed(image: pyvips.Image, box: Box) -> pyvips.Image:
    """The image with a frame just inside the box."""
    inner = Box(box.left + LINE, box.top + LINE, box.width - 2 * LINE, box.height - 2 * LINE)
    if min(inner.width, inner.height) < 1:
        return image
    solid = (pyvips.Image.black(box.width, box.height, bands=3) + FRAME).cast("uchar").copy(interpretation="srgb")
    return image.insert(solid, box.left, box.top).insert(image.crop(*inner), inner.left, inner.top)


def line(label: str, width: int, *, bold: bool = False) -> pyvips.Image:
    """A line of text, LABEL pixels high; what does not fit the width is left out in its middle."""
    font = "sans bold 12" if bold else "sans 12"
    shown, kept = label, len(label)
    while (mask := _text(shown, font)).width > width and kept > 2:
        kept = min(kept - 1, kept * width // mask.width)
        shown = f"{label[: kept - kept // 2]}…{label[len(label) - kept // 2 :]}"
    text = mask.ifthenelse(INK, BACKGROUND, blend=True).cast("uchar").copy(interpretation="srgb")
    return text.embed(0, ABOVE + mask.yoffset, width, LABEL, extend="background", background=BACKGROUND)


def _text(label: str, font: str) -> pyvips.Image:
    valid = label.encode(errors="replace").decode()  # file names may hold bytes that are no text
    return pyvips.Image.text(escape(valid), font=font, dpi=96)


def cell(image: pyvips.Image, label: str, size: tuple[int, int] = CELL) -> pyvips.Image:
    """A picture in the middle of a cell, with its label above."""
    picture = image.gravity("centre", *size, extend="background", background=BACKGROUND)
    return line(label, size[0]).join(picture, "vertical")


def row(cells: Sequence[pyvips.Image]) -> pyvips.Image:
    """Cells side by side, drawn."""
    joined = cells[0]
    for image in cells[1:]:
        joined = joined.join(image, "horizontal", shim=GAP, background=BACKGROUND)
    return joined.copy_memory()


def page(rows: Sequence[pyvips.Image]) -> pyvips.Image:
    """Rows of equal width below each other, with a margin."""
    joined = pyvips.Image.arrayjoin(list(rows), across=1, shim=GAP, background=BACKGROUND)
    width, height = joined.width + 2 * GAP, joined.height + 2 * GAP
    return joined.embed(GAP, GAP, width, height, extend="background", background=BACKGROUND)


def save(path: Path, image: pyvips.Image) -> None:
    """Write a sheet; its folder is made.

    Raises:
        ValueError, OSError: It cannot be written; the sentence names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, torch.from_numpy(image.numpy()).permute(2, 0, 1)[None] / 255)


def fail(error: object) -> NoReturn:
    """Say in one sentence why the call cannot be carried out, and exit with code 2."""
    say(error)
    sys.exit(2)


def say(*sentences: object) -> None:
    """Print what a user should know besides the result."""
    for sentence in sentences:
        print(f"{Path(sys.argv[0]).stem}: {str(sentence).strip()}", file=sys.stderr)
