"""What strangers may ask for, read from text."""

from types import SimpleNamespace

import pytest

from dacesr.serving.wishes import REFUSALS, Limits, Refusal, Wish


def test_a_wish_of_text():
    wish = Wish.of(
        [("model", " tiny "), ("width", "300"), ("strength", ".5"), ("strip_metadata", "ON"), ("format", "JPG")]
    )
    assert wish == Wish(model="tiny", width=300, strength=0.5, strip_metadata=True, format="JPG")
    assert wish.ending == ".jpg"
    assert Wish.of([]) == Wish()
    assert Wish.of([("scale", ""), ("quality", " ")]) == Wish()


@pytest.mark.parametrize(
    ("pairs", "telling"),
    [
        ([("size", "3")], "no field 'size'"),
        ([("scale", "2"), ("scale", "2")], "scale is there twice"),
        ([("scale", ""), ("scale", "2")], "scale is there twice"),
        ([("scale", "2"), ("width", "300")], "exclude one another"),
        ([("scale", "nan")], "must be a number"),
        ([("scale", "1e9")], "must be a number"),
        ([("scale", "1_0")], "must be a number"),
        ([("scale", "٣")], "must be a number"),
        ([("scale", "9" * 41)], "must be a number"),
        ([("scale", "0")], "between 0.01 and 64"),
        ([("width", "9" * 40)], "between 1 and 1000000"),
        ([("width", "3.5")], "whole number"),
        ([("quality", "101")], "between 1 and 100"),
        ([("strength", "-0.1")], "between 0 and 1"),
        ([("format", "exe")], "format must be one of png"),
        ([("strip_metadata", "perhaps")], "true or false"),
    ],
)
def test_impossible_fields_are_named(pairs, telling):
    with pytest.raises(Refusal, match=telling) as refusal:
        Wish.of(pairs)
    assert refusal.value.code == "bad_request"
    assert refusal.value.code in REFUSALS


def test_a_limit_is_positive():
    with pytest.raises(ValueError, match="waiting must be positive; got 0"):
        Limits(waiting=0)
    with pytest.raises(ValueError, match="seconds must be positive"):
        Limits(seconds=float("nan"))


def test_a_side_that_no_file_can_have_is_refused():
    narrow = SimpleNamespace(width=1, height=20)
    assert Wish(width=1000).size_of(narrow, 4) == (1000, 20_000)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="1000000 x 20000000 pixels") as refusal:
        Wish(width=10**6).size_of(narrow, 4)  # type: ignore[arg-type]
    assert refusal.value.code == "too_many_pixels"
