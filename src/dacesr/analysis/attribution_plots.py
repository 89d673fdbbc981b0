"""The figure of local attribution maps: where networks look to make the same detail (DACESR Fig. 5)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.analysis.attribution import informative_area
from dacesr.analysis.attributions import Finding
from dacesr.analysis.canvas import LINE, Canvas
from dacesr.analysis.windows import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "#1E9BD7"  # the window
AREA = (0.84, 0.37, 0.0)  # the informative area
CELL, GAP, LABEL, HEAD = 1.7, 0.06, 0.28, 0.38  # inches: a picture, between them, names at the left, above a column
LETTERS = 9.0  # points
POWER = 1 / 3  # of a map's values, so that the many small ones are seen
AROUND = 3  # sides of the window that are shown of an output
ROWS = ("output", "attribution", "informative area")


def attribution_figure(findings: Sequence[Finding]) -> "Figure":
    """For each input three rows: outputs around the window, attribution maps, informative areas; a column a network.

    At the left stands the input with the window. Maps are divided by their maximum and drawn with an exponent of
    `POWER`.

    Args:
        findings: Of one picture: one for each network and input, from `attributions.measure`.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not findings:
        raise ValueError("there is no attribution map to draw")
    look = findings[0].look
    height, width = next(iter(look.inputs.values())).shape[-2:]
    tall = CELL * min(max(height / width, 0.4), 2.5)
    block = len(ROWS) * (tall + GAP) + HEAD + GAP
    columns = 1 + len({one.model for one in findings})
    page = Canvas(LABEL + columns * (CELL + GAP) + GAP, len(look.inputs) * block + GAP)
    for place, version in enumerate(look.inputs):
        _block(page, place * block, tall, version, [one for one in findings if one.version == version])
    return page.figure


def _block(page: Canvas, top: float, tall: float, version: str, findings: Sequence[Finding]) -> None:
    """The rows of one input, from `top` on."""
    look, scale = findings[0].look, findings[0].scale
    x, window = look.inputs[version], look.window
    heads = [version, *(f"{one.model}\nDI {_number(one.attribution.di)}" for one in findings)]
    for column, text in enumerate(heads):
        middle = LABEL + column * (CELL + GAP) + CELL / 2
        looks = {"ha": "center", "fontsize": LETTERS, "weight": "normal" if column else "bold"}
        page.text(middle, top + HEAD / 2, text, CELL, **looks)
    top += HEAD
    for row, text in enumerate(ROWS):
        at = top + row * (tall + GAP)
        page.text(LABEL / 2, at + tall / 2, text, tall, rotation=90, ha="center")
        for column, one in enumerate(findings, start=1):
            box = LABEL + column * (CELL + GAP), at, CELL, tall
            if row == 0:
                _around(page.picture(box, _cut(one.output, window)), window, one.output)
            else:
                ax = page.map(box, _drawn(one), (0, 1), "Reds") if row == 1 else page.picture(box, _area(x, one))
                _frame(ax, window.x / scale, window.y / scale, window.size / scale)
    ax = page.picture((LABEL, top, CELL, tall), x[0])
    _frame(ax, window.x / scale, window.y / scale, window.size / scale)
    large = F.interpolate(x, scale_factor=scale, mode="nearest")[0]  # the input's pixels where the outputs are shown
    _around(page.picture((LABEL, top + tall + GAP, CELL, tall), _cut(large, window)), window, large)
    note = f"above: the input\naround the window\n{look.place(scale)}\n(x,y,size in pixels\nof the output)"
    page.text(LABEL, top + 2 * (tall + GAP) + 2.5 * LINE, note, CELL)


def _corner(window: Window, picture: Tensor) -> tuple[int, int]:
    """Left and top of what is shown around a window of a picture."""
    side, (height, width) = AROUND * window.size, picture.shape[-2:]
    left, top = (
        min(max(start + window.size // 2 - side // 2, 0), max(whole - side, 0))
        for start, whole in ((window.x, width), (window.y, height))
    )
    return left, top


def _cut(picture: Tensor, window: Window) -> Tensor:
    left, top = _corner(window, picture)
    side = AROUND * window.size
    return picture[:, top : top + side, left : left + side]


def _around(ax: "Axes", window: Window, picture: Tensor) -> None:
    """Frame the window in what `_cut` shows."""
    left, top = _corner(window, picture)
    _frame(ax, window.x - left, window.y - top, window.size)


def _frame(ax: "Axes", left: float, top: float, side: float) -> None:
    """A square, in the pixels of what the axes show."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=MARK, linewidth=0.9))


def _drawn(one: Finding) -> Tensor:
    """The map in [0, 1]."""
    values = one.attribution.map
    return (values / values.max().clamp_min(1e-30)) ** POWER


def _area(x: Tensor, one: Finding) -> Tensor:
    """The picture in grey, and over it the informative area in colour, (3, h, w)."""
    grey = x[0].mean(0, keepdim=True).cpu().expand(3, -1, -1)
    values = one.attribution.map
    share = torch.zeros_like(grey[0]) if one.attribution.empty else 0.75 * informative_area(values).to(grey)
    return grey * (1 - share) + share * torch.tensor(AREA).view(3, 1, 1)


def _number(di: float) -> str:
    return "none" if math.isnan(di) else f"{di:.1f}"
