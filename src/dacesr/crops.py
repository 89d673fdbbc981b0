"""Square crops of picture files: from memory where the decoded files fit, else decoded no further than needed."""

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyvips
import torch
from torch import Tensor

from dacesr import metadata
from dacesr.formats import ImageError
from dacesr.jobs import EXTENSIONS
from dacesr.picture import Picture, damaged, open_picture

_IN_PARTS = ("jpeg", "png", "tiff")  # formats whose rows or tiles can be decoded up to a crop's last
_PLAIN = ("srgb", "b-w")  # interpretations of libvips whose 8-bit values are taken as they are


class PictureFiles:
    """Picture files of which crops are taken: the first ones from memory, as many as fit, the others from the file.

    Which are kept depends on the list alone, so that a file cut short is met in the same way in every run. Several
    threads may take crops.
    """

    def __init__(self, paths: Sequence[Path], cache_bytes: int) -> None:
        """Read the headers of the files that fit into memory."""
        self.paths = list(paths)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._kept: dict[int, Tensor] = {}
        self._errors: dict[int, ImageError] = {}
        self._fitting = 0
        total = 0
        for item in range(len(self.paths)):
            with contextlib.suppress(ImageError):
                height, width = self.size(item)
                total += height * width * 3
            if total > cache_bytes:
                break
            self._fitting = item + 1
        self._decoding = [threading.Lock() for _ in range(self._fitting)]

    def size(self, item: int) -> tuple[int, int]:
        """Height and width, upright.

        Raises:
            ImageError: The file is no picture.
        """
        if item not in self._sizes:
            picture = self._open(item)
            self._sizes[item] = picture.height, picture.width
        return self._sizes[item]

    def crop(self, item: int, top: int, left: int, size: int) -> Tensor:
        """A square of `size` pixels a side, uint8 (3, size, size), a view of the kept picture: not to be written to.

        Raises:
            ImageError: The file is damaged, as far as it is decoded.
        """
        if item >= self._fitting:
            return _to_tensor(_part(self.paths[item], self._open(item), top, left, size))
        whole = self._kept.get(item)
        if whole is None:
            with self._decoding[item]:
                whole = self._kept[item] = self._kept[item] if item in self._kept else self._decoded(item)
        return whole[:, top : top + size, left : left + size].expand(3, size, size)

    def _decoded(self, item: int) -> Tensor:
        """The whole picture, (1 or 3, h, w) uint8."""
        picture = self._open(item)
        try:
            pixels = _to_8_bit(picture)
        except ImageError as error:
            self._errors[item] = error
            raise
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def _open(self, item: int) -> Picture:
        """Open a file, unless that or its decoding as a whole has failed before."""
        if item in self._errors:
            raise self._errors[item].with_traceback(None)
        try:
            return open_picture(self.paths[item])
        except ImageError as error:
            self._errors[item] = error
            raise


def existing(folder: str | Path) -> Path:
    """The folder as a path.

    Raises:
        ValueError: There is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder")
    return Path(folder)


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders, hidden ones aside, sorted by their relative paths.

    Raises:
        ValueError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise ValueError(f"the folder {error.filename} cannot be read: {error.strerror}")

    found = []
    for here, subfolders, names in os.walk(folder, onerror=fail, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        pictures = (name for name in names if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."))
        found += [Path(here, name) for name in pictures]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _to_tensor(pixels: np.ndarray) -> Tensor:
    """(h, w, 1 or 3) uint8 to (3, h, w), in memory of its own."""
    values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    return values.expand(3, *values.shape[1:]).clone(memory_format=torch.contiguous_format)


def _to_8_bit(picture: Picture) -> np.ndarray:
    """The whole picture, (h, w, 1 or 3) uint8; 16 bits are rounded."""
    pixels = picture.colour.numpy().reshape(picture.height, picture.width, -1)
    return pixels if picture.bits == 8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _part(path: Path, picture: Picture, top: int, left: int, size: int) -> np.ndarray:
    """A square of an upright picture, (size, size, 1 or 3) uint8, with as little decoding as the format allows."""
    if picture.format not in _IN_PARTS or picture.has_alpha or picture.bits != 8:
        return _to_8_bit(picture)[top : top + size, left : left + size]
    try:
        source = pyvips.Source.new_from_file(str(path))
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")
        if image.interpretation not in _PLAIN or image.bands not in (1, 3):
            return _to_8_bit(picture)[top : top + size, left : left + size]
        orientation = metadata.field(image, "orientation", 1)
        if mirrored := orientation in (2, 3, 6, 7):
            left = picture.width - left - size
        if flipped := orientation in (3, 4, 7, 8):
            top = picture.height - top - size
        if turned := orientation >= 5:
            top, left = left, top
        pixels = image.crop(left, top, size, size).numpy().reshape(size, size, -1)
    except pyvips.Error as error:
        raise damaged(str(path), picture.format, error) from error
    pixels = pixels.transpose(1, 0, 2) if turned else pixels
    return pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1]
