"""Copies between memory and a GPU beside its work, and writing in a thread. For other devices nothing is copied."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.memory import made_or_none

ROWS = 256  # of a picture that are prepared and copied at a time
MOST_WAITING = 8  # such pieces that wait to be written


class Arriving(NamedTuple):
    """A tensor whose copy may still be under way.

    Attributes:
        tensor: Where it will be.
        done: Happens once it is; None where it is already.
    """

    tensor: Tensor
    done: torch.cuda.Event | None = None

    def on_device(self) -> Tensor:
        """The tensor, for work that is given to the GPU from now on; does not wait."""
        if self.done is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.done)
            self.tensor.record_stream(stream)
        return self.tensor

    def in_memory(self) -> Tensor:
        """The tensor, once it is there."""
        if self.done is not None:
            self.done.synchronize()
        return self.tensor


class Copies:
    """Copies to and from a GPU, on two streams of their own and through pinned memory; any thread may ask for them."""

    def __init__(self, device: torch.device) -> None:
        """Make the streams, where the device has some."""
        self._device = device
        self._streams = (torch.cuda.Stream(device), torch.cuda.Stream(device)) if device.type == "cuda" else None

    def send(self, x: Tensor) -> Arriving:
        """Copy a tensor to the device; does not wait."""
        if self._streams is None or x.device.type == "cuda":
            return Arriving(x)
        stream, pinned = self._streams[0], torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x)
        with torch.cuda.stream(stream):
            sent = pinned.to(self._device, non_blocking=True)
            return Arriving(sent, _mark(stream))

    def fetch(self, x: Tensor) -> Arriving:
        """Copy what work given to the device so far makes of a tensor into memory; does not wait."""
        if self._streams is None or x.device.type != "cuda":
            return Arriving(x)
        stream = self._streams[1]
        fetched = made_or_none(lambda: torch.empty(x.shape, dtype=x.dtype, pin_memory=True))
        if fetched is None:
            return Arriving(x.cpu())
        made = _mark(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            stream.wait_event(made)
            fetched.copy_(x, non_blocking=True)
            x.record_stream(stream)
            return Arriving(fetched, _mark(stream))

    def write(
        self, strips: Iterable[Tensor], prepare: Callable[[Tensor], Tensor], write: Callable[[Tensor], object]
    ) -> None:
        """Write strips of a picture while the next ones are made; few wait at a time. Errors are those of the parts.

        Args:
            strips: (b, c, k, w) each, on the device or in memory.
            prepare: Makes of some rows what is to be written, where they are.
            write: Is given that in memory, in order, in a thread of its own.
        """
        with _writing(lambda piece: write(piece.in_memory())) as put:
            for strip in strips:
                for rows in strip.split(ROWS, dim=2):
                    put(self.fetch(prepare(rows)))


class Filled:
    """A tensor that is filled from top to bottom.

    Attributes:
        tensor: (b, c, h, w).
    """

    def __init__(self, tensor: Tensor) -> None:
        """Take it, whatever it holds."""
        self.tensor = tensor
        self._rows = 0

    def add(self, rows: Tensor) -> None:
        """Put the next rows in, (b, c, k, w)."""
        self.tensor.narrow(2, self._rows, rows.shape[2]).copy_(rows)
        self._rows += rows.shape[2]


def _mark(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """What happens once a stream has done what it was given; who waits for it lets the processor sleep."""
    event = torch.cuda.Event(blocking=True)
    event.record(stream)
    return event


@contextmanager
def _writing(write: Callable[[Arriving], object]) -> Iterator[Callable[[Arriving], None]]:
    """A function that has pieces written by a thread, which ends with the block: all are written or one failed."""
    thread = ThreadPoolExecutor(1, "write")
    waiting: deque[Future[object]] = deque()

    def put(piece: Arriving) -> None:
        while len(waiting) >= MOST_WAITING or (waiting and waiting[0].done()):
            waiting.popleft().result()
        waiting.append(thread.submit(write, piece))

    try:
        yield put
        for written in waiting:
            written.result()
    finally:
        thread.shutdown(cancel_futures=True)
