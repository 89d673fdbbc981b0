"""Figures of what extractors still see in degraded pictures, in colours that colour-blind readers can tell apart."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dacesr.analysis.examples import Example, Strip
from dacesr.analysis.recognition import CLASS, METRICS, Mean, Summary
from dacesr.degradation.sweeps import SWEEPS
from dacesr.similarity import jaccard
from dacesr.tensorfile import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
MARKERS = "os^Dv*P"
HATCHES = ("", "//", "\\\\", "xx", "..", "--", "oo")
KEPT, WRONG = "#0072B2", "#D55E00"  # tags that the clean picture has, and others
TITLES = {"blur": "Gaussian blur", "jpeg": "JPEG", "noise": "Gaussian noise"}
LABELS = {"jaccard": "Jaccard index of the tags", "cosine": "cosine of the embeddings"}
LINE, SMALL = 0.155, 8.0  # inches from line to line of tags, and points of their letters
LONGEST, MOST = 20, 9  # letters of a tag, and tags under a picture


def save(figure: "Figure", path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    write_whole(Path(path), as_png(figure))


def as_png(figure: "Figure") -> bytes:
    """A figure as the bytes of a PNG file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # of names in other scripts
        figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def sweep_figure(summaries: Sequence[Summary]) -> "Figure":
    """Curves over the levels of each sweep, mild to severe from left to right, with 95 % bands (Fig. 2, left).

    Raises:
        ValueError: There is no sweep among the summaries.
    """
    sweeps = [name for name in SWEEPS if any(one.degradation == name for one in summaries)]
    if not sweeps:
        raise ValueError("there is no sweep to draw")
    names = _names(summaries)
    figure = _figure(3.6 * len(sweeps) + 0.4, 6.6)
    axes = figure.subplots(len(METRICS), len(sweeps), squeeze=False, sharey="row", sharex="col")
    for row, metric in zip(axes, METRICS, strict=True):
        for ax, sweep in zip(row, sweeps, strict=True):
            for place, name in enumerate(names):
                own = [one for one in summaries if (one.extractor, one.degradation) == (name, sweep)]
                _curve(ax, [one.level for one in own], [getattr(one, metric) for one in own], place, name)
            _tidy(ax)
        row[0].set_ylabel(LABELS[metric])
    for ax, sweep in zip(axes[0], sweeps, strict=True):
        ax.set_title(TITLES.get(sweep, sweep))
        ax.set_ylim(0, 1.03)
        levels = SWEEPS[sweep].levels
        if levels[0] > levels[-1]:
            ax.invert_xaxis()  # shared by the column
    for ax, sweep in zip(axes[-1], sweeps, strict=True):
        ax.set_xlabel(SWEEPS[sweep].unit)
    _legend(figure, axes[0][0], len(names))
    return figure


def class_figure(summaries: Sequence[Summary]) -> "Figure":
    """Bars of the four classes with 95 % intervals, and below them what is gained over the reference (Fig. 2, right).

    Raises:
        ValueError: There is no class among the summaries.
    """
    summaries = [one for one in summaries if one.degradation == CLASS]
    if not summaries:
        raise ValueError("there is no class to draw")
    names, levels = _names(summaries), sorted({one.level for one in summaries})
    rows = 2 if len(names) > 1 else 1
    figure = _figure(10.5, 3.4 + 2.6 * (rows - 1))
    axes = figure.subplots(rows, len(METRICS), squeeze=False, sharex="col")
    by_place = {(one.extractor, one.level): one for one in summaries}
    width = 0.82 / len(names)
    for column, metric in enumerate(METRICS):
        for place, name in enumerate(names):
            at = [i + (place - (len(names) - 1) / 2) * width for i in range(len(levels))]
            found = [by_place[name, level] for level in levels]
            _bars(axes[0][column], at, [getattr(one, metric) for one in found], width, place, name)
            if place:
                gains = [getattr(one, f"{metric}_gain") for one in found]
                _points(axes[1][column], at, gains, place)
        axes[0][column].set_ylabel(LABELS[metric])
        if rows > 1:
            axes[1][column].axhline(0, color="#555555", linewidth=0.8)
            axes[1][column].set_ylabel(f"difference to {names[0]}")
        axes[-1][column].set_xticks(range(len(levels)), [_class_name(level) for level in levels])
        axes[-1][column].set_xlabel("class of the degradation")
    for ax in axes.flat:
        _tidy(ax)
    axes[0][0].set_ylim(0, 1.03)
    _legend(figure, axes[0][0], len(names))
    return figure


