"""Looks: the part of a photograph, where it lies, and what becomes of small ones."""

from pathlib import Path

import pytest
import torch

from dacesr.analysis.looks import look_at
from dacesr.analysis.windows import Window, find_window
from dacesr.image import read, write


def test_a_part_of_a_photo(photos: Path) -> None:
    whole = read(photos / "0.png")  # 80 x 64
    look = look_at(photos / "0.png", ["clean", "noise"], scale=4, side=32, window=Window(200, 100, 16))
    assert (look.picture, list(look.inputs)) == ("0", ["clean", "noise"])
    assert (look.left, look.top, look.size, look.part) == (36, 11, (32, 32), "36,11,32,32")
    assert torch.equal(look.inputs["clean"], whole[..., 11:43, 36:68])
    assert look.place(4) == Window(200, 100, 16)
    assert look.window == Window(200 - 36 * 4, 100 - 11 * 4, 16)
    again = look_at(photos / "0.png", ["noise"], scale=4, side=32, window=Window(200, 100, 16))
    assert torch.equal(again.inputs["noise"], look.inputs["noise"])


def test_a_window_is_found_where_none_is_named(photos: Path) -> None:
    look = look_at(photos / "0.png", ["clean"], scale=4, side=0)
    assert look.place(4) == look.window == find_window(read(photos / "0.png"), 4, 16)
    assert look_at(photos / "0.png", ["clean"], scale=4, side=0, size=24).window.size == 24
    assert look_at(photos / "0.png", ["clean"], scale=4, side=0, usual=64).window.size == 64


@pytest.mark.parametrize(("height", "width"), [(15, 15), (3, 90), (2, 2)])
def test_a_small_photo_has_a_small_window(height: int, width: int, tmp_path: Path) -> None:
    write(tmp_path / "small.png", torch.rand(1, 3, height, width))
    look = look_at(tmp_path / "small.png", ["clean"], scale=4, side=128, usual=64)
    assert look.window.size == min(height * 4, 64)
    assert look_at(tmp_path / "small.png", ["clean"], scale=4, side=8, usual=64).window.size == min(height, 8) * 4
    with pytest.raises(ValueError, match="does not lie within the output"):
        look_at(tmp_path / "small.png", ["clean"], scale=4, side=128, size=400)


def test_what_cannot_be_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "thin.png", torch.rand(1, 3, 1, 9))
    with pytest.raises(ValueError, match="9 x 1 pixels are too few"):
        look_at(tmp_path / "thin.png", ["clean"], scale=4, side=128)
    assert look_at(tmp_path / "thin.png", ["clean"], scale=4, side=128, window=Window(0, 0, 4)).size == (9, 1)
    with pytest.raises(ValueError, match="there is no degradation 'fog'"):
        look_at(tmp_path / "thin.png", ["fog"], scale=4, side=128)
    with pytest.raises(ValueError, match=r"nothing\.png"):
        look_at(tmp_path / "nothing.png", ["clean"], scale=4, side=128)
