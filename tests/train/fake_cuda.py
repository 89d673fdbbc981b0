"""Stands in for streams, events and graphs of CUDA where there is none: everything happens at once, and is noted."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch


class Stream:
    """Notes what is to wait for what."""

    def __init__(self, device: object = None) -> None:
        self.waits: list[object] = []

    def wait_event(self, event: object) -> None:
        self.waits.append(event)

    def wait_stream(self, stream: object) -> None:
        self.waits.append(stream)


class Event:
    """Is over once it was recorded; a millisecond after the one before."""

    count = 0

    def __init__(self, enable_timing: bool = False) -> None:
        self.recorded_on: object = None
        self.number = 0

    def record(self, stream: object = None) -> None:
        Event.count += 1
        self.recorded_on, self.number = stream, Event.count

    def query(self) -> bool:
        return self.recorded_on is not None

    def synchronize(self) -> None:
        assert self.query()

    def elapsed_time(self, other: "Event") -> float:
        return float(other.number - self.number)


class Graph:
    """Counts its replays."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


class FakeCuda:
    """What a test looks at.

    Attributes:
        main: The stream that is current at first.
        current: The one that is current in this thread now.
        modes: What was asked for where Python would wait for the device, in order.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.main = Stream()
        self._threads = threading.local()
        self.modes: list[Any] = []
        replaced = {
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Graph,
            "current_stream": lambda device=None: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "stream": self._within,
            "graph": lambda graph, stream, capture_error_mode: self._within(stream),
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": self.modes.append,
        }
        for name, value in replaced.items():
            patch.setattr(torch.cuda, name, value)

    @property
    def current(self) -> Stream:
        return getattr(self._threads, "stream", self.main)

    @current.setter
    def current(self, stream: Stream) -> None:
        self._threads.stream = stream

    @contextlib.contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        """As in PyTorch, where a recording that fails does not bring the stream back that was current before."""
        before, self.current = self.current, stream
        yield
        self.current = before
