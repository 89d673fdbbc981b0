"""The figure of local attribution maps: where networks look to make the same detail (DACESR Fig. 5)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from dacesr.analysis.attribution import informative_area
from dacesr.analysis.attributions import Finding
from dacesr.analysis.windows import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "#1E9BD7"  # the window
AREA = (0.84, 0.37, 0.0)  # the informative area
CELL, GAP, LABEL, HEAD = 1.7, 0.06, 0.28, 0.26  # inches: a picture, between them, names at the left, above a column
POWER = 1 / 3  # of a map's values, so that the many small ones are seen
AROUND = 3  # sides of the window that are shown of an output


def attribution_figure(inputs: Mapping[str, Tensor], findings: Sequence[Finding]) -> "Figure":
    """For each input three rows: outputs around the window, attribution maps, informative areas; a column a network.

    At the left stands the input with the window. Maps are divided by their maximum and drawn with an exponent of `POWER`.

    Args:
        inputs: By name, (1, 3, h, w) in [0, 1] each.
        findings: One for each network and input, from `attributions.measure`.

    Raises:
        ValueError: There is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not findings:
        raise ValueError("there is no attribution map to draw")
    models = list(dict.fromkeys(one.model for one in findings))
    by_place = {(one.version, one.model): one for one in findings}
    height, width = next(iter(inputs.values())).shape[-2:]
    tall = CELL * min(max(height / width, 0.4), 2.5)
    block = 3 * tall + HEAD + 4 * GAP
    size = LABEL + (len(models) + 1) * (CELL + GAP) + GAP, HEAD + len(inputs) * block + 0.1
    figure = Figure(figsize=size)

    def cell(row: float, column: int, wide: float = CELL, high: float = tall) -> "Axes":
        """Axes whose top left corner lies `row` inches below the top."""
        left = LABEL + column * (CELL + GAP)
        ax = figure.add_axes((left / size[0], 1 - (row + high) / size[1], wide / size[0], high / size[1]))
        ax.set_axis_off()
        return ax

    for place, (version, x) in enumerate(inputs.items()):
        top = HEAD + place * block
        scale, window = findings[0].scale, findings[0].window
        _input(cell(top + HEAD, 0), x, window, scale)
        _heading(figure, size, LABEL + CELL / 2, top + HEAD / 2, version, bold=True)
        for column, model in enumerate(models, start=1):
            one = by_place[version, model]
            middle = LABEL + column * (CELL + GAP) + CELL / 2
            _heading(figure, size, middle, top + HEAD / 2, f"{_short(model)}  DI {_number(one.di)}")
            for row, draw in enumerate((_output, _map, _area)):
                draw(cell(top + HEAD + row * (tall + GAP), column), x, one)
        for row, text in enumerate(("output", "attribution", "informative area")):
            middle = top + HEAD + row * (tall + GAP) + tall / 2
            style = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 8.5}
            figure.text(LABEL / 2 / size[0], 1 - middle / size[1], text, **style)
        _around_input(cell(top + HEAD + tall + GAP, 0), x, window, scale)
        _note(cell(top + HEAD + 2 * (tall + GAP), 0), window)
    return figure


def _heading(figure: "Figure", size: tuple[float, float], x: float, y: float, text: str, *, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    words = text.replace("$", r"\$")
    figure.text(x / size[0], 1 - y / size[1], words, ha="center", va="center", fontsize=9, weight=weight)


def _show(ax: "Axes", picture: Tensor, **options: object) -> None:
    """A picture (3, h, w), or a map (h, w)."""
    array = picture.clamp(0, 1).permute(1, 2, 0) if picture.ndim == 3 else picture
    ax.imshow(array.cpu().numpy(), interpolation="nearest", **options)  # pyright: ignore[reportArgumentType]


def _frame(ax: "Axes", left: float, top: float, side: float) -> None:
    """A square, in the pixels of what the axes show."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=MARK, linewidth=0.9))


def _input(ax: "Axes", x: Tensor, window: Window, scale: int) -> None:
    _show(ax, x[0])
    _frame(ax, window.x / scale, window.y / scale, window.size / scale)


def _around(window: Window, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is shown around a window within a picture; all in its pixels."""
    side = AROUND * window.size
    left = min(max(window.x + window.size // 2 - side // 2, 0), max(width - side, 0))
    top = min(max(window.y + window.size // 2 - side // 2, 0), max(height - side, 0))
    return left, top, min(left + side, width), min(top + side, height)


def _cropped(ax: "Axes", picture: Tensor, window: Window) -> None:
    left, top, right, bottom = _around(window, *picture.shape[-2:])
    _show(ax, picture[:, top:bottom, left:right])
    _frame(ax, window.x - left, window.y - top, window.size)


def _around_input(ax: "Axes", x: Tensor, window: Window, scale: int) -> None:
    """The input's pixels at the place that the outputs show."""
    _cropped(ax, F.interpolate(x, scale_factor=scale, mode="nearest")[0], window)


def _output(ax: "Axes", x: Tensor, one: Finding) -> None:
    _cropped(ax, one.output, one.window)


def _map(ax: "Axes", x: Tensor, one: Finding) -> None:
    values = one.attribution.map
    top = float(values.max())
    _show(ax, (values / top) ** POWER if top else values, cmap="Reds", vmin=0, vmax=1)
    _frame(ax, one.window.x / one.scale, one.window.y / one.scale, one.window.size / one.scale)


def _area(ax: "Axes", x: Tensor, one: Finding) -> None:
    """The picture in grey, and over it the informative area in colour."""
    grey = np.repeat(x[0].mean(0).cpu().numpy()[..., None], 3, axis=2)
    if float(one.attribution.map.sum()) > 0:
        share = informative_area(one.attribution.map).numpy()[..., None]
        grey = grey * (1 - 0.75 * share) + 0.75 * share * np.array(AREA)
    ax.imshow(grey.clip(0, 1), interpolation="nearest")
    _frame(ax, one.window.x / one.scale, one.window.y / one.scale, one.window.size / one.scale)


def _note(ax: "Axes", window: Window) -> None:
    lines = f"above: the input\naround the window\n\nwindow {window}\n(x,y,size, output\npixels)"
    ax.text(0.02, 0.97, lines, transform=ax.transAxes, ha="left", va="top", fontsize=7.5, color="#333333")


def _number(di: float) -> str:
    return "none" if math.isnan(di) else f"{di:.1f}"


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
