"""Draw a before/after sheet: each input enlarged by bicubic interpolation beside the result of dacesr.

    python examples/sheet.py INPUT_DIR OUTPUT_DIR -o out/sheet.png

Every row shows the whole result with a frame around its most detailed part, and that part at one pixel per pixel: the
enlarged input on the left, the result on the right.
"""

import argparse
from pathlib import Path

import pyvips
from layout import cell, detailed_part, fail, load, page, pictures_in, row, save, thumbnail

from dacesr.image import resize


def pairs(inputs: Path, outputs: Path) -> list[tuple[Path, Path]]:
    """Find the input pictures and their results, `{stem}_x4{extension}`.

    Raises:
        ValueError: no input pictures, or results are missing (they are named).
    """
    found = [(path, outputs / f"{path.stem}_x4{path.suffix}") for path in pictures_in(inputs)]
    if missing := [result.name for _, result in found if not result.is_file()]:
        raise ValueError(f"{outputs} lacks {', '.join(missing)}: run `dacesr upscale {inputs} -o {outputs}` first")
    return found


def compared(source: Path, result: Path) -> pyvips.Image:
    """The whole result with the part framed, the part of the enlarged input, the part of the result."""
    after = load(result)
    before = resize(load(source), after.width, after.height)
    part = detailed_part(after)
    cells = [
        cell(thumbnail(after, part), f"{source.name}, {after.width} x {after.height}"),
        cell(before.crop(*part), "input (bicubic x4)"),
        cell(after.crop(*part), "dacesr"),
    ]
    return row(cells)


def sheet(inputs: Path, outputs: Path) -> pyvips.Image:
    """The sheet of all pictures in a folder.

    Args:
        inputs: folder of input pictures.
        outputs: folder of their results, named `{stem}_x4{extension}`.

    Returns:
        RGB uint8 image, one row per picture.

    Raises:
        ValueError: there is nothing to show, results are missing, or a file is damaged.
    """
    return page([compared(*pair) for pair in pairs(inputs, outputs)])


def main() -> None:
    """Write the sheet, or say in one sentence why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("inputs", type=Path, metavar="INPUT_DIR")
    parser.add_argument("outputs", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sheet.png"), help="picture to write")
    arguments = parser.parse_args()
    try:
        save(arguments.output, sheet(arguments.inputs, arguments.outputs))
    except (ValueError, OSError) as error:
        fail(error)
    print(f"before/after sheet: {arguments.output}")


if __name__ == "__main__":
    main()
