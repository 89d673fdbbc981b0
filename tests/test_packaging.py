"""What is shipped: the source archive, a wheel made from it that runs without a compiler, and the files around them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dacesr.checkpoint import describe
from dacesr.weightfiles import WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = PROJECT["project"]["version"]
WORKFLOWS = ROOT / ".github" / "workflows"
MOST_BYTES = 60_000_000
NETWORKS = sorted(path.relative_to(WEIGHTS).with_suffix("").as_posix() for path in WEIGHTS.rglob("*.safetensors"))
TELL_AND_UPSCALE = """
import json, sys, dacesr
from dacesr.cli import main
from dacesr.nets.scan import available_backends
print(json.dumps([dacesr.__version__, dacesr.__file__, available_backends()]), flush=True)
main()
"""

in_a_checkout = pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="needs a checkout: archives leave hidden files out")


def run(command: list[str], **environment: str) -> str:
    """What a command prints, run with some variables of the environment changed."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder to put into PYTHONPATH, with the build backend if it isn't installed."""
    if importlib.util.find_spec("scikit_build_core"):
        return ""
    folder = tmp_path_factory.mktemp("backend")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    done = subprocess.run([*pip, "scikit-build-core"], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"needs scikit-build-core: {done.stderr.strip().splitlines()[-1]}")
    return str(folder)


