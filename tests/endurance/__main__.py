"""`python -m tests.endurance folder|training|ray`: kill -9 at random moments, and the same command again."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.endurance.killing import endure_in
from tests.endurance.runs import RUNS


def main() -> int:
    """The command; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument(
        "--separate", action="store_true", help="an interpreter for each start, not a process forked from a ready one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    separate = options.separate or options.run == "ray"
    figures = endure_in(RUNS[options.run], options.kills, options.seed, separate=separate)
    print(f"{options.run}: {figures}")
    for problem in figures.problems:
        print(problem, file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1))
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
