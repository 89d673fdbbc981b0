"""Local attribution maps of several networks under several degradations: maps, numbers, files (DACESR Fig. 5)."""

import csv
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

COLUMNS = (
    "model", "degradation", "window", "di", "gini", "above", "below", "detail_blurred", "detail",
    "sum", "error", "condition_share", "seconds",
)  # fmt: skip


class Finding(NamedTuple):
    """A map, and what it says.

    Attributes:
        model: Name of the network.
        version: Name of the degradation.
        window: In output pixels.
        scale: Output pixels per input pixel along each side.
        attribution: The map.
        output: What the network made of the input, (3, scale * h, scale * w) in [0, 1].
        seconds: That the map took.
    """

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
            findings.append(Finding(model, version, window, guided.config.scale, attribution, output, seconds))
    return findings


def as_csv(findings: Sequence[Finding]) -> str:
    """A line for each map, with the columns of `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in findings:
        found = one.attribution
        above, below = above_below(found.map, one.window, one.scale)
        share = found.condition_share
        numbers = (one.di, gini(found.map), above, below, found.start, found.end, float(found.signed.sum()))
        writer.writerow(
            [one.model, one.version, one.window, *(f"{number:.6g}" for number in numbers), f"{found.error:.2e}",
             "" if share is None else f"{share:.6g}", f"{one.seconds:.1f}"]
        )  # fmt: skip
    return text.getvalue()


def as_npz(findings: Sequence[Finding]) -> bytes:
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


def sentences(findings: Sequence[Finding]) -> list[str]:
    """A line for each map: the diffusion index, and whether the sum of the parts can be trusted."""
    width = max(len(one.model) for one in findings)
    return [
        f"{one.model:{width}}  {one.version:10}  DI {one.di:5.2f}  sum off by {one.attribution.error:.2%}"
        for one in findings
    ]
