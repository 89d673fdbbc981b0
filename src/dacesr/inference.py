"""`Upscaler`: pictures in, larger pictures out, in tiles that fit in memory."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dacesr.arrays import enlarge_array, enlarge_pil
from dacesr.checkpoint import Network, load_restorer, resolve
from dacesr.conditioning import (
    Region,
    View,
    check_extractor,
    condition_of,
    find_extractor,
    kind_of,
    region_of,
    tags_in,
)
from dacesr.device import find_device
from dacesr.engine import Engine, Precision, UpscaleError
from dacesr.image import Picture, PictureWriter
from dacesr.memory import free_bytes, is_out_of_memory
from dacesr.nets.extractor import Extractor
from dacesr.pairing import Pair, find_pair
from dacesr.tilerunner import SMALLEST_TILE, Progress, TileRunner, Watch, Work
from dacesr.tiling import TilePlan
from dacesr.transfer import Filled

__all__ = ["OVERLAP", "Precision", "Progress", "UpscaleError", "Upscaler", "Watch"]

OVERLAP = 32  # input pixels that neighbouring tiles share
LARGEST_TILE = 1024
TILE_BUDGET = 320 << 20  # bytes that a tile's tensors may take on the CPU, however much is free


@contextmanager
def _memory_suffices(purpose: str) -> Iterator[None]:
    """Say in a sentence that there is too little memory, whatever runs out of it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UpscaleError(f"there is too little memory {purpose}") from error


