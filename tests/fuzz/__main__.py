"""`python -m tests.fuzz`: trials for some minutes, or a number of them, and what came of them."""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.forked import Server
from tests.fuzz.judging import Trial
from tests.fuzz.properties import property_trials
from tests.fuzz.trials import Bench, picture_trials, weight_trials

MODULES = ("tests.fuzz.properties", "tests.fuzz.trials")  # of what processes run beside the command

TARGETS: dict[str, Callable[[Random], Iterator[Trial]]] = {
    "images": picture_trials,
    "checkpoints": weight_trials,
    "configs": lambda random: property_trials("configs", random),
    "tiles": lambda random: property_trials("tiles", random),
}


def main() -> int:
    """The command; 1 if anything was found."""
    options = _options()
    targets = list(TARGETS) if options.target == "all" else [options.target]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dacesr-fuzz-") as folder, Server(Path(folder), MODULES) as server:
        bench = Bench(server, Path(folder))
        if options.replay:
            return _replay(bench, options.replay)
        for target in targets:
            minutes = options.minutes / len(targets) if options.minutes else None
            found[target] = _run(bench, target, options, minutes)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 1 if any(result["problems"] for result in found.values()) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--minutes", type=float, help="shared by the targets; 5 unless --count is given")
    parser.add_argument("--count", type=int, help="trials of each target")
    parser.add_argument("--seed", type=int, default=0, help="decides all trials")
    parser.add_argument("--failures", type=Path, default=Path("out", "fuzz"), help="folder for what was found")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a trial that was found again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if options.count is None and options.minutes is None:
        options.minutes = 5.0
    return options


def _run(bench: Bench, target: str, options: argparse.Namespace, minutes: float | None) -> dict[str, Any]:
    """Trials of one target; their figures."""
    started, words, problems, peak = time.monotonic(), Counter[str](), [], 0
    trials = TARGETS[target](Random(f"{options.seed} {target}"))
    number = 0
    while not _over(number, time.monotonic() - started, options.count, minutes):
        trial = next(trials)
        outcome = bench.run(trial)
        number += 1
        words[outcome.word] += 1
        peak = max(peak, outcome.ended.peak)
        if outcome.problems:
            place = options.failures / f"{target}-{options.seed}-{number}.json"
            trial.problems = outcome.problems
            trial.save(place)
            problems.append(f"{place}: {'; '.join(outcome.problems)}")
            print(problems[-1], file=sys.stderr)
    seconds = time.monotonic() - started
    listed = ", ".join(f"{word} {count}" for word, count in words.most_common())
    print(
        f"{target}: {number} trials in {seconds:.0f} s, {peak >> 20} MiB at the most; {listed}; found {len(problems)}"
    )
    return {"trials": number, "seconds": seconds, "peak": peak, "outcomes": words, "problems": problems}


def _over(number: int, seconds: float, count: int | None, minutes: float | None) -> bool:
    return (count is not None and number >= count) or (minutes is not None and seconds > minutes * 60)


def _replay(bench: Bench, path: Path) -> int:
    trial = Trial.load(path)
    outcome = bench.run(trial)
    shown = trial.arguments[0] if trial.function.endswith(":command") else trial.arguments
    print(f"{trial.name}: {shown}\nexit code {outcome.ended.code}\n{outcome.ended.stdout}{outcome.ended.stderr}")
    print("\n".join(outcome.problems) or "nothing is wrong with it")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
