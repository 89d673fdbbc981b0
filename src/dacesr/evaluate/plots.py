"""PSNR against LPIPS: where methods stand between fidelity and appearance."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dacesr.analysis.plots import COLOURS, MARKERS
from dacesr.evaluate.measures import LPIPS_ORDER, Measure
from dacesr.evaluate.results import Mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 3.3  # inches of a panel


def plane(means: Sequence[Mean], measures: dict[str, Measure]) -> "Figure":
    """A panel for each set (row) and version (column): PSNR-Y to the right, LPIPS upside down, so that better is up.

    Raises:
        ValueError: PSNR-Y or LPIPS was not measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    distance = next((name for name in LPIPS_ORDER if name in measures), None)
    if distance is None or "psnr_y" not in measures:
        raise ValueError("the plot needs PSNR-Y and LPIPS")
    known = {(one.set, one.version, one.method, one.measure): one.mean for one in means}
    sets, versions, methods = (
        list(dict.fromkeys(getattr(one, field) for one in means if one.measure == distance))
        for field in ("set", "version", "method")
    )
    figure = Figure(figsize=(SIDE * len(versions) + 2.6, SIDE * len(sets) + 0.3), layout="constrained")
    axes = figure.subplots(len(sets), len(versions), squeeze=False)
    for row, chosen in zip(axes, sets, strict=True):
        for ax, version in zip(row, versions, strict=True):
            for place, method in enumerate(methods):
                x, y = (known.get((chosen, version, method, name)) for name in ("psnr_y", distance))
                if x is not None and y is not None:
                    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]
                    ax.plot(x, y, marker, color=colour, label=method, markersize=7, markeredgecolor="white")
            ax.invert_yaxis()
            ax.set_title(f"{chosen}, {version}", fontsize=9)
            ax.grid(alpha=0.3)
            ax.tick_params(labelsize=8)
            ax.xaxis.set_major_locator(MaxNLocator(5))
        row[0].set_ylabel(f"{measures[distance].title} (better upwards)", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("PSNR-Y in dB", fontsize=9)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes.flat), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure
