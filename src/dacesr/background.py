"""Steps made in a background thread before they are asked for."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], start: int, end: int, ahead: int = 2) -> Iterator[T]:
    """What `make` gives for start to end - 1 in order, made in a background thread.

    An error of the thread is raised here, in the place of its step. Closing the iterator ends the thread.

    Args:
        make: Called with each number, by that thread alone.
        start: First number.
        end: The one after the last.
        ahead: How many are made before they are asked for, at least 1.

    Raises:
        ValueError: `ahead` is not positive.
    """
    if ahead < 1:
        raise ValueError(f"ahead should be at least 1, not {ahead}")
    return _prefetch(make, start, end, ahead)


def _prefetch(make: Callable[[int], T], start: int, end: int, ahead: int) -> Iterator[T]:
    thread = ThreadPoolExecutor(1, "batches")
    try:
        waiting: deque[Future[T]] = deque()
        waiting.extend(thread.submit(make, i) for i in range(start, min(start + ahead, end)))
        for number in range(start, end):
            made = waiting.popleft().result()
            if number + ahead < end:
                waiting.append(thread.submit(make, number + ahead))
            yield made
    finally:
        thread.shutdown(cancel_futures=True)
