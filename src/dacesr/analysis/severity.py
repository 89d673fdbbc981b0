"""How severely a picture is degraded, told from the picture alone: a linear head on what two extractors make of it.

Multinomial logistic regression makes of the traces (`dacesr.analysis.traces`) the probabilities of a selection's four
classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, PositiveInt, ValidationError, model_validator
from torch import Tensor
from torch.nn import functional as F

from dacesr.analysis.traces import traces
from dacesr.config import Config, explain
from dacesr.degradation.recipe import carry_out
from dacesr.similarity import Recogniser, fingerprint
from dacesr.sources import sample_generator
from dacesr.tensorfile import CheckpointError, write_whole
from dacesr.train.selection import Selection

CLASSES = 4
DECAYS = (0.003, 0.03, 0.3, 3.0)  # of the weights; the one that suits set-aside pictures best is taken
EPS = 1e-6

Numbers = Annotated[tuple[float, ...], Field(strict=False)]


class HeldOut(Config):
    """How the head does on pictures and degradations that it was not fitted to.

    Attributes:
        samples: Degraded pictures.
        accuracy: Share of them whose class is found.
        within_one: Share whose class is missed by one at most.
        confusion: Of each true class (rows) how many were taken for each class.
    """

    samples: PositiveInt
    accuracy: float
    within_one: float
    confusion: Annotated[tuple[Annotated[tuple[int, ...], Field(strict=False)], ...], Field(strict=False)]


class SeverityHead(Config):
    """The head as it is stored, with what it was fitted for.

    Attributes:
        reference, extractor: What they were called; `_hash` are their fingerprints.
        selection: Of the degradations: space, scale and tagger.
        mean, scale: Of the features.
        weights: A row for each class; `bias` a number.
        decay: Of the weights, as chosen.
    """

    format: Literal[1] = 1
    reference: str
    reference_hash: str
    extractor: str
    extractor_hash: str
    selection: str
    pictures: PositiveInt
    decay: float
    mean: Numbers
    scale: Numbers
    weights: Annotated[tuple[Numbers, ...], Field(strict=False, min_length=CLASSES, max_length=CLASSES)]
    bias: Annotated[Numbers, Field(min_length=CLASSES, max_length=CLASSES)]
    held_out: HeldOut

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        lengths = {len(self.mean), len(self.scale), *map(len, self.weights)}
        if len(lengths) > 1 or not all(value > 0 for value in self.scale):
            raise ValueError(f"mean, scale and weights are of {sorted(lengths)} features, or a scale is not positive")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file of `save`.

        Raises:
            CheckpointError: It is missing or something else; the sentence names it.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise CheckpointError(f"the severity head {path} cannot be read: {error.strerror or error}") from error
        except ValidationError as error:
            raise CheckpointError(f"{path} is no severity head: {explain(error)[:200]}") from error

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(Path(path), (self.model_dump_json() + "\n").encode())

    def fits(self, reference: Recogniser, extractor: Recogniser) -> bool:
        """Whether it was fitted for these weights."""
        return (fingerprint(reference), fingerprint(extractor)) == (self.reference_hash, self.extractor_hash)

    def probabilities(self, features: Tensor) -> Tensor:
        """Of the four classes, (..., 4), from features (..., f), fp64."""
        mean, scale, weights, bias = (features.new_tensor(x) for x in (self.mean, self.scale, self.weights, self.bias))
        return (((features - mean) / scale).clamp(-5, 5) @ weights.T + bias).softmax(-1)


# --- fitting


class _Samples(NamedTuple):
    """Features (n, f), classes (n,) from 0, and the place of each one's picture (n,)."""

    features: Tensor
    classes: Tensor
    pictures: Tensor


