"""What a condition does (DACESR Eq. 6): the modulation after each group, and the output without it or with another.

    h, w  sides of the input     s  scale of the network

All maps are on the CPU, and all root mean squares (RMS) of a map are over the channels.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.analysis.stages import run, stages_of
from dacesr.analysis.versions import CLEAN
from dacesr.conditioning import Guided, Network, View, check_extractor, condition_of, region_of, tags_in
from dacesr.evaluate.tables import as_csv
from dacesr.nets.extractor import Extractor
from dacesr.nets.mamba import to_image
from dacesr.nets.modulation import WHOLE
from dacesr.nets.restorer import Restorer

WITHOUT, BIAS, TURNED, OF_CLEAN = "no modulation", "bias alone", "upside down", "clean picture's"


class Effect(NamedTuple):
    """What the modulation after a group does, x <- alpha * x + beta.

    Attributes:
        stage: The group.
        scale: (h, w): RMS of alpha - 1.
        shift: (h, w): RMS of beta.
        features: (h, w): RMS of alpha * x, to which beta is added.
    """

    stage: str
    scale: Tensor
    shift: Tensor
    features: Tensor

    @property
    def share(self) -> float:
        """RMS of beta, relative to that of the features that it is added to."""
        return rms(self.shift) / max(rms(self.features), 1e-30)


class Change(NamedTuple):
    """How far an output, within [0, 1] and not rounded, is from that with the network's own condition.

    Attributes:
        name: What is done to the condition.
        levels: (s * h, s * w): mean over R, G and B of the absolute difference, in levels of 255.
        psnr: Of the two outputs, in dB; infinite where they are equal.
        largest: Difference of a value, in levels of 255.
    """

    name: str
    levels: Tensor
    psnr: float
    largest: float

    @property
    def mean(self) -> float:
        """Mean absolute difference, in levels of 255."""
        return float(self.levels.mean())


@dataclass(frozen=True)
class Examination:
    """What a condition does to one version of a picture.

    Attributes:
        model: What the network is called.
        version: The degradation, or "clean".
        picture: (3, h, w) in [0, 1].
        output: (3, s * h, s * w) in [0, 1].
        tags: In the condition, the most probable first.
        effects: Of each group.
        changes: Of the output.
    """

    model: str
    version: str
    picture: Tensor
    output: Tensor
    tags: tuple[str, ...]
    effects: list[Effect]
    changes: list[Change]


def rms(values: Tensor) -> float:
    """The root mean square of a tensor."""
    return float(values.square().mean().sqrt())


def without_modulation(net: Network) -> Network:
    """A network of the same weights, whose memory it shares, with no modulation: alpha is 1 and beta 0 everywhere.

    It takes no condition. A network without modulation is given back as it is.
    """
    if not isinstance(net, Restorer) or net.modulation is None:
        return net
    tensors = {name: value for name, value in net.state_dict().items() if not name.startswith("modulation.")}
    with torch.device("meta"):
        plain = Restorer(net.config.model_copy(update={"modulation": "none"}))
    plain.load_state_dict(tensors, assign=True)
    plain.mean = net.mean
    return plain.train(net.training).requires_grad_(False)


def conditioned(guided: Guided, name: str) -> tuple[Restorer, Extractor]:
    """A network that takes a condition, and its extractor.

    Args:
        guided: The two.
        name: What the network is called.

    Raises:
        ValueError: It takes no condition, or comes without an extractor.
    """
    net = guided.net
    if not isinstance(net, Restorer) or net.modulation is None:
        raise ValueError(f"{name} takes no condition, so there is nothing to show of what one does")
    if guided.extractor is None:
        raise ValueError(f"{name} comes without an extractor, so nothing conditions it: name one with --extractor")
    return net, guided.extractor


def with_extractor(guided: Guided, extractor: Extractor, name: str, source: str) -> Guided:
    """A network with another extractor than its own.

    Args:
        guided: The network.
        extractor: What is to condition it.
        name: What the network is called.
        source: Where the extractor is from.

    Raises:
        CheckpointError: The extractor doesn't fit the network.
    """
    check_extractor(guided.config, extractor, name, source)
    return Guided(guided.net, extractor.to(next(guided.net.parameters()).device)).eval()


# --- measuring


def examine(
    guided: Guided,
    versions: Mapping[str, Tensor],
    *,
    model: str,
    clean: Tensor,
    other: tuple[str, Tensor] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Examination]:
    """What the condition does to versions of a picture.

    Args:
        guided: The network and its extractor.
        versions: By their names (1, 3, h, w) in [0, 1], on the network's device.
        model: What the network is called.
        clean: The clean picture, whose condition a degraded version is given too.
        other: Name and pixels of the picture whose condition is given to this one, (1, 3, any, any); the picture itself
            turned upside down unless given.
        advance: Told of each version that was done.

    Raises:
        ValueError: As `conditioned`.
    """
    net, extractor = conditioned(guided, model)
    found = []
    for version, x in versions.items():
        pictures = {f"{other[0]}'s": other[1]} if other else {TURNED: x.flip(2, 3)}
        if version != CLEAN:
            pictures[OF_CLEAN] = clean
        found.append(_examined(net, extractor, x, model, version, pictures))
        if advance:
            advance(1)
    return found


@torch.no_grad()
def _examined(
    net: Restorer, extractor: Extractor, x: Tensor, model: str, version: str, pictures: Mapping[str, Tensor]
) -> Examination:
    kind = net.config.condition

    def seen(picture: Tensor) -> Tensor:
        return condition_of(extractor, region_of(picture), picture.shape[2], picture.shape[3], kind)

    own = seen(x)
    output, effects = modulation_effects(net, x, own)
    conditions = {name: seen(picture) for name, picture in pictures.items()}
    if net.config.learned_modulation:  # whose tokens are normalised, so that those of zero leave the bias
        conditions = {BIAS: torch.zeros_like(own)} | conditions
    outputs = {WITHOUT: without_modulation(net)(x)}
    outputs |= {name: View(each, *x.shape[2:]).through(net, x) for name, each in conditions.items()}
    return Examination(
        model=model,
        version=version,
        picture=x[0].cpu(),
        output=output[0].clamp(0, 1).cpu(),
        tags=tags_in(extractor, own, kind)[0],
        effects=effects,
        changes=[_change(name, output, each) for name, each in outputs.items()],
    )


@torch.no_grad()
def modulation_effects(net: Restorer, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Effect]]:
    """The output with a condition, and what the modulation after each group does.

    Args:
        net: A network that takes conditions.
        x: (1, 3, h, w) in [0, 1].
        condition: (1, t, width), of `x` as a whole.
    """
    assert net.modulation is not None
    height, width = x.shape[2:]
    affines = net.modulation(condition, height, width, torch.tensor([WHOLE], dtype=torch.float64))
    effects: list[Effect] = []

    def see(stage: str, features: Tensor) -> Tensor:
        scale, shift = (_places(part, features) for part in next(affines))
        parts = (scale, shift, features - shift)  # the last is alpha * x
        effects.append(Effect(stage, *(_over_channels(part).expand(height, width) for part in parts)))
        return features[:, 0]

    output, _ = run(net, x, condition, stages_of(net), see)
    return output, effects


def _places(part: Tensor | None, features: Tensor) -> Tensor:
    """A part of an `Affine` as (b, c or 1, h, w), or (b, c or 1, 1, 1) where it is alike everywhere."""
    if part is None:
        return features.new_zeros(1, 1, 1, 1)
    return to_image(part, *(features.shape[2:] if part.shape[1] > 1 else (1, 1)))


def _over_channels(values: Tensor) -> Tensor:
    """(1, c, h, w) -> (h, w) on the CPU, root mean square."""
    return values[0].float().square().mean(0).sqrt().cpu()


def _change(name: str, output: Tensor, other: Tensor) -> Change:
    away = 255 * (output.clamp(0, 1) - other.clamp(0, 1))[0].double().abs()
    mean_square = float(away.square().mean())
    psnr = 10 * math.log10(255**2 / mean_square) if mean_square else math.inf
    return Change(name, away.mean(0).float().cpu(), psnr, float(away.max()))


# --- tables


def examinations_csv(examinations: Sequence[Examination]) -> str:
    """One measure of one thing a line, with a header."""
    rows = [
        (one.model, one.version, what, measure, value)
        for one in examinations
        for what, measure, value in _measures(one)
    ]
    return as_csv(("model", "degradation", "what", "measure", "value"), rows)


def _measures(one: Examination) -> Iterable[tuple[str, str, str]]:
    for effect in one.effects:
        yield effect.stage, "alpha - 1 (RMS)", f"{rms(effect.scale):.6g}"
        yield effect.stage, "beta (RMS)", f"{rms(effect.shift):.6g}"
        yield effect.stage, "alpha * x (RMS)", f"{rms(effect.features):.6g}"
        yield effect.stage, "beta / (alpha * x)", f"{effect.share:.6g}"
    for change in one.changes:
        yield change.name, "PSNR in dB", f"{change.psnr:.3f}"
        yield change.name, "largest change in levels", f"{change.largest:.4f}"
        yield change.name, "mean change in levels", f"{change.mean:.4f}"


def sentences(examinations: Sequence[Examination]) -> list[str]:
    """For each version the tags in its condition, and a line for each change."""
    lines = []
    for one in examinations:
        lines.append(f"{one.version:10}  tags: {', '.join(one.tags) or 'none'}")
        lines += [
            f"{one.version:10}  {change.name:16}  changes the output by {change.mean:.3f} levels in the mean, "
            f"{change.largest:.2f} at most (PSNR {change.psnr:.1f} dB)"
            for change in one.changes
        ]
    return lines
