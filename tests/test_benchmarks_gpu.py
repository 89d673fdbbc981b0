"""The measurements of a GPU: a dry run of all parts on the CPU, and how failures, time limits and targets are told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
PARTS = {"scan", "network", "step", "upscaler", "degradation", "training", "profile"}


@pytest.fixture(autouse=True)
def _benchmarks_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def report(tmp_path):
    from gpu_report import Report

    return Report(tmp_path / "out" / "gpu.json", tmp_path / "out" / "gpu.md", minutes=1)


@pytest.mark.slow
def test_a_dry_run_measures_every_part(tmp_path):
    files = tmp_path / "gpu.json", tmp_path / "gpu.md"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", "--quick", "--no-tests"]
    command += ["--json", str(files[0]), "--markdown", str(files[1])]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **hidden}, timeout=120)
    found = json.loads(files[0].read_text())
    assert found["seconds"].keys() == PARTS
    assert found["errors"] == {}, files[0].with_name("gpu.log").read_text()
    assert all(row["measured"] > 0 for row in found["rows"] if row["unit"] in ("ms", "s", "MP/s"))
    assert all(rate > 0 for rate in found["ceilings"].values())
    table = files[1].read_text()
    assert all(row["what"] in table for row in found["rows"])


@pytest.mark.parametrize(
    ("measured", "predicted", "target", "bound", "met"),
    [
        (0.011, None, 0.012, "at most", True),
        (0.013, None, 0.012, "at most", False),
        (26.0, None, 25.0, "at least", True),
        (24.0, None, 25.0, "at least", False),
        (3.5, 2.0, 1.8, "times", True),
        (3.7, 2.0, 1.8, "times", False),
        (3.7, None, None, "at most", None),
    ],
)
def test_a_row_says_whether_its_target_is_met(measured, predicted, target, bound, met):
    from gpu_report import Row

    assert Row("part", "what", "ms", measured, predicted, target, bound).met is met


def test_a_failure_is_recorded_and_the_rest_goes_on(report, tmp_path, monkeypatch):
    import gpu
    import torch
    from gpu_bench import Bench
    from gpu_floors import Ceilings
    from gpu_report import Row
    from gpu_timing import Timer

    def fail(_):
        raise RuntimeError("no such kernel\nmore")

    monkeypatch.setattr(gpu, "PARTS", {"scan": fail, "step": lambda bench: report.add(Row("Step", "one", "ms", 0.5))})
    bench = Bench(Timer(torch.device("cpu")), Ceilings(1, 1, 1), report, True, tmp_path)
    gpu.run_parts(bench, ["scan", "step"])
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert found["errors"] == {"scan": "RuntimeError: no such kernel"}
    assert [row["what"] for row in found["rows"]] == ["one"]
    assert "more" in report.log.read_text()
    monkeypatch.setattr(report, "_end", 0)
    gpu.run_parts(bench, ["step"])
    assert "skipped" in report.errors["step"]
    assert len(report.rows) == 1


def test_results_of_pytest_are_read(tmp_path):
    import gpu

    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pytest.skip('no')\n"
        "def test_c(): assert 1 == 2, 'one is not two'\n"
        "@pytest.fixture\ndef broken(): raise OSError('lost')\n"
        "def test_d(broken): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "--junitxml=found.xml", "."]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    found = gpu.read_junit(tmp_path / "found.xml")
    assert (found["passed"], found["skipped"], len(found["failed"])) == (1, 1, 2)
    assert "test_c" in found["failed"][0]
    assert "one is not two" in found["failed"][0]


def test_the_floor_of_a_scan_is_its_bytes_or_its_exponentials():
    from gpu_floors import Ceilings, scan_work

    work = scan_work(b=2, d=3, l=5, n=7, itemsize=2)
    assert work["forward"].bytes == 2 * 5 * (3 * (2 + 2 + 2 + 4) + 7 * (4 + 4))  # u, z, out, delta; B, C
    assert work["backward"].bytes == 2 * 5 * (3 * (5 * 2 + 2 * 4) + 7 * 4 * 4)
    assert work["forward"].exponentials == 2 * 3 * 5 * 7
    assert work["forward"].floor(Ceilings(1e3, 1, 1e12)) == pytest.approx(0.86)
    assert work["forward"].floor(Ceilings(1e12, 1, 1e2)) == pytest.approx(2.1)
