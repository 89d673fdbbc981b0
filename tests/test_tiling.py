"""Tiles cover every pixel with weight one, whatever the sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dacesr.tiling import TilePlan, plan_axis, span_weights


@st.composite
def axis(draw, most=700):
    tile = draw(st.integers(1, 300))
    return draw(st.integers(1, most)), tile, draw(st.integers(0, tile // 3))


@settings(max_examples=400, deadline=None)
@given(axis(), st.integers(1, 4))
def test_every_pixel_has_weight_one(numbers, scale):
    length, tile, overlap = numbers
    spans = plan_axis(length, tile, overlap)
    total = torch.zeros(length * scale)
    touched = torch.zeros(length)
    for span in spans:
        total[span.start * scale : span.end * scale] += span_weights(span, scale)
        touched[span.start : span.end] += 1
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    assert touched.max() <= 2  # two neighbours at most, so the linear ramps add up
    assert all(span.size == spans[0].size <= max(tile, 1) or len(spans) == 1 for span in spans)
    assert all(span.before >= overlap for span in spans[1:])


@settings(max_examples=60, deadline=None)
@given(axis(most=90), axis(most=90), st.integers(1, 3))
def test_blending_copies_of_a_picture_gives_the_picture(rows, columns, scale):
    height, width = rows[0], columns[0]
    tile, overlap = min(rows[1], columns[1]), min(rows[2], columns[2], min(rows[1], columns[1]) // 3)
    picture = torch.rand(1, 2, height * scale, width * scale)
    plan = TilePlan(height=height, width=width, scale=scale, tile=tile, overlap=overlap)
    outputs = (
        picture[:, :, r.start * scale : r.end * scale, c.start * scale : c.end * scale].clone() for r, c in plan.tiles()
    )
    strips = list(plan.blend(outputs))
    torch.testing.assert_close(torch.cat(strips, dim=2), picture, rtol=0, atol=1e-6)
    assert len(list(plan.tiles())) == len(plan)


def test_no_limit_is_one_tile():
    assert len(TilePlan(height=5000, width=3, scale=4, tile=0, overlap=32)) == 1


@pytest.mark.parametrize(
    ("numbers", "words"), [((10, 8, 5), "at most a third of the tile, 8"), ((0, 8, 2), "positive")]
)
def test_impossible_numbers_are_told(numbers, words):
    with pytest.raises(ValueError, match=words):
        plan_axis(*numbers)
