"""What methods are measured on: pictures in two versions, sharp and low-resolution."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from dacesr.degrading import check_spaces, cropped, degraded
from dacesr.evaluate.layouts import Found, find_pairs, set_name, sharp_pictures
from dacesr.evaluate.prepare import LEVELS, MANIFEST, prepared
from dacesr.image import read
from dacesr.tensorfile import sha256_of

Load = Callable[[str], tuple[Tensor | None, Tensor | None]]


class BenchmarkSet:
    """Pictures of one set in one version, read when they are wanted.

    Attributes:
        name: What the set is called, such as `Set14`.
        version: What its low-resolution pictures are called: a degradation space, or as the set calls them.
        names: Of the pictures, sorted.
        contents: For each picture what decides its pixels.
        manifest: SHA-256 over the names and contents of all files, and over how they are degraded.
    """

    def __init__(self, name: str, version: str, contents: Mapping[str, str], load: Load) -> None:
        """Keep the arguments.

        Args:
            name: See there.
            version: See there.
            contents: For each picture what decides its pixels: hashes of its files, its degradation.
            load: Gives a picture's low-resolution and sharp versions, each None where there is none.
        """
        self.name, self.version, self.names, self.contents = name, version, list(contents), contents
        self.manifest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()
        self._load = load

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.names)

    def pair(self, place: int) -> tuple[str, Tensor | None, Tensor | None]:
        """A picture's name, its low-resolution version (1, 3, h, w) and its sharp one, (1, 3, scale * h, scale * w).

        Raises:
            ImageError: A file can't be read.
            ValueError: The sizes of the files are no pair.
        """
        name = self.names[place]
        return name, *self._load(name)


def find_sets(
    folder: Path, *, spaces: Sequence[str] | None = None, seed: int = 0, scale: int = 4, limit: int | None = None
) -> list[BenchmarkSet]:
    """The sets in a folder, one for each version.

    A folder of `dacesr evaluate prepare` gives what its manifest lists. Otherwise, unless spaces are asked for, it
    gives the pairs of the layout it has (`dacesr.evaluate.layouts`). Where there are none, or spaces are asked for, its
    sharp pictures are degraded in memory, to the same pixels as `prepare` writes.

    Args:
        folder: It.
        spaces: Degradation spaces; of a prepared set only those that it has.
        seed: Of degradations in memory.
        scale: Of the pairs.
        limit: The first pictures of each set only.

    Raises:
        ValueError: There is no such folder or space, there are no pictures, or a prepared set is damaged or of another
            scale; the sentence says which.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    check_spaces(spaces or (), scale)
    if (folder / MANIFEST).is_file():
        return [_paired(found, scale, limit) for found in prepared(folder, spaces, scale)]
    pairs = [] if spaces else find_pairs(folder, scale)
    if pairs:
        return [_paired(found, scale, limit) for found in pairs]
    return _degraded(folder, spaces or LEVELS, seed, scale, limit)


def pictures_of(folder: Path, *, reference: bool, limit: int | None = None) -> BenchmarkSet:
    """The pictures of a folder as references, or as names alone.

    Args:
        folder: It.
        reference: Whether they are what results should be.
        limit: The first ones only.

    Raises:
        ValueError: There is no such folder, or no picture in it.
    """
    _, files = sharp_pictures(folder, limit)
    contents = {name: sha256_of(path) for name, path in files.items()}
    version = "reference" if reference else "no reference"
    return BenchmarkSet(
        set_name(folder), version, contents, lambda name: (None, read(files[name]) if reference else None)
    )


def _paired(found: Found, scale: int, limit: int | None) -> BenchmarkSet:
    pairs = {pair.name: pair for pair in sorted(found.pairs)[:limit]}
    contents = {name: f"{sha256_of(pair.low)} {sha256_of(pair.sharp)}" for name, pair in pairs.items()}

    def load(name: str) -> tuple[Tensor, Tensor]:
        pair = pairs[name]
        small, sharp = read(pair.low), read(pair.sharp)
        height, width = (side * scale for side in small.shape[-2:])
        over = sharp.shape[-2] - height, sharp.shape[-1] - width
        if not all(0 <= pixels < scale for pixels in over):
            sizes = f"{small.shape[-1]}x{small.shape[-2]} and {sharp.shape[-1]}x{sharp.shape[-2]}"
            raise ValueError(f"{pair.low} and {pair.sharp} have {sizes} pixels, which are no pair of scale {scale}")
        return small, sharp[..., :height, :width]

    return BenchmarkSet(found.name, found.version, contents, load)


def _degraded(folder: Path, spaces: Sequence[str], seed: int, scale: int, limit: int | None) -> list[BenchmarkSet]:
    name, files = sharp_pictures(folder, limit)
    hashes = {picture: sha256_of(path) for picture, path in files.items()}

    def load(picture: str, space: str) -> tuple[Tensor, Tensor]:
        sharp = cropped(read(files[picture]), scale, str(files[picture]))
        return degraded(sharp, picture, space=space, seed=seed, scale=scale)[0], sharp

    return [
        BenchmarkSet(
            name,
            space,
            {each: f"{found} {space} {seed} {scale}" for each, found in hashes.items()},
            partial(load, space=space),
        )
        for space in spaces
    ]
