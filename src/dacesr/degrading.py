"""Test sets: pictures degraded from a seed, the same bytes in every run, with a list of what was done to each."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dacesr import __version__
from dacesr.degradation import recipe
from dacesr.encoding import replacing, unwritable
from dacesr.formats import ImageError
from dacesr.image import read, write
from dacesr.jobs import EXTENSIONS, STREAM, Job, JobError, plan_jobs
from dacesr.picture import MAX_PIXELS
from dacesr.sources import sample_generator

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
        if space not in recipe.SPACES:
            raise ValueError(f"no degradation space {space!r}; there are {', '.join(recipe.SPACES)}")
        if scale < 1:
            raise ValueError(f"the scale should be at least 1; got {scale}")
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
        height, width = (side // self._scale * self._scale for side in image.shape[-2:])
        if min(height, width) == 0:
            raise ImageError(f"{job.name} has {min(image.shape[-2:])} pixels a side, less than the scale {self._scale}")
        name = (job.target.relative_to(output).parent / job.source.stem).as_posix()
        generator = sample_generator(self._seed, _number(name))
        small, (degradation,) = recipe.degrade(image[..., :height, :width], self._space, generator, self._scale)
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"the folder {job.target.parent} cannot be made: {error.strerror}") from error
        write(job.target, small)
        return Made(name, job.target, (width, height), (small.shape[-1], small.shape[-2]), degradation)

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
    drawn = made.degradation
    return {
        "name": made.name,
        "file": made.target.relative_to(output).as_posix(),
        "sha256": hashlib.sha256(made.target.read_bytes()).hexdigest(),
        "level": drawn.level,
        "steps": [{"step": type(step).__name__.lower(), **asdict(step)} for step in drawn.steps],
        "vector": drawn.vector,
    }
