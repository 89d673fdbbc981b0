"""The tiles of a plan through an engine: one by one, or in batches on a GPU, and smaller where memory runs out.

On a GPU the regions of the next tiles are read by a thread and copied while earlier ones are worked on, and a batch is
started before the one before it is waited for.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from dacesr.background import prefetch
from dacesr.conditioning import Region, View, region_of
from dacesr.config import NetworkConfig, RestorerConfig
from dacesr.engine import DTYPES, Engine, Started, UpscaleError, Weights
from dacesr.memory import free_bytes, is_out_of_memory, made_or_none
from dacesr.tiling import Span, Tile, TilePlan
from dacesr.transfer import Arriving

Progress = Callable[[int, int], None]  # tiles done, tiles in all
Watch = Callable[[Tile, Tensor], None]  # a tile and its output, (pictures, 3, scale * h, scale * w) in [0, 1]

SMALLEST_TILE = 32
BATCH_PIXELS = 1 << 20  # of an input, that keep any GPU busy


@dataclass(frozen=True)
class Work:
    """Tiles to be done.

    Attributes:
        weights: What does them.
        plan: The tiles.
        region: The pixels.
        view: Of what the plan is of.
        overlap: What tiles share at least, were they smaller.
        pictures: How many there are, of one size.
        reading: Whether the pixels have to be read and copied to the device, which on CUDA a thread does ahead.
    """

    weights: Weights
    plan: TilePlan
    region: Region
    view: View
    overlap: int
    pictures: int = 1
    reading: bool = True

    @property
    def tile_pixels(self) -> int:
        """Pixels of a tile, all pictures together."""
        return self.pictures * self.plan.rows[0].size * self.plan.columns[0].size

    def read(self, tile: Tile) -> Tensor:
        """Pixels of a tile, (pictures, 3, h, w)."""
        rows, columns = tile
        return self.region(columns.start, rows.start, columns.size, rows.size)


@dataclass(frozen=True)
class _Part:
    """A tile's pixels, or where they will be, and its place."""

    pixels: Arriving
    view: View


@dataclass(frozen=True)
class _Batch:
    """Tiles that are done at once; None started where memory ran out or a tile is too large for it."""

    parts: list[_Part]
    started: Started | None


