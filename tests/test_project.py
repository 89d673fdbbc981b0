"""The project around the package: documents, Makefile, examples, and what an import costs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pyvips

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)|(?:src|href)=\"([^\"#]+)\"")
PATH = re.compile(r"`((?:src|docs|tests|examples|benchmarks|native|configs)/[\w./-]*)`")
LARGEST = 1_000_000

with_every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def fences(document: Path, *languages: str) -> list[str]:
    """The code blocks of a document in the given languages."""
    return [code for language, code in FENCE.findall(document.read_text("utf-8")) if language in languages]


def tracked() -> list[Path]:
    """The files under version control; the test is skipped in a source archive."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("needs git and a checkout")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def make(*arguments: str, path: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make with a PATH and nothing else from this environment; it is stopped after a minute."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("needs make")
    command = [program, "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(
        command, env={"PATH": str(path), **environment}, capture_output=True, text=True, timeout=60, check=False
    )
