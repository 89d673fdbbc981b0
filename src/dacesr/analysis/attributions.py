"""Local attribution maps of several networks under several degradations: maps, numbers, files (DACESR Fig. 5)."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dacesr.analysis.attribution import SIGMA, STEPS, Attribution, above_below, attribute
from dacesr.analysis.looks import Look
from dacesr.conditioning import Guided
from dacesr.evaluate.statistics import bootstrap
from dacesr.evaluate.tables import Table, as_csv

COLUMNS = (
    "picture", "model", "degradation", "window", "part", "sigma", "steps", "di", "gini", "above", "below",
    "detail_blurred", "detail", "sum", "error", "condition_share", "seconds",
)  # fmt: skip


class Finding(NamedTuple):
    """A map, and what it says.

    Attributes:
        look: The picture.
        model: Name of the network.
        version: Name of the degradation.
        scale: Output pixels per input pixel along each side.
        sigma: Of the path.
        steps: Of the path.
        attribution: The map.
        output: What the network made of the input, (3, scale * h, scale * w) in [0, 1].
        seconds: That the map took.
    """

    look: Look
    model: str
    version: str
    scale: int
    sigma: float
    steps: int
    attribution: Attribution
    output: Tensor
    seconds: float


def measure(
    subjects: Mapping[str, Guided],
    look: Look,
    *,
    sigma: float = SIGMA,
    steps: int = STEPS,
    batch: int | None = None,
    through_condition: bool = False,
    advance: Callable[[int], None] | None = None,
) -> list[Finding]:
    """Attribute the same window for every network and input.

    Args:
        subjects: Networks by name, of one scale.
        look: Versions of a picture, and the window.
        sigma: As for `attribution.attribute`, like all that follow.
        steps: Of each map.
        batch: Points of the path at a time.
        through_condition: For networks that take a condition; the others have none to attribute.
        advance: Told how many steps were done, of `steps` for each network and input.

    Raises:
        ValueError: As `attribution.attribute`.
    """
    findings = []
    for version, x in look.inputs.items():
        for model, guided in subjects.items():
            begin = time.perf_counter()
            attribution = attribute(
                guided,
                x,
                look.window,
                sigma=sigma,
                steps=steps,
                batch=batch,
                through_condition=through_condition and guided.extractor is not None,
                advance=advance,
            )
            seconds = time.perf_counter() - begin
            with torch.no_grad():
                output = guided(x)[0].clamp(0, 1).cpu()
            scale = guided.config.scale
            findings.append(Finding(look, model, version, scale, sigma, steps, attribution, output, seconds))
    return findings


def attributions_csv(findings: Sequence[Finding]) -> str:
    """A line for each map, with the columns of `COLUMNS`."""
    return as_csv(COLUMNS, map(_row, findings))


def _row(one: Finding) -> list[object]:
    found, share = one.attribution, one.attribution.condition_share
    above, below = above_below(found.map, one.look.window, one.scale)
    of_map = [found.di, 1 - found.di / 100, above, below] if not found.empty else [""] * 4
    numbers = (*of_map, found.start, found.end, float(found.signed.sum()))
    return [
        one.look.picture, one.model, one.version, one.look.place(one.scale), one.look.part, one.sigma, one.steps,
        *(number if number == "" else f"{number:.6g}" for number in numbers),
        "" if found.empty else f"{found.error:.2e}", "" if share is None else f"{share:.6g}", f"{one.seconds:.1f}",
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
    count = len({one.look.picture for one in findings})
    title = "Diffusion index" + (f", mean of {count} pictures" if count > 1 else "")
    return Table(title, ["model", *versions], rows)


def _mean(findings: Sequence[Finding], model: str, version: str, seed: int) -> str:
    values = torch.tensor([one.attribution.di for one in findings if (one.model, one.version) == (model, version)])
    values = values[values.isfinite()]  # a map of nothing has no index
    if not len(values):
        return "none"
    mean, low, high = bootstrap(values, generator=torch.Generator().manual_seed(seed))
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def warnings(findings: Sequence[Finding], *, most: float = 0.02) -> list[str]:
    """Sentences on maps whose parts do not add up within `most`, and on parts of pictures of several sizes."""
    told = []
    for one in findings:
        found = one.attribution
        if found.error > most and found.away > 1e-4 * found.end:  # more than fp32's own
            total, wanted = float(found.signed.sum()), found.end - found.start
            told.append(
                f"{one.model} on {one.look.picture} ({one.version}): the parts add up to {total:.3g} and should to "
                f"{wanted:.3g}; more --steps bring them closer"
            )
    if len({one.look.size for one in findings}) > 1:
        told.append("the parts of the pictures have several sizes, and diffusion indices of such are not comparable: "
                    "give a smaller --side")  # fmt: skip
    return told
