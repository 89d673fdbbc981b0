"""What the screen shows: canvases that take tiles, and before and after in one size."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dacesr.formats import FORMATS, ImageError
from dacesr.image import Picture, open_picture, write
from dacesr.tiling import TilePlan
from dacesr.web.preview import COMPARED, Preview, compare, fitted


def saved(path: Path, values: np.ndarray, profile: str | None = None) -> Picture:
    image = pyvips.Image.new_from_array(values)
    bands = 1 if values.ndim == 2 else values.shape[2]
    image = image.copy(interpretation={True: "srgb", False: "b-w"}[bands > 2])
    if values.dtype == np.uint16:
        image = image.copy(interpretation="rgb16")
    if profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", profile))
    image.write_to_file(str(path))
    return open_picture(path)


def soft(height: int, width: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def shown(jpeg: bytes | Path) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg) if isinstance(jpeg, bytes) else jpeg) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(float)


def eight(x: Tensor) -> np.ndarray:
    return x[0].permute(1, 2, 0).mul(255).round().byte().numpy()


def test_sizes_fit() -> None:
    assert fitted((400, 300), 1024) == (400, 300)
    assert fitted((4000, 2000), 1000) == (1000, 500)
    assert fitted((1, 5000), 1000) == (1, 1000)


@pytest.mark.parametrize("longest", [400, 150, 97])
def test_all_tiles_together_are_the_result(tmp_path: Path, longest: int) -> None:
    small, large = soft(60, 100), soft(240, 400, seed=1)
    picture = saved(tmp_path / "a.png", eight(small))
    preview = Preview(picture, (400, 240), longest=longest)
    first = shown(preview.jpeg())
    assert first.shape == (round(longest * 0.6), longest, 3)
    enlarged = F.interpolate(small, first.shape[:2], mode="bilinear", antialias=True)
    assert np.abs(first - eight(enlarged)).mean() < 3
    plan = TilePlan(height=60, width=100, scale=4, tile=48, overlap=11)
    for rows, columns in plan.tiles():
        tile = large[:, :, 4 * rows.start : 4 * rows.end, 4 * columns.start : 4 * columns.end]
        kept = tile.clone()
        preview.take(type(next(plan.tiles()))(rows, columns), tile)
        assert torch.equal(tile, kept)
    assert preview.changes == len(plan)
    wanted = F.interpolate(large, first.shape[:2], mode="bilinear", antialias=True)
    assert np.abs(shown(preview.jpeg()) - eight(wanted)).mean() < 2.5


def test_a_tile_changes_its_place_only(tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    preview = Preview(picture, (256, 256))
    plan = TilePlan(height=64, width=64, scale=4, tile=40, overlap=8)
    tile = list(plan.tiles())[3]  # below, on the right
    preview.take(tile, torch.ones(1, 3, 160, 160))
    now = shown(preview.jpeg())
    edge = 4 * (tile.rows.start + tile.rows.before // 2)
    assert now[edge + 8 :, edge + 8 :].min() > 240
    assert now[: edge - 8].max() < 15
    assert now[:, : edge - 8].max() < 15


def test_results_larger_than_the_network_s_are_shown_whole(tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    preview = Preview(picture, (240, 160))
    (tile,) = TilePlan(height=20, width=30, scale=4, tile=0, overlap=0).tiles()
    preview.take(tile, torch.ones(1, 3, 80, 120))
    assert shown(preview.jpeg()).min() > 250


def test_gray_deep_and_transparent_pictures(tmp_path: Path) -> None:
    gray = saved(tmp_path / "gray.png", np.full((20, 20), 90, np.uint8))
    assert np.abs(shown(Preview(gray, (80, 80)).jpeg()) - 90).max() < 3
    deep = saved(tmp_path / "deep.png", np.full((20, 20, 3), 90 * 257, np.uint16))
    assert np.abs(shown(Preview(deep, (80, 80)).jpeg()) - 90).max() < 3
    clear = np.zeros((20, 20, 4), np.uint8)
    clear[:, 10:, 3] = 255
    seen = shown(Preview(saved(tmp_path / "clear.png", clear), (80, 80)).jpeg())
    assert seen[:, :32].min() > 235
    assert seen[:, 48:].max() < 20


def test_colours_are_those_of_the_screen(tmp_path: Path) -> None:
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 200
    picture = saved(tmp_path / "p3.png", red, profile="p3")
    seen = shown(Preview(picture, (80, 80)).jpeg()).mean((0, 1))
    assert seen[0] > 208  # the same red has a larger number in sRGB
    before, after = compare(open_picture(tmp_path / "p3.png"), tmp_path / "p3.png", tmp_path)
    assert np.abs(shown(before).mean((0, 1)) - seen).max() < 3
    assert np.abs(shown(after).mean((0, 1)) - seen).max() < 3


def test_before_and_after_have_the_size_of_the_result(tmp_path: Path) -> None:
    small, large = soft(30, 50), soft(120, 200, seed=2)
    picture = saved(tmp_path / "a.png", eight(small))
    saved(tmp_path / "a [page=3].png", eight(large))  # libvips reads options out of such names
    before, after = map(shown, compare(picture, tmp_path / "a [page=3].png", tmp_path))
    assert before.shape == after.shape == (120, 200, 3)
    assert np.abs(after - eight(large)).mean() < 1
    assert np.abs(before - eight(F.interpolate(small, (120, 200), mode="bicubic").clamp(0, 1))).mean() < 3


@pytest.mark.parametrize("format", FORMATS)
def test_results_of_every_format_are_shown(tmp_path: Path, format: str) -> None:
    small, large = soft(30, 50), soft(120, 200, seed=2)
    result = tmp_path / f"b{FORMATS[format].extensions[0]}"
    write(result, large)
    picture = saved(tmp_path / "a.png", eight(small))
    before, after = map(shown, compare(picture, result, tmp_path))
    assert before.shape == after.shape == (120, 200, 3)
    assert np.abs(after - eight(large)).mean() < (20 if format == "gif" else 6)  # which has 256 colours


def test_large_results_are_reduced(tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png", eight(soft(40, 800)))
    saved(tmp_path / "b.png", eight(soft(200, 4000)))
    before, after = map(shown, compare(picture, tmp_path / "b.png", tmp_path))
    assert before.shape == after.shape == (round(COMPARED / 20), COMPARED, 3)
    assert np.abs(before - after).mean() < 3


def test_what_cannot_be_shown_is_an_error(tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png", np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"b\.png is not a picture"):
        compare(picture, tmp_path / "b.png", tmp_path)