def fit_severity(
    extractors: Mapping[str, Recogniser],
    pictures: Mapping[str, Tensor],
    selection: Selection,
    *,
    per_class: int = 4,
    seed: int = 0,
    advance: Callable[[], None] | None = None,
) -> SeverityHead:
    """Fit a head to pictures degraded by a selection's classes; the same call gives the same head.

    Every fourth picture and every fourth degradation of a class are held out: the head is measured on those pictures
    under those degradations. To the others clean pictures are added, as examples of class 1.

    Args:
        extractors: Two modules by name: the reference tagger, and the extractor that was tuned on ruined pictures.
        pictures: Clean ones by name, (3, h, w) in [0, 1] each, at least 8.
        selection: Of the degradations; each class needs 4.
        per_class: Degradations of each class that each picture gets.
        seed: Decides which, and their noise.
        advance: Called after each picture.

    Raises:
        ValueError: Too few pictures or degradations, or another number of extractors.
    """
    if len(extractors) != 2 or len(pictures) < 8 or per_class < 1:
        found = f"{len(extractors)} extractors, {len(pictures)} pictures and {per_class} degradations"
        raise ValueError(
            f"a severity head takes 2 extractors, 8 pictures or more and a degradation of each; got {found}"
        )
    counts = [sum(member.severity == severity for member in selection.ranked) for severity in (1, 2, 3, 4)]
    if min(counts) < 4:
        raise ValueError(f"a severity head takes 4 degradations of each class; the selection has {counts}")
    (reference_name, reference), (extractor_name, extractor) = extractors.items()
    fitted, held = _collect(reference, extractor, pictures, selection, per_class, seed, advance)
    mean = fitted.features.mean(0)
    scale = fitted.features.std(0, correction=0).clamp(min=EPS)
    fitted, held = (part._replace(features=((part.features - mean) / scale).clamp(-5, 5)) for part in (fitted, held))
    decay = _choose_decay(fitted)
    weights, bias = _regress(fitted, decay)
    settings = selection.settings
    return SeverityHead(
        reference=reference_name,
        reference_hash=fingerprint(reference),
        extractor=extractor_name,
        extractor_hash=fingerprint(extractor),
        selection=f"{settings.space}, scale {settings.scale}, ranked by {settings.tagger}",
        pictures=len(pictures),
        decay=decay,
        mean=_digits(mean),
        scale=_digits(scale),
        weights=tuple(_digits(row) for row in weights),
        bias=_digits(bias),
        held_out=_judge(held, weights, bias),
    )


def _collect(
    reference: Recogniser,
    extractor: Recogniser,
    pictures: Mapping[str, Tensor],
    selection: Selection,
    per_class: int,
    seed: int,
    advance: Callable[[], None] | None,
) -> tuple[_Samples, _Samples]:
    """Samples to fit to and held-out ones."""
    found: dict[bool, list[tuple[Tensor, int, int]]] = {False: [], True: []}
    for place, picture in enumerate(pictures.values()):
        held = place % 4 == 3
        if not held:
            found[False].append((traces(reference, extractor, picture), 0, place))
        for severity, small in _degraded(picture, selection, held, per_class, sample_generator(seed, place)):
            found[held].append((traces(reference, extractor, small), severity - 1, place))
        if advance is not None:
            advance()
    return _stacked(found[False]), _stacked(found[True])


def _stacked(samples: Sequence[tuple[Tensor, int, int]]) -> _Samples:
    features, classes, pictures = zip(*samples, strict=True)
    return _Samples(torch.stack(features), torch.tensor(classes), torch.tensor(pictures))


def _degraded(
    picture: Tensor, selection: Selection, held: bool, per_class: int, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """Classes with pictures of them; held-out pictures get the held-out degradations."""
    height, width = picture.shape[1:]
    for severity in (1, 2, 3, 4):
        own = [member for member in selection.ranked if member.severity == severity]
        own = [member for place, member in enumerate(own) if (place % 4 == 3) == held]
        for place in torch.randperm(len(own), generator=generator)[:per_class].tolist():
            drawn = selection.draw(own[place], height, width)
            yield severity, carry_out(picture[None], [drawn], [generator])[0]


def _choose_decay(samples: _Samples) -> float:
    """The decay whose weights do best on a third of the pictures when fitted to the others."""
    kept = samples.pictures % 4 != 2  # those divisible by 4 with a remainder of 3 are held out already
    fitted, others = (_Samples(*(part[chosen] for part in samples)) for chosen in (kept, ~kept))

    def loss(decay: float) -> float:
        weights, bias = _regress(fitted, decay)
        return F.cross_entropy(others.features @ weights.T + bias, others.classes).item()

    return min(DECAYS, key=loss)


def _regress(samples: _Samples, decay: float) -> tuple[Tensor, Tensor]:
    """Weights (4, f) and biases (4,) of multinomial logistic regression with decayed weights."""
    weights = torch.zeros(CLASSES, samples.features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(samples.features @ weights.T + bias, samples.classes)
        loss = loss + decay / 2 * weights.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach(), bias.detach()


def _judge(samples: _Samples, weights: Tensor, bias: Tensor) -> HeldOut:
    found = (samples.features @ weights.T + bias).argmax(1)
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for true, taken in zip(samples.classes.tolist(), found.tolist(), strict=True):
        confusion[true, taken] += 1
    return HeldOut(
        samples=len(found),
        accuracy=(found == samples.classes).double().mean().item(),
        within_one=((found - samples.classes).abs() <= 1).double().mean().item(),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


def _digits(values: Tensor) -> tuple[float, ...]:
    """Six significant digits, enough for what is compared."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())
