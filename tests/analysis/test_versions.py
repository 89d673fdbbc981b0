"""Versions of a picture: what the names stand for, and that a seed decides them."""

import pytest
import torch
from torch.nn import functional as F

from dacesr.analysis.versions import LEVELS, check_versions, versions
from dacesr.degradation import ops
from dacesr.degradation.recipe import SPACES
from dacesr.degradation.sweeps import blur

X = F.interpolate(torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0)), (40, 36), mode="bicubic").clamp(
    0, 1
)


def test_names_stand_for_degradations_of_one_kind() -> None:
    found = versions(X, ["clean", "blur", "blur=1", "jpeg", "jpeg=70", "noise", "noise=5", "clean"])
    assert list(found) == ["clean", "blur", "blur=1", "jpeg", "jpeg=70", "noise", "noise=5"]
    assert found["clean"] is X
    assert torch.equal(found["blur"], blur(X, LEVELS["blur"], torch.Generator()))
    assert torch.equal(found["blur=1"], blur(X, 1.0, torch.Generator()))
    assert torch.equal(found["jpeg=70"], ops.jpeg(X, 70))
    deviation = [(found[name] - X)[0].std().item() * 255 for name in ("noise", "noise=5")]
    assert deviation == pytest.approx([LEVELS["noise"], 5], rel=0.15)


def test_mixed_is_worse_than_its_parts() -> None:
    found = versions(X, ["blur=1.5", "noise=15", "jpeg=40", "mixed"])
    errors = {name: (x - X).square().mean().item() for name, x in found.items()}
    assert errors["mixed"] > max(errors["blur=1.5"], errors["jpeg=40"])
    high = {name: (x[..., 1:] - x[..., :-1]).square().mean().item() for name, x in found.items()}
    assert high["blur=1.5"] < high["mixed"] < high["noise=15"]


@pytest.mark.parametrize("name", ["noise", "mixed", *SPACES])
def test_a_seed_decides(name: str) -> None:
    one, again, other = (versions(X, [name], seed=seed)[name] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert one.shape == X.shape
    assert torch.equal(one, other) == (name == "bicubic")  # at its own size nothing happens to it
    assert torch.equal(versions(X, ["clean", "jpeg", name], seed=1)[name], one)  # whatever else is asked for


@pytest.mark.parametrize("name", ["", "fog", "clean=1", "mixed=2", "level2=3", "Blur"])
def test_unknown_names_are_told(name: str) -> None:
    with pytest.raises(ValueError, match="there is no degradation"):
        check_versions([name])


@pytest.mark.parametrize(
    "name", ["blur=", "blur=a", "blur=0", "blur=-1", "blur=nan", "jpeg=0.5", "jpeg=101", "noise=300"]
)
def test_impossible_levels_are_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name.split('=')[0]} takes a level"):
        check_versions([name])
