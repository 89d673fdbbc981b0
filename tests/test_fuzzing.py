"""A short run of `python -m tests.fuzz`, and that its judge condemns what it should."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from forked import ROOT, Ended
from fuzz.judging import MEMORY, Trial, judge
from fuzz.mutators import change_container, change_png, damaged, mutated

COUNT = 10


@pytest.mark.slow
def test_nothing_is_found(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    call = ["--count", str(COUNT), "--seed", "4", "--failures", str(tmp_path / "failures"), "--json", str(figures)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *call], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(figures.read_text())
    assert list(found) == ["images", "checkpoints", "configs", "tiles"]
    for target, result in found.items():
        assert result["trials"] == sum(result["outcomes"].values()) == COUNT
        assert result["problems"] == []
        assert result["outcomes"]["done"] > 0
        assert len(result["outcomes"]) > (1 if target in ("images", "checkpoints") else 0)


ERROR = "dacesr: in/a.png is damaged\n"
VERDICTS = {  # what it is condemned for: how the process ended, what was made
    "": (Ended(1, 0, 1, False, "", ERROR), []),
    "signal 11": (Ended(-11, 0, 1, False, "", ""), []),
    "more than": (Ended(-9, 0, 99, True, "", ""), []),
    "exit code is 3": (Ended(3, 0, 1, False, "", ERROR), []),
    "not foreseen": (Ended(1, 0, 1, False, "", ERROR + "Traceback (most recent call last):\n"), []),
    "no user should see": (Ended(1, 0, 1, False, "", ERROR + "vips: bad\n"), []),
    "says something twice": (Ended(1, 0, 1, False, "", ERROR + ERROR), []),
    "control characters": (Ended(1, 0, 1, False, "", "dacesr: in/a.png \x1b[2J\n"), []),
    "no sentence names": (Ended(1, 0, 1, False, "", "dacesr: it is damaged\n"), []),
    "a sentence has": (Ended(1, 0, 1, False, "", f"dacesr: in/a.png {'x' * 5000}\n"), []),
    "it leaves tmp/x": (Ended(1, 0, 1, False, "", ERROR), ["tmp/x"]),
    "code was run": (Ended(1, 0, 1, False, "", ERROR), ["executed"]),
    "0 files are written": (Ended(0, 0, 1, False, "", ""), []),
    "1 files are written": (Ended(1, 0, 1, False, "", ERROR), ["out/a.png"]),
}


@pytest.mark.parametrize("said", VERDICTS)
def test_what_should_not_be_is_condemned(said: str) -> None:
    trial = Trial("images", "x", {}, [["upscale", "in/a.png", "-o", "out"]], "in/a.png", [0, 1])
    ended, made = VERDICTS[said]
    problems = judge(trial, ended, made, 0)[1]
    assert any(said in problem for problem in problems) if said else problems == []
    assert judge(trial, ended, made, MEMORY + 1)[1][-1].startswith("it came to hold")


def test_a_seed_decides_a_mutant() -> None:
    data = bytes(range(200)) * 3
    png = b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 2]) + b"abcdef" + bytes(4)
    for change, content in ((damaged, data), (change_png, png), (change_container, b"7767517\n1 2\nInput a 0 1 b")):
        assert {change(content, Random(5)) for _ in range(3)} == {change(content, Random(5))}
        assert len({change(content, Random(seed)) for seed in range(20)}) > 10
    assert len({mutated(data, None, [png], Random(seed)) for seed in range(20)}) > 15
