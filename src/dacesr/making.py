"""One picture after another through an `Upscaler`: what is asked for, and what becomes of each."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dacesr.checkpoint import load_extractor
from dacesr.conditioning import condition_of, tags_in
from dacesr.engine import Precision
from dacesr.image import Picture, open_picture
from dacesr.inference import OVERLAP, UpscaleError, Upscaler
from dacesr.jobs import Job, output_size, target_format
from dacesr.nets.extractor import Extractor
from dacesr.picture import MAX_PIXELS


@dataclass(frozen=True)
class Options:
    """What holds for every picture; at most one of `scale`, `width`, `height` is given."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    tile: int | str = "auto"
    overlap: int = OVERLAP
    quality: int | None = None
    strip_metadata: bool = False
    skip_existing: bool = False
    max_pixels: int = MAX_PIXELS

    def size_of(self, picture: Picture, native: int) -> tuple[int, int] | None:
        """Final (width, height), in proportion; None where it is what a network of scale `native` gives."""
        own = picture.width, picture.height
        size = output_size(own, native, scale=self.scale, width=self.width, height=self.height)
        return None if size == (own[0] * native, own[1] * native) else size


@dataclass
class Result:
    """What became of one picture."""

    input: str
    output: str | None = None
    status: str = "failed"  # done, skipped, failed
    seconds: float = 0.0
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    tags: tuple[str, ...] | None = None  # the most probable first; None where nobody asked
    error: str | None = None
    warnings: list[str] = field(default_factory=list)


class Sentences(threading.local):
    """Collects the warnings of the picture that the calling thread works on."""

    def __init__(self) -> None:
        """Start empty, in every thread."""
        self._said: list[str] = []

    def __call__(self, sentence: str) -> None:
        """Add one."""
        self._said.append(sentence)

    def take(self) -> list[str]:
        """All since the last call."""
        said, self._said = self._said, []
        return said


class Stopped(Exception):
    """The user wants no more."""


def attempt(name: str, work: Callable[[Result], None], warnings: Sentences) -> Result:
    """The result of a picture.

    Args:
        name: Of the picture.
        work: Makes it and fills the result in; where it raises an error, the picture is failed.
        warnings: What is said meanwhile.
    """
    result = Result(name)
    start = time.perf_counter()
    try:
        work(result)
    except (ValueError, UpscaleError, OSError) as error:
        result.error = str(error)
    except Stopped:
        result.error = "interrupted"
    except Exception as error:
        result.error = f"{name} failed in a way that should not happen ({type(error).__name__}: {error})"
    result.seconds = round(time.perf_counter() - start, 3)
    result.warnings += warnings.take()
    return result


class Maker:
    """Makes one picture after another, in any thread.

    Attributes:
        upscaler: What enlarges them.
        warnings: What it says of them.
    """

    def __init__(
        self, upscaler: Upscaler, options: Options, *, warnings: Sentences, recogniser: Extractor | None = None
    ) -> None:
        """Take what is needed.

        Args:
            upscaler: Made with `warn=warnings`.
            options: For every picture.
            warnings: Collects them.
            recogniser: Names tags, if they are wanted: the upscaler's own extractor where it has one.
        """
        self.upscaler = upscaler
        self.warnings = warnings
        self._options = options
        self._recogniser = recogniser

    def make(
        self,
        job: Job[Any],
        source: Path | bytes,
        result: Result,
        *,
        name: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> bytes | None:
        """Make a picture and fill in its result.

        Args:
            job: A target that is a `Path` is written; otherwise the encoded picture is returned.
            source: The picture, or where it is.
            result: Gets sizes, tags, status and output.
            name: For messages.
            progress: Told (tiles done, tiles in all).

        Raises:
            ImageError, ValueError, UpscaleError, OSError: It cannot be made; the sentence names it.
        """
        options, native = self._options, self.upscaler.scale
        picture = open_picture(source, name=name, max_pixels=options.max_pixels)
        try:
            size = options.size_of(picture, native)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        target, format = target_format(job, picture.format)
        result.input_size = (picture.width, picture.height)
        condition = self.upscaler.condition(picture)
        result.tags = self._tags(picture, condition)
        file = target if isinstance(target, Path) else None
        if file:
            _make_folder(file.parent)
        encoded = self.upscaler.upscale(
            picture,
            file,
            format=format,
            size=size,
            tile=options.tile,
            overlap=options.overlap,
            quality=options.quality,
            strip_metadata=options.strip_metadata,
            progress=progress,
            condition=condition,
        )
        result.output_size = size or (picture.width * native, picture.height * native)
        result.status, result.output = "done", str(target) if target else "-"
        return encoded

    def _tags(self, picture: Picture, condition: Tensor | None) -> tuple[str, ...] | None:
        """What is seen in a picture, if that is wanted: in its condition where there is one."""
        if self._recogniser is None:
            return None
        if condition is not None:
            return self.upscaler.tags(condition)[0]
        seen = condition_of(self._recogniser, picture.region, picture.height, picture.width)
        return tags_in(self._recogniser, seen)[0]


@dataclass(frozen=True)
class Settings:
    """What makes pictures, and how.

    Attributes:
        model: As for `Upscaler.load`, as are the next three.
        precision, strength, extractor: See there.
        tags: Whether to name what is seen.
        options: For every picture.
    """

    model: str
    precision: Precision
    strength: float | None
    extractor: str | None
    tags: bool
    options: Options

    def load(self, device: str, warnings: Sentences) -> Maker:
        """Load the model.

        Args:
            device: As for `Upscaler.load`.
            warnings: Collects what it says.

        Raises:
            ValueError: As `Upscaler.load`; or a tile or overlap that is impossible.
        """
        upscaler = Upscaler.load(
            self.model,
            device=device,
            precision=self.precision,
            warn=warnings,
            strength=self.strength,
            extractor=self.extractor,
        )
        upscaler.prepare()
        upscaler.tile_size(self.options.tile, self.options.overlap)
        recogniser = (upscaler.extractor or load_extractor("lite").to(upscaler.device)) if self.tags else None
        return Maker(upscaler, self.options, warnings=warnings, recogniser=recogniser)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made: {error.strerror}; choose another with -o") from error