def tag_figure(strips: Sequence[Strip], *, column: float = 1.75) -> "Figure":
    """Pictures from clean to severely degraded with each extractor's tags below (Fig. 1).

    A tag that the clean picture has is marked by a tick, one that it has not by a cross; J is Jaccard's index.

    Args:
        strips: At least one picture; all with the same extractors.
        column: Width of a picture, in inches.

    Raises:
        ValueError: There is no picture.
    """
    if not strips:
        raise ValueError("there is no example to draw")
    gap, margin, header = 0.14, 0.12, 0.24
    columns = max(len(strip.examples) for strip in strips)
    heights = [_strip_heights(strip, column) for strip in strips]
    width = 2 * margin + columns * column + (columns - 1) * gap
    height = 2 * margin + 0.3 + sum(header + picture + sum(blocks) + 0.2 for picture, blocks in heights)
    figure = _figure(width, height, arranged=False)
    top = height - margin
    for strip, (picture, blocks) in zip(strips, heights, strict=True):
        for place, example in enumerate(strip.examples):
            left = margin + place * (column + gap)
            figure.text((left + column / 2) / width, (top - header / 2) / height, example.title, **_centred(9.5))
            box = (left / width, (top - header - picture) / height, column / width, picture / height)
            _image(figure, box, example)
            below = top - header - picture
            for (name, tags), block in zip(example.tags.items(), blocks, strict=True):
                _tags(figure, name, tags, strip.clean, (left, below), (width, height))
                below -= block
        top -= header + picture + sum(blocks) + 0.2
    words = (("✓ tag of the clean picture", KEPT), ("✗ other tag", WRONG), ("J: Jaccard index", "#333333"))
    for place, (text, colour) in enumerate(words):
        figure.text((margin + 2.2 * place) / width, margin / height, text, fontsize=SMALL + 0.5, color=colour)
    return figure


# --- curves and bars


def _figure(width: float, height: float, *, arranged: bool = True) -> "Figure":
    """An empty figure of a size in inches; `arranged`: axes make room for their labels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07) if arranged else None
    return Figure(figsize=(width, height), layout=engine)


def _names(summaries: Sequence[Summary]) -> list[str]:
    return list(dict.fromkeys(one.extractor for one in summaries))


def _curve(ax: "Axes", levels: Sequence[float], means: Sequence[Mean], place: int, name: str) -> None:
    colour = COLOURS[place % len(COLOURS)]
    ax.fill_between(
        levels, [one.low for one in means], [one.high for one in means], color=colour, alpha=0.13, linewidth=0
    )
    style = "--" if place == 0 else "-"
    marker = MARKERS[place % len(MARKERS)]
    values = [one.value for one in means]
    ax.plot(levels, values, style, color=colour, marker=marker, markersize=4.5, linewidth=1.5, label=name)


def _bars(ax: "Axes", at: Sequence[float], means: Sequence[Mean], width: float, place: int, name: str) -> None:
    colour, values = COLOURS[place % len(COLOURS)], [one.value for one in means]
    fill = "#999999" if place == 0 else colour
    look: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.5, "hatch": HATCHES[place % len(HATCHES)]}
    ax.bar(at, values, width, color=fill, label=name, **look)
    ax.errorbar(at, values, _errors(means), fmt="none", ecolor="black", elinewidth=0.9, capsize=2)


def _points(ax: "Axes", at: Sequence[float], means: Sequence[Mean], place: int) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    values = [one.value for one in means]
    ax.errorbar(at, values, _errors(means), fmt=marker, color=colour, markersize=5, elinewidth=1.2, capsize=2.5)


def _errors(means: Sequence[Mean]) -> list[list[float]]:
    """How far intervals reach down and up, never negative."""
    return [[max(one.value - one.low, 0) for one in means], [max(one.high - one.value, 0) for one in means]]


def _class_name(level: float) -> str:
    return f"{level:g}" + {1: "\nmild", 4: "\nsevere"}.get(int(level), "")


def _tidy(ax: "Axes") -> None:
    ax.grid(axis="y", color="#dddddd", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _legend(figure: "Figure", ax: "Axes", count: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    labels[0] += " (reference)"
    figure.legend(handles, labels, loc="outside upper center", ncols=min(count, 7), frameon=False)


# --- pictures and tags


def _strip_heights(strip: Strip, column: float) -> tuple[float, list[float]]:
    """Inches that the pictures take, and the tags of each extractor."""
    tall = max(example.picture.shape[1] / example.picture.shape[2] for example in strip.examples)
    names = strip.examples[0].tags
    lines = [max(min(len(example.tags[name]), MOST + 1) for example in strip.examples) for name in names]
    return column * min(tall, 1.3), [LINE * (max(count, 1) + 1) + 0.17 for count in lines]


def _image(figure: "Figure", box: tuple[float, float, float, float], example: Example) -> None:
    ax = figure.add_axes(box)
    ax.imshow(example.picture.clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
    ax.set_axis_off()


def _tags(
    figure: "Figure",
    name: str,
    tags: Sequence[str],
    clean: Sequence[str],
    corner: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Write a list of tags below `corner` (left, top), in inches of a figure of `size`."""
    left, top = corner
    kept = [tag for tag in tags if tag in clean]
    ordered = kept + [tag for tag in tags if tag not in clean]
    head = f"{_short(name)}  J {jaccard(tags, clean):.2f}"
    lines = [(head, "#333333")]
    lines += [
        (f"{'✓' if tag in kept else '✗'} {_short(tag)}", KEPT if tag in kept else WRONG) for tag in ordered[:MOST]
    ]
    if len(ordered) > MOST:
        lines.append((f"and {len(ordered) - MOST} more", "#333333"))
    if not ordered:
        lines.append(("no tag", "#777777"))
    for place, (text, colour) in enumerate(lines):
        down = top - 0.12 - LINE * (place + 0.5)
        weight = "bold" if place == 0 else "normal"
        at = left / size[0], down / size[1]
        figure.text(*at, _plain(text), fontsize=SMALL, color=colour, weight=weight, va="center")


def _centred(size: float) -> dict[str, Any]:
    return {"ha": "center", "va": "center", "fontsize": size}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(text: str) -> str:
    """With no dollar sign that would begin a formula."""
    return text.replace("$", r"\$")
