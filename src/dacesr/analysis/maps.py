"""Figures of activation maps, and of what a condition does: maps side by side, with the range of their colours."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dacesr.analysis.activations import Activation
from dacesr.analysis.canvas import LINE, Box, Canvas, Range
from dacesr.analysis.modulations import Effect, Examination, rms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN, GAP = 0.12, 0.06  # inches: around all, between maps
LABEL, BAR = 0.74, 0.64  # inches for what a row is called, and for its colours
FEATURES, CHANGES = "viridis", "magma"  # perceptual, and told apart by colour-blind readers
ROBUST = (0.01, 0.99)  # quantiles that colours range over
MOST = 1 << 22  # values that a quantile is taken of


def activation_figure(found: Sequence[Activation], versions: Mapping[str, Tensor], *, cell: float = 1.2) -> "Figure":
    """Activation maps (Fig. 8): a row for each degradation and stage, a column for each network and condition.

    The maps of a row have one range of colours, written at its right end; it is that of one network, since features of
    different networks have different units.

    Args:
        found: Maps of one size.
        versions: The inputs by name, (1, 3, h, w) in [0, 1]; each begins the rows of its degradation.
        cell: The longer side of a map, in inches.

    Raises:
        ValueError: There is no map.
    """
    if not found:
        raise ValueError("there is no activation map to draw")
    wide, tall = _cell(found[0].values, cell)
    models = _unique(one.model for one in found)
    by_place = {one[:4]: one for one in found}
    columns = {model: _unique(one.condition for one in found if one.model == model) for model in models}
    stages = {model: _unique(one.stage for one in found if one.model == model) for model in columns}
    rows = max(map(len, stages.values()))
    block = max(rows * (tall + GAP), tall + LINE) + GAP
    widths = {model: LABEL + len(names) * (wide + GAP) + BAR for model, names in columns.items()}
    head = MARGIN + 2 * LINE + GAP
    page = Canvas(2 * MARGIN + wide + sum(widths.values()), head + len(versions) * block + MARGIN)
    for place, (version, x) in enumerate(versions.items()):
        top = head + place * block
        page.picture((MARGIN, top, wide, tall), x[0])
        page.text(MARGIN + wide / 2, top + tall + LINE / 2, version, wide, weight="bold", ha="center")
    left = MARGIN + wide
    for model, names in columns.items():
        page.text(left + LABEL, MARGIN + LINE / 2, model, widths[model] - LABEL, weight="bold")
        for column, name in enumerate(names):
            at = left + LABEL + column * (wide + GAP) + wide / 2
            page.text(at, MARGIN + 1.5 * LINE, name, wide, ha="center")
        for place, version in enumerate(versions):
            for row, stage in enumerate(stages[model]):
                top = head + place * block + row * (tall + GAP)
                maps = [by_place[version, model, name, stage].values for name in names]
                _row(page, (left, top, wide, tall), stage, maps, robust_range(maps))
        left += widths[model]
    return page.figure


def condition_figure(examinations: Sequence[Examination], *, cell: float = 1.5) -> "Figure":
    """What a condition does: for each version of the picture how the output changes, then alpha and beta of each group.

    Args:
        examinations: Of one network, and of versions of one picture.
        cell: The longer side of a map, in inches.

    Raises:
        ValueError: There is no examination.
    """
    if not examinations:
        raise ValueError("there is no condition to draw")
    wide, tall = _cell(examinations[0].picture[0], cell, narrowest=cell)
    columns = max(max(len(one.effects), 2 + len(one.changes)) for one in examinations)
    block = 3 * (tall + GAP) + 11 * LINE
    page = Canvas(2 * MARGIN + LABEL + columns * (wide + GAP) + BAR, 2 * MARGIN + len(examinations) * block - LINE)
    for place, one in enumerate(examinations):
        top = MARGIN + place * block
        page.text(MARGIN, top + LINE / 2, f"{one.model}, {one.version}", page.width - 2 * MARGIN, weight="bold")
        tags = f"tags in the condition: {', '.join(one.tags) or 'none'}"
        page.text(MARGIN, top + 1.5 * LINE, tags, page.width - 2 * MARGIN)
        _draw_changes(page, one, (MARGIN + LABEL, top + 3.5 * LINE, wide, tall))
        _draw_effects(page, one.effects, (MARGIN, top + 8 * LINE + tall + GAP, wide, tall))
    return page.figure


def _draw_changes(page: Canvas, one: Examination, box: Box) -> None:
    """Input, output, and maps of its changes in one range of colours, their numbers below; the box is the first's."""
    left, top, wide, tall = box
    high = robust_range([change.levels for change in one.changes])[1]
    for name, pixels in (("input", one.picture), ("output", one.output)):
        page.text(left + wide / 2, top - LINE / 2, name, wide, ha="center")
        page.picture((left, top, wide, tall), pixels)
        left += wide + GAP
    for change in one.changes:
        page.text(left + wide / 2, top - LINE / 2, f"change: {change.name}", wide, ha="center")
        page.map((left, top, wide, tall), change.levels, (0.0, high), CHANGES)
        numbers = (
            f"mean {change.mean:.2g}, largest {change.largest:.2g}",
            f"PSNR {change.psnr:.1f} dB" if change.largest else "no change",
        )
        for line, text in enumerate(numbers):
            page.text(left + wide / 2, top + tall + (line + 0.6) * LINE, text, wide, ha="center")
        left += wide + GAP
    _bar(page, (left, top, 0.09, tall), (0.0, high), CHANGES)
    page.text(left + 0.13, top + tall / 2, "levels", BAR - 0.13)


