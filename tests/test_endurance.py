"""A short run of `python -m tests.endurance`: killed and started again, nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import ROOT

KILLS = 6


@pytest.mark.slow
@pytest.mark.parametrize("run", ["folder", "training"])
def test_nothing_is_lost(tmp_path: Path, run: str) -> None:
    call = [sys.executable, "-m", "tests.endurance", run, "--kills", str(KILLS), "--seed", "5"]
    call += ["--json", str(tmp_path / "figures.json")]
    ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["kills"] == KILLS
    assert figures["completed"] >= 1
    assert figures["problems"] == []
