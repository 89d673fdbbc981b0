"""What is drawn: ranges, frequencies and orders of the spaces' tables, and DASR's vector."""

import math
from collections import Counter

import pytest
import torch

from dacesr.degradation.spaces import RESIZE_MODES, SIZES, SPACES, Draws, draw
from dacesr.degradation.steps import Bicubic, Blur, Jpeg, Noise, Resize

N = 2000
SIDE, SCALE = 1000, 4  # so that factors can be read from sizes

# sigma, (up, down, keep), factor, Gaussian, Poisson, quality, in the table's order
FIRST = {
    "level1": ((0.2, 0.8), (0.1, 0.2, 0.7), (0.85, 1.2), (1, 10), (0.05, 0.5), (90, 95)),
    "level2": ((0.2, 1.5), (0.3, 0.4, 0.3), (0.5, 1.2), (1, 20), (0.05, 1.5), (50, 95)),
    "level3": ((0.2, 3), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3), (30, 95)),
    "realesrgan": ((0.2, 3), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3), (30, 95)),
}
SECOND = ((0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5), (30, 95))


@pytest.fixture(scope="module")
def drawn():
    generator = torch.Generator().manual_seed(0)
    return {space: [draw(space, SIDE, SIDE, SCALE, generator) for _ in range(N)] for space in SPACES}


def share(found, expected, count=N):
    """Within four standard deviations of what a probability gives."""
    assert found / count == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / count) + 1e-9)


def within(values, bounds, *, full=True):
    low, high = bounds
    assert low <= min(values)
    assert max(values) <= high
    if full:  # the range is used up to its ends
        margin = 0.05 * (high - low)
        assert min(values) < low + margin
        assert max(values) > high - margin


def passes(degradation):
    """Steps of the first pass, and of the second without the last resize, sinc and JPEG."""
    steps = list(degradation.steps)
    end = next(i for i, step in enumerate(steps) if isinstance(step, Jpeg)) + 1
    second = steps[end:]
    noise = next((i for i, step in enumerate(second) if isinstance(step, Noise)), -1) + 1
    return steps[:end], second[:noise], second[noise:]


def of(kind, lists):
    return [step for steps in lists for step in steps if isinstance(step, kind)]


def check_pass(steps, table, side, count=N):
    sigma, (up, down, keep), factor, gaussian, poisson, _ = table
    blurs = [blur for blur in of(Blur, steps) if blur.family != "sinc"]
    within([s for blur in blurs for s in (blur.sigma_x, blur.sigma_y)], sigma)
    sizes = Counter(blur.size for blur in of(Blur, steps))
    assert set(sizes) == set(SIZES)
    resizes = of(Resize, steps)
    assert len(resizes) == count
    assert all(resize.height == resize.width for resize in resizes)
    factors = [resize.height / side for resize in resizes]
    within(factors, (factor[0] - 1 / side, factor[1]))
    share(sum(f > 1 for f in factors), up, count)
    share(sum(f < 1 for f in factors), down, count)  # a factor within 1/side of 1 counts as kept
    share(sum(f == 1 for f in factors), keep, count)
    for mode in RESIZE_MODES:
        share(sum(resize.mode == mode for resize in resizes), 1 / 3, count)
    noises = of(Noise, steps)
    assert len(noises) == count
    share(sum(noise.kind == "gaussian" for noise in noises), 0.5, count)
    share(sum(noise.gray for noise in noises), 0.4, count)
    within([noise.level for noise in noises if noise.kind == "gaussian"], gaussian)
    within([noise.level for noise in noises if noise.kind == "poisson"], poisson)


@pytest.mark.parametrize("space", FIRST)
def test_the_first_pass(drawn, space):
    first = [passes(each)[0] for each in drawn[space]]
    assert {tuple(type(step) for step in steps) for steps in first} == {(Blur, Resize, Noise, Jpeg)}
    check_pass(first, FIRST[space], SIDE)
    qualities = [jpeg.quality for jpeg in of(Jpeg, first)]
    assert (min(qualities), max(qualities)) == FIRST[space][-1]