def _draw_effects(page: Canvas, effects: Sequence[Effect], box: Box) -> None:
    """A row of maps of alpha - 1 for each group, and one of beta, each with its RMS above."""
    left, top, wide, tall = box
    for name, maps, heads in (
        ("alpha - 1\n(RMS)", [one.scale for one in effects], [f"{rms(one.scale):.2g}" for one in effects]),
        (
            "beta:\nRMS, and\n% of α x",
            [one.shift for one in effects],
            [f"{rms(one.shift):.2g}, {100 * one.share:.2g}%" for one in effects],
        ),
    ):
        for column, (one, head) in enumerate(zip(effects, heads, strict=True)):
            at = left + LABEL + column * (wide + GAP) + wide / 2
            page.text(at, top - LINE / 2, f"{one.stage}: {head}", wide, ha="center")
        _row(page, (left, top, wide, tall), name, maps, robust_range(maps))
        top += tall + GAP + 1.5 * LINE


def _row(page: Canvas, box: Box, name: str, maps: Sequence[Tensor], colours: Range) -> None:
    """Show maps in one range of colours, after what they are called and before the range; their place is a box."""
    left, top, wide, tall = box
    page.text(left + LABEL - GAP, top + tall / 2, name, LABEL - 2 * GAP, ha="right")
    left += LABEL
    for values in maps:
        page.map((left, top, wide, tall), values, colours, FEATURES)
        left += wide + GAP
    _bar(page, (left, top, 0.09, tall), colours, FEATURES)


def _bar(page: Canvas, box: Box, colours: Range, name: str) -> None:
    """Show what the colours of a map of that name stand for."""
    left, top, wide, tall = box
    page.map(box, torch.linspace(1, 0, 64)[:, None], (0, 1), name, aspect="auto")
    for y, value in ((top + LINE / 2, colours[1]), (top + tall - LINE / 2, colours[0])):
        page.text(left + wide + 0.04, y, f"{value:.3g}", BAR - wide - 0.04)


def robust_range(maps: Sequence[Tensor]) -> Range:
    """What colours range over: nearly all values of some maps, outliers apart; never empty.

    Args:
        maps: (h, w) each.
    """
    values = torch.cat([one.flatten() for one in maps]).double()
    values = values[:: -(-len(values) // MOST)]
    low, high = (float(value) for value in torch.quantile(values, values.new_tensor(ROBUST)))
    return (low, high) if high > low else (low, low + max(abs(low), 1e-6))


def _cell(values: Tensor, longer: float, *, narrowest: float = 0.6) -> tuple[float, float]:
    """Width and height in inches of the place of a map (h, w), wide and high enough for the letters around it."""
    height, width = values.shape
    wide, tall = (longer * side / max(height, width) for side in (width, height))
    return max(wide, narrowest), max(tall, 2.2 * LINE)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
