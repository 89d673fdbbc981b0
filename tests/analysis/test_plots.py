"""Figures: what they show, that nothing is cut off, and that nothing global is touched."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib")

import matplotlib
from drawn import assert_nothing_cut

from dacesr.analysis import plots
from dacesr.analysis.examples import Example, Strip
from dacesr.analysis.recognition import Mean, Summary
from dacesr.degradation.sweeps import SWEEPS

NAMES = ("lite-ram", "lite-dape", "lite-ree")


def summaries(names: tuple[str, ...] = NAMES) -> list[Summary]:
    found = []
    for place, name in enumerate(names):
        for degradation, levels in (*((n, s.levels) for n, s in SWEEPS.items()), ("class", (1.0, 2.0, 3.0, 4.0))):
            for step, level in enumerate(levels):
                value, gain = 0.9 - step / 12 + place / 50, place / 50
                means = (Mean(v, v - 0.05, v + 0.05) for v in (value, value, gain, gain))
                found.append(Summary(name, degradation, level, 20, *means))
    return found


def strips(tags: dict[str, tuple[str, ...]]) -> list[Strip]:
    titles = ("clean", "class 1 (mild)", "class 4 (severe)")
    pictures = [torch.rand(3, 40 // k, 60 // k, generator=torch.Generator().manual_seed(k)) for k in (1, 2, 2)]
    examples = [Example(title, picture, tags) for title, picture in zip(titles, pictures, strict=True)]
    return [Strip(("sky", "sea"), examples)] * 2


def test_sweeps() -> None:
    figure = plots.sweep_figure(summaries())
    assert len(figure.axes) == 2 * 3
    top = figure.axes[:3]
    assert [ax.get_title() for ax in top] == ["Gaussian blur", "Gaussian noise", "JPEG"]
    blur = {line.get_label(): line for line in top[0].lines}
    assert set(blur) == set(NAMES)
    assert np.allclose(np.asarray(blur["lite-ree"].get_ydata()), [0.94 - step / 12 for step in range(6)])
    band = top[0].collections[0].get_paths()[0].vertices
    assert np.asarray(band)[:, 1].min() == pytest.approx(0.9 - 5 / 12 - 0.05)
    assert len({line.get_color() for line in blur.values()}) == len({line.get_marker() for line in blur.values()}) == 3
    left, right = figure.axes[2].get_xlim()
    assert left > right  # the best quality is the mildest, on the left
    assert [ax.get_xlabel() for ax in figure.axes[3:]] == ["sigma in pixels", "sigma of 255", "quality"]
    assert_nothing_cut(figure)


def test_classes() -> None:
    figure = plots.class_figure(summaries())
    bars, _, gains, _ = figure.axes
    assert len(bars.patches) == 3 * 4
    heights = [patch.get_height() for patch in bars.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert np.allclose(heights[:4], [0.9 - step / 12 for step in range(4)])
    edges = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in bars.patches]  # pyright: ignore
    edges.sort()
    assert all(right <= left + 1e-9 for (_, right), (left, _) in pairwise(edges))
    assert [text.get_text() for text in gains.get_xticklabels()] == ["1\nmild", "2", "3", "4\nsevere"]
    assert gains.get_ylabel() == "difference to lite-ram"
    assert_nothing_cut(figure)
    assert len(plots.class_figure(summaries(("lite-ram",))).axes) == 2  # nothing to compare


def test_tags() -> None:
    many = tuple(f"a very long name of a thing {i}" for i in range(14))
    figure = plots.tag_figure(strips({"lite-ram": ("cat", "sky"), "lite-ree": many, "none": ()}))
    words = [text.get_text() for text in figure.texts]
    assert words.count("✓ sky") == words.count("✗ cat") == 6
    assert words.index("✓ sky") < words.index("✗ cat")  # those that agree come first
    assert words.count("lite-ram  J 0.33") == 6
    assert words.count("and 5 more") == 6
    assert words.count("no tag") == 6
    assert "✗ a very long name of…" in words
    colours = {text.get_color() for text in figure.texts if text.get_text().startswith(("✓", "✗"))}
    assert colours == {plots.KEPT, plots.WRONG}
    assert len(figure.axes) == 2 * 3
    assert_nothing_cut(figure)


def test_names_that_look_like_formulas() -> None:
    figure = plots.tag_figure(strips({"lite-ram": ("$5 bill $", "x_1^2")}))
    assert_nothing_cut(figure)


def test_figures_are_written_whole_and_nothing_global_is_touched(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    plots.save(plots.class_figure(summaries()), tmp_path / "classes.png")
    assert dict(matplotlib.rcParams) == before
    with Image.open(tmp_path / "classes.png") as image:
        assert image.size == (1575, 900)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    again = io.BytesIO((tmp_path / "classes.png").read_bytes())
    plots.save(plots.class_figure(summaries()), tmp_path / "classes.png")
    assert (tmp_path / "classes.png").read_bytes() == again.getvalue()
    assert [path.name for path in tmp_path.iterdir()] == ["classes.png"]
    with pytest.raises(OSError, match="No such file"):
        plots.save(plots.class_figure(summaries()), tmp_path / "none" / "classes.png")


def test_nothing_to_draw_is_told() -> None:
    for draw in (plots.sweep_figure, plots.class_figure, plots.tag_figure):
        with pytest.raises(ValueError, match="there is no"):
            draw([])
