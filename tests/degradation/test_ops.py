"""Blur, resize, noise and sharpening: recorded numbers, pictures of different sizes in one batch, gradients."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dacesr.degradation import kernels, ops

FIXTURE = Path(__file__).parents[1] / "fixtures" / "primitives.npz"
SIZES = [(20, 30), (13, 11), (5, 30), (1, 1)]  # on a canvas of 20 x 30
DEVICE = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)


def recorded(*names):
    with np.load(FIXTURE) as file:
        return [torch.from_numpy(file[name]) for name in names]


def picture():
    (image,) = recorded("im")
    return image[:112, :112].permute(2, 0, 1)[None] / 255


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def generators(count, device="cpu"):
    return [torch.Generator(device).manual_seed(seed) for seed in range(count)]


def alone(x, i, size):
    return x[i : i + 1, :, : size[0], : size[1]]


# --- recorded numbers


def test_filter_equals_the_recorded_one():
    kernel, expected = recorded("k_gauss_aniso", "filter2d")
    torch.testing.assert_close(ops.filter2d(picture(), kernel), expected, rtol=0, atol=1e-5)


def test_sharpening_equals_the_recorded_one():
    (expected,) = recorded("usm")
    torch.testing.assert_close(ops.usm_sharpen(picture()), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(28, 28), (50, 77), (112, 112), (150, 120), (224, 224)])
def test_resize_equals_interpolate(mode, size):
    x = picture()
    options = {} if mode in ("area", "nearest") else {"align_corners": False}
    expected = F.interpolate(x, size=size, mode=mode, **options)
    torch.testing.assert_close(ops.resize(x, [size], [mode]), expected, rtol=0, atol=2e-5)


# --- pictures of different sizes in one batch


@DEVICE
def test_a_ragged_blur_equals_single_ones(device):
    x = rand(4, 3, 20, 30).to(device)
    blurs = [kernels.gaussian(k, 1.5, 0.6, 0.4) for k in (21, 7, 9, 7)]
    batch = torch.stack([kernels.pad(kernel, 21) for kernel in blurs])
    together = ops.filter2d(x, batch, SIZES, [kernel.shape[-1] // 2 for kernel in blurs])
    for i, size in enumerate(SIZES):
        single = ops.filter2d(alone(x, i, size), blurs[i])
        torch.testing.assert_close(alone(together, i, size), single, rtol=0, atol=1e-6)


def test_zeros_around_a_kernel_change_nothing_near_the_edge():
    """Nor for a picture that is too small to be mirrored as far as the zeros reach."""
    x, kernel = rand(1, 3, 9, 9), kernels.gaussian(7, 1, 1)
    padded = ops.filter2d(x, kernels.pad(kernel, 21), reach=[3])
    torch.testing.assert_close(padded, ops.filter2d(x, kernel), rtol=0, atol=1e-6)


@DEVICE
def test_a_ragged_resize_equals_single_ones(device):
    x = rand(4, 3, 20, 30).to(device)
    targets, modes = [(7, 9), (26, 20), (5, 31), (3, 2)], ["area", "bicubic", "bilinear", "nearest"]
    together = ops.resize(x, targets, modes, SIZES)
    assert together.shape == (4, 3, 26, 31)
    for i, size in enumerate(SIZES):
        single = ops.resize(alone(x, i, size), [targets[i]], [modes[i]])
        torch.testing.assert_close(alone(together, i, targets[i]), single, rtol=0, atol=1e-6)
    assert together[0, :, 7:].abs().max() == 0


@DEVICE
@pytest.mark.parametrize("add", [ops.gaussian_noise, ops.poisson_noise])
def test_ragged_noise_equals_single_noise(add, device):
    x, level = rand(4, 3, 20, 30).to(device), torch.tensor([0.02, 0.1, 0.5, 1])
    gray = torch.tensor([False, True, False, True])
    together = add(x, level, gray, generators(4, device), SIZES)
    for i, size in enumerate(SIZES):
        single = add(alone(x, i, size), level[i : i + 1], gray[i : i + 1], generators(4, device)[i : i + 1])
        assert torch.equal(alone(together, i, size), single)
    assert torch.equal(together[1, :, 13:], x[1, :, 13:])


# --- blur


def test_the_edge_is_mirrored_or_repeated_where_the_picture_is_too_small():
    kernel = kernels.gaussian(7, 2, 2)
    for side, mode in ((4, "reflect"), (3, "replicate")):
        x = rand(1, 1, side, 12)
        expected = F.conv2d(F.pad(x, (3,) * 4, mode=mode), kernel[None, None])
        torch.testing.assert_close(ops.filter2d(x, kernel), expected, rtol=0, atol=1e-6)


def test_it_is_a_correlation():
    kernel = torch.zeros(3, 3)
    kernel[1, 2] = 1  # takes the right neighbour
    x = rand(1, 3, 5, 6)
    assert torch.equal(ops.filter2d(x, kernel)[..., :-1], x[..., 1:])


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (3,), (2, 3, 3), (1, 1, 3, 3)])
def test_kernels_that_do_not_fit_are_told(shape):
    with pytest.raises(ValueError, match=r"the kernel should be \(k, k\) or \(3, k, k\)"):
        ops.filter2d(torch.zeros(3, 3, 8, 8), torch.zeros(shape))


def test_a_resize_that_cannot_be_is_told():
    with pytest.raises(ValueError, match="by 'lanczos'"):
        ops.resize(torch.zeros(1, 3, 8, 8), [(4, 4)], ["lanczos"])
    with pytest.raises(ValueError, match="from 8 to 0 pixels"):
        ops.resize(torch.zeros(1, 3, 8, 8), [(0, 4)], ["area"])


# --- noise


def test_gaussian_noise_has_the_strength_asked_for():
    x = torch.full((2, 3, 200, 200), 0.5)
    noise = ops.gaussian_noise(x, torch.tensor([0.02, 0.1]), torch.tensor([False, True]), generators(2)) - x
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([0.02, 0.1], rel=0.02)
    assert noise.mean().abs() < 1e-3
    colour, gray = noise.flatten(2)
    assert torch.corrcoef(colour)[0, 1].abs() < 0.02
    assert torch.equal(gray[0], gray[1])


def test_poisson_noise_grows_with_the_signal():
    """Two distinct values make vals 2: the variance is x / 2, times the scale squared."""
    x = torch.full((1, 3, 300, 300), 51 / 255)
    x[..., :150] = 102 / 255
    noise = ops.poisson_noise(x, torch.tensor([0.1]), torch.tensor([False]), generators(1)) - x
    deviations = [noise[..., :150].std().item(), noise[..., 150:].std().item()]
    assert deviations == pytest.approx([0.1 * math.sqrt(0.4 / 2), 0.1 * math.sqrt(0.2 / 2)], rel=0.02)
    assert noise.mean().abs() < 1e-3


def test_gray_poisson_noise_is_the_same_for_all_channels():
    x = rand(1, 3, 40, 40) * 0.4 + 0.3
    noise = ops.poisson_noise(x, torch.tensor([0.3]), torch.tensor([True]), generators(1)) - x
    torch.testing.assert_close(noise[:, 0], noise[:, 2], rtol=0, atol=1e-6)
    assert noise.abs().max() > 0.01


def test_black_stays_black_under_poisson_noise():
    x = torch.zeros(1, 3, 8, 8)
    assert torch.equal(ops.poisson_noise(x, torch.ones(1), torch.tensor([False]), generators(1)), x)


# --- sharpening


def test_sharpening_leaves_what_does_not_stand_out():
    ramp = torch.linspace(0, 1, 300).expand(1, 3, 60, 300)
    torch.testing.assert_close(ops.usm_sharpen(ramp)[..., 60:-60], ramp[..., 60:-60], rtol=0, atol=1e-4)
    edge = (torch.arange(120) >= 60).float().mul(0.4).add(0.3).expand(1, 3, 60, 120)
    sharp = ops.usm_sharpen(edge)
    assert sharp[0, 0, 30, 62] > edge[0, 0, 30, 62] + 0.02
    assert sharp[0, 0, 30, 57] < edge[0, 0, 30, 57] - 0.02


@pytest.mark.parametrize("size", [(1, 1), (9, 40), (26, 26)])
def test_sharpening_of_tiny_pictures(size):
    sharp = ops.usm_sharpen(rand(1, 3, *size))
    assert sharp.shape == (1, 3, *size)
    assert bool(((sharp >= 0) & (sharp <= 1)).all())


# --- gradients


def test_gradients_of_linear_operations_are_exact():
    x = rand(2, 3, 6, 7).double().requires_grad_()
    kernel = rand(2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, k: ops.filter2d(x, k), (x, kernel))
    assert torch.autograd.gradcheck(lambda x: ops.resize(x, [(3, 9), (5, 4)], ["bicubic", "area"]), (x,))
    assert torch.autograd.gradcheck(lambda x: ops.filter2d(x, kernel, [(6, 7), (4, 5)]), (x,))


@pytest.mark.parametrize("add", [ops.gaussian_noise, ops.poisson_noise])
def test_noise_and_sharpening_pass_gradients(add):
    x = rand(1, 3, 12, 12).mul(0.4).add(0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(add(x, torch.tensor([0.01]), torch.tensor([True]), generators(1)).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    (gradient,) = torch.autograd.grad(ops.usm_sharpen(x).square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.99
