"""What strangers may ask of a service, and why they are refused."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from dacesr.formats import FORMATS
from dacesr.image import Picture
from dacesr.jobs import EXTENSIONS, output_size

REFUSALS = {
    "bad_request": "a field is missing, unknown or impossible",
    "bad_picture": "what was sent is no picture that can be read",
    "unknown_model": "there is no model of that name here",
    "too_large": "the upload has more bytes than allowed",
    "too_many_pixels": "the picture, or the result asked for, has more pixels than allowed",
    "busy": "as many pictures as may wait are waiting; try again later",
    "too_slow": "the picture took longer than a picture may",
    "cancelled": "the client left, or said stop",
    "closing": "the server is being stopped",
    "internal": "the server failed in a way that should not happen",
}
"""Why a picture is refused: stable codes and what they mean."""


class Refusal(Exception):
    """A picture is not upscaled; the text is one sentence for the client.

    Attributes:
        code: Key of `REFUSALS`.
    """

    def __init__(self, code: str, sentence: str) -> None:
        """Say why."""
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Limits:
    """What strangers may ask for; all positive.

    Attributes:
        waiting: Pictures that wait, besides those that are worked on.
        upload_bytes: Of one picture's file.
        pixels: Of a picture that is sent.
        result_pixels: Of a result.
        seconds: That one picture may take once it is begun.
        upload_seconds: That its file may take to arrive.
    """

    waiting: int = 32
    upload_bytes: int = 64 << 20
    pixels: int = 24_000_000
    result_pixels: int = 400_000_000
    seconds: float = 600
    upload_seconds: float = 120

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            ValueError: One is not positive.
        """
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"the limit {name} must be positive; got {value}")


@dataclass(frozen=True)
class Wish:
    """What a client wants of a picture; at most one of scale, width and height.

    Attributes:
        model: One of the service's names; its first unless given.
        scale: Times the input's size, 0.01 to 64; the model's own unless given.
        width, height: Of the result in pixels; the other side follows.
        strength: 0 faithful to 1 crisp, for models that have both.
        format: Ending of the result, such as `png`; the picture's own unless given.
        quality: 1 to 100, of JPEG, WebP and AVIF.
        strip_metadata: Keep only the colour profile.
    """

    model: str | None = None
    scale: float | None = None
    width: int | None = None
    height: int | None = None
    strength: float | None = None
    format: str | None = None
    quality: int | None = None
    strip_metadata: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            Refusal: One is impossible.
        """
        if sum(x is not None for x in (self.scale, self.width, self.height)) > 1:
            raise Refusal("bad_request", "scale, width and height exclude one another")
        ranges = {
            "scale": (0.01, 64),
            "width": (1, 10**6),
            "height": (1, 10**6),
            "strength": (0, 1),
            "quality": (1, 100),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise Refusal("bad_request", f"{name} must lie between {low} and {high}; got {value:g}")
        if self.format is not None and self.ending not in EXTENSIONS:
            known = ", ".join(FORMATS)
            raise Refusal("bad_request", f"format must be one of {known}; got {self.format[:20]!r}")

    @property
    def ending(self) -> str | None:
        """Ending of the result's name, with its dot; None where the picture decides."""
        return None if self.format is None else "." + self.format.lower().lstrip(".")

    def size_of(self, picture: Picture, native: int) -> tuple[int, int]:
        """Size (width, height) of the result, made by a network of scale `native`.

        Raises:
            Refusal: No file could hold it.
        """
        own = picture.width, picture.height
        try:
            return output_size(own, native, scale=self.scale, width=self.width, height=self.height)
        except ValueError as error:
            raise Refusal("too_many_pixels", str(error)) from error

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Wish":
        """The wish of a form's fields or a query's parameters.

        Args:
            pairs: Names and values as text; an empty value is as none.

        Raises:
            Refusal: A field is unknown, there twice, not of its kind, or impossible.
        """
        values: dict[str, Any] = {}
        for name, text in pairs:
            if name not in _READERS:
                known = ", ".join(_READERS)
                raise Refusal("bad_request", f"there is no field {name[:40]!r}; there are {known}")
            if name in values:
                raise Refusal("bad_request", f"the field {name} is there twice")
            values[name] = _READERS[name](name, text.strip()) if text.strip() else None
        return cls(**{name: value for name, value in values.items() if value is not None})


def _number(name: str, text: str) -> float:
    if len(text) > 40 or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", text, re.ASCII):
        raise Refusal("bad_request", f"{name} must be a number; got {text[:20]!r}")
    return float(text)


def _whole_number(name: str, text: str) -> int:
    value = _number(name, text)
    if not value.is_integer():
        raise Refusal("bad_request", f"{name} must be a whole number; got {text[:20]!r}")
    return int(value)


def _truth(name: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise Refusal("bad_request", f"{name} must be true or false; got {text[:20]!r}")
    return words[text.lower()]


def _text(_: str, text: str) -> str:
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "model": _text,
    "scale": _number,
    "width": _whole_number,
    "height": _whole_number,
    "strength": _number,
    "format": _text,
    "quality": _whole_number,
    "strip_metadata": _truth,
}
