"""Times on a device: CUDA events, medians, replayed graphs, peak memory. On the CPU, for a dry run, the clock."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

LARGER_THAN_CACHE = 160 << 20  # bytes of inputs that take turns: an H100 caches 50 MB

Run = Callable[[int], object]
"""Something to time; its argument counts the calls, to choose among inputs."""


class Times(NamedTuple):
    """Seconds."""

    median: float
    least: float
    most: float


class Timer:
    """Times what runs on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"

    def finish(self) -> None:
        """Wait for the device."""
        if self._cuda:
            torch.cuda.synchronize(self.device)

    def alone(self, run: Run, rounds: int) -> Times:
        """Seconds of the device: launches are queued behind a pause, so that Python's own time does not count."""
        return self._events(run, rounds, pause=rounds * 2_000_000)

    def one_after_another(self, run: Run, rounds: int) -> Times:
        """Seconds from call to call; where Python is slower than the device, this is Python's time."""
        return self._events(run, rounds, pause=0)

    def whole(self, run: Run, rounds: int, warm_up: int = 1) -> Times:
        """Seconds by the clock from the call to the end of all that it started."""
        for number in range(warm_up):
            run(number)
        times = []
        for number in range(rounds):
            self.finish()
            start = time.perf_counter()
            run(number)
            self.finish()
            times.append(time.perf_counter() - start)
        return summed_up(times)

    def calling(self, run: Run, rounds: int) -> Times:
        """Seconds until the call returns, the device idle before."""
        times = []
        for number in range(rounds):
            self.finish()
            start = time.perf_counter()
            run(number)
            times.append(time.perf_counter() - start)
        self.finish()
        return summed_up(times)

    def peak(self, run: Run) -> int:
        """The most bytes of the device in use while something runs; 0 where that is not counted."""
        if not self._cuda:
            run(0)
            return 0
        self.finish()
        torch.cuda.reset_peak_memory_stats(self.device)
        run(0)
        self.finish()
        return torch.cuda.max_memory_allocated(self.device)

    def graph(self, run: Callable[[], object]) -> Run:
        """The same as a CUDA graph that is replayed; on the CPU as it is."""
        if not self._cuda:
            return lambda _: run()
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, capture_error_mode="thread_local"):
            run()
        return lambda _: captured.replay()

    def _events(self, run: Run, rounds: int, pause: int) -> Times:
        for number in range(3 if self._cuda else 1):  # compiles, chooses algorithms, allocates
            run(number)
        if not self._cuda:
            return self.whole(run, rounds, warm_up=0)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
        self.finish()
        if pause:
            torch.cuda._sleep(pause)
        for number, mark in enumerate(marks):
            mark.record()
            if number < rounds:
                run(number)
        self.finish()
        return summed_up([a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks)])


def summed_up(times: list[float]) -> Times:
    return Times(statistics.median(times), min(times), max(times))


def sets_for(size: int) -> int:
    """How many sets of inputs of so many bytes must take turns so that the cache holds none of them."""
    return max(2, -(-LARGER_THAN_CACHE // size))
