"""Blur kernels against recorded ones, and what their formulas promise."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dacesr.degradation import kernels

FIXTURE = Path(__file__).parents[1] / "fixtures" / "primitives.npz"
ISOTROPIC = (21, 1.7, 1.7, 0.0)
ANISOTROPIC = (21, 2.4, 0.9, 0.7)
RECORDED = {
    "k_gauss_iso": (kernels.gaussian, ISOTROPIC),
    "k_gauss_aniso": (kernels.gaussian, ANISOTROPIC),
    "k_ggauss_iso": (kernels.generalized_gaussian, (*ISOTROPIC, 1.6)),
    "k_ggauss_aniso": (kernels.generalized_gaussian, (*ANISOTROPIC, 1.6)),
    "k_plateau_iso": (kernels.plateau, (*ISOTROPIC, 1.3)),
    "k_plateau_aniso": (kernels.plateau, (*ANISOTROPIC, 1.3)),
    "k_sinc": (kernels.sinc, (1.9, 13, 21)),
}


@pytest.mark.parametrize("name", RECORDED)
def test_kernels_equal_the_recorded_ones(name):
    make, arguments = RECORDED[name]
    with np.load(FIXTURE) as recorded:
        torch.testing.assert_close(make(*arguments), torch.from_numpy(recorded[name]), rtol=0, atol=1e-6)


@given(
    size=st.sampled_from(range(7, 22, 2)),
    sigma_x=st.floats(0.2, 3),
    sigma_y=st.floats(0.2, 3),
    theta=st.floats(-math.pi, math.pi),
    beta=st.floats(0.5, 4),
)
def test_sum_symmetry_and_rotation(size, sigma_x, sigma_y, theta, beta):
    for make, more in ((kernels.gaussian, ()), (kernels.generalized_gaussian, (beta,)), (kernels.plateau, (beta,))):
        kernel = make(size, sigma_x, sigma_y, theta, *more)
        assert kernel.shape == (size, size)
        assert kernel.dtype == torch.float32
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(kernel.flip(0, 1), kernel, rtol=1e-4, atol=1e-6)
        turned = make(size, sigma_y, sigma_x, theta + math.pi / 2, *more)
        torch.testing.assert_close(turned, kernel, rtol=1e-3, atol=1e-5)


def test_sigma_x_lies_along_the_columns_and_theta_turns_it_towards_the_rows():
    moment = (torch.arange(21.0) - 10).square()
    flat = kernels.gaussian(21, 2.0, 0.7)
    assert (flat.sum(0) * moment).sum().sqrt().item() == pytest.approx(2.0, rel=0.01)
    assert (flat.sum(1) * moment).sum().sqrt().item() == pytest.approx(0.7, rel=0.01)
    falling = kernels.gaussian(21, 2.0, 0.7, math.pi / 4)
    assert falling[12, 12] > 2 * falling[12, 8]


def test_beta_1_is_the_gaussian():
    torch.testing.assert_close(kernels.generalized_gaussian(9, 1.2, 0.6, 0.3, 1.0), kernels.gaussian(9, 1.2, 0.6, 0.3))


def test_sinc_passes_low_frequencies_and_stops_high_ones():
    cutoff = 1.5
    response = torch.fft.fft2(kernels.sinc(cutoff, 61)).abs()
    frequency = 2 * math.pi * torch.fft.fftfreq(61)
    radius = torch.hypot(frequency[:, None], frequency[None, :])
    assert response[radius < cutoff - 0.3].min() > 0.9
    assert response[radius > cutoff + 0.3].max() < 0.1


def test_kernels_made_together_equal_single_ones():
    """Up to the order of the sums, where zeros lie around."""
    shapes = [
        kernels.Shape("gaussian", 7, 1.2, 0.4, 0.3),
        kernels.Shape("sinc", 21, cutoff=1.9),
        kernels.Shape("plateau", 13, 2.0, 0.7, -1.0, 1.4),
        kernels.Shape("gaussian", 21, 0.2, 3.0, 2.0),
        kernels.Shape("generalized", 9, 1.0, 1.0, 0.0, 0.6),
        kernels.Shape("sinc", 9, cutoff=3.1),
    ]
    singles = [
        kernels.gaussian(7, 1.2, 0.4, 0.3),
        kernels.sinc(1.9, 21),
        kernels.plateau(13, 2.0, 0.7, -1.0, 1.4),
        kernels.gaussian(21, 0.2, 3.0, 2.0),
        kernels.generalized_gaussian(9, 1.0, 1.0, 0.0, 0.6),
        kernels.sinc(3.1, 9),
    ]
    together = kernels.stack(shapes)
    assert together.shape == (6, 21, 21)
    assert together.dtype == torch.float32
    for found, single in zip(together, singles, strict=True):
        torch.testing.assert_close(found, kernels.pad(single, 21), rtol=1e-6, atol=1e-8)


def test_padding_puts_zeros_around():
    padded = kernels.sinc(2.0, 7, pad_to=11)
    assert padded.shape == (11, 11)
    assert torch.equal(padded[2:9, 2:9], kernels.sinc(2.0, 7))
    assert padded[:2].abs().max() == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kernels.gaussian(8, 1, 1), "should be odd; got 8"),
        (lambda: kernels.gaussian(-1, 1, 1), "should be odd; got -1"),
        (lambda: kernels.gaussian(7, 0, 1), "sigma should be above 0; got 0 and 1"),
        (lambda: kernels.gaussian(7, 1, math.nan), "sigma should be above 0"),
        (lambda: kernels.plateau(7, 1, 1, 0, 0), "beta should be above 0; got 0"),
        (lambda: kernels.generalized_gaussian(7, 1, 1, 0, -1), "beta should be above 0; got -1"),
        (lambda: kernels.sinc(0, 7), "cutoff should be above 0; got 0"),
        (lambda: kernels.sinc(1, 9, 7), "a kernel of 9 cannot be padded to 7"),
        (lambda: kernels.sinc(1, 9, 12), "a kernel of 9 cannot be padded to 12"),
    ],
)
def test_impossible_kernels_are_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
