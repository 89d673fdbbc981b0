"""Test sets: pictures degraded from a seed, the same bytes in every run, with a list of what was done to each."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dacesr import __version__
from dacesr.degradation import recipe
from dacesr.encoding import replacing, unwritable
from dacesr.formats import ImageError
from dacesr.image import read, write
from dacesr.jobs import EXTENSIONS, STREAM, Job, JobError, plan_jobs
from dacesr.picture import MAX_PIXELS
from dacesr.sources import sample_generator
from dacesr.tensorfile import sha256_of

PARAMETERS = "parameters.json"


@dataclass(frozen=True)
class Made:
    """One picture that was written.

    Attributes:
        name: Its source below the input folder, without the ending; with the seed it decides the degradation.
        target: The file.
        before: (width, height) that was degraded.
        after: (width, height) of the result.
        degradation: What was drawn.
    """

    name: str
    target: Path
    before: tuple[int, int]
    after: tuple[int, int]
    degradation: recipe.Degradation


@dataclass(frozen=True)
class Failed:
    """One picture that was not written; `error` is a sentence that names it."""

    error: str


class Degrader:
    """Makes a test set of a list of jobs."""

    def __init__(self, *, space: str, seed: int, scale: int = 4, max_pixels: int = MAX_PIXELS) -> None:
        """Choose the degradations.

        Args:
            space: A name of `degradation.recipe.SPACES`.
            seed: Any integer; its lowest 64 bits count.
            scale: How many times smaller the results are.
            max_pixels: Larger pictures are refused.

        Raises:
            ValueError: There is no such space, or the scale is below 1.
        """
        check_spaces([space], scale)
        self._space, self._seed, self._scale, self._max_pixels = space, seed, scale, max_pixels

    def run(self, jobs: Iterable[Job], output: Path) -> Iterator[Made | Failed]:
        """Do the jobs one after another; one that fails does not stop the others.

        Args:
            jobs: From `plan`.
            output: The folder, as planned, that names are relative to.
        """
        for job in jobs:
            try:
                yield self._made(job, output)
            except (ValueError, OSError) as error:
                yield Failed(str(error))
            except Exception as error:
                yield Failed(f"{job.name} failed in a way that should not happen ({type(error).__name__}: {error})")

    def _made(self, job: Job, output: Path) -> Made:
        assert job.source
        assert job.target
        image = read(job.source, max_pixels=self._max_pixels)
        name = (job.target.relative_to(output).parent / job.source.stem).as_posix()
        sharp = cropped(image, self._scale, job.name)
        small, degradation = degraded(sharp, name, space=self._space, seed=self._seed, scale=self._scale)
        make_folder(job.target.parent)
        write(job.target, small)
        before, after = ((x.shape[-1], x.shape[-2]) for x in (sharp, small))
        return Made(name, job.target, before, after, degradation)

    def save_parameters(self, made: Iterable[Made], output: Path) -> None:
        """Write `parameters.json`: the call, and for every picture its steps, DASR's vector and the file's sha256.

        Raises:
            ImageError: The file cannot be written.
        """
        call = {"version": __version__, "space": self._space, "seed": self._seed, "scale": self._scale}
        content = {**call, "pictures": [_record(each, output) for each in made]}
        try:
            output.mkdir(parents=True, exist_ok=True)
            with replacing(output / PARAMETERS) as file:
                file.write((json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise unwritable(output / PARAMETERS, error) from error


def check_spaces(spaces: Iterable[str], scale: int) -> None:
    """ValueError for a space that there is not, or a scale below 1."""
    for space in spaces:
        if space not in recipe.SPACES:
            raise ValueError(f"no degradation space {space!r}; there are {', '.join(recipe.SPACES)}")
    if scale < 1:
        raise ValueError(f"the scale should be at least 1; got {scale}")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; OSError with a sentence that names it where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made: {error.strerror}") from error


def cropped(image: Tensor, scale: int, name: str) -> Tensor:
    """A picture (1, 3, h, w) without the last rows and columns that the scale does not divide.

    Raises:
        ImageError: Nothing is left; the sentence names the picture.
    """
    height, width = (side // scale * scale for side in image.shape[-2:])
    if min(height, width) == 0:
        raise ImageError(f"{name} has {min(image.shape[-2:])} pixels a side, less than the scale {scale}")
    return image[..., :height, :width]


def degraded(sharp: Tensor, name: str, *, space: str, seed: int, scale: int) -> tuple[Tensor, recipe.Degradation]:
    """A picture of a test set, degraded as its name and the seed decide.

    Args:
        sharp: (1, 3, h, w) in [0, 1], sides that the scale divides.
        name: Of the picture within the set, without ending.
        space: A name of `degradation.recipe.SPACES`.
        seed: Any integer.
        scale: How many times smaller the result is.

    Returns:
        (1, 3, h / scale, w / scale) of 8-bit values, and what was drawn.
    """
    small, (drawn,) = recipe.degrade(sharp, space, sample_generator(seed, _number(name)), scale)
    return small, drawn


def described(drawn: recipe.Degradation) -> dict[str, Any]:
    """What was drawn, for JSON: level, steps, DASR's vector."""
    steps = [{"step": type(step).__name__.lower(), **asdict(step)} for step in drawn.steps]
    return {"level": drawn.level, "steps": steps, "vector": drawn.vector}


def plan(
    inputs: list[str],
    output: str,
    *,
    suffix: str = "",
    extension: str | None = None,
    recursive: bool = False,
    limit: int | None = None,
) -> tuple[list[Job], Path]:
    """Name an output for every input (see `jobs.plan_jobs`): PNG unless `extension` or a file name says otherwise.

    Returns:
        The first `limit` jobs, in the order of the inputs and within a folder of names, and the folder of outputs.

    Raises:
        JobError: As `plan_jobs`; standard input and output are refused.
    """
    if STREAM in inputs or output == STREAM:
        raise JobError("test sets are made of files and folders, not of standard input (-)")
    one = len(inputs) == 1 and not Path(inputs[0]).is_dir()
    is_file = one and Path(output).suffix.lower() in EXTENSIONS and not (Path(output).is_dir() or output.endswith("/"))
    if extension is None and not is_file:
        extension = "png"
    jobs = plan_jobs(inputs, output, suffix=suffix, extension=extension, recursive=recursive)
    return jobs[:limit], Path(output).parent if is_file else Path(output)


def _number(name: str) -> int:
    """64 bits that a name stands for."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8])


def _record(made: Made, output: Path) -> dict[str, Any]:
    return {
        "name": made.name,
        "file": made.target.relative_to(output).as_posix(),
        "sha256": sha256_of(made.target),
        **described(made.degradation),
    }
