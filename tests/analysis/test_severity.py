"""Severity of degradations, told from the picture alone."""

import io
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recogniser import EdgeRecogniser, checks
from rich.console import Console
from torch import Tensor

from dacesr.analysis.severity import SeverityHead, fit_severity
from dacesr.analysis.traces import WINDOW, traces
from dacesr.degradation.sweeps import SWEEPS
from dacesr.tensorfile import CheckpointError
from dacesr.train.ranking import rank_degradations
from dacesr.train.selection import Selection

SIZES = ((64, 96), (96, 64))


def pair() -> dict[str, EdgeRecogniser]:
    return {"ram": EdgeRecogniser(), "ree": EdgeRecogniser(highest=0.06)}


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    clean = {f"{i}.png": picture for i, picture in enumerate(checks(4, SIZES))}
    found = rank_degradations(
        tmp_path_factory.mktemp("selection") / "few.json",
        EdgeRecogniser(),
        clean,
        tagger="edges",
        scale=2,
        count=32,
        console=Console(file=io.StringIO()),
    )
    assert found is not None
    return found


def pictures(count: int) -> dict[str, Tensor]:
    return {f"{i}.png": picture for i, picture in enumerate(checks(count, SIZES))}


@pytest.fixture(scope="module")
def head(selection: Selection) -> SeverityHead:
    return fit_severity(pair(), pictures(12), selection, per_class=2)


def test_it_tells_severe_from_mild(head: SeverityHead, selection: Selection) -> None:
    held = head.held_out
    assert held.samples == 3 * 4 * 2  # every fourth picture, two held-out degradations of each class
    assert sum(map(sum, held.confusion)) == held.samples
    assert [sum(row) for row in held.confusion] == [6] * 4
    assert held.accuracy == sum(held.confusion[i][i] for i in range(4)) / held.samples > 0.3
    assert held.within_one > 0.7
    other = checks(24, SIZES)[20:]
    expected = []
    for choice in ("mild", "severe"):
        small = selection.degrade(torch.stack(other[::2]), choice, [torch.Generator().manual_seed(i) for i in range(2)])
        found = torch.stack([head.probabilities(traces(*pair().values(), picture)) for picture in small])
        torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
        expected.append((found @ torch.arange(1, 5, dtype=torch.float64)).mean().item())
    assert expected[0] + 0.5 < expected[1]


def test_a_fit_is_repeatable(selection: Selection) -> None:
    counted = []
    one = fit_severity(pair(), pictures(8), selection, per_class=1, advance=lambda: counted.append(1))
    assert len(counted) == 8
    assert fit_severity(pair(), pictures(8), selection, per_class=1) == one
    assert fit_severity(pair(), pictures(8), selection, per_class=1, seed=1) != one


def test_a_head_comes_back_from_its_file(head: SeverityHead, tmp_path: Path) -> None:
    head.save(tmp_path / "head.json")
    assert SeverityHead.load(tmp_path / "head.json") == head
    assert head.fits(*pair().values())
    assert not head.fits(*reversed(pair().values()))
    assert head.selection == "realesrgan, scale 2, ranked by edges"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format=2), "format: Input should be 1"),
        (lambda c: c.pop("bias"), "bias: Field required"),
        (lambda c: c["weights"].pop(), "weights: "),
        (lambda c: c["mean"].pop(), "mean, scale and weights are of "),
        (lambda c: c["scale"].__setitem__(0, 0.0), "a scale is not positive"),
    ],
)
def test_files_that_are_no_head(head: SeverityHead, tmp_path: Path, change, words: str) -> None:
    content = json.loads(head.model_dump_json())
    change(content)
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"bad.json is no severity head: .*{words}"):
        SeverityHead.load(tmp_path / "bad.json")
    with pytest.raises(CheckpointError, match=r"none.json cannot be read: No such file"):
        SeverityHead.load(tmp_path / "none.json")


def test_impossible_fits_are_told(selection: Selection) -> None:
    with pytest.raises(ValueError, match="got 2 extractors, 7 pictures and 4 degradations"):
        fit_severity(pair(), pictures(7), selection)
    with pytest.raises(ValueError, match="got 1 extractors"):
        fit_severity({"ram": EdgeRecogniser()}, pictures(8), selection)
    few = selection.model_copy(update={"ranked": selection.ranked[:20]})
    with pytest.raises(ValueError, match=r"4 degradations of each class; the selection has \[8, 8, 4, 0\]"):
        fit_severity(pair(), pictures(8), few)


def test_large_pictures_are_looked_at_in_windows() -> None:
    one, other = pair().values()
    traces(one, other, torch.rand(3, WINDOW, 40, generator=torch.Generator().manual_seed(0)))
    assert one.batches == [(1, 3, WINDOW, 40)]
    one.batches.clear()
    large = torch.rand(3, 2 * WINDOW, 3 * WINDOW, generator=torch.Generator().manual_seed(0))
    found = traces(one, other, large)
    assert one.batches == [(1, 3, WINDOW, WINDOW)] * 5
    alone = [
        traces(one, other, large[:, top : top + WINDOW, left : left + WINDOW])
        for top, left in ((128, 256), (64, 128), (64, 384), (192, 128), (192, 384))
    ]
    torch.testing.assert_close(found, torch.stack(alone).mean(0))


@pytest.mark.parametrize(("place", "name", "sign"), [(0, "blur", -1), (5, "noise", 1), (8, "jpeg", 1), (9, "jpeg", 1)])
def test_statistics_follow_what_they_are_about(place: int, name: str, sign: int) -> None:
    """Detail falls with blur, estimated noise rises with noise, blocks across and down with compression."""
    x = checks(1, ((128, 128),))[0][None]
    x = SWEEPS["blur"].apply(x, 1.5, torch.Generator())
    sweep, values = SWEEPS[name], []
    for level in (sweep.levels[0], sweep.levels[-1]):
        degraded = sweep.apply(x, level, torch.Generator().manual_seed(0))
        values.append(traces(*pair().values(), degraded[0])[place].item())
    assert sign * (values[1] - values[0]) > 0.2


def test_noise_is_estimated_in_8_bit_levels() -> None:
    x = torch.full((1, 3, 128, 128), 0.5)
    for level in (5.0, 20.0):
        noisy = SWEEPS["noise"].apply(x, level, torch.Generator().manual_seed(0))[0]
        estimated = traces(*pair().values(), noisy)[5].exp().item()
        luma = level * (0.299**2 + 0.587**2 + 0.114**2) ** 0.5
        assert estimated == pytest.approx(luma, rel=0.1)


@given(height=st.integers(8, 40), width=st.integers(8, 40), flat=st.booleans())
def test_traces_are_numbers_for_any_picture(height: int, width: int, flat: bool) -> None:
    picture = torch.zeros(3, height, width) if flat else torch.rand(3, height, width)
    assert traces(*pair().values(), picture).isfinite().all()
