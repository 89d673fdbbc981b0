"""Many pictures through one `Upscaler`: workers, progress, and a result for each, whatever happens to the others."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from dacesr.conditioning import condition_of, tags_in
from dacesr.image import Picture, open_picture
from dacesr.inference import UpscaleError, Upscaler
from dacesr.jobs import Job, output_size, target_format
from dacesr.nets.extractor import Extractor


@dataclass(frozen=True)
class Options:
    """What holds for every picture; at most one of `scale`, `width`, `height` is given."""

    scale: float | None
    width: int | None
    height: int | None
    tile: int | str
    overlap: int
    quality: int | None
    strip_metadata: bool
    skip_existing: bool
    max_pixels: int

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


class _Stopped(Exception):
    """The user wants no more."""


class Batch:
    """Runs jobs and shows progress on standard error."""

    def __init__(
        self,
        upscaler: Upscaler,
        options: Options,
        *,
        warnings: Sentences,
        quiet: bool = False,
        recogniser: Extractor | None = None,
        say_tags: bool = True,
    ) -> None:
        """Take what is needed.

        Args:
            upscaler: Made with `warn=warnings`.
            options: For every picture.
            warnings: Collects them.
            quiet: Show no progress.
            recogniser: Names tags, if they are wanted: the upscaler's own extractor where it has one.
            say_tags: Also on standard error.
        """
        self._upscaler = upscaler
        self._recogniser = recogniser
        self._say_tags = say_tags
        self._options = options
        self._warnings = warnings
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._stop = threading.Event()
        self._say = threading.Lock()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )

    def run(self, jobs: list[Job], workers: int = 1) -> list[Result]:
        """Do all jobs, up to `workers` pictures at a time, which share torch's threads; results in their order."""
        workers = min(workers, len(jobs))
        share = max(1, torch.get_num_threads() // workers)
        with self._progress:
            pictures = self._progress.add_task("pictures", total=len(jobs), visible=len(jobs) > 1)
            pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
            try:
                futures = [pool.submit(self._job, job, pictures) for job in jobs]
                return [future.result() for future in futures]
            except BaseException:
                self._stop.set()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def report(self, results: list[Result]) -> dict[str, Any]:
        """All of a run, for JSON."""
        up = self._upscaler
        chosen = {"model": up.name, "device": str(up.device), "precision": up.precision, "scale": up.scale}
        return {**chosen, "results": [asdict(result) for result in results]}

    def _job(self, job: Job, pictures: Any) -> Result:
        result = Result(job.name)
        start = time.perf_counter()
        try:
            self._upscale(job, result)
        except (ValueError, UpscaleError, OSError) as error:
            result.error = str(error)
        except _Stopped:
            result.error = "interrupted"
        except Exception as error:
            result.error = f"{job.name} failed in a way that should not happen ({type(error).__name__}: {error})"
        result.seconds = round(time.perf_counter() - start, 3)
        result.warnings = self._warnings.take()
        with self._say:
            for sentence in result.warnings:
                self._console.print(f"dacesr: {sentence}", style="yellow", markup=False)
            if result.error and not self._stop.is_set():
                self._console.print(f"dacesr: {result.error}", style="red", markup=False)
            elif result.status == "done" and job.target:
                self._console.print(_line(result), markup=False)
            if result.tags is not None and self._say_tags:
                tags = ", ".join(result.tags) or "no tag is probable enough"
                self._console.print(f"{result.input}: {tags}", markup=False)
        self._progress.advance(pictures)
        return result

    def _upscale(self, job: Job, result: Result) -> None:
        if self._stop.is_set():
            raise _Stopped
        options = self._options
        if options.skip_existing and job.target and job.target.is_file():
            result.status, result.output = "skipped", str(job.target)
            return
        source = job.source if job.source else sys.stdin.buffer.read()
        picture = open_picture(source, name=job.name, max_pixels=options.max_pixels)
        size = options.size_of(picture, self._upscaler.scale)
        target, format = target_format(job, picture.format)
        result.input_size = (picture.width, picture.height)
        condition = self._upscaler.condition(picture)
        result.tags = self._tags(picture, condition)
        if target:
            _make_folder(target.parent)
        tiles = self._progress.add_task(f"  {Path(job.name).name}", total=None)

        def advance(done: int, total: int) -> None:
            if self._stop.is_set():
                raise _Stopped
            self._progress.update(tiles, completed=done, total=total)

        try:
            encoded = self._upscaler.upscale(
                picture,
                target,
                format=format,
                size=size,
                tile=options.tile,
                overlap=options.overlap,
                quality=options.quality,
                strip_metadata=options.strip_metadata,
                progress=advance,
                condition=condition,
            )
        finally:
            self._progress.remove_task(tiles)
        native = self._upscaler.scale
        result.output_size = size or (picture.width * native, picture.height * native)
        result.status, result.output = "done", str(target) if target else "-"
        if encoded is not None:
            sys.stdout.buffer.write(encoded)
            sys.stdout.buffer.flush()

    def _tags(self, picture: Picture, condition: Tensor | None) -> tuple[str, ...] | None:
        """What is seen in a picture, if that is wanted: in its condition where there is one."""
        if self._recogniser is None:
            return None
        if condition is not None:
            return self._upscaler.tags(condition)[0]
        seen = condition_of(self._recogniser, picture.region, picture.height, picture.width)
        return tags_in(self._recogniser, seen)[0]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _line(result: Result) -> str:
    before, after = (" x ".join(map(str, size or ())) for size in (result.input_size, result.output_size))
    return f"{result.output}  {before} -> {after}  {result.seconds:.1f} s"
