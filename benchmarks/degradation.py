"""Seconds to degrade a batch, per space over the clean bicubic, and the share of each step.

    python benchmarks/degradation.py [--batch 16] [--side 256] [--device cpu] [--json out/degradation.json]

The crops come from the photographs of DACESR_DATA, or are drawn: smooth shapes with edges and some grain. Targets are
kept at hand: 16 crops of 256 x 256 through level3 within 1.2 s on 2 cores; 32 through dasr within 25 ms on an H100, of
which Python is to take no more than 15 (`called`: until the call returns, with the device still at work).
"""

import argparse
import contextlib
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from drawing import drawn
from machine import describe

from dacesr.degradation import recipe


def crops(batch: int, side: int) -> tuple[torch.Tensor, str]:
    """The middles of photographs that are large enough, otherwise drawn ones, and which of both."""
    folder = Path(os.environ.get("DACESR_DATA", "."), "benchmarks", "BSD100", "HR")
    if not folder.is_dir():
        return drawn(batch, side, side), "drawn pictures"
    from dacesr.image import open_picture

    found = []
    for path in sorted(folder.glob("*.*")):
        picture = open_picture(path)
        if min(picture.width, picture.height) >= side and len(found) < batch:
            found.append(picture.region((picture.width - side) // 2, (picture.height - side) // 2, side, side))
    return (torch.cat(found), "photographs") if len(found) == batch else (drawn(batch, side), "drawn pictures")


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def degrade(x: torch.Tensor, space: str, seed: int) -> tuple[float, float]:
    """Seconds until the result is there, and until the call returned."""
    finish(x.device)
    start = time.perf_counter()
    recipe.degrade(x, space, torch.Generator().manual_seed(seed))
    called = time.perf_counter()
    finish(x.device)
    return time.perf_counter() - start, called - start


@contextlib.contextmanager
def watched(spent: Counter, device: torch.device) -> Iterator[None]:
    """Add the time of each kind of step."""

    def wrap(name: str, action):
        def timed(*args):
            finish(device)
            start = time.perf_counter()
            result = action(*args)
            finish(device)
            spent[name] += time.perf_counter() - start
            return result

        return timed

    actions = {kind: wrap(kind.__name__.lower(), action) for kind, action in recipe._ACTIONS.items()}
    with mock.patch.dict(recipe._ACTIONS, actions):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    x, source = crops(args.batch, args.side)
    x = x.to(args.device)
    report: dict = {"machine": describe(), "batch": args.batch, "side": args.side, "source": source, "spaces": {}}
    print(report["machine"]["summary"])
    print(f"{args.batch} crops {args.side} x {args.side} of {source} on {x.device}")
    times: dict[str, list[tuple[float, float]]] = {space: [] for space in recipe.SPACES}
    for number in range(args.rounds + 1):  # in turns; the first round warms up
        for space in recipe.SPACES:
            seconds = degrade(x, space, number)
            if number:
                times[space].append(seconds)
    bicubic = statistics.median(whole for whole, _ in times["bicubic"])
    for space, values in times.items():
        spent: Counter = Counter()
        with watched(spent, x.device):
            whole = sum(degrade(x, space, number)[0] for number in range(1, 4))
        shares = {name: part / whole for name, part in spent.most_common()}
        shares["rest"] = 1 - sum(shares.values())
        seconds, called = (statistics.median(column) for column in zip(*values, strict=True))
        report["spaces"][space] = {
            "seconds": seconds,
            "called": called,
            "over_bicubic": seconds / bicubic,
            "shares": shares,
        }
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        print(
            f"{space:10s} {1e3 * seconds:7.1f} ms, called {1e3 * called:7.1f} ms, "
            f"{args.batch / seconds:6.0f} crops a second, {seconds / bicubic:5.1f} x bicubic; {parts}",
            flush=True,
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
