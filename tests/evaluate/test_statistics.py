"""The bootstrap against cases that can be worked out by hand."""

import pytest
import torch

from dacesr.evaluate import statistics
from dacesr.evaluate.statistics import Interval, bootstrap


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_two_values_give_their_three_means() -> None:
    values = torch.tensor([0.0, 1.0])  # means 0, 1/2, 1 with shares 1/4, 1/2, 1/4
    assert bootstrap(values, generator=generator()) == Interval(0.5, 0.0, 1.0)
    assert bootstrap(values, generator=generator(), confidence=0.4) == Interval(0.5, 0.5, 0.5)


def test_equal_values_leave_no_doubt() -> None:
    assert bootstrap(torch.full((5,), 3.0), generator=generator()) == Interval(3.0, 3.0, 3.0)


def test_many_values_are_normal() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(1)) + 2
    found = bootstrap(values, generator=generator())
    half = 1.96 * float(values.std()) / 400**0.5
    assert found.mean == pytest.approx(float(values.mean()), abs=1e-6)
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)


def test_the_generator_decides() -> None:
    values = torch.rand(30, generator=generator())
    assert bootstrap(values, generator=generator()) == bootstrap(values, generator=generator())
    other = torch.Generator().manual_seed(1)
    assert bootstrap(values, generator=generator()) != bootstrap(values, generator=other)


def test_draws_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "AT_ONCE", 3)
    assert bootstrap(torch.tensor([0.0, 1.0]), generator=generator(), draws=101) == Interval(0.5, 0.0, 1.0)


def test_an_interval_is_clear_on_either_side_of_zero() -> None:
    assert Interval(2, 1, 3).clear
    assert Interval(-2, -3, -1).clear
    assert not Interval(1, -1, 3).clear
    assert not Interval(1, 0, 2).clear


@pytest.mark.parametrize("values", [torch.zeros(0), torch.zeros(2, 2)])
def test_values_are_a_row(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(n,\) is needed"):
        bootstrap(values, generator=generator())
