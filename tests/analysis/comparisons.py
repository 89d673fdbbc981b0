"""Comparisons of pictures in known colours, as small as can be."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dacesr.analysis.views import INPUT, REFERENCE, Comparison, plan_views
from dacesr.analysis.windows import Window
from dacesr.evaluate.measures import Measure, load_measures

RED, GREEN, BLUE, GRAY = (200, 30, 20), (20, 150, 40), (30, 60, 220), (120, 120, 120)


def measures(*names: str) -> dict[str, Measure]:
    """Those that need no files."""
    return load_measures(names, None, scale=2, device=torch.device("cpu"))[0]


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(colour: Sequence[int], height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def comparison(
    results: Mapping[str, np.ndarray],
    *,
    windows: Sequence[Window],
    reference: np.ndarray | None = None,
    small: np.ndarray | None = None,
    scores: Mapping[str, dict[str, float]] | None = None,
    measured: Sequence[str] = ("psnr_y",),
    limit: int = 1_500_000,
    name: str = "boat",
    degradation: str = "level1",
    failed: Sequence[str] = (),
) -> Comparison:
    """One at scale 2 of whole results (h, w, 3); the input is gray, and nothing is measured, unless given."""
    height, width = next(iter(results.values())).shape[:2]
    small = flat(GRAY, height // 2, width // 2) if small is None else small
    views = plan_views(windows, height, width, scale=2, limit=limit)
    for view in views:
        view.pictures[INPUT] = view.cut(_tensor(small), 2)
        view.pictures.update({method: view.cut(_tensor(pixels)) for method, pixels in results.items()})
        if reference is not None:
            view.pictures[REFERENCE] = view.cut(_tensor(reference))
    return Comparison(
        name=name,
        degradation=degradation,
        scale=2,
        whole=small if reference is None else reference,
        size=(height, width),
        windows=tuple(windows),
        views=views,
        measures=measures(*measured),
        scores=dict(scores or {method: {} for method in results}),
        failed=list(failed),
    )


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
