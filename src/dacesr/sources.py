"""Where training pictures come from: folders of photographs, folders of pairs, and mixtures of sources.

A sample is a function of its generator's state and the files alone: neither what was drawn before nor what happens to
be in memory changes it.
"""

import re
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dacesr.crops import PictureFiles, existing, list_pictures
from dacesr.formats import ImageError

CACHE_BYTES = 2 << 30

_SHAPE = re.compile(r"\s*\(\s*\d+(?:\s*,\s*\d+)*\s*\)$")  # what BasicSR's lists say behind a path: (h,w,c)
_MASK = 2**64 - 1


class Sample(NamedTuple):
    """What a source yields: `gt` uint8 (3, size, size) RGB; `lr` uint8 (3, size // scale, size // scale) or None.

    Both may be views of pictures that the source keeps: they are not to be written to.
    """

    gt: Tensor
    lr: Tensor | None


class Source(Protocol):
    """Draws samples; all of them have an `lr` where `paired` is true, else none has."""

    @property
    def paired(self) -> bool:
        """Whether samples bring their low-resolution picture with them."""
        ...

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """Draw a picture of `size` x `size` pixels."""
        ...


def sample_generator(seed: int, index: int) -> torch.Generator:
    """A generator on the CPU for one sample; neighbouring seeds and indices give unrelated ones (SplitMix64)."""
    state = _splitmix(_splitmix(seed & _MASK) ^ (index & _MASK))
    return torch.Generator().manual_seed(state & 0xFFFF_FFFF)  # torch's Mersenne Twister takes 32 bits


def _splitmix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
    return state ^ (state >> 31)


class _TooSmall(Exception):
    """A picture has fewer pixels a side than a sample needs."""


class _Folder(ABC):
    """Draws one of several items, and another one where it cannot be used.

    Attributes:
        skipped: Items met so far that are damaged or do not fit together, each named in a warning.
        too_small: Items met so far that are smaller than a sample; the first is named in a warning.
    """

    def __init__(self, name: str, count: int, warn: Callable[[str], None] | None) -> None:
        self.skipped = 0
        self.too_small = 0
        self._name, self._count = name, count
        self._warn = warn or warnings.warn
        self._met: set[int] = set()
        self._telling = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """Draw an item, uniformly among those with at least `size` pixels a side, then a position, uniformly.

        Args:
            size: Sides of `gt` in pixels.
            generator: All that is random.

        Raises:
            ValueError: No item can be used; the sentence names the folder and a reason.
        """
        failed: dict[int, Exception] = {}
        while len(failed) < self._count:
            item = _below(self._count, generator)
            try:
                return self._take(item, size, generator)
            except (ImageError, _TooSmall) as error:
                failed[item] = error
                self._report(item, error)
        raise ValueError(f"{self._name} holds no picture to train on: {failed[min(failed)]}")

    @abstractmethod
    def _take(self, item: int, size: int, generator: torch.Generator) -> Sample:
        """A sample of an item, or ImageError or _TooSmall where it cannot be used."""

    def _report(self, item: int, error: Exception) -> None:
        with self._telling:
            if item in self._met:
                return
            self._met.add(item)
            if isinstance(error, _TooSmall):
                self.too_small += 1
                if self.too_small == 1:
                    self._warn(f"{error}; it is skipped, and others like it")
            else:
                self.skipped += 1
                self._warn(f"{error}; it is skipped")


