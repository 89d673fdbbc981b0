"""Many pictures through one `Upscaler` in threads of this process, and what is told of them."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dacesr.inference import Upscaler
from dacesr.jobs import Job
from dacesr.making import Maker, Result, Stopped, attempt

__all__ = ["Batch", "Telling", "report", "shares", "use_threads"]


class Telling:
    """Tells on standard error what becomes of pictures: a line each, below them a bar where that is a terminal."""

    def __init__(self, *, quiet: bool = False, say_tags: bool = True) -> None:
        """Choose how much.

        Args:
            quiet: Show no bar.
            say_tags: Also tell what is seen in the pictures.
        """
        self._say_tags = say_tags
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
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

    @contextmanager
    def all(self, total: int) -> Iterator[Callable[[Result], None]]:
        """The bar of all pictures; yields what tells a result."""
        with self._progress:
            bar = self._progress.add_task("pictures", total=total, visible=total > 1)

            def tell(result: Result) -> None:
                with self._lock:
                    self._tell(result)
                self._progress.advance(bar)

            yield tell

    @contextmanager
    def one(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """The bar of one picture; yields what is told (tiles done, tiles in all)."""
        bar = self._progress.add_task(f"  {Path(name).name}", total=None)
        try:
            yield lambda done, total: self._progress.update(bar, completed=done, total=total)
        finally:
            self._progress.remove_task(bar)

    def _tell(self, result: Result) -> None:
        for sentence in result.warnings:
            self._console.print(f"dacesr: {sentence}", style="yellow", markup=False)
        if result.error:
            self._console.print(f"dacesr: {result.error}", style="red", markup=False)
        elif result.status == "done" and result.output != "-":
            before, after = (" x ".join(map(str, size or ())) for size in (result.input_size, result.output_size))
            line = f"{result.output}  {before} -> {after}  {result.seconds:.1f} s"
            self._console.print(line, markup=False)
        if result.tags is not None and self._say_tags:
            tags = ", ".join(result.tags) or "no tag is probable enough"
            self._console.print(f"{result.input}: {tags}", markup=False)


class Batch:
    """Runs jobs in threads of this process."""

    def __init__(self, maker: Maker, telling: Telling, *, skip_existing: bool = False) -> None:
        """Take what makes a picture, and what tells of it.

        Args:
            maker: Makes them.
            telling: Tells of them.
            skip_existing: Leave outputs that are there.
        """
        self._maker = maker
        self._telling = telling
        self._skip_existing = skip_existing
        self._stop = threading.Event()

    def run(self, jobs: list[Job[Path]], workers: int = 1) -> list[Result]:
        """Do all jobs; results in their order.

        Args:
            jobs: From `plan_jobs`.
            workers: Pictures at a time, at least 1. They share torch's threads, so that on a CPU there are at most as
                many as threads.
        """
        threads = torch.get_num_threads()
        most = threads if self._maker.upscaler.device.type == "cpu" else workers
        workers = min(workers, len(jobs), most)
        numbers = count()
        with self._telling.all(len(jobs)) as tell:
            pool = ThreadPoolExecutor(workers, initializer=lambda: use_threads(shares(threads, workers)[next(numbers)]))
            try:
                futures = [pool.submit(self._job, job, tell) for job in jobs]
                return [future.result() for future in futures]
            except BaseException:
                self._stop.set()
                raise
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                torch.set_num_threads(threads)  # what threads of later have, too

    def _job(self, job: Job[Path], tell: Callable[[Result], None]) -> Result:
        result = attempt(job.name, lambda result: self._work(job, result), self._maker.warnings)
        if not self._stop.is_set():
            tell(result)
        return result

    def _work(self, job: Job[Path], result: Result) -> None:
        self._check()
        if self._skip_existing and job.target and job.target.is_file():
            result.status, result.output = "skipped", str(job.target)
            return
        source = job.source or sys.stdin.buffer.read()
        with self._telling.one(job.name) as show:

            def advance(done: int, total: int) -> None:
                self._check()
                show(done, total)

            encoded = self._maker.make(job, source, result, name=job.name, progress=advance)
        if encoded is not None:
            sys.stdout.buffer.write(encoded)
            sys.stdout.buffer.flush()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped


def report(upscaler: Upscaler, results: list[Result], **more: Any) -> dict[str, Any]:
    """All of a run, for JSON, with further fields or other values of those that the upscaler gives."""
    chosen = {"model": upscaler.name, "device": str(upscaler.device), "precision": upscaler.precision}
    return {**chosen, "scale": upscaler.scale, **more, "results": [asdict(result) for result in results]}


def shares(threads: int, workers: int) -> list[int]:
    """How many of the threads each worker has; at least one, so no more workers than threads keep to them."""
    return [max(1, threads // workers + (number < threads % workers)) for number in range(workers)]


def use_threads(threads: int) -> None:
    """Let the operators that this thread calls, and the native scan, use so many threads, itself among them."""
    torch.get_num_threads()  # a thread's first question sets its number to that which any thread set last
    torch.set_num_threads(threads)
