"""Tiles: equal ones that cover a picture, and their blending. Pure geometry, for one network scale.

Along each axis the fewest equal tiles are placed that are no longer than asked for and share at least `overlap` pixels
with each neighbour. In what two tiles share, the weight goes over linearly from one to the other, so that every output
pixel has weight one. A picture's tiles are done row by row, and rows of output leave as soon as no tile below touches
them, so memory holds one row of tiles however tall the picture is.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """A tile along one axis, in input pixels; `before` and `after` are shared with the neighbours."""

    start: int
    size: int
    before: int
    after: int

    @property
    def end(self) -> int:
        """First pixel after the tile."""
        return self.start + self.size


class Tile(NamedTuple):
    """A tile of the picture: its rows and its columns."""

    rows: Span
    columns: Span


def plan_axis(length: int, tile: int, overlap: int) -> list[Span]:
    """Equal spans that cover [0, length).

    Args:
        length: Pixels to cover, at least 1.
        tile: Longest span; 0 means no limit.
        overlap: Pixels that neighbours share at least; at most a third of the tile, so that only neighbours meet.

    Raises:
        ValueError: A number is negative, or the overlap is more than a third of the tile.
    """
    if length < 1 or tile < 0 or overlap < 0:
        raise ValueError(f"length must be positive, tile and overlap not negative; got {length}, {tile}, {overlap}")
    if tile == 0 or length <= tile:
        return [Span(0, length, 0, 0)]
    if 3 * overlap > tile:
        raise ValueError(f"the overlap, {overlap}, must be at most a third of the tile, {tile}")
    count = -(-(length - overlap) // (tile - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    shared = [0, *(a + size - b for a, b in pairwise(starts)), 0]
    return [Span(start, size, shared[i], shared[i + 1]) for i, start in enumerate(starts)]


def span_weights(span: Span, scale: int, device: torch.device | None = None) -> Tensor:
    """Blending weights (size * scale,) in [0, 1]: rising over what is shared before, falling over what is shared after.

    Where two spans of one plan share pixels their weights add up to one. They are made on the device, not copied there.
    """
    weights = torch.ones(span.size * scale, device=device)
    if rising := span.before * scale:
        weights[:rising] = (torch.arange(rising, device=device) + 0.5) / rising
    if falling := span.after * scale:
        weights[-falling:] = 1 - (torch.arange(falling, device=device) + 0.5) / falling
    return weights


class TilePlan:
    """The tiles of one picture and the blending of what a network makes of them.

    Attributes:
        rows, columns: Spans along the two axes.
    """

    def __init__(self, *, height: int, width: int, scale: int, tile: int, overlap: int) -> None:
        """Plan tiles of at most `tile` x `tile` input pixels (0: one tile) that share `overlap` pixels.

        Raises:
            ValueError: As `plan_axis`.
        """
        self.scale = scale
        self.rows = plan_axis(height, tile, overlap)
        self.columns = plan_axis(width, tile, overlap)
        self.width = width

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.rows) * len(self.columns)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row, from left to right."""
        for rows in self.rows:
            for columns in self.columns:
                yield Tile(rows, columns)

    def blend(self, outputs: Iterator[Tensor]) -> Iterator[Tensor]:
        """Blend outputs, in the order of `tiles`, to strips of finished rows from top to bottom.

        Args:
            outputs: (b, c, scale * tile height, scale * tile width) for each tile; they are overwritten.

        Yields:
            (b, c, k, scale * width); all strips together have scale * height rows.
        """
        waiting: Tensor | None = None  # the weighted lower edge of the row of tiles above
        for rows in self.rows:
            band = self._band(rows, outputs)
            if waiting is not None:
                band[:, :, : waiting.shape[2]] += waiting
            finished = (rows.size - rows.after) * self.scale
            yield band[:, :, :finished]
            waiting = band[:, :, finished:].clone()  # lets go of the rest

    def _band(self, rows: Span, outputs: Iterator[Tensor]) -> Tensor:
        """One row of tiles, weighted and added up: (b, c, scale * rows.size, scale * width)."""
        if len(self.columns) == 1:
            return _feather_(next(outputs), rows, 2, self.scale)
        band: Tensor | None = None
        for columns in self.columns:
            output = _feather_(_feather_(next(outputs), rows, 2, self.scale), columns, 3, self.scale)
            if band is None:
                band = output.new_empty(*output.shape[:3], self.width * self.scale)
            shared, place = (
                columns.before * self.scale,
                band[..., columns.start * self.scale : columns.end * self.scale],
            )
            place[..., :shared] += output[..., :shared]
            place[..., shared:] = output[..., shared:]
        assert band is not None  # a plan has at least one column
        return band


def _feather_(output: Tensor, span: Span, dim: int, scale: int) -> Tensor:
    """Multiply what a span shares with its neighbours by the weights, in place; the rest has weight one."""
    shape = [1, 1, 1, 1]
    shape[dim] = -1
    weights = span_weights(span, scale, output.device).to(output).reshape(shape)
    length = span.size * scale
    for start, size in ((0, span.before * scale), (length - span.after * scale, span.after * scale)):
        if size:
            output.narrow(dim, start, size).mul_(weights.narrow(dim, start, size))
    return output
