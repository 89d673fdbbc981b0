"""Steps made in background threads before they are asked for."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], start: int, end: int, ahead: int = 2, threads: int = 1) -> Iterator[T]:
    """What `make` gives for start to end - 1 in order, made in background threads.

    An error of a thread is raised here, in the place of its step. Closing the iterator ends the threads.

    Args:
        make: Called with each number, in order if by one thread, by those threads alone.
        start: First number.
        end: The one after the last.
        ahead: How many are made before they are asked for, at least 1.
        threads: How many make them, at least 1.

    Raises:
        ValueError: `ahead` or `threads` is not positive.
    """
    if min(ahead, threads) < 1:
        raise ValueError(f"ahead should be at least 1, not {ahead}, and threads too, not {threads}")
    return _prefetch(make, start, end, ahead, threads)


def _prefetch(make: Callable[[int], T], start: int, end: int, ahead: int, threads: int) -> Iterator[T]:
    thread = ThreadPoolExecutor(threads, "batches")
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
