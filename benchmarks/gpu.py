"""Check and measure everything on a CUDA device, in under five minutes: one JSON file and one Markdown table.

    python benchmarks/gpu.py [--only scan network] [--no-tests] [--json out/gpu.json] [--markdown out/gpu.md]
    python benchmarks/gpu.py --device cpu --quick          a dry run with tiny sizes: no figure means anything

Parts: scan, network, step, tests, upscaler, degradation, training, profile. A part that fails is named in the table,
with its traceback in the log beside the JSON, and the others go on. Training data: $DACESR_DATA/photos/train, or
pictures made here.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from gpu_bench import Bench
from gpu_floors import exponential_rate, measure_ceilings
from gpu_network import measure_network, measure_upscaler
from gpu_profile import measure_profile
from gpu_report import Report, Row
from gpu_scan import measure_scan
from gpu_timing import Timer
from gpu_training import measure_degradation, measure_step, measure_training
from machine import describe, describe_card

ROOT = Path(__file__).resolve().parents[1]
MARK = re.compile(r"mark\.gpu\b")


def measure_tests(bench: Bench) -> None:
    """The tests marked gpu, in a process of their own, from the files that have any."""
    files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if MARK.search(file.read_text("utf-8")))
    files.sort(key=lambda file: "triton" in Path(file).name)  # those that compile for long come last
    files = files[:1] if bench.quick else files
    found, output = bench.folder / "tests.xml", bench.report.log.with_name(f"{bench.report.log.stem}_tests.log")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--continue-on-collection-errors", "--durations=15"]
    command += ["-W", "default", "-o", "faulthandler_timeout=40", "-p", "no:cacheprovider"]  # versions there may warn
    if find_spec("xdist"):  # most of the time is spent on compiling kernels
        command += ["-p", "xdist", "-n", "5"]
    command += [f"--junitxml={found}", *files]
    limit = max(20.0, bench.report.left() - bench.report.reserved)
    with output.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise RuntimeError(f"not done after {limit:.0f} s; see {output.name}") from None
    result = read_junit(found)
    bench.report.facts["tests"] = {"exit": code, **result}
    broken = len(result["failed"])
    bench.report.texts["Tests marked gpu"] = "\n".join(
        [
            f"{result['passed']} passed, {result['skipped']} skipped, {broken} failed.",
            *(f"- {x}" for x in result["failed"]),
        ]
    )
    bench.report.add(Row("Tests", "failed", "", broken, target=0))
    bench.report.add(Row("Tests", "passed", "", result["passed"]))


def read_junit(file: Path) -> dict:
    """Counts of a pytest run, and the names of what failed, or could not be collected, with the reason's first line."""
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    failed, skipped = [], 0
    for case in cases:
        trouble = [child for child in case if child.tag in ("failure", "error")]
        skipped += any(child.tag == "skipped" for child in case)
        if trouble:
            reason = (trouble[0].get("message") or "").strip().splitlines()[:1]
            failed.append(f"{case.get('classname')}::{case.get('name')}: {''.join(reason)[:200]}")
    return {"passed": len(cases) - skipped - len(failed), "skipped": skipped, "failed": failed}


PARTS: dict[str, Callable[[Bench], None]] = {
    "scan": measure_scan,
    "network": measure_network,
    "step": measure_step,
    "tests": measure_tests,
    "upscaler": measure_upscaler,
    "degradation": measure_degradation,
    "training": measure_training,
    "profile": measure_profile,
}
SECONDS = {  # what each part should take at the most, beside what it waits for
    "scan": 15,
    "network": 10,
    "step": 10,
    "tests": 60,
    "upscaler": 25,
    "degradation": 5,
    "training": 65,
    "profile": 10,
}


def run_parts(bench: Bench, names: list[str]) -> None:
    """The named parts, as long as there is time."""
    report = bench.report
    for number, name in enumerate(names):
        report.reserved = sum(SECONDS[later] for later in names[number + 1 :])
        if report.left() < SECONDS[name] / 2:
            report.errors[name] = f"skipped: {max(0, report.left()):.0f} s were left"
            print(f"{name} {report.errors[name]}", flush=True)
            continue
        print(f"{name} ({report.left():.0f} s left)", flush=True)
        start = time.monotonic()
        with report.guarded(name):
            PARTS[name](bench)
        bench.release()
        report.seconds[name] = time.monotonic() - start
        report.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tries every line")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--minutes", type=float, default=4.5, help="parts that would end later are left out")
    parser.add_argument("--json", type=Path, default=Path("out/gpu.json"))
    parser.add_argument("--markdown", type=Path, default=Path("out/gpu.md"))
    args = parser.parse_args()
    if args.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here (--device cpu --quick tries everything without one)")
    names = [name for name in args.only or PARTS if not (args.no_tests and name == "tests")]
    report, timer = Report(args.json, args.markdown, args.minutes), Timer(args.device)
    report.machine = {**describe(), "device": str(args.device)}
    with report.guarded("facts about the card"):
        report.machine |= describe_card(args.device)
    print(report.machine["summary"], flush=True)
    report.ceilings = measure_ceilings(timer, quick=args.quick)
    with report.guarded("rate of exponentials (assumed)"):
        report.ceilings = report.ceilings._replace(exponentials=exponential_rate(timer, quick=args.quick))
    print({name: f"{rate:.4g}" for name, rate in report.ceilings._asdict().items()}, flush=True)
    report.write()
    with tempfile.TemporaryDirectory() as folder:
        run_parts(Bench(timer, report.ceilings, report, args.quick, Path(folder)), names)
    print(f"{args.json}, {args.markdown}")


if __name__ == "__main__":
    main()
