"""Crops of picture files: the same pixels from memory, from a part of the file, and from the whole picture."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch

from dacesr.crops import PictureFiles, list_pictures
from dacesr.formats import ImageError
from dacesr.image import read, write

FILES = {
    "a.jpg": {"Q": 90},
    "b.png": {},
    "striped.tif": {},
    "tiled.tif": {"tile": True, "tile_width": 16, "tile_height": 16},
    "c.webp": {},
}


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> pyvips.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    return pyvips.Image.new_from_array(values).copy(interpretation="srgb" if bands > 2 else "b-w")


def as_read(path: Path) -> torch.Tensor:
    return read(path)[0].mul(255).round().to(torch.uint8)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("name", FILES)
def test_crops_are_parts_of_the_picture(tmp_path: Path, name: str, bands: int, cache_bytes: int) -> None:
    path = tmp_path / name
    noise(80, 60, bands).write_to_file(str(path), **FILES[name])
    files = PictureFiles([path], cache_bytes)
    assert files.size(0) == (80, 60)
    whole = as_read(path)
    for top, left in ((0, 0), (48, 28), (13, 7), (0, 28)):
        crop = files.crop(0, top, left, 32)
        assert crop.dtype == torch.uint8
        assert torch.equal(crop, whole[:, top : top + 32, left : left + 32])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "tiled.tif"])
def test_crops_are_upright(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    image = noise(80, 60)
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(path), **FILES[name])
    files = PictureFiles([path], 0)
    whole = as_read(path)
    assert files.size(0) == whole.shape[1:] == ((60, 80) if orientation >= 5 else (80, 60))
    for top, left in ((0, 0), (5, 28), (28, 11)):
        assert torch.equal(files.crop(0, top, left, 20), whole[:, top : top + 20, left : left + 20])


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_deep_pictures_are_rounded_to_8_bits(tmp_path: Path, cache_bytes: int) -> None:
    values = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    write(tmp_path / "a.png", values, bits=16)
    crop = PictureFiles([tmp_path / "a.png"], cache_bytes).crop(0, 8, 0, 32)
    assert torch.equal(crop, as_read(tmp_path / "a.png")[:, 8:40, :32])


def test_only_what_fits_is_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        noise(40, 40).write_to_file(str(path))
    files = PictureFiles(paths, 2 * 40 * 40 * 3)
    first = [files.crop(i, 0, 0, 8) for i in range(3)]
    for path in paths:
        path.unlink()
    assert torch.equal(files.crop(0, 0, 0, 8), first[0])
    assert torch.equal(files.crop(1, 0, 0, 8), first[1])
    with pytest.raises(ImageError, match=r"2\.png"):
        files.crop(2, 0, 0, 8)


def test_crops_of_a_large_file_read_a_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    data = noise(512, 512).jpegsave_buffer(Q=95)
    path.write_bytes(data[: len(data) // 2])  # the upper half is there
    files = PictureFiles([path], 0)
    assert files.crop(0, 0, 0, 64).shape == (3, 64, 64)
    for _ in range(2):
        with pytest.raises(ImageError, match=r"cut\.jpg is damaged or cut short"):
            files.crop(0, 448, 0, 64)
    with pytest.raises(ImageError, match=r"cut\.jpg is damaged or cut short"):
        PictureFiles([path], 2**30).crop(0, 0, 0, 64)


def test_a_file_that_failed_as_a_whole_is_not_decoded_again(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    whole = noise(64, 64).jpegsave_buffer(Q=95)
    path.write_bytes(whole[: len(whole) // 2])
    files = PictureFiles([path], 2**30)
    with pytest.raises(ImageError):
        files.crop(0, 0, 0, 8)
    path.write_bytes(whole)
    with pytest.raises(ImageError):
        files.crop(0, 0, 0, 8)


def test_pictures_are_listed_in_an_order_of_their_own(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.webp", "c.txt", ".hidden.png", ".git/x.png", "B.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    names = [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path)]
    assert names == ["B.png", "a.webp", "b/1.JPG", "b/2.png"]
