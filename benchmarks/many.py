"""Many pictures: what workers that share the cores (`-j`), and Ray, make of them, against one picture at a time.

    python benchmarks/many.py [-n MODEL] [--small 24] [--large 3] [--rounds 3] [--ray]

Small pictures have 96 x 64 pixels, large ones 600 x 400. All ways take turns in every round; ratios above 1 are faster
than `-j 1`. With `--ray` the whole command is timed too, in both engines, with its start.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

import torch
from drawing import drawn
from machine import describe
from timing import in_turns

from dacesr.batch import Batch, Telling
from dacesr.image import write
from dacesr.jobs import plan_jobs
from dacesr.making import Maker, Options, Sentences, Settings
from dacesr.memory import keep_freed_memory

WORKERS = (1, 2, 4)
OPTIONS = Options(
    scale=None,
    width=None,
    height=None,
    tile="auto",
    overlap=32,
    quality=None,
    strip_metadata=False,
    skip_existing=False,
    max_pixels=2**28,
)
PROGRAM = [sys.executable, "-c", "from dacesr.cli import main; main()", "upscale", "-q", "--device", "cpu"]


def folder_of(place: Path, count: int, width: int, height: int) -> Path:
    place.mkdir()
    for number in range(count):
        write(place / f"{number}.png", drawn(1, height, width, seed=number))
    return place


def here(maker: Maker, source: Path, out: Path, workers: int) -> None:
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        results = Batch(maker, Telling(quiet=True)).run(plan_jobs([str(source)], str(out)), workers)
    assert all(result.status == "done" for result in results)


def command(model: str, source: Path, scratch: Path, *more: str) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as out:  # a new one each time: Ray would skip what is there
        call = [*PROGRAM, str(source), "-o", out, "-n", model, "-j", "2", *more]
        subprocess.run(call, check=True, stderr=subprocess.DEVNULL)


def tell(what: str, seconds: dict[str, float]) -> None:
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"{what}, {name}: {value:.2f} s, {first / value:.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--model", default="default")
    parser.add_argument("--small", type=int, default=24, help="small pictures")
    parser.add_argument("--large", type=int, default=3, help="large pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="time the command with --engine ray too")
    args = parser.parse_args()
    keep_freed_memory()
    print(describe()["summary"], flush=True)
    settings = Settings(model=args.model, precision="auto", strength=None, extractor=None, tags=False, options=OPTIONS)
    maker = settings.load("cpu", Sentences())
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        kinds = {
            f"{args.small} small": folder_of(scratch / "small", args.small, 96, 64),
            f"{args.large} large": folder_of(scratch / "large", args.large, 600, 400),
        }
        for what, source in kinds.items():
            runs = {
                f"-j {workers}" + (f" (as -j {threads})" if workers > threads else ""): (
                    lambda workers=workers, source=source: here(maker, source, scratch / "out", workers)
                )
                for workers in WORKERS
            }
            tell(what, in_turns(runs, args.rounds))
            if args.ray:
                runs = {
                    "the command, -j 2": lambda source=source: command(args.model, source, scratch),
                    "the command, -j 2 --engine ray": lambda source=source: command(
                        args.model, source, scratch, "--engine", "ray"
                    ),
                }
                tell(what, in_turns(runs, args.rounds))


if __name__ == "__main__":
    main()
