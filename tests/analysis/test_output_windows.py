"""Windows: what they are called, where detail is, and the part of a picture around them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dacesr.analysis.windows import Window, check_window, cut_around, find_window, gradients, parse_window


def test_names() -> None:
    assert parse_window("96,64,16") == Window(96, 64, 16)
    assert parse_window(" 0, 0, 2 ") == Window(0, 0, 2)
    assert str(Window(96, 64, 16)) == "96,64,16"
    for text in ("", "96,64", "96,64,16,8", "-1,0,8", "a,b,c", "1.5,0,8", "0,0,1"):
        with pytest.raises(ValueError, match="a window is x,y,size"):
            parse_window(text)


def test_a_window_lies_within_the_output() -> None:
    check_window(Window(12, 4, 4), 8, 16)
    for window in (Window(13, 0, 4), Window(0, 5, 4)):
        with pytest.raises(ValueError, match=r"does not lie within the output of 16 x 8 pixels"):
            check_window(window, 8, 16)
    x = torch.arange(128.0).view(1, 1, 8, 16)
    assert torch.equal(Window(3, 2, 2).of(x), torch.tensor([[[[35.0, 36.0], [51.0, 52.0]]]]))


def test_gradients() -> None:
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 1] = 4
    x[0, 0, 0, 1] = 1
    assert torch.allclose(gradients(x)[0, 0], torch.tensor([[1.0, 10**0.5], [4.0, 32**0.5]]), atol=2e-6)


@pytest.mark.parametrize(("scale", "size"), [(4, 16), (2, 16), (4, 6), (1, 5)])
def test_the_most_detailed_window_is_found(scale: int, size: int) -> None:
    x = torch.full((1, 3, 40, 30), 0.5)
    x[:, :, 21:26, 14:19] += torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)) / 2
    window = find_window(x, scale, size)
    assert window.size == size
    middle = (window.x + size / 2) / scale, (window.y + size / 2) / scale
    assert abs(middle[0] - 16.5) <= 3.5
    assert abs(middle[1] - 23.5) <= 3.5
    assert find_window(x, scale, size) == window


def test_edges_are_left_out_where_there_is_room() -> None:
    x = torch.full((1, 3, 40, 40), 0.5)
    x[..., :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # the strongest detail lies in the corner
    x[..., 20, 20] = 0.6
    window = find_window(x, 4, 16)
    assert window.x <= 80 < window.x + 16
    assert window.y <= 80 < window.y + 16
    assert find_window(torch.rand(1, 3, 2, 2), 4, 8) == Window(0, 0, 8)  # no room
    for shape in ((1, 9), (9, 1), (1, 1)):
        with pytest.raises(ValueError, match=f"{shape[1]} x {shape[0]} pixels are too few"):
            find_window(torch.rand(1, 3, *shape), 4, 4)
    with pytest.raises(ValueError, match="does not lie within the output of 8 x 8"):
        find_window(torch.rand(1, 3, 2, 2), 4, 16)


@given(
    height=st.integers(4, 40), width=st.integers(4, 40), scale=st.integers(1, 4), side=st.integers(0, 48),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
def test_a_part_holds_the_same_window(
    height: int, width: int, scale: int, side: int, place: tuple[float, float]
) -> None:
    numbers = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    size = min(4, side * scale or 4, height * scale, width * scale)
    window = Window(int(place[0] * (width * scale - size)), int(place[1] * (height * scale - size)), size)
    side = side and max(side, -(-size // scale) + 1)  # room for a window that begins within a pixel
    part, inside, left, top = cut_around(numbers, window, scale, side)
    assert inside._replace(x=inside.x + left * scale, y=inside.y + top * scale) == window
    assert part.shape[-2:] == (min(side or height, height), min(side or width, width))
    check_window(inside, part.shape[-2] * scale, part.shape[-1] * scale)
    whole, cut = (x.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for x in (numbers, part))
    assert torch.equal(window.of(whole), inside.of(cut))


def test_a_window_stands_in_the_middle_of_its_part() -> None:
    part, inside, *corner = cut_around(torch.rand(1, 3, 100, 100), Window(200, 120, 16), 4, 32)
    assert corner == [36, 16]
    assert part.shape == (1, 3, 32, 32)
    assert inside == Window(56, 56, 16)
    with pytest.raises(ValueError, match="the window, 40 pixels a side, is larger than the output of 8 input pixels"):
        cut_around(torch.rand(1, 3, 100, 100), Window(200, 120, 40), 4, 8)
