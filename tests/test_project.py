"""The project around the package: documents, Makefile, examples, and what an import costs."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pyvips

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/*.md"),
]
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and what its rules depend on; `bin` holds the few programs it may call."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "native", "bin"):
        (tmp_path / name).mkdir()
    for program in ("find", "touch"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or pytest.skip(f"needs {program}"))
    return tmp_path


def fake_python(checkout: Path, name: str, refuses: str = "no such text") -> None:
    """Put this interpreter into the PATH folder, failing whenever its code contains a text."""
    script = f'#!/bin/sh\ncase "$*" in *"{refuses}"*) exit 1;; esac\nexec "{sys.executable}" "$@"\n'
    path = checkout / "bin" / name
    path.write_text(script)
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the folder with nothing of this environment; it is stopped after a minute."""
    program = shutil.which("make") or pytest.skip("needs make")
    return subprocess.run(
        [program, *arguments],
        cwd=checkout,
        env={"PATH": str(checkout / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@with_every_document
def test_links_and_paths_of_a_document_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    links = [target for pair in LINK.findall(text) for target in pair if target and "://" not in target]
    missing = [target for target in links if not (document.parent / target).exists()]
    missing += [target for target in PATH.findall(text) if not (ROOT / target).exists()]
    assert not missing


@with_every_document
def test_code_of_a_document_parses(document: Path) -> None:
    for code in fences(document, "python"):
        ast.parse(code, filename=str(document))
    for code in fences(document, "sh", "bash"):
        subprocess.run(["sh", "-n"], input=code, text=True, check=True)


def test_readme_shows_the_command_and_the_library() -> None:
    assert any("dacesr upscale" in code for code in fences(ROOT / "README.md", "sh", "bash"))
    assert any("from dacesr import Upscaler" in code for code in fences(ROOT / "README.md", "python"))


def test_importing_the_command_line_leaves_torch_alone() -> None:
    code = "import sys, dacesr.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_tracked_file_is_large() -> None:
    weights = ROOT / "src" / "dacesr" / "weights"
    files = [path for path in tracked() if path.is_file() and weights not in path.parents]
    assert files
    assert not [path.name for path in files if path.stat().st_size > LARGEST]


def test_examples_are_small_pictures() -> None:
    paths = [path for path in (ROOT / "examples").iterdir() if path.suffix in {".jpg", ".png", ".webp"}]
    assert len(paths) >= 5
    for path in paths:
        image = pyvips.Image.new_from_file(str(path))
        assert 100 <= min(image.width, image.height) <= max(image.width, image.height) <= 320, path.name
        assert path.stat().st_size < 60_000, path.name


def test_make_refuses_an_old_python(checkout: Path) -> None:
    fake_python(checkout, "python3", refuses="sys.version_info")
    done = make(checkout, "test")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, and python3 is not" in done.stderr
    assert not (checkout / ".venv").exists()


def test_make_names_the_old_python_it_was_given(checkout: Path) -> None:
    fake_python(checkout, "python3")
    fake_python(checkout, "python3.9", refuses="sys.version_info")
    done = make(checkout, "test", "PYTHON=python3.9")
    assert done.returncode != 0
    assert "python3.9 is not" in done.stderr


def test_make_prefers_a_newer_python_to_an_old_python3(checkout: Path) -> None:
    fake_python(checkout, "python3", refuses="sys.version_info")
    fake_python(checkout, "python3.12")
    assert '"python3.12" -m venv .venv' in make(checkout, "-n", "test").stdout


def test_make_says_that_venv_is_missing(checkout: Path) -> None:
    fake_python(checkout, "python3", refuses="ensurepip")
    done = make(checkout, "test")
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_make_says_that_the_headers_are_missing(checkout: Path) -> None:
    fake_python(checkout, "python3", refuses="Python.h")
    done = make(checkout, "test")
    assert done.returncode != 0
    assert "apt-get install python3-dev" in done.stderr


def test_make_says_that_a_compiler_is_missing(checkout: Path) -> None:
    pip = checkout / ".venv" / "bin" / "pip"
    pip.parent.mkdir(parents=True)
    pip.touch()
    done = make(checkout, "demo")
    assert done.returncode != 0
    assert "A C++ compiler is missing" in done.stderr
    assert not (checkout / ".venv" / ".installed").exists()


def test_make_sheets_takes_a_folder_and_a_model(checkout: Path) -> None:
    fake_python(checkout, "python3")
    assert 'examples/sheets.py "examples" -n "default" -o out/sheets' in make(checkout, "-n", "sheets").stdout
    chosen = make(checkout, "-n", "sheets", "FOLDER=my photos", "MODEL=a.pth").stdout
    assert 'examples/sheets.py "my photos" -n "a.pth" -o out/sheets' in chosen