@pytest.fixture(scope="module")
def sdist(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive of this checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    code = (
        f"import os; os.chdir({str(ROOT)!r}); from scikit_build_core.build import build_sdist as f; f({str(folder)!r})"
    )
    run([sys.executable, "-c", code], PYTHONPATH=backend)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source archive."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(sdist)])
    return next(folder.glob("*.whl"))


def names_in(wheel: Path) -> list[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def metadata_of(wheel: Path, name: str = "METADATA") -> Message:
    """METADATA or WHEEL in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return HeaderParser().parsestr(archive.read(f"dacesr-{VERSION}.dist-info/{name}").decode())


@pytest.mark.slow
def test_the_source_archive_holds_what_a_build_and_the_tests_need(sdist: Path) -> None:
    assert sdist.name == f"dacesr-{VERSION}.tar.gz"
    assert sdist.stat().st_size < MOST_BYTES
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "CMakeLists.txt", "LICENSE", "NOTICE", "README.md", "constraints.txt", "PKG-INFO"}
    needed |= {"native/kernels.cpp", "tests/conftest.py", "configs/restorer_light_stage1.toml", "examples/portrait.jpg"}
    assert needed <= names
    assert not [name for name in names if name.startswith((".", "out/", "build/"))]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".so")]


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST_BYTES
    names = names_in(wheel)
    native = [name for name in names if name.startswith("dacesr/_native.")]
    assert len(native) == 1
    assert {name.partition("/")[0] for name in names} == {"dacesr", f"dacesr-{VERSION}.dist-info"}
    package = ROOT / "src" / "dacesr"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix not in {".pyc", ".so"}]
    expected = {path.relative_to(package.parent).as_posix() for path in files}
    assert expected == {name for name in names if name.startswith("dacesr/")} - {*native}
    assert {f"dacesr/weights/{name}.safetensors" for name in NETWORKS} <= expected


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    about = metadata_of(wheel)
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("dacesr", VERSION, "Apache-2.0")
    assert about.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert set(about.get_all("Provides-Extra", [])) == set(PROJECT["project"]["optional-dependencies"])
    names = names_in(wheel)
    assert {f"dacesr-{VERSION}.dist-info/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= {*names}
    tag = metadata_of(wheel, "WHEEL")["Tag"]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert tag.startswith("cp312-abi3-" if sys.version_info >= (3, 12) else f"{python}-{python}-")


@pytest.mark.slow
def test_the_wheel_upscales_where_there_is_no_compiler(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    path = os.pathsep.join([str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    out = tmp_path / "out.png"
    told = run(  # without -S a checkout that is installed editable would come first
        [sys.executable, "-S", "-c", TELL_AND_UPSCALE, "upscale", str(ROOT / "examples/portrait.jpg"), "-o", str(out)],
        PYTHONPATH=path,
        PATH=str(tmp_path / "nothing"),
        CC="false",
        CXX="false",
    )
    version, module, backends = json.loads(told.splitlines()[0])
    assert version == VERSION
    assert Path(module).is_relative_to(installed)
    assert "native" in backends
    with Image.open(out) as image, Image.open(ROOT / "examples/portrait.jpg") as before:
        assert image.size == (4 * before.width, 4 * before.height)
        small = image.convert("RGB").resize(before.size, Image.Resampling.BOX)
        assert abs(np.asarray(small, float) - np.asarray(before.convert("RGB"), float)).mean() < 8


def test_the_version_is_the_same_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[(\S+)\]", changelog, re.MULTILINE)[0] == VERSION
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == VERSION
    assert "__version__ =" not in (ROOT / "src/dacesr/__init__.py").read_text("utf-8")


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["project"]["license"]
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"] == PROJECT["project"]["urls"]["Paper"]


def test_notices_are_shipped_for_what_is_linked_in() -> None:
    assert PROJECT["project"]["license-files"] == ["LICENSE", "NOTICE"]
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert not [text for text in ("Wenzel Jakob", "Thibaut Goetghebuer-Planchon") if text not in notice]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_bundled_file_has_a_card_and_stands_in_the_index(name: str) -> None:
    found = describe(WEIGHTS / f"{name}.safetensors")
    stem = Path(name).name
    cards = [card.read_text("utf-8") for card in (WEIGHTS / name).parent.glob("*.md")]
    card = next(card for card in cards if f"`{stem}.safetensors`" in card or f"`{stem}`" in card)
    assert f"{found.parameters:,} parameters" in card
    rows = [line for line in (ROOT / "docs/models.md").read_text("utf-8").splitlines() if f"| `{stem}` |" in line]
    assert len(rows) == 1
    size = (WEIGHTS / f"{name}.safetensors").stat().st_size
    told = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert told[-3:] == [f"{found.parameters:,}", f"{size / 1e6:.2f} MB", f"`{found.sha256[:12]}`"]


@in_a_checkout
def test_the_image_copies_what_the_context_holds_and_nothing_else_enters() -> None:
    words = [line.split() for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines() if line.startswith("COPY ")]
    copied = {source for _, *sources, _ in words for source in sources if not sources[0].startswith("--from=")}
    assert not [source for source in copied if not (ROOT / source).exists()]
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert {line for line in lines[1:] if not line.startswith("!")} == {"**/__pycache__", "**/*.so"}


@in_a_checkout
def test_the_image_is_built_in_known_stages_and_runs_the_command_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    assert {*re.findall(r"^COPY --from=(\w+) ", text, re.MULTILINE)} == {*stages}
    last = text[text.rindex("\nFROM ") :].splitlines()
    assert 'ENTRYPOINT ["dacesr"]' in last
    assert "USER 1000" in last


@in_a_checkout
def test_only_a_tag_publishes_and_without_a_secret() -> None:
    text = (WORKFLOWS / "wheels.yml").read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    publish = jobs.pop("publish")
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(publish["needs"]) == set(jobs)
    assert publish["permissions"] == {"id-token": "write"}
    assert not [name for name, job in jobs.items() if "permissions" in job]
    assert "secrets." not in text


@in_a_checkout
@pytest.mark.parametrize("workflow", ["tests", "wheels"])
def test_steps_of_a_workflow_name_their_versions(workflow: str) -> None:
    content = yaml.safe_load((WORKFLOWS / f"{workflow}.yml").read_text("utf-8"))
    assert content["permissions"] == {"contents": "read"}
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert steps
    assert not [step["uses"] for step in steps if not re.search(r"@(v\d+|release/v1)$", step.get("uses", "@v1"))]


def test_wheels_are_built_for_the_pythons_that_the_project_names() -> None:
    options = PROJECT["tool"]["cibuildwheel"]
    known = re.findall(r"Python :: (3)\.(\d+)$", "\n".join(PROJECT["project"]["classifiers"]), re.MULTILINE)
    assert options["build"] == [f"cp{major}{minor}-*" for major, minor in known]
    assert PROJECT["project"]["requires-python"] == f">={'.'.join(known[0])}"
    named = [word for command in options["test-command"] for word in re.findall(r"\{package\}/(examples\S+)", command)]
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]
