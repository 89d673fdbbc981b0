"""Degrading batches: sizes, seeds, independence of neighbours, gradients, errors."""

import importlib
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dacesr.degradation import kernels, ops, recipe
from dacesr.degradation.recipe import SPACES, carry_out, degrade, draw
from dacesr.degradation.steps import Blur, Jpeg, Noise, Resize
from dacesr.image import imresize, read

EXAMPLES = Path(__file__).parents[2] / "examples"
SPACE = pytest.mark.parametrize("space", SPACES)


def on_gpu(test):
    """For a CUDA device only."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(skip(test))


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def photos():
    """Six crops (6, 3, 100, 92) of examples."""
    names = ("house.jpg", "lake.jpg", "still_life.jpg")
    pictures = [read(EXAMPLES / name) for name in names]
    return torch.cat([x[..., top : top + 100, 60 : 60 + 92] for x in pictures for top in (10, 70)])


@SPACE
def test_results_are_eight_bit_pictures(photos, space):
    small, drawn = degrade(photos, space, torch.Generator().manual_seed(0))
    assert small.shape == (6, 3, 25, 23)
    assert bool(((small >= 0) & (small <= 1)).all())
    assert torch.equal((small * 255).round() / 255, small)
    assert len(drawn) == 6
    assert len({each.steps for each in drawn}) == (1 if space == "bicubic" else 6)


@settings(max_examples=60, deadline=None)
@given(
    space=st.sampled_from(sorted(SPACES)),
    height=st.integers(1, 45),
    width=st.integers(1, 45),
    scale=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_any_size(space, height, width, scale, seed):
    if min(height, width) < scale:
        with pytest.raises(ValueError, match="of at least that"):
            degrade(torch.zeros(1, 3, height, width), space, torch.Generator(), scale)
        return
    small, _ = degrade(torch.rand(1, 3, height, width), space, torch.Generator().manual_seed(seed), scale)
    assert small.shape == (1, 3, height // scale, width // scale)
    assert small.isfinite().all()


@SPACE
def test_the_seed_decides_the_bytes(photos, space):
    first, drawn = degrade(photos, space, torch.Generator().manual_seed(3))
    again, drawn_again = degrade(photos, space, torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert drawn == drawn_again
    other, _ = degrade(photos, space, torch.Generator().manual_seed(4))
    assert torch.equal(first, other) == (space == "bicubic")


@SPACE
def test_a_picture_does_not_depend_on_its_neighbours(photos, space):
    together, drawn = degrade(photos, space, seeded(*range(6)))
    for i in range(6):
        single, (own,) = degrade(photos[i : i + 1], space, seeded(i))
        assert own == drawn[i]
        assert torch.equal(single[0], together[i])
    mixed, _ = degrade(photos[[4, 1]], space, seeded(4, 1))
    assert torch.equal(mixed, together[[4, 1]])


@SPACE
def test_all_at_once_equals_one_at_a_time(photos, space):
    """As on a GPU: arithmetic in another order moves values across a rounding now and then, which JPEG can amplify."""
    generators = seeded(*range(6))
    expected, drawn = degrade(photos, space, seeded(*range(6)))
    height, width = photos.shape[-2:]
    assert [recipe.draw(space, height, width, 4, generator) for generator in generators] == drawn
    noise = [recipe._spawn(generator) for generator in generators]
    found = recipe._run(photos, [list(each.steps) for each in drawn], noise)
    levels = (255 * found.clamp(0, 1)).round() - 255 * expected
    assert levels.abs().mean((1, 2, 3)).max() < 0.05


@SPACE
def test_a_degradation_can_be_repeated(photos, space):
    """With the state that its generator was left in, the bytes are the same; with another, only the noise is not."""
    height, width = photos.shape[-2:]
    expected, drawn = degrade(photos, space, seeded(*range(6)))
    generators = seeded(*range(6))
    assert [draw(space, height, width, 4, each) for each in generators] == drawn
    assert torch.equal(carry_out(photos, drawn, generators), expected)
    other = carry_out(photos, drawn, seeded(*range(10, 16)))
    assert other.shape == expected.shape
    assert torch.equal(other, expected) == (space == "bicubic")
    assert (other - expected).abs().mean() < (expected - expected.roll(1, 0)).abs().mean() / 2


def test_one_draw_serves_pictures_of_any_size(photos):
    for height, width in ((100, 92), (60, 80)):
        (drawn,) = (draw("realesrgan", height, width, 2, each) for each in seeded(5))
        small = carry_out(photos[:2, :, :height, :width], [drawn] * 2, seeded(0, 1))
        assert small.shape == (2, 3, height // 2, width // 2)


@pytest.mark.parametrize(
    ("drawn", "count", "words"),
    [
        ((4,), 2, "2 pictures need 2 degradations and generators; got 1 and 2"),
        ((4, 4), 1, "got 2 and 1"),
        ((4, 2), 2, r"should end at one size, not at \[\(25, 23\), \(50, 46\)\]"),
    ],
)
def test_what_cannot_be_carried_out_is_told(photos, drawn, count, words):
    degradations = [draw("level3", 100, 92, scale, *seeded(0)) for scale in drawn]
    with pytest.raises(ValueError, match=words):
        carry_out(photos[:2], degradations, seeded(*range(count)))


def test_steps_are_carried_out_in_their_order(photos):
    x = photos[:1]
    shape, target, quality = (9, 1.2, 0.6, 0.3), (40, 30), 70
    found = recipe._run(x, [[Blur("gaussian", *shape), Resize("area", *target), Jpeg(quality)]], seeded(0))
    blurred = ops.filter2d(x, kernels.gaussian(*shape))
    expected = ops.jpeg(F.interpolate(blurred, target, mode="area").clamp(0, 1), quality)
    assert (255 * (found - expected)).abs().mean() < 0.1


def test_noise_kinds_are_mixed_in_one_batch(photos):
    noises = [Noise("gaussian", 20, True), Noise("poisson", 1, False), Noise("gaussian", 5, False)]
    together = recipe._run(photos[:3], [[noise] for noise in noises], seeded(0, 1, 2))
    for i, noise in enumerate(noises):
        assert torch.equal(recipe._run(photos[i : i + 1], [[noise]], seeded(i))[0], together[i])


def test_bicubic_is_matlabs(photos):
    small, drawn = degrade(photos, "bicubic", torch.Generator())
    assert torch.equal(small, imresize(photos, 0.25, eight_bit=True))
    assert {each.vector for each in drawn} == {(0.0,) * 33}


def test_severe_is_worse_than_mild(photos):
    clean = imresize(photos, 0.25)
    errors = [
        torch.stack([(degrade(photos, space, seeded(*range(s, s + 6)))[0] - clean).square().mean() for s in (0, 6, 12)])
        for space in ("level1", "level2", "level3")
    ]
    assert errors[0].mean() < errors[1].mean() < errors[2].mean()


@SPACE
def test_gradients_reach_the_picture(photos, space):
    x = (photos * 0.6 + 0.2).requires_grad_()
    small, _ = degrade(x, space, seeded(*range(6)))
    (gradient,) = torch.autograd.grad(small.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()
    plain, _ = degrade(x.detach(), space, seeded(*range(6)))
    assert torch.equal(small.detach(), plain)


def test_the_global_generator_is_left_alone(photos):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    degrade(photos, "dasr", torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("shape", "space", "count", "scale", "words"),
    [
        ((1, 3, 8, 8), "level9", 1, 4, "no degradation space 'level9'; there are bicubic, level1"),
        ((1, 3, 3, 8), "level1", 1, 4, r"by 4 takes pictures \(b, 3, h, w\) of at least that; got \(1, 3, 3, 8\)"),
        ((1, 1, 8, 8), "level1", 1, 4, r"got \(1, 1, 8, 8\)"),
        ((3, 8, 8), "level1", 1, 4, r"got \(3, 8, 8\)"),
        ((2, 3, 8, 8), "level1", 3, 4, "2 pictures need 2 generators; got 3"),
        ((1, 3, 8, 8), "level1", 1, 0, "degrade by 0"),
    ],
)
def test_impossible_calls_are_told(shape, space, count, scale, words):
    with pytest.raises(ValueError, match=words):
        degrade(torch.zeros(shape), space, seeded(*range(count)), scale)


# --- without waiting for a device


class NoCopies(TorchDispatchMode):
    """Refuses copies between a device and the CPU, which CUDA would wait for, but for those of `upload`."""

    allowed = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        devices = {x.device.type for x in args if torch.is_tensor(x)}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device"):
            devices.add(torch.device(kwargs["device"]).type)
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if copies and len(devices) > 1 and not self.allowed:
            raise AssertionError(f"{func} copies between {sorted(devices)}")
        return func(*args, **kwargs)


class NoNumbers(TorchFunctionMode):
    """Refuses tensors on a device made of Python's numbers, and lists of them as an index."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        index = args[1] if func is torch.Tensor.__getitem__ else None
        listed = isinstance(index, list) or (isinstance(index, tuple) and any(isinstance(i, list) for i in index))
        if (listed or func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)) and found.device.type != "cpu":
            raise AssertionError(f"{func.__name__} copies numbers to {found.device}")
        return found


