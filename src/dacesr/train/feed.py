"""Crops for every step, made ahead of it where a GPU makes them, and the time that steps wait for them.

On the CPU, and where several processes train, batches are read ahead in a background thread, and degraded when their
step comes. With one process and CUDA all is done ahead: threads read batches into pinned memory, another one degrades
and recognises them on a stream of its own, and an event tells the step's stream when they are there.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import torch

from dacesr.background import prefetch
from dacesr.dataset import Batch, Batches
from dacesr.train.scenes import Crops, Scenes
from dacesr.train.task import Stopwatch

READERS = 8  # threads that read batches, at most
AHEAD = 3  # steps whose crops are made before they are asked for


class _Ready(NamedTuple):
    """Crops of a step, and what marks the end of their making."""

    crops: Crops
    made: torch.cuda.Event


class Feed:
    """Crops by the number of the batch, in order."""

    def __init__(self, batches: Batches, scenes: Scenes, *, device: torch.device, ahead: bool) -> None:
        """Only keep the arguments.

        Args:
            batches: What is read.
            scenes: What makes crops of it.
            device: Where.
            ahead: Make crops in the background; with CUDA only.

        Raises:
            ValueError: They should be made ahead on another device.
        """
        if ahead and device.type != "cuda":
            raise ValueError(f"crops are made ahead with CUDA only, not on {device}")
        self._batches, self._scenes, self._device, self._ahead = batches, scenes, device, ahead
        self._read: Iterator[Batch | None] = iter(())
        self._made: Iterator[_Ready] = iter(())
        self._busy = threading.Lock()
        self._watch = Stopwatch()
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []  # around the waits of the device

    def start(self, first: int, end: int) -> None:
        """Begin with the batch `first`; the one before `end` is the last."""
        if not self._ahead:
            self._read = self._batches.prefetch(first, end)
            return
        readers = max(1, min(READERS, (os.cpu_count() or 1) - 2))
        self._read = prefetch(self._batch, first, end, ahead=2 * readers, threads=readers)
        stream = torch.cuda.Stream(self._device)
        self._made = prefetch(lambda number: self._prepared(number, stream), first, end, ahead=AHEAD)

    def close(self) -> None:
        """End the threads."""
        for iterator in (self._made, self._read):  # the first one's thread uses the second
            if close := getattr(iterator, "close", None):
                close()

    def crops(self, number: int) -> Crops:
        """The crops of a batch, whose number is one more than the last time.

        They may still be on their way to the device; what the current stream does next waits for them.
        """
        if not self._ahead:
            with self._watch.running():
                return self._scenes.crops(next(self._read), number, keep=self._key(number))
        stream = torch.cuda.current_stream(self._device)
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record(stream)
        crops, made = next(self._made)
        stream.wait_event(made)
        after.record(stream)
        self._marks.append((before, after))
        for tensor in crops:
            if tensor is not None:
                tensor.record_stream(stream)
        return crops

    def waited(self) -> float:
        """Seconds that steps have waited for their crops, since this was last asked.

        With CUDA what the device waited; without, the time of making them counts too, as far as it is not done ahead.
        """
        ended = 0.0
        while self._marks and self._marks[0][1].query():
            before, after = self._marks.pop(0)
            ended += before.elapsed_time(after) / 1e3
        return self._watch.take() + ended

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """A context in which nothing is sent to the device in the background."""
        with self._busy:
            yield

    def _key(self, number: int) -> int | None:
        """Under which the batch is kept."""
        return number % self._batches.period if self._batches.period else None

    def _batch(self, number: int) -> Batch | None:
        """A batch, unless all of it is on the device."""
        return None if self._scenes.complete(self._key(number)) else self._batches.batch(number)

    @torch.no_grad()
    def _prepared(self, number: int, stream: torch.cuda.Stream) -> _Ready:
        batch = next(self._read)
        with self._busy, torch.cuda.stream(stream):
            crops = self._scenes.crops(batch, number, keep=self._key(number))
            made = torch.cuda.Event()
            made.record(stream)
        return _Ready(crops, made)
