"""Training batches as a function of (seed, iteration, rank), the pool that shuffles pairs, and validation sets."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dacesr.background import prefetch
from dacesr.crops import existing, list_pictures
from dacesr.degradation import recipe
from dacesr.image import ImageError, read
from dacesr.imresize import upload
from dacesr.sources import Mixture, Pairs, Photographs, Sample, Source, sample_generator

__all__ = [
    "Batch",
    "Batches",
    "Mixture",
    "PairPool",
    "Pairs",
    "Photographs",
    "Sample",
    "Source",
    "ValidationSet",
    "sample_generator",
]


class Batch(NamedTuple):
    """Samples of one step: uint8 (b, 3, size, size), their uint8 `lr` or None, and a generator for each.

    The generators go on where the sample's draws ended, ready for the degradation's.
    """

    gt: Tensor
    lr: Tensor | None
    generators: list[torch.Generator]


class Batches:
    """Batches of random crops; a batch is a function of (seed, iteration, rank).

    Sample j of a batch has the index (iteration * processes + rank) * batch + j and a generator of its own, so that
    two processes with b samples each see together what one process with 2 b sees.

    Attributes:
        period: Batches after which they come again; 0 where each is new.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int | tuple[int, int],
        batch: int,
        seed: int,
        samples: int = 0,
        multiple: int = 1,
        rank: int = 0,
        processes: int = 1,
        flip: bool = True,
        transpose: bool = False,
        pinned: bool = False,
    ) -> None:
        """Only keep the arguments.

        Args:
            source: Where samples come from.
            size: Sides of `gt` in pixels; or the least and greatest, between which each batch draws its own.
            batch: Samples a batch, in this process.
            seed: Any integer.
            samples: Distinct samples of all processes, after which they come again; 0 for no end.
            multiple: Of pixels, which sides that are drawn are.
            rank: Number of this process.
            processes: Their number.
            flip: Mirror every other sample left to right.
            transpose: Swap rows and columns of every other sample.
            pinned: Make batches in memory that CUDA copies from without waiting.

        Raises:
            ValueError: A number is impossible.
        """
        low, high = (size, size) if isinstance(size, int) else size
        if min(low, batch) < 1 or high < low or not 0 <= rank < processes:
            raise ValueError(f"size {size}, batch {batch}, rank {rank} of {processes} processes are no batches")
        self._source = source
        self._sizes, self._multiple = (low, high), multiple
        self._batch, self._seed = batch, seed
        self.period = max(1, samples // (batch * processes)) if samples else 0
        self._rank, self._processes = rank, processes
        self._flip, self._transpose, self._pinned = flip, transpose, pinned

    def batch(self, iteration: int) -> Batch:
        """The batch of an iteration.

        Raises:
            ValueError: The source has no usable picture, or only some samples have an `lr`.
        """
        if self.period:
            iteration %= self.period
        first = (iteration * self._processes + self._rank) * self._batch
        generators = [sample_generator(self._seed, first + j) for j in range(self._batch)]
        size = self._size(iteration)
        samples = [self._turned(size, generator) for generator in generators]
        small = [lr for _, lr in samples if lr is not None]
        if len(small) not in (0, len(samples)):
            raise ValueError(f"{len(small)} of {len(samples)} samples are pairs, and the others are to be degraded")
        return Batch(self._stacked([gt for gt, _ in samples]), self._stacked(small) if small else None, generators)

    def _stacked(self, pictures: list[np.ndarray]) -> Tensor:
        """One batch of pictures of one size; each is copied once, whatever view it is."""
        batch = torch.empty(len(pictures), *pictures[0].shape, dtype=torch.uint8, pin_memory=self._pinned)
        for place, picture in zip(batch.numpy(), pictures, strict=True):
            np.copyto(place, picture)
        return batch

    def prefetch(self, start: int, end: int, ahead: int = 2) -> Iterator[Batch]:
        """Batches start to end - 1 in order, made in a background thread; see `background.prefetch`."""
        return prefetch(self.batch, start, end, ahead)

    def _size(self, iteration: int) -> int:
        """Sides of an iteration's samples, alike in all processes."""
        low, high = self._sizes
        if low == high:
            return low
        generator = sample_generator(~self._seed, iteration)
        return low + int(torch.randint((high - low) // self._multiple + 1, (), generator=generator)) * self._multiple

    def _turned(self, size: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """`gt` and `lr` of a sample, as views where nothing else is needed."""
        sample = self._source.sample(size, generator)
        mirror, swap = (torch.rand(2, generator=generator) < 0.5).tolist()

        def turned(picture: Tensor) -> np.ndarray:
            pixels = picture.numpy()
            pixels = pixels[..., ::-1] if self._flip and mirror else pixels
            return pixels.swapaxes(-1, -2) if self._transpose and swap else pixels

        return turned(sample.gt), None if sample.lr is None else turned(sample.lr)


class PairPool:
    """The training pair pool of Real-ESRGAN and DASR: batches mix samples whose degradations were drawn apart.

    Until the pool is full it stores what comes in and gives it back; then each exchange swaps a random choice of what
    it holds for what comes in. Tensors that come in together go out together.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        """An empty pool of `size` samples.

        Raises:
            ValueError: The size is not positive.
        """
        if size < 1:
            raise ValueError(f"a pool has at least one place, not {size}")
        self._size, self._seed = size, seed
        self._filled = 0
        self._held: tuple[Tensor, ...] = ()  # each (size, ...)

    def exchange(self, iteration: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Swap a batch.

        Args:
            iteration: Decides, with the seed, what is chosen.
            tensors: Each (b, ...), such as lr, gt and a condition; of the same shapes and kinds in every call.

        Returns:
            As many tensors of the same shapes.

        Raises:
            ValueError: The tensors do not match one another or the pool.
        """
        count = self._check(tensors)
        if not self._held:
            self._held = tuple(tensor.new_empty(self._size, *tensor.shape[1:]) for tensor in tensors)
        self._held = tuple(held.to(tensor.device) for held, tensor in zip(self._held, tensors, strict=True))
        if self._filled < self._size:
            end = min(self._filled + count, self._size)
            for held, tensor in zip(self._held, tensors, strict=True):
                held[self._filled : end] = tensor[: end - self._filled].detach()
            self._filled = end
            return tensors
        generator = sample_generator(self._seed, iteration)
        chosen = upload(torch.randperm(self._size, generator=generator)[:count], tensors[0].device)
        leaving = tuple(held[chosen] for held in self._held)
        for held, tensor in zip(self._held, tensors, strict=True):
            held[chosen] = tensor.detach()
        return leaving

    def state_dict(self) -> dict[str, Tensor]:
        """What the pool holds; float32 that is exactly k / 255 throughout is stored in 8 bits."""
        held = [tensor[: self._filled].cpu() for tensor in self._held]
        packed = [_is_8_bit(tensor) for tensor in held]
        state = {
            str(i): _to_bytes(t) if pack else t.clone() for i, (t, pack) in enumerate(zip(held, packed, strict=True))
        }
        return {**state, "packed": torch.tensor(packed, dtype=torch.bool)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Hold what `state_dict` gave, exactly.

        Raises:
            ValueError: The state is that of a larger pool, or of none.
        """
        try:
            packed = state["packed"].tolist()
            held = [_from_bytes(state[str(i)]) if pack else state[str(i)] for i, pack in enumerate(packed)]
        except KeyError as error:
            raise ValueError(f"the state of the pair pool lacks {error}") from error
        self._filled = len(held[0]) if held else 0
        if self._filled > self._size:
            raise ValueError(f"the pair pool has {self._size} places, and its saved state fills {self._filled}")
        self._held = tuple(self._enlarged(tensor) for tensor in held)

    def _enlarged(self, tensor: Tensor) -> Tensor:
        whole = tensor.new_empty(self._size, *tensor.shape[1:])
        whole[: self._filled] = tensor
        return whole

    def _check(self, tensors: tuple[Tensor, ...]) -> int:
        counts = {len(tensor) for tensor in tensors}
        if len(counts) != 1 or max(counts) > self._size:
            raise ValueError(f"a pool of {self._size} takes one count of samples for all tensors, not {sorted(counts)}")
        if self._held:
            own = [(tuple(held.shape[1:]), held.dtype) for held in self._held]
            new = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in tensors]
            if own != new:
                raise ValueError(f"the pool holds samples of {own}, not {new}")
        return counts.pop()


class ValidationSet:
    """Pictures of a folder and degraded versions of them: (name, lr, gt), made in the first pass.

    The degradation of picture i is a function of (seed, i). Low-resolution pictures stay in memory, in 8 bits.

    Attributes:
        skipped: Pictures that could not be used, each named in a warning.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        space: str,
        seed: int = 0,
        scale: int = 4,
        limit: int | None = None,
        crop: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """List the pictures.

        Args:
            folder: Searched with its subfolders.
            space: Degradation space, a name of `degradation.recipe`.
            seed: Any integer.
            scale: Ratio of the sizes; `gt` is cropped to a multiple of it.
            limit: Use the first pictures only.
            crop: Use the centre of pictures, at most so many pixels a side.
            warn: Takes sentences on skipped files; Python's warnings unless given.

        Raises:
            ValueError: The folder is missing or holds no picture, or a number is impossible.
        """
        if scale < 1 or (limit is not None and limit < 1) or (crop is not None and crop < scale):
            raise ValueError(f"scale {scale}, limit {limit} and crop {crop} leave nothing to validate on")
        self._folder = existing(folder)
        self._paths = list_pictures(self._folder)[:limit]
        if not self._paths:
            raise ValueError(f"{folder} holds no picture to validate on")
        self.skipped = 0
        self._space, self._seed, self._scale, self._crop = space, seed, scale, crop
        self._warn = warn or warnings.warn
        self._low: dict[Path, Tensor | None] = {}  # None: skipped

    def __len__(self) -> int:
        """The number of pictures, less those that have been skipped."""
        return len(self._paths) - self.skipped

    def __iter__(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the relative path without its ending, `lr` (1, 3, h / scale, w / scale) and `gt` (1, 3, h, w), float32.

        Raises:
            ValueError: No picture can be used.
        """
        for index, path in enumerate(self._paths):
            pair = self._pair(index, path)
            if pair is not None:
                yield path.relative_to(self._folder).with_suffix("").as_posix(), *pair
        if not len(self):
            raise ValueError(f"{self._folder} holds no picture to validate on: none of its files can be used")

    def _pair(self, index: int, path: Path) -> tuple[Tensor, Tensor] | None:
        if path in self._low and self._low[path] is None:
            return None
        try:
            gt = self._centre(read(path), path)
        except ImageError as error:
            self.skipped += 1
            self._low[path] = None
            self._warn(f"{error}; it is skipped")
            return None
        low = self._low.get(path)
        if low is None:
            lr, _ = recipe.degrade(gt, self._space, sample_generator(self._seed, index), scale=self._scale)
            low = self._low[path] = _to_bytes(lr)
        return _from_bytes(low), gt

    def _centre(self, image: Tensor, path: Path) -> Tensor:
        sides = [min(side, self._crop or side) // self._scale * self._scale for side in image.shape[2:]]
        if min(sides) == 0:
            raise ImageError(f"{path} has {min(image.shape[2:])} pixels a side, less than the scale {self._scale}")
        top, left = ((side - part) // 2 for side, part in zip(image.shape[2:], sides, strict=True))
        return image[..., top : top + sides[0], left : left + sides[1]].contiguous()


def _to_bytes(values: Tensor) -> Tensor:
    return values.mul(255).round().to(torch.uint8)


def _from_bytes(values: Tensor) -> Tensor:
    return values.float().div(255)


def _is_8_bit(tensor: Tensor) -> bool:
    if tensor.dtype != torch.float32 or not bool(((tensor >= 0) & (tensor <= 1)).all()):
        return False
    return torch.equal(_from_bytes(_to_bytes(tensor)), tensor)