class Photographs(_Folder):
    """Crops of the pictures in folders: the picture is drawn uniformly, then the position.

    Pictures are kept decoded in memory, the first ones of the sorted list and as many as fit. Crops of the others are
    decoded from the file each time: up to the crop's last row (JPEG, PNG, striped TIFF), its tiles (tiled TIFF), or
    wholly (other formats, 16 bits, transparency).
    """

    paired = False

    def __init__(
        self,
        folders: Sequence[str | Path],
        *,
        meta_info: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """List the files, sorted by folder and path.

        Args:
            folders: Searched with their subfolders.
            meta_info: Text file that names the pictures instead, one path a line relative to one of the folders, with
                or without a shape behind it, such as `0001.png (1404,2040,3)`.
            cache_bytes: Memory for decoded pictures.
            warn: Takes sentences on skipped files; Python's warnings unless given.

        Raises:
            ValueError: A folder or listed file is missing, or a folder or the list holds no picture.
        """
        places = [existing(folder) for folder in folders]
        paths: list[Path] = []
        for place in places if meta_info is None else ():
            paths += _some(list_pictures(place), place)
        if meta_info is not None:
            paths = _some([_find(line, places, meta_info) for line in _lines(meta_info)], meta_info)
        if not paths:
            raise ValueError("photographs need at least one folder")
        super().__init__(", ".join(str(place) for place in places), len(paths), warn)
        self._files = PictureFiles(paths, cache_bytes)

    def _take(self, item: int, size: int, generator: torch.Generator) -> Sample:
        height, width = self._files.size(item)
        if min(height, width) < size:
            raise _TooSmall(f"{self._files.paths[item]} is {width} x {height} pixels, less than a crop of {size}")
        top, left = _below(height - size + 1, generator), _below(width - size + 1, generator)
        return Sample(self._files.crop(item, top, left, size), None)


class Pairs(_Folder):
    """Crops of pictures and of their low-resolution versions, at the same place.

    Attributes:
        scale: How many times larger `gt` is; the position is a multiple of it.
    """

    paired = True

    def __init__(
        self,
        gt: str | Path,
        lr: str | Path,
        *,
        scale: int = 4,
        meta_info: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Match the files of two folders.

        Args:
            gt: Folder of the large pictures.
            lr: Folder of the small ones, with the same relative names; endings may differ, and the scale may stand
                behind the stem (`0001.png` and `0001x4.png`).
            scale: Ratio of their sizes; rows and columns of `gt` beyond a multiple of it are left out.
            meta_info: Text file that names the pairs instead, `gt_path, lr_path` a line, relative to the folders.
            cache_bytes: Memory for decoded pictures.
            warn: Takes sentences on skipped files; Python's warnings unless given.

        Raises:
            ValueError: A folder or listed file is missing, a picture has no partner, or there is no picture.
        """
        if scale < 1:
            raise ValueError(f"scale should be at least 1, not {scale}")
        places = existing(gt), existing(lr)
        pairs = _match(*places, scale) if meta_info is None else _listed_pairs(meta_info, *places)
        _some([large for large, _ in pairs], gt if meta_info is None else meta_info)
        super().__init__(f"{gt} with {lr}", len(pairs), warn)
        self.scale = scale
        share = cache_bytes // (scale**2 + 1)
        self._gt = PictureFiles([large for large, _ in pairs], cache_bytes - share)
        self._lr = PictureFiles([small for _, small in pairs], share)

    def _take(self, item: int, size: int, generator: torch.Generator) -> Sample:
        if size % self.scale:
            raise ValueError(f"crops of {size} pixels are not a multiple of the scale {self.scale}")
        large, small = self._gt.size(item), self._lr.size(item)
        if any(side // self.scale != part for side, part in zip(large, small, strict=True)):
            raise ImageError(
                f"{self._lr.paths[item]} is {small[1]} x {small[0]} pixels, which is not 1/{self.scale} of the "
                f"{large[1]} x {large[0]} of {self._gt.paths[item]}"
            )
        part = size // self.scale
        if min(small) < part:
            raise _TooSmall(f"{self._gt.paths[item]} is {large[1]} x {large[0]} pixels, less than a crop of {size}")
        top, left = _below(small[0] - part + 1, generator), _below(small[1] - part + 1, generator)
        gt = self._gt.crop(item, top * self.scale, left * self.scale, size)
        return Sample(gt, self._lr.crop(item, top, left, part))


class Mixture:
    """Draws from one of several sources, each as often as its weight says."""

    def __init__(self, parts: Sequence[tuple[Source, float]]) -> None:
        """Take (source, weight) pairs; weights are relative.

        Raises:
            ValueError: There is no source, a weight is not positive, or only some of the sources are pairs.
        """
        self._sources = [source for source, _ in parts]
        weights = [weight for _, weight in parts]
        if not parts or not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"a mixture needs sources with positive weights, not {weights}")
        kinds = {source.paired for source in self._sources}
        if len(kinds) > 1:
            raise ValueError("a mixture cannot hold pairs beside sources that are to be degraded")
        self.paired = kinds.pop()
        self._bounds = torch.tensor(weights, dtype=torch.float64).cumsum(0)

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """Draw a source, then a sample of it."""
        place = torch.rand((), dtype=torch.float64, generator=generator) * self._bounds[-1]
        chosen = min(int(torch.searchsorted(self._bounds, place, right=True)), len(self._sources) - 1)
        return self._sources[chosen].sample(size, generator)


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _some(paths: list[Path], place: str | Path) -> list[Path]:
    if not paths:
        raise ValueError(f"{place} holds no picture to train on")
    return paths


def _lines(meta_info: str | Path) -> list[str]:
    try:
        text = Path(meta_info).read_text("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{meta_info} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{meta_info} cannot be read: it is no text in UTF-8") from error
    return [_SHAPE.sub("", line.strip()) for line in text.splitlines() if line.strip()]


def _find(name: str, folders: Sequence[Path], meta_info: str | Path) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{meta_info} lists {name}, which is not in {', '.join(str(folder) for folder in folders)}")


def _listed_pairs(meta_info: str | Path, gt: Path, lr: Path) -> list[tuple[Path, Path]]:
    pairs = []
    for line in _lines(meta_info):
        names = [_SHAPE.sub("", name.strip()) for name in re.split(r",(?![^(]*\))", line)]
        if len(names) != 2:
            raise ValueError(f"{meta_info}: {line!r} should be two paths with a comma between")
        pairs.append((_find(names[0], [gt], meta_info), _find(names[1], [lr], meta_info)))
    return pairs


def _match(gt: Path, lr: Path, scale: int) -> list[tuple[Path, Path]]:
    small = {path.relative_to(lr).with_suffix("").as_posix(): path for path in list_pictures(lr)}
    pairs = []
    for path in list_pictures(gt):
        stem = path.relative_to(gt).with_suffix("").as_posix()
        partner = small.get(stem) or small.get(f"{stem}x{scale}")
        if partner is None:
            raise ValueError(f"{path} has no partner of that name in {lr}")
        pairs.append((path, partner))
    return pairs
