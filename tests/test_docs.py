"""Every command and every piece of Python in the documents is run here, or at least parsed to its end.

A document's blocks are run in their order in a folder of small stand-ins for what they name. What can't be run here is
in one of the tables below, with the reason: commands of `dacesr` are then parsed, and of other programs that is checked
which can be. A new command that is neither run nor in a table fails its document's test.
"""

import ast
import itertools
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from commandline import parse, words_of
from PIL import Image
from typer.testing import CliRunner

from dacesr.checkpoint import load_restorer, resolve, save_restorer
from dacesr.cli import app
from dacesr.nets.restorer import Restorer, RestorerConfig

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    {
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("src/dacesr/weights/**/*.md"),
    }
)
BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?:^|\s)#.*$")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)

PICTURES = {  # stand-ins by their size
    (32, 24): (
        *("photo.jpg", "photo.png", "cat.jpg", "album/a.jpg", "album/2019/b.png", "scan.tif", "screenshot.png"),
        *("frames/000001.png", "frames/000002.png"),
    ),
    (128, 96): (
        *("out/0801.png", "DIV2K_valid_HR/0801.png", "Set14/1.png", "RealSR(V3)/1.png", "DrealSRVal_crop128/1.png"),
        *("results/seesr/1.png", "results/stablesr/1.png"),
    ),
    (144, 144): ("photos/1.jpg", "photos/2.png", "val/1.png"),
    (132, 76): ("lr/1.png",),
    (528, 304): ("hr/1.png", "results/hat/1.png", "data/photos/train/1.png", "data/photos/val/1.png"),
}
TINY = (  # of a network of a few hundred numbers
    *("DVMSR.pth", "mine.pth", "rlfn.pth", "RealESRGAN_x4plus.pth", "RealESRGAN_x4plus_anime_6B.pth"),
    "out/mine/model.safetensors",
)
BUNDLED = ("light", "light-fidelity")  # under their own names

NOT_RUN = {  # commands of dacesr that are parsed only: how they begin, and why
    "dacesr --install-completion": "it writes into the start file of the user's shell",
    "dacesr serve": "it serves until it is stopped; tests of its own run it",
    "dacesr models export": "it takes a quarter of a minute; tests of its own run it",
    "dacesr train selection": "it takes an hour",
    "dacesr analyze severity": "it needs many labelled pictures",
    "dacesr analyze recognition": "it takes minutes; tests of its own run it",
    "dacesr evaluate table2": "it times networks of up to 20 million parameters",
    "dacesr evaluate table4": "it trains for hours",
    "dacesr evaluate ablation": "it trains for hours",
    "dacesr train tagger": "it needs the labelled pictures",
    "dacesr train extractor": "it goes on from what the commands before it train",
    "dacesr analyze attribution photos/*.png": "it takes minutes",
    "dacesr analyze attribution photo.jpg -o out --condition attributed": "it takes a quarter of a minute",
}
NEEDS = {  # words of commands of dacesr that are parsed only, and why
    "ray": "it starts Ray; tests of its own do",
    "ram_swin_large_14m.pth": "the authors' RAM is a release file of gigabytes",
    "ram.pth": "the authors' RAM is a release file of gigabytes",
    "released.pth": "the authors' DACESR is a release file",
    "lpips": "it needs the files of LPIPS",
    "niqe": "it needs the file of NIQE",
    "--plot": "it needs the files of LPIPS",
    "random:rrdb": "a network of 17 million parameters",
    "configs/restorer_light_stage2.toml": "it needs a feature network's file",
    "configs/dacesr_light_stage2.toml": "it needs a feature network's file",
    "configs/dacesr_light_stage1.toml": "it needs pictures of 640 pixels",
    "INPUT...": "it shows the form of calls",
    "upscayl-lite-4x.param": "a file of ncnn's",
    "lite-severity.json": "the command before it is not run",
    "dacesr.onnx": "the command before it is not run",
    "s3://bucket/album": "it needs a bucket",
}

QUICKER = {  # what is added to commands that would take long; of several values the last holds
    "train": ["--dry-run", "--set", "data.batch=1", "--set", "data.crop=64"],
    "analyze attribution": ["--steps", "4"],
}
NOT_EXECUTED = {  # pieces of Python that are parsed only: what is in them, and why
    "ram_swin_large_14m.pth": "the authors' RAM is a release file of gigabytes",
    "extractor.onnx": "the command that exports it is not run",
    "light.pt2": "the command that exports it is not run",
    "spandrel_plugin": "it needs spandrel",
    "http://127.0.0.1:7860": "it needs a running server; tests of its own call one",
}