@pytest.mark.parametrize("space", ["level3", "realesrgan"])
def test_the_second_pass_and_the_end(drawn, space):
    second = [passes(each)[1] for each in drawn[space]]
    ends = [passes(each)[2] for each in drawn[space]]
    share(len(of(Blur, second)), 0.8)
    check_pass(second, SECOND, SIDE // SCALE)
    sincs = of(Blur, ends)
    share(len(sincs), 0.8)
    within([sinc.cutoff for sinc in sincs], (math.pi / 3, math.pi))
    assert {sinc.size for sinc in sincs} == set(SIZES)
    orders = Counter(tuple(type(step) for step in end if not isinstance(step, Blur)) for end in ends)
    assert set(orders) == {(Resize, Jpeg), (Jpeg, Resize)}
    share(orders[Resize, Jpeg], 0.5)
    for end in ends:  # the sinc follows the resize at once
        kinds = [type(step) for step in end]
        assert Blur not in kinds or kinds[kinds.index(Resize) + 1] is Blur
    qualities = [jpeg.quality for jpeg in of(Jpeg, ends)]
    assert (min(qualities), max(qualities)) == SECOND[-1]


@pytest.mark.parametrize("space", ["level1", "level2"])
def test_one_pass_ends_with_the_resize(drawn, space):
    for each in drawn[space]:
        assert len(each.steps) == 5
        assert isinstance(each.steps[-1], Resize)


@pytest.mark.parametrize("space", [space for space in SPACES if space not in ("bicubic", "bsrgan")])
def test_the_last_size_is_the_quarter(drawn, space):
    last = [next(step for step in reversed(each.steps) if isinstance(step, Resize)) for each in drawn[space]]
    assert {(step.height, step.width) for step in last} == {(SIDE // SCALE, SIDE // SCALE)}


@pytest.mark.parametrize("space", ["level1", "level2", "level3"])
def test_dasr_blurs_are_gaussians(drawn, space):
    blurs = of(Blur, [passes(each)[0] for each in drawn[space]])
    assert {blur.family for blur in blurs} == {"gaussian"}
    isotropic = [blur for blur in blurs if blur.sigma_x == blur.sigma_y]
    share(len(isotropic), 0.65)
    assert {blur.theta for blur in isotropic} == {0}
    within([blur.theta for blur in blurs if blur.sigma_x != blur.sigma_y], (-math.pi, math.pi))


def test_realesrgan_blurs_have_six_shapes_and_sinc(drawn):
    blurs = of(Blur, [passes(each)[0] for each in drawn["realesrgan"]])
    share(sum(blur.family == "sinc" for blur in blurs), 0.1)
    for family, isotropic, weight in (
        ("gaussian", True, 0.45),
        ("gaussian", False, 0.25),
        ("generalized", True, 0.12),
        ("generalized", False, 0.03),
        ("plateau", True, 0.12),
        ("plateau", False, 0.03),
    ):
        found = [b for b in blurs if b.family == family and (b.sigma_x == b.sigma_y) == isotropic]
        share(len(found), 0.9 * weight)
    within([b.beta for b in blurs if b.family == "generalized"], (0.5, 4))
    within([b.beta for b in blurs if b.family == "plateau"], (1, 2))
    sincs = [b for b in blurs if b.family == "sinc"]
    within([b.cutoff for b in sincs if b.size < 13], (math.pi / 3, math.pi), full=False)
    within([b.cutoff for b in sincs if b.size >= 13], (math.pi / 5, math.pi), full=False)


def test_dasr_mixes_the_levels(drawn):
    levels = Counter(each.level for each in drawn["dasr"])
    for level, weight in (("level1", 0.3), ("level2", 0.3), ("level3", 0.4)):
        share(levels[level], weight)
    assert {each.space for each in drawn["dasr"]} == {"dasr"}
    severe = [passes(each)[1] for each in drawn["dasr"] if each.level == "level3"]
    check_pass(severe, SECOND, SIDE // SCALE, len(severe))


def test_bsrgan_shuffles_and_ends_with_jpeg(drawn):
    orders, early = set(), 0
    for each in drawn["bsrgan"]:
        *shuffled, last = each.steps
        assert isinstance(last, Jpeg)
        early += sum(isinstance(step, Jpeg) for step in shuffled)
        assert sum(isinstance(step, Blur) for step in shuffled) == 2
        assert sum(isinstance(step, Noise) for step in shuffled) == 1
        resizes = [step for step in shuffled if isinstance(step, Resize)]
        assert len(resizes) == 2
        assert (resizes[1].height, resizes[1].width) == (SIDE // SCALE, SIDE // SCALE)
        orders.add(tuple(type(step).__name__ for step in shuffled))
    assert len(orders) > 100
    share(early, 0.9)
    steps = [each.steps for each in drawn["bsrgan"]]
    within([noise.level for noise in of(Noise, steps)], (2, 25))
    within([blur.sigma_x for blur in of(Blur, steps)], (0.1, math.sqrt(8)))
    within([jpeg.quality for jpeg in of(Jpeg, steps)], (30, 95))
    within([resize.height / SIDE for resize in of(Resize, steps)], (1 / (2 * SCALE), 1))


def test_bicubic_is_one_step(drawn):
    assert {each.steps for each in drawn["bicubic"]} == {(Bicubic(SCALE),)}


# --- DASR's vector


@pytest.mark.parametrize("space", SPACES)
def test_33_numbers_from_0_to_1(drawn, space):
    for each in drawn[space]:
        assert len(each.vector) == 33
        assert all(0 <= number <= 1 for number in each.vector)


def test_the_vector_says_what_was_drawn(drawn):
    for each in drawn["level3"][:200]:
        vector, (first, second, end) = each.vector, passes(each)
        blur, resize, noise, jpeg = first
        assert vector[0] == pytest.approx((blur.size - 7) / 14)
        assert vector[1:4] == pytest.approx(
            [(blur.sigma_x - 0.2) / 2.8, (blur.sigma_y - 0.2) / 2.8, blur.theta / (2 * math.pi) + 0.5]
        )
        assert vector[10] == pytest.approx((resize.height / SIDE - 0.15) / 1.35, abs=1e-3)
        assert vector[11:14] == tuple(float(resize.mode == mode) for mode in RESIZE_MODES)
        assert vector[19] == noise.gray
        assert vector[20:22] == (noise.kind == "gaussian", noise.kind == "poisson")
        assert vector[26] == pytest.approx((jpeg.quality - 30) / 65)
        assert (sum(vector[4:8]) > 0) == (len(of(Blur, [second])) == 1)
        last = next(step for step in end if isinstance(step, Resize))
        assert vector[30:] == tuple(float(last.mode == mode) for mode in RESIZE_MODES)
        assert vector[28:30] == ((0, 1) if isinstance(end[0], Jpeg) else (1, 0))
        sincs = of(Blur, [end])
        assert vector[8:10] == pytest.approx(
            [(sincs[0].size - 7) / 14, (sincs[0].cutoff / math.pi - 1 / 3) * 1.5] if sincs else [0, 0]
        )


def test_one_pass_leaves_the_second_at_0(drawn):
    for each in drawn["level2"][:50]:
        assert set(each.vector[4:10] + each.vector[14:18] + each.vector[22:26] + each.vector[27:30]) == {0}


# --- the draws themselves


def test_the_generator_decides_and_moves_on():
    generator = torch.Generator().manual_seed(5)
    first, second = (draw("dasr", 64, 80, 4, generator) for _ in range(2))
    assert first == draw("dasr", 64, 80, 4, torch.Generator().manual_seed(5))
    assert first != second


def test_every_space_takes_as_many_numbers_from_the_generator():
    """So that what is drawn afterwards does not depend on the space."""
    after = set()
    for space in SPACES:
        generator = torch.Generator().manual_seed(1)
        draw(space, 64, 64, 4, generator)
        after.add(torch.rand((), generator=generator).item())
    assert len(after) == 1


def test_picks_follow_their_weights():
    draws = [Draws(torch.Generator().manual_seed(seed)) for seed in range(50)]
    picked = Counter(each.pick("abc", (1, 0, 3)) for each in draws for _ in range(90))
    assert picked["b"] == 0
    share(picked["c"], 0.75, 4500)
    assert sorted(draws[0].shuffled("abc")) == ["a", "b", "c"]


def test_an_unknown_space_is_told():
    with pytest.raises(ValueError, match=r"no degradation space 'level4'; there are bicubic, level1, .*, bsrgan"):
        draw("level4", 64, 64, 4, torch.Generator())


def test_descriptions_are_one_line(drawn):
    for space, each in drawn.items():
        for degradation in each[:20]:
            assert str(degradation).startswith(space)
            assert "\n" not in str(degradation)
