"""Draw contact sheets of a folder of pictures: the input, its bicubic enlargement, and what networks make of it.

    python examples/sheets.py FOLDER [-n MODEL] [--compare NAME=FILE]... [-o out/sheets]

Every row shows the whole input with a frame around its most detailed part, and that part at one output pixel per pixel:
the input's own pixels, bicubic, each network to compare with, and the model at strength 0, 0.5 and 1 if it has a pair.
Unless told otherwise, it is compared with `$DACESR_DATA/checkpoints/upscayl-lite-4x.bin`, where that is.

A network upscales the part with some of its surroundings. A conditioned one has to recognise what the picture shows, so
it upscales the whole of it; of large pictures it is given the middle, about a megapixel, and the part lies there.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import layout
import pyvips
from layout import Box
from rich.console import Console

from dacesr import Upscaler
from dacesr.image import ImageError, resize
from dacesr.inference import UpscaleError
from dacesr.progress import progress_bar

STRENGTHS = (0.0, 0.5, 1.0)
ROWS = 12  # of a page
SURROUNDINGS = 64  # input pixels around the part that an unconditioned network is given as well
LARGEST = 1_000_000  # pixels that a conditioned network upscales
WHOLE = (256, layout.CELL[1])
COMPARED = Path("checkpoints") / "upscayl-lite-4x.bin"  # below $DACESR_DATA


class Column(NamedTuple):
    """A network that upscales, at one strength (None where it has one set of weights)."""

    label: str
    up: Upscaler
    strength: float | None = None

    @property
    def conditioned(self) -> bool:
        """Whether the network has to see whole pictures."""
        return self.up.extractor is not None

    def upscale(self, image: pyvips.Image, part: Box, limits: Box) -> pyvips.Image:
        """A part of an image upscaled, which sees its surroundings, or all within the limits if conditioned."""
        seen = limits if self.conditioned else part.grown(SURROUNDINGS, limits)
        output = self.up(image.crop(*seen).numpy(), strength=self.strength)
        return pyvips.Image.new_from_array(output).crop(*part.within(seen).times(self.up.scale))


def columns_of(model: str, compare: Sequence[str]) -> list[Column]:
    """The networks that a sheet compares, the model last.

    Args:
        model: bundled name, file or hub id.
        compare: `NAME=FILE` each; none for what is compared by default.

    Raises:
        ValueError: a network cannot be loaded, or enlarges otherwise than the model.
    """
    others = dict(_named(text) for text in compare) or _default_comparison()
    found = [Column(name, _loaded(file)) for name, file in others.items()]
    name = Path(model).stem if Path(model).is_file() else model
    up = _loaded(model)
    if odd := next((column for column in found if column.up.scale != up.scale), None):
        raise ValueError(f"{odd.label} enlarges {odd.up.scale} times and {name} {up.scale}: they cannot be compared")
    if up.strength is None:
        return [*found, Column(name, up)]
    return found + [Column(f"{name}, strength {s:g}", up, s) for s in STRENGTHS]


def _named(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise ValueError(f"--compare takes NAME=FILE, not {text}")
    return name, file


def _default_comparison() -> dict[str, str]:
    data = os.environ.get("DACESR_DATA")
    file = Path(data) / COMPARED if data else None
    if file and file.is_file():
        return {"SRVGG (upscayl-lite-4x)": str(file)}
    layout.say(f"the column of SRVGG is left out: {f'{file} does not exist' if file else 'DACESR_DATA is not set'}")
    return {}


def _loaded(model: str) -> Upscaler:
    return Upscaler.load(model, device="auto", warn=layout.say)


def centre(image: pyvips.Image) -> Box:
    """The middle of an image, of LARGEST pixels and the same shape; all of a smaller one."""
    shrink = math.sqrt(LARGEST / (image.width * image.height))
    if shrink >= 1:
        return Box.all_of(image)
    width, height = (max(1, int(side * shrink)) for side in (image.width, image.height))
    return Box((image.width - width) // 2, (image.height - height) // 2, width, height)


def compared(path: Path, columns: Sequence[Column]) -> pyvips.Image:
    """The row of one picture, under a line that names it.

    Raises:
        ImageError: it cannot be read.
    """
    image, scale = layout.load(path), columns[-1].up.scale
    whole = Box.all_of(image)
    limits = centre(image) if any(column.conditioned for column in columns) else whole
    part = layout.detailed_part(image, (layout.CELL[0] // scale, layout.CELL[1] // scale), limits)
    big = resize(image, image.width * scale, image.height * scale)
    cells = [
        layout.cell(layout.thumbnail(image, part, WHOLE), "whole input", WHOLE),
        layout.cell(image.crop(*part).zoom(scale, scale), "input"),
        layout.cell(big.crop(*part.times(scale)), "bicubic"),
        *(layout.cell(column.upscale(image, part, limits), column.label) for column in columns),
    ]
    joined = layout.row(cells)
    head = f"{path.name}, {image.width} x {image.height} to {big.width} x {big.height}"
    if limits != whole:
        head += f" (conditioned networks see only its middle, {limits.width} x {limits.height})"
    return layout.line(head, joined.width, bold=True).join(joined, "vertical").copy_memory()


def readable(paths: Sequence[Path], columns: Sequence[Column]) -> Iterator[pyvips.Image]:
    """The row of every picture that can be read; the others are named."""
    with progress_bar(Console(stderr=True)) as bar:
        for path in bar.track(paths, description="pictures"):
            try:
                yield compared(path, columns)
            except ImageError as error:
                layout.say(f"{error}; it is left out")


def write_sheets(paths: Sequence[Path], columns: Sequence[Column], output: Path) -> int:
    """Write sheets of a folder's pictures, ROWS on each: `{folder}_1.png` and so on.

    Returns:
        How many pictures were left out because they cannot be read.

    Raises:
        ValueError: no picture can be read, or a sheet cannot be written.
        OSError: a folder for the sheets cannot be made.
    """
    folder = paths[0].resolve().parent
    rows, shown = readable(paths, columns), 0
    for number in count(1):
        if not (own := list(islice(rows, ROWS))):
            break
        target = output / f"{folder.name}_{number}.png"
        layout.save(target, layout.page(own))
        shown += len(own)
        print(f"contact sheet: {target}")
    if not shown:
        raise ValueError(f"{folder} holds no picture that can be read")
    return len(paths) - shown


def main() -> None:
    """Write the sheets; pictures that cannot be read are named and left out (exit code 1)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("-n", "--model", default="default", help="bundled name, file or hub id")
    parser.add_argument("--compare", action="append", default=[], metavar="NAME=FILE", help="another network's column")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sheets"), help="folder for the sheets")
    arguments = parser.parse_args()
    try:
        paths = layout.pictures_in(arguments.folder)
        left_out = write_sheets(paths, columns_of(arguments.model, arguments.compare), arguments.output)
    except (ValueError, OSError, UpscaleError) as error:
        layout.fail(error)
    sys.exit(1 if left_out else 0)


if __name__ == "__main__":
    main()
