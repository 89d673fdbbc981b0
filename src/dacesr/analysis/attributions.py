"""Local attribution maps of several networks under several degradations: maps, numbers, files (DACESR Fig. 5)."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dacesr.analysis.attribution import SIGMA, STEPS, Attribution, above_below, attribute, diffusion_index, gini
from dacesr.analysis.windows import Window
from dacesr.conditioning import Guided
from dacesr.evaluate.statistics import bootstrap
from dacesr.evaluate.tables import Table, as_csv

COLUMNS = (
    "picture", "model", "degradation", "window", "di", "gini", "above", "below", "detail_blurred", "detail",
    "sum", "error", "condition_share", "seconds",
)  # fmt: skip


class Finding(NamedTuple):
    """A map, and what it says.

    Attributes:
        picture: Name of the picture.
        model: Name of the network.
        version: Name of the degradation.
        window: In output pixels.
        scale: Output pixels per input pixel along each side.
        attribution: The map.
        output: What the network made of the input, (3, scale * h, scale * w) in [0, 1].
        seconds: That the map took.
    """

    picture: str
    model: str
    version: str
    window: Window
    scale: int
    attribution: Attribution
    output: Tensor
    seconds: float

    @property
    def di(self) -> float:
        """The diffusion index."""
        return diffusion_index(self.attribution.map)


def measure(
    subjects: Mapping[str, Guided],
    inputs: Mapping[str, Tensor],
    window: Window,
    *,
    picture: str = "picture",
    sigma: float = SIGMA,
    steps: int = STEPS,
    batch: int = 2,
    through_condition: bool = False,
    advance: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Attribute the same window for every network and input.

    Args:
        subjects: Networks by name, of one scale.
        inputs: Versions of a picture by name, (1, 3, h, w) in [0, 1] each.
        window: In output pixels.
        picture: What the picture is called.
        sigma: As for `attribution.attribute`, like all that follow.
        steps: Of each map.
        batch: Points of the path at a time.
        through_condition: For networks that take a condition; the others have none to attribute.
        advance: Told how many steps were done, of `steps` for each network and input.

    Raises:
        ValueError: As `attribution.attribute`.
    """
    findings = []
    for version, x in inputs.items():
        for model, guided in subjects.items():
            begin = time.perf_counter()
            attribution = attribute(
                guided,
                x,
                window,
                sigma=sigma,
                steps=steps,
                batch=batch,
                through_condition=through_condition and guided.extractor is not None,
                advance=advance,
            )
            seconds = time.perf_counter() - begin
            with torch.no_grad():
                output = guided(x)[0].clamp(0, 1).cpu()
            findings.append(Finding(picture, model, version, window, guided.config.scale, attribution, output, seconds))
    return findings


def attributions_csv(findings: Sequence[Finding]) -> str:
    """A line for each map, with the columns of `COLUMNS`."""
    return as_csv(COLUMNS, map(_row, findings))


def _row(one: Finding) -> list[object]:
    found, share = one.attribution, one.attribution.condition_share
    above, below = above_below(found.map, one.window, one.scale)
    numbers = (one.di, gini(found.map), above, below, found.start, found.end, float(found.signed.sum()))
    return [
        one.picture, one.model, one.version, one.window, *(f"{number:.6g}" for number in numbers),
        f"{found.error:.2e}", "" if share is None else f"{share:.6g}", f"{one.seconds:.1f}",
    ]  # fmt: skip


def attributions_npz(findings: Sequence[Finding]) -> bytes:
    """The signed parts, float32 (3, h, w), under "MODEL/DEGRADATION/pixels" and, where attributed, ".../condition"."""
    arrays = {}
    for one in findings:
        for name in ("pixels", "condition"):
            part = getattr(one.attribution, name)
            if part is not None:
                arrays[f"{one.model}/{one.version}/{name}"] = part.numpy()
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def table(findings: Sequence[Finding], *, seed: int = 0) -> Table:
    """Diffusion indices: a row for each network, a column for each degradation.

    Of several pictures the mean, with its 95 % interval (bootstrap over pictures, from `seed`).
    """
    models, versions = (list(dict.fromkeys(getattr(one, field) for one in findings)) for field in ("model", "version"))
    rows = [[model, *(_mean(findings, model, version, seed) for version in versions)] for model in models]
    count = len({one.picture for one in findings})
    title = "Diffusion index" + (f", mean of {count} pictures" if count > 1 else "")
    return Table(title, ["model", *versions], rows)


def _mean(findings: Sequence[Finding], model: str, version: str, seed: int) -> str:
    values = torch.tensor([one.di for one in findings if (one.model, one.version) == (model, version)])
    values = values[values.isfinite()]  # a map of nothing has no index
    if not len(values):
        return "none"
    mean, low, high = bootstrap(values, generator=torch.Generator().manual_seed(seed))
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def warnings(findings: Sequence[Finding], *, most: float = 0.02) -> list[str]:
    """Sentences on maps whose parts do not add up within `most` of the detail: they want more steps."""
    return [
        f"{one.model} on {one.picture} ({one.version}): the parts are {one.attribution.error:.1%} off the detail that "
        "they should add up to; more --steps bring them closer"
        for one in findings
        if one.attribution.error > most
    ]
