"""Crops made ahead of their step: in order, handed over with an event, not read again, and the wait for them."""

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import pytest
import torch

from dacesr.dataset import Batch, Batches
from dacesr.train.feed import AHEAD, Feed
from dacesr.train.scenes import Crops, Scenes
from train.fake_cuda import Event, FakeCuda, Stream

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class OnDevice:
    """A tensor that knows which streams use it."""

    def __init__(self, value: int) -> None:
        self.value, self.streams = value, set[object]()

    def record_stream(self, stream: object) -> None:
        self.streams.add(stream)


class Numbers:
    """Batches that are numbers, which come again after a period of 4."""

    period = 4

    def __init__(self, seconds: float = 0.0) -> None:
        self.read: list[int] = []
        self._seconds = seconds

    def batch(self, number: int) -> Batch:
        time.sleep(self._seconds)
        if number == 17:
            raise ValueError("nothing to read")
        self.read.append(number)
        return cast(Batch, number % self.period)

    def prefetch(self, first: int, end: int) -> Any:
        return (self.batch(number) for number in range(first, end))


class Kept:
    """Scenes that keep all batches but the last of a period."""

    def __init__(self, cuda: FakeCuda | None = None) -> None:
        self.streams: list[Stream] = []
        self._cuda = cuda
        self._kept: dict[int, int] = {}

    def complete(self, keep: int) -> bool:
        return keep in self._kept

    def crops(self, batch: int | None, number: int, keep: int) -> Crops:
        if self._cuda is not None:
            self.streams.append(self._cuda.current)
        assert keep == number % 4
        value = self._kept[keep] if batch is None else batch
        if keep < 3:
            self._kept[keep] = value
        return Crops(cast(Any, OnDevice(100 * number + value)), cast(Any, OnDevice(0)))


class Made(NamedTuple):
    feed: Feed
    batches: Numbers
    scenes: Kept


def make(device: torch.device, cuda: FakeCuda | None = None, seconds: float = 0.0) -> Made:
    batches, scenes = Numbers(seconds), Kept(cuda)
    feed = Feed(cast(Batches, batches), cast(Scenes, scenes), device=device, ahead=device.type == "cuda")
    return Made(feed, batches, scenes)


def values(made: Made, numbers: range) -> list[int]:
    return [cast(Any, made.feed.crops(number).lr).value for number in numbers]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_crops_come_in_order_from_the_cpu_and_ahead(fake_cuda: FakeCuda) -> None:
    expected = [100 * number + number % 4 for number in range(2, 12)]
    for made in (make(CPU), make(GPU, fake_cuda)):
        made.feed.start(2, 12)
        assert values(made, range(2, 12)) == expected
        made.feed.close()
        assert no_threads()


def test_crops_made_ahead_are_handed_over_by_events(fake_cuda: FakeCuda) -> None:
    made = make(GPU, fake_cuda)
    made.feed.start(0, 3)
    for number in range(3):
        crops = made.feed.crops(number)
        event = fake_cuda.main.waits[-1]
        assert isinstance(event, Event)
        assert event.recorded_on in made.scenes.streams
        assert cast(Any, crops.lr).streams == cast(Any, crops.gt).streams == {fake_cuda.main}
    assert fake_cuda.main not in made.scenes.streams
    made.feed.close()


def test_what_is_on_the_device_is_not_read_again(fake_cuda: FakeCuda) -> None:
    made = make(GPU, fake_cuda)
    made.feed.start(0, 400)
    values(made, range(400))
    made.feed.close()
    late = [number for number in made.batches.read if number > 60]  # readers are some steps ahead
    assert set(range(4)) < set(made.batches.read)
    assert {number % 4 for number in late} == {3}


def test_an_error_in_the_background_comes_in_its_place(fake_cuda: FakeCuda) -> None:
    made = make(GPU, fake_cuda)
    made.feed.start(15, 99)
    assert values(made, range(15, 17)) == [1503, 1600]
    with pytest.raises(ValueError, match="nothing to read"):
        made.feed.crops(17)
    made.feed.close()
    assert no_threads()


def test_nothing_is_sent_while_it_should_be_quiet(fake_cuda: FakeCuda) -> None:
    made = make(GPU, fake_cuda)
    made.feed.start(0, 30)
    values(made, range(1))
    wait_for(lambda: len(made.scenes.streams) == 1 + AHEAD)
    with made.feed.quiet():
        values(made, range(1, 3))
        time.sleep(0.05)
        assert len(made.scenes.streams) == 1 + AHEAD
    wait_for(lambda: len(made.scenes.streams) == 3 + AHEAD)
    made.feed.close()


def test_the_wait_is_measured(fake_cuda: FakeCuda) -> None:
    slow = make(CPU, seconds=0.02)
    slow.feed.start(0, 3)
    values(slow, range(3))
    assert 0.06 <= slow.feed.waited() < 2
    assert slow.feed.waited() == 0
    made = make(GPU, fake_cuda)
    made.feed.start(0, 3)
    values(made, range(3))
    assert made.feed.waited() >= 0.003  # events of the stand-in are a millisecond apart
    assert made.feed.waited() == 0
    made.feed.close()


def test_crops_are_made_ahead_with_cuda_only() -> None:
    with pytest.raises(ValueError, match="with CUDA only, not on cpu"):
        Feed(cast(Batches, Numbers()), cast(Scenes, Kept()), device=CPU, ahead=True)