class TileRunner:
    """Runs tiles, and remembers what did not fit in memory.

    Attributes:
        batched: Whether tiles are done in batches, with threads that read and write: on CUDA.
    """

    def __init__(self, engine: Engine, config: NetworkConfig, *, warn: Callable[[str], None]) -> None:
        """Take an engine and the config of its network."""
        self.batched = engine.batched
        self._engine = engine
        self._config = config
        self._warn = warn
        self._longest = 0  # side of a tile, set once a larger one did not fit in memory
        self._most = BATCH_PIXELS  # pixels of a batch, fewer once so many did not fit in memory

    def bytes_per_pixel(self) -> int:
        """What the network holds for each input pixel at the engine's precision, at most."""
        itemsize = DTYPES[self._engine.precision].itemsize
        if isinstance(self._config, RestorerConfig):
            return self._config.bytes_per_pixel(itemsize, whole=self._engine.whole)
        return self._config.bytes_per_pixel(itemsize)

    def cut(self, height: int, width: int, tile: int, overlap: int) -> TilePlan:
        """Plan tiles for the network's scale; of small ones no more than a third is shared."""
        overlap = min(overlap, tile // 3) if tile else overlap
        return TilePlan(height=height, width=width, scale=self._config.scale, tile=tile, overlap=overlap)

    def strips(
        self, work: Work, progress: Progress | None = None, watch: Watch | None = None
    ) -> Generator[Tensor, None, None]:
        """Finished rows from top to bottom, as from `TilePlan.blend`; close it to end its thread.

        Args:
            work: What is to be done.
            progress: Told (tiles done, tiles in all).
            watch: Shown every tile's output, which it must not change, before it is blended with its neighbours.

        Raises:
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
            Exception: Those of the region, of `progress` and of `watch`.
        """
        try:
            with closing(self._outputs(work, progress, watch)) as outputs:
                yield from work.plan.blend(outputs)
        except (RuntimeError, MemoryError) as error:
            if not (self.batched and is_out_of_memory(error)):
                raise
            place = self._engine.device
            raise UpscaleError(f"too little memory on {place} to blend tiles: do fewer pictures at a time") from error

    def write(
        self, strips: Iterator[Tensor], prepare: Callable[[Tensor], Tensor], write: Callable[[Tensor], object]
    ) -> None:
        """Have strips written by a thread; see `Copies.write`. Where memory is short, the CPU prepares them."""

        def prepared(rows: Tensor) -> Tensor:
            made = made_or_none(lambda: prepare(rows))
            return prepare(rows.cpu()) if made is None else made

        self._engine.copies.write(strips, prepared, write)

    def _outputs(self, work: Work, progress: Progress | None, watch: Watch | None) -> Generator[Tensor, None, None]:
        aside = self.batched and not self._has_room_to_blend(work)
        with closing(self._in_batches(work) if self.batched else self._one_by_one(work)) as outputs:
            for number, (tile, output) in enumerate(zip(work.plan.tiles(), outputs, strict=True), start=1):
                if watch:
                    watch(tile, output)
                if progress:
                    progress(number, len(work.plan))
                yield output.cpu() if aside else output

    def _has_room_to_blend(self, work: Work) -> bool:
        """Whether rows of tiles, of which up to three are held at once, take no more than a quarter of what is free."""
        plan = work.plan
        row = work.pictures * 3 * 4 * plan.rows[0].size * plan.width * plan.scale**2
        return 3 * row <= free_bytes(self._engine.device) // 4

    # --- one by one

    def _one_by_one(self, work: Work) -> Generator[Tensor, None, None]:
        for tile in work.plan.tiles():
            if self._engine.size is None:
                yield self._tile(work, work.read(tile), work.view.tile(tile))
            else:
                yield self._within(work, tile, self._engine.size)

    def _within(self, work: Work, tile: Tile, size: tuple[int, int]) -> Tensor:
        """Output of a tile by a network that takes one size: it is given what lies around the tile too."""
        ends = work.plan.rows[-1].end, work.plan.columns[-1].end
        room = Tile(*(_grown(span, side, end) for span, side, end in zip(tile, size, ends, strict=True)))
        output = self._engine.run(work.weights, work.read(room), work.view.tile(room))
        if output is None:
            raise UpscaleError(f"there is too little memory for the {size[1]} x {size[0]} pixels that the file takes")
        scale = self._config.scale
        top, left = ((span.start - around.start) * scale for span, around in zip(tile, room, strict=True))
        rows, columns = (span.size * scale for span in tile)
        return output[:, :, top : top + rows, left : left + columns]

    def _tile(self, work: Work, x: Tensor, view: View) -> Tensor:
        """Output of one tile in [0, 1]; where it does not fit in memory, of tiles half as long, and so from then on."""
        longest = max(x.shape[-2:])
        if not self._is_too_long(x):
            output = self._engine.run(work.weights, x, view)
            if output is not None:
                return output
            self._longest = max(longest // 2, SMALLEST_TILE)
            if longest <= SMALLEST_TILE:
                device = self._engine.device
                raise UpscaleError(f"there is too little memory on {device} even for {longest} x {longest} pixels")
            self._most = min(self._most, self._longest**2)
            self._warn(f"too little memory for tiles of {longest} pixels: going on with {self._longest}")
        plan = self.cut(x.shape[2], x.shape[3], self._longest, work.overlap)
        smaller = replace(work, plan=plan, region=region_of(x), view=view, reading=False)
        return torch.cat(list(self.strips(smaller)), dim=2)

    def _is_too_long(self, x: Tensor) -> bool:
        return 0 < self._longest < max(x.shape[-2:])

    # --- in batches

    def _in_batches(self, work: Work) -> Generator[Tensor, None, None]:
        """Outputs of tiles in the order of the plan; a batch is at work while the one before it is made use of."""
        fitting = free_bytes(self._engine.device) // 2 // self.bytes_per_pixel()
        earlier: _Batch | None = None
        with closing(self._parts(work, ahead=2 * self._batch_size(work, fitting))) as parts:
            while together := list(islice(parts, self._batch_size(work, fitting))):
                batch = self._start(work, together)
                if earlier is not None:
                    yield from self._finish(work, earlier)
                earlier = batch
                if batch.started is None:  # before the next one is cut as large
                    earlier = None
                    yield from self._finish(work, batch)
        if earlier is not None:
            yield from self._finish(work, earlier)

    def _batch_size(self, work: Work, fitting: int) -> int:
        """Tiles of a batch: as many as fill the device and fit in memory, all batches being of about one size."""
        most, tiles = max(1, min(self._most, fitting) // work.tile_pixels), len(work.plan)
        batches = -(-tiles // most)
        return -(-tiles // batches)

    def _parts(self, work: Work, ahead: int) -> Generator[_Part, None, None]:
        """The tiles' pixels, read and copied ahead by a thread where that is needed."""
        tiles = list(work.plan.tiles())

        def read(number: int) -> _Part:
            x = work.read(tiles[number])
            sent = made_or_none(lambda: self._engine.copies.send(x))
            return _Part(Arriving(x) if sent is None else sent, work.view.tile(tiles[number]))

        yield from prefetch(read, 0, len(tiles), ahead) if work.reading else map(read, range(len(tiles)))

    def _start(self, work: Work, parts: list[_Part]) -> _Batch:
        pixels = [part.pixels.on_device() for part in parts]
        if self._is_too_long(pixels[0]):
            return _Batch(parts, None)
        return _Batch(parts, self._engine.start(work.weights, pixels, [part.view for part in parts]))

    def _finish(self, work: Work, batch: _Batch) -> Iterator[Tensor]:
        """Outputs of a batch; where it does not fit in memory, of parts of half as many, and so from then on."""
        output = None if batch.started is None else self._engine.finish(work.weights, batch.started)
        if output is not None:
            yield from output.split(work.pictures)
            return
        parts = batch.parts
        x, half = parts[0].pixels.tensor, len(parts) // 2
        if half == 0 or self._is_too_long(x):
            for part in parts:
                yield self._tile(work, part.pixels.tensor, part.view)
            return
        if half * work.tile_pixels < self._most:
            self._most = half * work.tile_pixels
            self._warn(f"too little memory for {len(parts)} tiles at a time: going on with {half}")
        for first in range(0, len(parts), half):
            yield from self._finish(work, self._start(work, parts[first : first + half]))


def _grown(span: Span, size: int, end: int) -> Span:
    """A span of `size` pixels around another, within [0, end); of all of them where they are fewer."""
    start = max(0, min(span.start - (size - span.size) // 2, end - size))
    return Span(start, min(size, end), 0, 0)
