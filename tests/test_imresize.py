"""MATLAB's bicubic, and the resizes of `interpolate` as matrices."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from dacesr import image
from dacesr.image import read
from dacesr.imresize import MODES, imresize, resize_matrices

with np.load(Path(__file__).parent / "fixtures" / "primitives.npz") as recorded:
    REFERENCE = {key: torch.from_numpy(recorded[key]).movedim(-1, 0)[None] for key in recorded if key.startswith("im")}
IMAGE = REFERENCE["im"] / 255


def resize_weights(inputs, outputs, mode):
    """(outputs, inputs) of one picture."""
    return resize_matrices([inputs], [outputs], [mode], (outputs, inputs))[0]


def test_image_offers_it():
    assert image.imresize is imresize


@pytest.mark.parametrize("scale", [0.25, 0.3, 0.5])
def test_shrinking_equals_matlab(scale):
    torch.testing.assert_close(imresize(IMAGE, scale), REFERENCE[f"imresize_{scale}"], rtol=0, atol=1e-5)


def test_enlarging_equals_matlab():
    """The fixture holds every third pixel, so all four phases."""
    found = imresize(IMAGE[..., :64, :60], 4)[..., ::3, ::3]
    torch.testing.assert_close(found, REFERENCE["imresize_4"], rtol=0, atol=1e-5)


def test_set5_as_distributed(data):
    """Files that MATLAB made: with its rounding between rows and columns 0.03 % of the values differ, by one level."""
    for path in sorted((data / "benchmarks/Set5/HR").iterdir()):
        sharp = read(path)
        height, width = (side // 4 * 4 for side in sharp.shape[-2:])
        small = imresize(sharp[..., :height, :width], 1 / 4, eight_bit=True)
        distributed = read(data / f"benchmarks/Set5/LR_bicubic_x4/{path.stem}x4.png")
        levels = ((small - distributed) * 255).abs().round()
        assert levels.max() <= 1
        assert (levels > 0).double().mean() < 1e-3


@given(side=st.integers(1, 40), scale=st.floats(0.05, 5))
def test_any_size_and_flat_pictures_stay_flat(side, scale):
    small = imresize(torch.full((1, 1, side, 7), 0.3), scale)
    assert small.shape == (1, 1, math.ceil(side * scale), math.ceil(7 * scale))
    torch.testing.assert_close(small, torch.full_like(small, 0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", range(1, 17))
def test_whole_factors_give_whole_sizes(factor):
    for side in (1, 3, 49, 93, 127):
        assert imresize(torch.zeros(1, 1, side * factor, 1), 1 / factor).shape[-2] == side


def test_it_is_symmetric():
    for flip in (-1, -2):
        torch.testing.assert_close(imresize(IMAGE.flip(flip), 0.25), imresize(IMAGE, 0.25).flip(flip))


def test_eight_bit_results_are_levels_and_gradients_pass():
    x = IMAGE[..., :32, :32].clone().requires_grad_()
    small = imresize(x, 0.25, eight_bit=True)
    assert torch.equal((small.detach() * 255).round() / 255, small.detach())
    (gradient,) = torch.autograd.grad(small.sum(), x)
    assert gradient.sum().item() == pytest.approx(small.numel(), rel=0.05)


@pytest.mark.parametrize(("shape", "scale"), [((3, 8, 8), 0.5), ((1, 3, 8, 8), 0), ((1, 3, 8, 8), math.nan)])
def test_what_cannot_be_resized_is_told(shape, scale):
    with pytest.raises(ValueError, match="imresize needs"):
        imresize(torch.zeros(shape), scale)


# --- interpolate


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_weights_equal_interpolate(mode):
    options = {} if mode == "area" else {"align_corners": False}
    generator = torch.Generator().manual_seed(0)
    for inputs in range(1, 40):
        x = torch.rand(1, 1, inputs, 1, generator=generator)
        for outputs in range(1, 40):
            expected = F.interpolate(x, size=(outputs, 1), mode=mode, **options)[0, 0]
            torch.testing.assert_close(resize_weights(inputs, outputs, mode) @ x[0, 0], expected, rtol=0, atol=1e-5)


@given(inputs=st.integers(1, 200), outputs=st.integers(1, 200))
def test_nearest_takes_the_exact_pixel(inputs, outputs):
    taken = resize_weights(inputs, outputs, "nearest") @ torch.arange(float(inputs))
    assert taken.tolist() == [i * inputs // outputs for i in range(outputs)]


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 14), (16, 4), (5, 1), (3, 12), (60, 45)])
def test_nearest_equals_interpolate(inputs, outputs):
    x = torch.arange(float(inputs))
    expected = F.interpolate(x[None, None, :], size=outputs, mode="nearest")[0, 0]
    assert torch.equal(resize_weights(inputs, outputs, "nearest") @ x, expected)


@pytest.mark.parametrize("modes", [MODES, ("area",) * 4, ("bilinear", "nearest", "bicubic", "bicubic")])
def test_matrices_made_together_equal_single_ones(modes):
    inputs, outputs = [9, 30, 17, 1], [21, 7, 17, 5]
    together = resize_matrices(inputs, outputs, modes, (24, 33))
    assert together.shape == (4, 24, 33)
    for found, before, after, mode in zip(together, inputs, outputs, modes, strict=True):
        assert torch.equal(found[:after, :before], resize_weights(before, after, mode))
        assert found.count_nonzero() == found[:after, :before].count_nonzero()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_matrices_made_on_a_gpu_equal_those_of_the_cpu():
    inputs, outputs = [9, 130, 17, 1], [21, 37, 17, 5]
    arguments = (inputs, outputs, MODES, (37, 130))
    found = resize_matrices(*arguments, "cuda")
    assert torch.equal(found, resize_matrices(*arguments, "cuda"))
    torch.testing.assert_close(found.cpu(), resize_matrices(*arguments), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("inputs", "outputs", "mode"), [(4, 0, "area"), (4, 2, "lanczos")])
def test_unknown_modes_and_sizes_are_told(inputs, outputs, mode):
    with pytest.raises(ValueError, match=f"from {inputs} to {outputs} pixels by '{mode}'"):
        resize_weights(inputs, outputs, mode)


def test_lanczos_is_the_windowed_sinc_with_mirrored_edges():
    x, scale = torch.rand(1, 1, 9, 1, dtype=torch.float64), 4
    found = imresize(x, scale, kernel="lanczos3")[0, 0, :, 0]
    for place in range(9 * scale):
        centre = (place + 0.5) / scale - 0.5
        total = weight_sum = 0.0
        for tap in range(-4, 14):
            r = centre - tap
            if abs(r) >= 3:
                continue
            weight = 1.0 if r == 0 else 3 * math.sin(math.pi * r) * math.sin(math.pi * r / 3) / (math.pi * r) ** 2
            mirrored = tap if 0 <= tap < 9 else -1 - tap if tap < 0 else 17 - tap
            total += weight * x[0, 0, mirrored, 0].item()
            weight_sum += weight
        assert found[place].item() == pytest.approx(total / weight_sum, abs=1e-12)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="cubic, lanczos3, not box"):
        imresize(torch.zeros(1, 1, 4, 4), 2, kernel="box")  # pyright: ignore[reportArgumentType]
