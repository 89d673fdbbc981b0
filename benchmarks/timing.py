"""Seconds of runs that take turns, so that whatever else the machine does meets all of them alike."""

import statistics
import time


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turns(runs: dict, rounds: int) -> dict[str, float]:
    """Median seconds of each run, one after another in every round."""
    times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            seconds = timed(run)
            if number:  # the first round warms up
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}
