"""Figures of activations and conditions: what they show, on which range of colours, and that nothing is cut off."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("matplotlib")

from drawn import assert_nothing_cut
from matplotlib.axes import Axes

from dacesr.analysis.activations import Activation
from dacesr.analysis.maps import CHANGES, FEATURES, activation_figure, condition_figure, robust_range
from dacesr.analysis.modulations import Change, Effect, Examination

LONG = "a-very-long-name-of-an-extractor-or-a-$picture$"


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(*(shape or (20, 30)), generator=torch.Generator().manual_seed(seed))


def activations(versions: tuple[str, ...] = ("blur", "mixed")) -> list[Activation]:
    columns = [("ours", "own", ("RSSB 1", "RSSB 2")), ("ours", LONG, ("RSSB 1", "RSSB 2")), ("plain", "", ("conv 32",))]
    return [
        Activation(version, model, condition, stage, (1 + place) * noise(place), 0.5, 0.1)
        for version in versions
        for place, (model, condition, stages) in enumerate(columns)
        for stage in stages
    ]


def pixels(ax: Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def named(axes: list[Axes], cmap: str) -> list[Axes]:
    """Those that show a map (h, w) in colours of that name, no pictures and no bars."""
    flat = [ax for ax in axes if pixels(ax).ndim == 2 and pixels(ax).shape[1] > 1]
    return [ax for ax in flat if getattr(ax.images[0].get_cmap(), "name", None) == cmap]


def test_activations() -> None:
    versions = {name: noise(7, 1, 3, 20, 30) for name in ("blur", "mixed")}
    figure = activation_figure(activations(), versions)
    assert_nothing_cut(figure)
    words = [text.get_text() for text in figure.texts]
    assert words.count("RSSB 2") == words.count("conv 32") == 2
    assert [words.count(word) for word in ("ours", "plain", "own", "blur", "mixed")] == [1] * 5
    assert any(word.startswith("a-very-long") and word.endswith("…") for word in words)
    maps = named(figure.axes, FEATURES)
    assert len(maps) == 2 * (2 * 2 + 1)
    ours = maps[:2]  # of one row
    one, two = (ax.images[0] for ax in ours)
    assert one.get_clim() == two.get_clim() == robust_range([noise(0), 2 * noise(1)])
    assert f"{one.get_clim()[1]:.3g}" in words
    assert ours[0].get_position().y0 == ours[1].get_position().y0
    box = maps[0].get_position()
    width, height = figure.get_size_inches()
    assert box.width * width / (box.height * height) == pytest.approx(1.5)


@pytest.mark.parametrize("stages", [1, 3])
def test_a_single_map_of_any_shape(stages: int) -> None:
    for shape in ((8, 64), (64, 8), (20, 20)):
        found = [Activation("clean", "net", "", f"block {n}", noise(n, *shape), None, None) for n in range(stages)]
        figure = activation_figure(found, {"clean": noise(9, 1, 3, *shape)})
        assert_nothing_cut(figure)
        assert len(figure.axes) == 1 + 2 * stages


def examination(version: str = "clean", tags: tuple[str, ...] = ("sky", "sea"), groups: int = 4) -> Examination:
    effects = [Effect(f"RSSB {n + 1}", noise(n), 2 * noise(n + 10), 4 * noise(n + 20)) for n in range(groups)]
    names = ("no modulation", "bias alone", f"{LONG}'s")
    changes = [Change(name, n * noise(n, 40, 60), 40.0 + n, n * 8.0) for n, name in enumerate(names)]
    return Examination("net", version, noise(30, 3, 20, 30), noise(31, 3, 40, 60), tags, effects, changes)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_conditions(groups: int) -> None:
    figure = condition_figure([examination(groups=groups), examination("mixed", (), groups)])
    assert_nothing_cut(figure)
    words = [text.get_text() for text in figure.texts]
    assert {"net, clean", "net, mixed", "tags in the condition: sky, sea", "tags in the condition: none"} <= set(words)
    assert words.count("no change") == 2
    assert not [word for word in words if "…" in word and LONG[:4] not in word]
    assert "PSNR 41.0 dB" in words
    assert len(named(figure.axes, FEATURES)) == 2 * 2 * groups
    changes = named(figure.axes, CHANGES)
    assert len(changes) == 2 * 3
    top = robust_range([n * noise(n, 40, 60) for n in range(3)])[1]
    assert {ax.images[0].get_clim() for ax in changes} == {(0, top)}  # to be compared with one another
    assert words.count("levels") == 2
    assert f"{top:.3g}" in words
    scales = {ax.images[0].get_clim() for ax in named(figure.axes, FEATURES)[:groups]}
    assert scales == {robust_range([noise(n) for n in range(groups)])}


def test_ranges_leave_out_outliers_and_are_never_empty() -> None:
    values = torch.cat([torch.linspace(0, 1, 10_001), torch.tensor([1e6])])
    low, high = robust_range([values[None]])
    assert (low, high) == (pytest.approx(0.01, abs=1e-3), pytest.approx(0.99, abs=1e-3))
    for value in (0.0, -2.5, 2.0**-30):
        low, high = robust_range([torch.full((3, 4), value)])
        assert low == value
        assert high > low


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(ValueError, match="no activation map"):
        activation_figure([], {})
    with pytest.raises(ValueError, match="no condition"):
        condition_figure([])
