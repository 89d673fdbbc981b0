"""Draw a before/after sheet: each input enlarged by bicubic interpolation beside the result of dacesr.

    python examples/sheet.py INPUT_DIR OUTPUT_DIR -o out/sheet.png

Every row shows the whole result with a frame around its most detailed part, and that part at one pixel per pixel: the
enlarged input on the left, the result on the right.
"""

import argparse
import sys
from html import escape
from pathlib import Path

import pyvips

EXTENSIONS = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
CELL = (380, 285)
GAP, LABEL = 12, 30
BACKGROUND: list[float] = [250, 250, 248]
INK: list[float] = [40, 40, 44]
FRAME: list[float] = [214, 60, 40]


def load(path: Path) -> pyvips.Image:
    """Read a picture as RGB uint8, upright, transparency laid over white."""
    image = pyvips.Image.new_from_file(str(path)).autorot()
    image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=[255.0])
    return image.cast("uchar").copy_memory()


def pairs(inputs: Path, outputs: Path) -> list[tuple[Path, Path]]:
    """Find the input pictures and their results, `{stem}_x4{extension}`.

    Raises:
        ValueError: no input pictures, or results are missing (they are named).
    """
    sources = sorted(path for path in inputs.glob("*") if path.suffix.lower() in EXTENSIONS)
    if not sources:
        raise ValueError(f"{inputs} holds no pictures")
    found = [(path, outputs / f"{path.stem}_x4{path.suffix}") for path in sources]
    if missing := [result.name for _, result in found if not result.is_file()]:
        raise ValueError(f"{outputs} lacks {', '.join(missing)}: run `dacesr upscale {inputs} -o {outputs}` first")
    return found


def detailed_part(image: pyvips.Image) -> tuple[int, int, int, int]:
    """The window (left, top, width, height), CELL or the whole of a smaller image, with the largest mean gradient."""
    width, height = min(CELL[0], image.width), min(CELL[1], image.height)
    step = 4
    edges = image.colourspace("b-w").sobel().cast("float").shrink(step, step)
    box = pyvips.Image.black(max(1, width // step), max(1, height // step)) + 1
    _, x, y = edges.conv(box, precision="float").maxpos()
    left = min(max(0, round(x * step - width / 2)), image.width - width)
    top = min(max(0, round(y * step - height / 2)), image.height - height)
    return left, top, width, height


def cell(image: pyvips.Image, label: str) -> pyvips.Image:
    """A picture centred in a cell of CELL size, with its label above."""
    text = pyvips.Image.text(escape(label), font="sans 12", dpi=96)
    text = text.ifthenelse(INK, BACKGROUND, blend=True).copy(interpretation="srgb")
    caption = text.gravity("west", CELL[0], LABEL, extend="background", background=BACKGROUND)
    picture = image.gravity("centre", CELL[0], CELL[1], extend="background", background=BACKGROUND)
    return caption.join(picture, "vertical")


def framed(image: pyvips.Image, left: int, top: int, width: int, height: int) -> pyvips.Image:
    """The image with a frame just inside the window."""
    line = 2
    inner = (left + line, top + line, width - 2 * line, height - 2 * line)
    if min(inner[2:]) < 1:
        return image
    solid = (pyvips.Image.black(width, height, bands=3) + FRAME).cast("uchar").copy(interpretation="srgb")
    return image.insert(solid, left, top).insert(image.crop(*inner), inner[0], inner[1])


def row(source: Path, result: Path) -> pyvips.Image:
    """The whole result with the part framed, the part of the enlarged input, the part of the result."""
    after = load(result)
    before = load(source)
    before = before.resize(after.width / before.width, vscale=after.height / before.height, kernel="cubic")
    left, top, width, height = detailed_part(after)
    scale = min(CELL[0] / after.width, CELL[1] / after.height, 1.0)
    whole = after.resize(scale)
    window = [round(side * scale) for side in (left, top, width, height)]
    parts = [
        cell(framed(whole, *window), f"{source.name}, {after.width} x {after.height}"),
        cell(before.crop(left, top, width, height), "input (bicubic x4)"),
        cell(after.crop(left, top, width, height), "dacesr"),
    ]
    return pyvips.Image.arrayjoin(parts, across=len(parts), shim=GAP, background=BACKGROUND)


def sheet(inputs: Path, outputs: Path) -> pyvips.Image:
    """The sheet of all pictures in a folder.

    Args:
        inputs: folder of input pictures.
        outputs: folder of their results, named `{stem}_x4{extension}`.

    Returns:
        RGB uint8 image, one row per picture.

    Raises:
        ValueError: there is nothing to show, or results are missing.
    """
    rows = [row(*pair) for pair in pairs(inputs, outputs)]
    joined = pyvips.Image.arrayjoin(rows, across=1, shim=GAP, background=BACKGROUND)
    width, height = joined.width + 2 * GAP, joined.height + 2 * GAP
    return joined.embed(GAP, GAP, width, height, extend="background", background=BACKGROUND)


def main() -> None:
    """Write the sheet, or say in one sentence why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("inputs", type=Path, metavar="INPUT_DIR")
    parser.add_argument("outputs", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sheet.png"), help="picture to write")
    arguments = parser.parse_args()
    try:
        image = sheet(arguments.inputs, arguments.outputs)
    except (ValueError, pyvips.Error) as error:
        sys.exit(str(error).strip())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    image.write_to_file(str(arguments.output))
    print(f"before/after sheet: {arguments.output}")


if __name__ == "__main__":
    main()