class Upscaler:
    """A network ready to upscale tensors, arrays, PIL images and files.

    Attributes:
        name: What it was loaded from.
        scale: Output pixels per input pixel along each side.
        device: Where it runs.
        extractor: What sees whole pictures for the network, in fp32; None where it takes no condition.
    """

    def __init__(
        self,
        net: Network,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        name: str = "a network",
        warn: Callable[[str], None] | None = None,
        pair: Pair | None = None,
        strength: float | None = None,
        extractor: Extractor | None = None,
    ) -> None:
        """Take a network in fp32, the pair that it is part of, if it is, and the extractor that it needs, if it does.

        The extractor is taken over: it is moved to the device. The rest is as for `load`.

        Raises:
            ValueError: An unknown precision, a device that is not there, an impossible strength, a network trained
                with a condition and no extractor for it.
        """
        self.name = name
        self.device = find_device(device)
        self.scale: int = net.config.scale
        self._warn = warn or (lambda sentence: warnings.warn(sentence, RuntimeWarning, stacklevel=2))
        self._engine = Engine(
            net,
            pair=pair,
            strength=strength,
            device=self.device,
            precision=precision,
            name=name,
            warn=self._warn,
        )
        check_extractor(net.config, extractor, name)
        self.extractor = extractor.to(self.device, torch.float32) if extractor else None
        self._config = net.config
        self._runner = TileRunner(self._engine, net.config, warn=self._warn)

    @property
    def precision(self) -> str:
        """`fp32`, `bf16` or `fp16`; fp32 once another gave a broken tile."""
        return self._engine.precision

    @property
    def strength(self) -> float | None:
        """What is used where a call does not say; None where the model has one set of weights."""
        return self._engine.strength

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "default",
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        warn: Callable[[str], None] | None = None,
        strength: float | None = None,
        extractor: str | os.PathLike[str] | None = None,
    ) -> "Upscaler":
        """Load weights and get ready.

        Args:
            model: Bundled name, file (see `dacesr.checkpoint.load_restorer`), or hub id `owner/name`.
            device: `cpu`, `cuda`, `cuda:1`, `mps`, ..., or `auto` for the best at hand.
            precision: `auto`, `fp32`, `bf16` or `fp16`; the scan computes in fp32 in any case.
            warn: Receives sentences for the user; `warnings.warn` unless given.
            strength: For calls that do not say; see there.
            extractor: What sees whole pictures for a model that takes a condition: bundled name, file or hub id; the
                one that its file names unless given, and none for a released file, which then does without.

        Raises:
            CheckpointError: The weights or the extractor are missing, of another kind, or don't fit one another (a
                ValueError; the sentence names them).
            ValueError: An unknown precision, a device that is not there, an impossible strength.
        """
        path = resolve(model)
        net = load_restorer(path)
        pair = find_pair(model, path, net)
        seeing, _ = find_extractor(model, path, net, extractor)
        return cls(
            net,
            device=device,
            precision=precision,
            name=os.fspath(model),
            warn=warn,
            pair=pair,
            strength=strength,
            extractor=seeing,
        )

    def prepare(self) -> None:
        """Make the weights ready, which the first call does otherwise.

        Raises:
            CheckpointError: The partner of the weights is needed, and missing or does not fit them.
        """
        self._engine.at(None)

    def __call__(self, x: Any, tile: int | str = "auto", overlap: int = OVERLAP, strength: float | None = None) -> Any:
        """Upscale; what comes back is of the kind that went in.

        Args:
            x: Tensor (b, 3, h, w) in [0, 1]; PIL image; or uint8 or uint16 array (h, w), (h, w, 1) or (h, w, 3), RGB.
            tile: Longest side of a tile in input pixels, `auto` (from free memory) or 0 (the whole picture at once).
            overlap: Input pixels that a tile shares with the neighbour on each side; at most a third of a tile.
            strength: For models with two sets of weights: 0 faithful to 1 crisp; the model's own unless given.

        Returns:
            The same kind, `scale` times as wide and high; tensors keep dtype and device and lie within [0, 1].

        Raises:
            ValueError: A kind, shape or number that is impossible; a strength where there is one set of weights.
            CheckpointError: The partner of the weights is missing or does not fit them.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        if isinstance(x, Tensor):
            return self._tensor(x, tile, overlap, strength)
        if isinstance(x, np.ndarray):
            return enlarge_array(x, lambda x: self._tensor(x, tile, overlap, strength))
        if type(x).__module__.split(".")[0] == "PIL":
            return enlarge_pil(x, lambda x: self._png(x, tile, overlap, strength))
        raise ValueError(f"a tensor, a numpy array or a PIL image is needed, not {type(x).__name__}")

    def tile_size(self, tile: int | str, overlap: int, pictures: int = 1) -> int:
        """The tile in input pixels that `auto`, 0 or a number stands for now, with so many pictures done at once.

        Raises:
            ValueError: `tile` is neither, or the overlap is negative.
        """
        if tile != "auto" and not (isinstance(tile, int) and tile >= 0):
            raise ValueError(f"tile must be auto, 0 or a positive number of pixels; got {tile!r}")
        if overlap < 0:
            raise ValueError(f"overlap must not be negative; got {overlap}")
        if self._engine.size is not None:
            side = min(self._engine.size)
            if tile != "auto" and not 0 < int(tile) <= side:
                raise ValueError(f"{self.name} takes tiles of {side} pixels: leave the tile to it; got {tile}")
            return side if tile == "auto" else int(tile)
        if isinstance(tile, str):
            budget = free_bytes(self.device) // 2 // pictures
            if self.device.type == "cpu":
                budget = min(budget, TILE_BUDGET)
            side = math.isqrt(budget // self._runner.bytes_per_pixel()) // 16 * 16
            tile = max(SMALLEST_TILE, 3 * overlap, min(LARGEST_TILE, side))
        return tile

    def condition(self, picture: Picture) -> Tensor | None:
        """What the network is conditioned on for an opened picture: (1, t, width), None where it takes no condition.

        Raises:
            ImageError: The picture cannot be decoded.
            UpscaleError: Too little memory for the extractor.
        """
        return self._condition(picture.region, picture.height, picture.width)

    def tags(self, condition: Tensor) -> list[tuple[str, ...]]:
        """The tags that the extractor sees in a condition, for each picture the most probable first.

        Raises:
            ValueError: There is no extractor.
        """
        if self.extractor is None:
            raise ValueError(f"{self.name} has no extractor, so there are no tags to tell")
        return tags_in(self.extractor, condition, kind_of(self._config))

    def upscale(
        self,
        picture: Picture,
        target: Path | None,
        *,
        format: str | None = None,
        size: tuple[int, int] | None = None,
        tile: int | str = "auto",
        overlap: int = OVERLAP,
        strength: float | None = None,
        quality: int | None = None,
        strip_metadata: bool = False,
        progress: Progress | None = None,
        watch: Watch | None = None,
        condition: Tensor | None = None,
    ) -> bytes | None:
        """Upscale an opened picture to a file, row of tiles by row of tiles, with alpha and metadata.

        Args:
            picture: From `dacesr.image.open_picture`.
            target: File to write; None returns the encoded bytes instead.
            format: Key of `dacesr.formats.FORMATS`; the picture's own unless given.
            size: Final (width, height); the network's `scale` times the picture's unless given.
            tile: As for a call.
            overlap: As for a call.
            strength: As for a call.
            quality: 1 to 100 for JPEG, WebP and AVIF.
            strip_metadata: Keep only the colour profile.
            progress: Told (tiles done, tiles in all).
            watch: Shown every tile's output, (1, 3, scale * h, scale * w) in [0, 1], which it must not change.
            condition: The picture's own, from `condition`, where it is known already.

        Raises:
            ImageError: The picture cannot be decoded or the target not be written; the sentence names it.
            ValueError, CheckpointError: As for a call.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        plan = self._plan(picture.height, picture.width, tile, overlap)
        weights = self._engine.at(strength)
        if condition is None:
            condition = self.condition(picture)
        elif self.extractor is None:
            raise ValueError(f"{self.name} has no extractor, so it takes no condition")
        work = Work(weights, plan, picture.region, View(condition, picture.height, picture.width), overlap)
        with (
            _memory_suffices(f"for {picture.name}"),
            PictureWriter(
                picture,
                target,
                format=format or picture.format,
                width=picture.width * self.scale,
                height=picture.height * self.scale,
                final_size=size,
                quality=quality,
                strip_metadata=strip_metadata,
            ) as writer,
        ):
            if progress:
                progress(0, len(plan))
            with closing(self._runner.strips(work, progress, watch)) as strips:
                if self._runner.batched:
                    self._runner.write(strips, writer.values, writer.write_values)
                else:
                    for strip in strips:
                        writer.write_rows(strip.float().cpu())
            encoded = writer.finish()
            for sentence in (*picture.warnings, *writer.warnings):
                self._warn(sentence)
            return encoded

    def _plan(self, height: int, width: int, tile: int | str, overlap: int, pictures: int = 1) -> TilePlan:
        """The tiles of a picture; on CUDA one with `auto`, if it has no more pixels than the largest tile."""
        batched = self._runner.batched
        size = self.tile_size(tile, overlap, pictures if batched else 1)
        if batched and tile == "auto" and height * width <= size**2:
            size = 0
        return self._runner.cut(height, width, size, overlap)

    def _condition(self, region: Region, height: int, width: int) -> Tensor | None:
        if self.extractor is None:
            return None
        with _memory_suffices(f"on {self.device} for the extractor"):
            return condition_of(self.extractor, region, height, width, kind_of(self._config))

    def _tensor(self, x: Tensor, tile: int | str, overlap: int, strength: float | None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape) < 1 or not x.is_floating_point():
            raise ValueError(f"a float tensor (b, 3, h, w) is needed, not {x.dtype} {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("the tensor holds values that are not numbers")
        pictures, _, height, width = x.shape
        plan, region = self._plan(height, width, tile, overlap, pictures), region_of(x.float())
        weights = self._engine.at(strength)
        view = View(self._condition(region, height, width), height, width)
        aside = x.device.type == "cpu"
        work = Work(weights, plan, region, view, overlap, pictures=pictures, reading=aside)
        with _memory_suffices("for the tensor"), closing(self._runner.strips(work)) as strips:
            if not (aside and self._runner.batched):
                return torch.cat(list(strips), dim=2).to(x)
            with torch.inference_mode(False):  # a thread fills it, and is in no such mode
                result = Filled(x.new_empty(pictures, 3, height * self.scale, width * self.scale))
            self._runner.write(strips, lambda rows: rows.to(x.dtype).contiguous(), result.add)
            return result.tensor

    def _png(self, picture: Picture, tile: int | str, overlap: int, strength: float | None) -> bytes:
        encoded = self.upscale(picture, None, format="png", tile=tile, overlap=overlap, strength=strength)
        assert encoded is not None  # no target was given
        return encoded