def _pip(words: list[str]) -> None:
    """Extras that an installation names are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for word in words:
        if found := re.fullmatch(r"(?:\.|.*dacesr.*)\[([\w,-]+)\]", word):
            assert set(found[1].split(",")) <= set(extras), word


def _make(words: list[str]) -> None:
    targets = {word for word in words if "=" not in word}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def _python(words: list[str]) -> None:
    """The script or module is there, or the code parses."""
    if words[0] == "-c":
        ast.parse(words[1])
    elif words[0] == "-m":
        name = Path(*words[1].split("."))
        known = words[1] in {"venv", "pip", "build", "http.server"} or any(
            (ROOT / folder / name).with_suffix(".py").is_file() or (ROOT / folder / name / "__main__.py").is_file()
            for folder in (".", "src")
        )
        assert known, f"there is no module {words[1]}"
    else:
        assert (ROOT / words[0]).is_file(), f"there is no script {words[0]}"


def _docker(words: list[str]) -> None:
    """What follows the name of our image is a call of dacesr."""
    if words[0] == "run" and "dacesr" in words:
        parse(words[words.index("dacesr") + 1 :])


def _launcher(words: list[str]) -> None:
    parse(words_of(shlex.join(words)))


def _nothing(words: list[str]) -> None:
    pass


OTHERS: dict[str, tuple[str, Callable[[list[str]], None]]] = {  # other programs: why they aren't run; what is checked
    "pip": ("it needs a network", _pip),
    "pipx": ("it needs a network", _pip),
    "make": ("it installs", _make),
    "python": ("what it runs takes minutes, or has tests of its own", _python),
    "python3": ("it makes an environment", _python),
    "docker": ("it needs a daemon", _docker),
    "torchrun": ("it needs several GPUs", _launcher),
    "accelerate": ("it needs several GPUs", _launcher),
    "git": ("it needs a network", _nothing),
    "cd": ("into a checkout", _nothing),
    "curl": ("it needs a server", _nothing),
    "ffmpeg": ("it may not be installed", _nothing),
    "cat": ("of a pipe", _nothing),
    "ssh": ("it needs another machine", _nothing),
    "source": ("a virtual environment", _nothing),
}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small pictures, weights and sets under the names that documents use."""
    folder = tmp_path_factory.mktemp("stand_ins")
    random = np.random.default_rng(0)

    def picture(name: str, size: tuple[int, int]) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)

    for size, names in PICTURES.items():
        for name in names:
            picture(name, size)
    net = Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear"))
    for name in TINY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_restorer(folder / name, net)
    for name in BUNDLED:
        shutil.copy(resolve(name), folder)
    lines = "".join(f"photos/1.jpg,{split},sun sky\n" for split in ("train", "test"))
    (folder / "corel5k.csv").write_text("file,split,tags\n" + lines)
    return folder