@pytest.fixture
def no_waiting(monkeypatch):
    """On `meta` there are no numbers, so whatever asks for one fails, as does what mixes it with the CPU."""
    watch = NoCopies()

    def upload(host, device):
        watch.allowed = True
        sent = host.to(device)
        watch.allowed = False
        return sent

    for module in ("imresize", "degradation.canvas", "degradation.jpeg", "degradation.ops", "degradation.recipe"):
        monkeypatch.setattr(importlib.import_module(f"dacesr.{module}"), "upload", upload)
    with watch, NoNumbers():
        yield


@SPACE
def test_nothing_waits_for_the_device(space, no_waiting):
    generators = seeded(*range(12))
    programs = [list(draw(space, 100, 92, 4, each).steps) for each in generators]
    small = recipe._run(torch.empty(12, 3, 100, 92, device="meta"), programs, generators)
    assert small.shape == (12, 3, 25, 23)


def test_sharpening_does_not_wait_for_the_device(no_waiting):
    assert ops.usm_sharpen(torch.empty(2, 3, 60, 70, device="meta")).shape == (2, 3, 60, 70)


# --- on a GPU


@pytest.fixture
def never_waited_for():
    """PyTorch raises where the CPU waits for CUDA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it doesn't find all of them
        torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@on_gpu
@SPACE
def test_a_gpu_equals_the_cpu_but_for_noise(photos, space):
    """Arithmetic in another order moves values across a rounding now and then, which JPEG can amplify."""
    drawn = [draw(space, 100, 92, 4, each) for each in seeded(*range(6))]
    quiet = [replace(each, steps=tuple(s for s in each.steps if not isinstance(s, Noise))) for each in drawn]
    expected = carry_out(photos, quiet, seeded(*range(6)))
    found = carry_out(photos.cuda(), quiet, seeded(*range(6))).cpu()
    assert (255 * (found - expected)).abs().mean((1, 2, 3)).max() < 0.5


@on_gpu
@SPACE
def test_a_gpu_draws_the_same_and_gives_the_same_bytes(photos, space):
    small, drawn = degrade(photos.cuda(), space, seeded(*range(6)))
    assert drawn == degrade(photos, space, seeded(*range(6)))[1]
    assert small.shape == (6, 3, 25, 23)
    with torch.cuda.stream(torch.cuda.Stream()):
        again, _ = degrade(photos.cuda(), space, seeded(*range(6)))
        torch.cuda.current_stream().synchronize()
    assert torch.equal(small, again)


@on_gpu
@SPACE
def test_a_gpu_is_never_waited_for(photos, space, never_waited_for):
    generators = seeded(*range(12))
    x = photos.repeat(2, 1, 1, 1).pin_memory().cuda(non_blocking=True)
    degrade(x, space, generators)
