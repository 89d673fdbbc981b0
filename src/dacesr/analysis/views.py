"""One picture as several methods enlarge it: the parts of the results that are looked at, and the scores.

Pixels are kept as bytes: arrays (h, w, 3), uint8, RGB.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dacesr.analysis.windows import Window
from dacesr.evaluate.measures import Measure
from dacesr.evaluate.tables import Cell, ranks

INPUT, REFERENCE = "input", "HR"  # what figures call them, beside the methods


@dataclass(frozen=True)
class View:
    """A part of the output that is kept, or all of it.

    Attributes:
        left, top, width, height: In output pixels; the scale divides them.
        windows: Those within, in pixels of the whole output.
        pictures: The part by the names of the methods and `REFERENCE`; `INPUT` at its own, smaller size.
    """

    left: int
    top: int
    width: int
    height: int
    windows: tuple[Window, ...]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)

    def cut(self, x: Tensor, scale: int = 1) -> np.ndarray:
        """The part of a picture (1, 3, h, w) in [0, 1] that is `scale` times smaller than the output, as bytes."""
        left, top, right, bottom = (
            value // scale for value in (self.left, self.top, self.left + self.width, self.top + self.height)
        )
        return as_bytes(x[..., top:bottom, left:right])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One picture, in one degradation, by several methods.

    Attributes:
        name: Of the picture.
        degradation: Of the input; empty where the picture itself is the input.
        scale: Output pixels per input pixel along each side.
        whole: The reference, or the input where there is none.
        size: (height, width) of the output.
        windows: Places to look at, in output pixels.
        views: The parts that are kept; every window lies in one of them.
        measures: Of the scores.
        scores: Of the whole results, by method and measure; of the methods that did not fail.
        failed: Names of those that did.
    """

    name: str
    degradation: str
    scale: int
    whole: np.ndarray
    size: tuple[int, int]
    windows: tuple[Window, ...]
    views: list[View]
    measures: Mapping[str, Measure]
    scores: dict[str, dict[str, float]]
    failed: list[str]

    @property
    def title(self) -> str:
        """The picture's name and its degradation."""
        return f"{self.name}, {self.degradation}" if self.degradation else self.name

    @property
    def has_reference(self) -> bool:
        """Whether there is one."""
        return REFERENCE in self.views[0].pictures

    @property
    def kept(self) -> int:
        """Output pixels that the views hold, of all methods together."""
        return sum(view.width * view.height * len(view.pictures) for view in self.views)

    @property
    def heads(self) -> list[str]:
        """Titles of the measures that there are numbers of, with an arrow to where better is."""
        return [f"{self.measures[name].title} {'↑' if self.measures[name].higher else '↓'}" for name in self._measured]

    def cells(self) -> dict[str, list[Cell]]:
        """For each method its numbers as text, below `heads`, with their ranks; empty where it has none."""
        columns = []
        for name in self._measured:
            measure, values = self.measures[name], [own.get(name) for own in self.scores.values()]
            places = ranks(values, higher=measure.higher)
            texts = ["" if value is None else f"{value:.{measure.digits}f}" for value in values]
            columns.append([Cell(text, rank=rank) for text, rank in zip(texts, places, strict=True)])
        return {method: [column[row] for column in columns] for row, method in enumerate(self.scores)}

    def crops(self, window: Window) -> dict[str, np.ndarray]:
        """One of the windows in the input, whose pixels are repeated, in every result, and in the reference."""
        view = next(view for view in self.views if window in view.windows)
        top, left = window.y - view.top, window.x - view.left
        found = {}
        for name, pixels in view.pictures.items():
            if name == INPUT:
                pixels = pixels.repeat(self.scale, 0).repeat(self.scale, 1)
            found[name] = pixels[top : top + window.size, left : left + window.size]
        return found

    @property
    def _measured(self) -> list[str]:
        return [name for name in self.measures if any(name in own for own in self.scores.values())]


def plan_views(windows: Sequence[Window], height: int, width: int, *, scale: int, limit: int) -> list[View]:
    """The parts of an output that are kept: all of it, or as much around the windows as the limit lets.

    Args:
        windows: Within the output.
        height: Of the output, in pixels.
        width: Likewise.
        scale: Divides both.
        limit: Pixels of a part; windows that are too far from one another for it are in several parts, and a window
            that is larger itself is a part.
    """
    groups: list[list[Window]] = []
    for window in windows:
        near = next((group for group in groups if math.prod(_extent([*group, window])[2:]) <= limit), None)
        if near is None:
            groups.append([window])
        else:
            near.append(window)
    views = []
    for group in groups:
        left, top, across, down = _extent(group)
        wide = min(max(math.isqrt(limit * width // height), across), width)
        tall = min(max(limit // wide, down), height)
        wide = max(min(wide, limit // tall), across)
        left, wide = _grown(left, across, wide, width, scale)
        top, tall = _grown(top, down, tall, height, scale)
        views.append(View(left, top, wide, tall, tuple(group)))
    return views


def as_bytes(x: Tensor) -> np.ndarray:
    """A picture (1, 3, h, w) in [0, 1] as bytes (h, w, 3)."""
    return x[0].float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def _extent(windows: Sequence[Window]) -> tuple[int, int, int, int]:
    """Left edge, top edge, width and height of the smallest rectangle around windows."""
    left, top = min(window.x for window in windows), min(window.y for window in windows)
    right = max(window.x + window.size for window in windows)
    return left, top, right - left, max(window.y + window.size for window in windows) - top


def _grown(start: int, length: int, wanted: int, whole: int, scale: int) -> tuple[int, int]:
    """Start and length of a longer stretch with the given one in its middle, as far as the edges and the scale let."""
    begin = min(max(start + (length - wanted) // 2, 0), whole - wanted)
    end = math.ceil((begin + wanted) / scale) * scale
    begin = begin // scale * scale
    return begin, end - begin