class Reader:
    """Runs what a document says, in a folder; analyses, which take seconds, once for all documents."""

    analysed: ClassVar[set[str]] = set()

    def __init__(self, folder: Path) -> None:
        """Start with nothing said."""
        self.folder = folder
        self.variables = dict(os.environ)
        net = load_restorer("dacesr-light")
        self.names: dict[str, object] = {"x": torch.rand(1, 3, 24, 32), "net": net, "save_restorer": save_restorer}

    def shell(self, line: str) -> None:
        """A line of a shell: assignments, and commands one after another."""
        words = shlex.split(self._expanded(line.removeprefix("export ")))
        assigned = [ASSIGNMENT.fullmatch(word) for word in words]
        if all(assigned):
            self.variables.update(found.groups() for found in assigned if found)
            return
        for command in re.split(r" && | ; ", line):
            given: bytes | None = None
            for part in command.split(" | "):
                given = self._command(self._expanded(part.strip()), given)

    def _expanded(self, text: str) -> str:
        text = re.sub(r"(?<![\w/])~(?=/)", str(self.folder), text)
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.variables.get(found[1], found[0]), text)

    def _command(self, text: str, given: bytes | None) -> bytes:
        """Run it, or check it; what it writes to standard output, where others read that."""
        program, *words = itertools.dropwhile(ASSIGNMENT.fullmatch, shlex.split(text))
        program = program.rpartition("/")[2]  # of a virtual environment
        if program != "dacesr":
            assert program in OTHERS, f"{text}: neither run nor in the table of programs"
            OTHERS[program][1](words)
            return (self.folder / "photo.jpg").read_bytes()
        words = words_of(text)
        parse(words)
        if reason_not_to_run(words) or (words[0] == "analyze" and text in self.analysed):
            return b""
        self.analysed.add(text)
        words += next((more for start, more in QUICKER.items() if shlex.join(words).startswith(start)), [])
        result = CliRunner().invoke(app, self._found(words), input=given)
        assert result.exit_code == 0, f"{text}: {result.exit_code}\n{result.stderr}\n{result.exception!r}"
        if written := re.search(r"(?<!2)> *(\S+)", text):
            (self.folder / written[1]).write_bytes(result.stdout_bytes)
        return result.stdout_bytes

    def _found(self, words: list[str]) -> list[str]:
        """The words with patterns of file names replaced by the files, as a shell does."""
        found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
        return [name for names in found for name in names]

    def python(self, code: str) -> None:
        """A block of Python; names stay for the next."""
        parsed = ast.parse(code)
        if not any(sign in code for sign in NOT_EXECUTED):
            exec(compile(parsed, "document", "exec"), self.names)


def reason_not_to_run(words: list[str]) -> str | None:
    """Why a call of dacesr is only parsed."""
    call = " ".join(["dacesr", *words])
    starts = [reason for start, reason in NOT_RUN.items() if f"{call} ".startswith(f"{start} ")]
    return next(iter([*starts, *(NEEDS[word] for word in words if word in NEEDS)]), None)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Languages and contents of a document's fenced blocks."""
    for indent, language, content in BLOCK.findall(document.read_text("utf-8")):
        yield language, re.sub(rf"^{indent}", "", content, flags=re.MULTILINE)


def lines_of(language: str, content: str) -> list[str]:
    """The commands of a block: continued lines joined, comments and (in consoles) what programs say left out."""
    lines = re.sub(r" *\\\n *", " ", content).splitlines()
    if language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in (COMMENT.sub("", line).strip() for line in lines) if line]


with_every_document = pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if any(blocks(path))], ids=lambda path: str(path.relative_to(ROOT))
)


@with_every_document
def test_a_document_does_what_it_says(document, stand_ins, tmp_path, monkeypatch):
    shutil.copytree(stand_ins, tmp_path, dirs_exist_ok=True)
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DACESR_DATA", str(tmp_path / "data"))
    reader = Reader(tmp_path)
    for language, content in blocks(document):
        if language in {"bash", "sh", "console"}:
            for line in lines_of(language, content):
                reader.shell(line)
        elif language == "python":
            reader.python(content)


def test_what_stands_in_the_tables_is_in_a_document():
    lines = [
        line
        for document in DOCUMENTS
        for language, content in blocks(document)
        if language in {"bash", "sh", "console"}
        for line in lines_of(language, content)
    ]
    text = "\n".join(lines)
    assert not [start for start in NOT_RUN if not re.search(rf"{re.escape(start)}\b", text)]
    assert not [word for word in NEEDS if word not in text]
    python = "".join(code for document in DOCUMENTS for language, code in blocks(document) if language == "python")
    assert not [sign for sign in NOT_EXECUTED if sign not in python]
    assert not [program for program in OTHERS if not re.search(rf"(^|\| |&& ){program} ", text, re.MULTILINE)]


@pytest.mark.parametrize(
    "wrong",
    [
        "dacesr upscale photo.jpg --no-such-flag",
        "dacesr serve --no-such-flag",
        "dacesr upscal photo.jpg",
        "dacesr upscale missing.jpg",
        "rm -rf photos",
        'pip install "dacesr[nothing]"',
        "make nothing",
        "python benchmarks/nothing.py",
    ],
)
def test_a_wrong_command_would_fail(wrong, stand_ins, monkeypatch):
    monkeypatch.chdir(stand_ins)
    with pytest.raises((AssertionError, ValueError)):
        Reader(stand_ins).shell(wrong)
