"""What is in a photograph, how severely it is degraded, and how to upscale it."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch

from dacesr.analysis.severity import SeverityHead
from dacesr.analysis.traces import traces
from dacesr.image import ImageError, read
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.taggerfile import load_extractor
from dacesr.tensorfile import CheckpointError
from dacesr.weightfiles import RECOGNITION, WEIGHTS

HEAD = WEIGHTS / RECOGNITION / "lite-severity.json"
REFERENCE = "lite-ram"


class Advice(NamedTuple):
    """A bundled model, its --strength (None: its own default), and why."""

    model: str
    strength: float | None
    reason: str


ADVICE: dict[int | None, Advice] = {  # by class; what it rests on is in docs/recognition.md
    None: Advice("dacesr-light", None, "the severity is not known, and the model's default suits most photographs"),
    1: Advice("dacesr-light", 1.0, "little is lost, so the crisp weights restore fine detail and cost little fidelity"),
    2: Advice("dacesr-light", 0.8, "detail is lost but little else, so mostly the crisp weights"),
    3: Advice(
        "dacesr-light", 0.5, "noise and artefacts are strong enough to be sharpened, so half of the faithful ones"
    ),
    4: Advice("dacesr-light", 0.3, "on strongly ruined pictures the crisp weights add artefacts: mostly faithful ones"),
}


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        file: The photograph.
        width, height: In pixels, upright.
        tags: With their probabilities, the most probable first.
        severity: Class from 1 mild to 4 severe; None where there is no head to tell.
        probabilities: Of the four classes.
        advice: How to upscale it.
    """

    file: str
    width: int
    height: int
    tags: tuple[tuple[str, float], ...]
    severity: int | None
    probabilities: tuple[float, ...] | None
    advice: Advice


class Inspector:
    """Inspects photographs with an extractor and, where there is a head for it, its reference."""

    def __init__(
        self, extractor: Extractor, *, reference: Extractor | None = None, head: SeverityHead | None = None
    ) -> None:
        """Take the parts over.

        Raises:
            ValueError: The head comes without a reference, or was fitted for other weights.
        """
        if head is not None and (reference is None or not head.fits(reference, extractor)):
            raise ValueError(f"the severity head was fitted for other weights of {head.reference} and {head.extractor}")
        self._extractor, self._reference, self._head = extractor, reference, head

    @classmethod
    def load(cls, extractor: str = "lite", *, reference: str = REFERENCE, severity: str | Path | None = None) -> Self:
        """Load the parts.

        Args:
            extractor: Bundled name, file or hub id.
            reference: The tagger that it was tuned from, likewise; loaded only where there is a head.
            severity: File of a head; the bundled one unless given, where there is one and it fits.

        Raises:
            ValueError: A file is missing or something else, or the given head was fitted for other weights.
        """
        seeing = load_extractor(extractor)
        if severity is None and not HEAD.is_file():
            return cls(seeing)
        head = SeverityHead.load(HEAD if severity is None else severity)
        against = load_extractor(reference)
        if head.fits(against, seeing):
            return cls(seeing, reference=against, head=head)
        if severity is None:
            return cls(seeing)
        raise CheckpointError(f"{severity} was fitted for other weights than those of {reference} and {extractor}")

    def __call__(self, path: str | Path) -> Inspection:
        """Inspect a photograph.

        Raises:
            ImageError: It cannot be read, or is too small.
        """
        x = read(path)
        height, width = x.shape[2:]
        if min(height, width) < SMALLEST:
            raise ImageError(f"{path} is too small to recognise anything: {width} x {height}, below {SMALLEST}")
        with torch.inference_mode():
            logits = self._extractor.recognise(x).logits
        probability = dict(zip(self._extractor.tag_names, logits[0].sigmoid().tolist(), strict=True))
        tags = tuple((name, probability[name]) for name in self._extractor.names(logits)[0])
        severity = probabilities = None
        if self._head is not None and self._reference is not None:
            found = self._head.probabilities(traces(self._reference, self._extractor, x[0]))
            severity, probabilities = int(found.argmax()) + 1, tuple(found.tolist())
        return Inspection(str(path), width, height, tags, severity, probabilities, ADVICE[severity])


def sentences(found: Inspection) -> str:
    """An inspection as lines for people."""
    tags = ", ".join(f"{name} {probability:.2f}" for name, probability in found.tags)
    severity = "unknown: there is no severity head for this extractor"
    if found.severity is not None and found.probabilities is not None:
        shares = " ".join(f"{probability:.2f}" for probability in found.probabilities)
        severity = f"{found.severity} of 4 (1 mild to 4 severe: {shares})"
    strength = "" if found.advice.strength is None else f" --strength {found.advice.strength:g}"
    return "\n".join(
        (
            f"{found.file}  {found.width} x {found.height}",
            f"  tags      {tags or 'none that is probable enough'}",
            f"  severity  {severity}",
            f"  advice    dacesr upscale -n {found.advice.model}{strength}: {found.advice.reason}",
        )
    )
