"""Sweeps: 8-bit pictures of the same size that get worse from level to level."""

import pytest
import torch
from torch import Tensor

from dacesr.degradation import kernels, ops
from dacesr.degradation.sweeps import SWEEPS

NAMES = pytest.mark.parametrize("name", SWEEPS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> Tensor:
    """Two pictures (2, 3, 40, 52)."""
    coarse = torch.rand(2, 3, 13, 10, generator=seeded())
    return torch.nn.functional.interpolate(coarse, (40, 52), mode="bicubic").clamp(0, 1)


@NAMES
def test_levels_are_ever_worse(name: str, x: Tensor) -> None:
    sweep = SWEEPS[name]
    degraded = [sweep.apply(x, level, seeded()) for level in sweep.levels]
    for each in degraded:
        assert each.shape == x.shape
        assert torch.equal((each * 255).round() / 255, each)
    errors = [(each - x).square().mean().item() for each in degraded]
    assert errors == sorted(errors)
    assert errors[-1] > 3 * errors[0]
    assert torch.equal(sweep.apply(x, sweep.levels[0], seeded()), degraded[0])


def test_levels_mean_what_they_say(x: Tensor) -> None:
    gray = torch.full((2, 3, 60, 60), 0.5)
    noise = 255 * (SWEEPS["noise"].apply(gray, 20, seeded()) - gray)
    assert abs(noise.std().item() - 20) < 0.5
    assert abs(torch.corrcoef(noise[:, :2].transpose(0, 1).flatten(1))[0, 1]) < 0.05
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(SWEEPS["jpeg"].apply(x, 30, seeded()), ops.jpeg(x, 30))
    wide = ops.filter2d(x, kernels.gaussian(35, 2, 2))
    assert (SWEEPS["blur"].apply(x, 2, seeded()) - wide).abs().max() < 0.6 / 255


def test_the_levels_of_the_paper() -> None:
    assert SWEEPS["blur"].levels[0] == 0.5
    assert SWEEPS["blur"].levels[-1] == 3
    assert SWEEPS["noise"].levels == (5, 10, 20, 30)
    assert SWEEPS["jpeg"].levels == (90, 80, 70, 60, 50, 40, 30, 20, 10)
