"""Help of the command line: examples that parse, a help text for everything, suggestions, completion, next steps."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import ROOT, commands, parse, words_of
from PIL import Image
from typer.testing import CliRunner

from dacesr import completing
from dacesr.checkpoint import bundled_names
from dacesr.cli import app
from dacesr.degradation.recipe import SPACES
from dacesr.evaluate.measures import NAMES
from dacesr.formats import FORMATS, format_of
from dacesr.weightfiles import recognition_names, resolve

RUN = CliRunner()
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "debug.toml"
COMMANDS = dict(commands())


def examples(node: Any) -> list[str]:
    """The examples in a command's help."""
    lines = [line.strip() for line in f"{node.help or ''}\n{node.epilog or ''}".splitlines()]
    starts = ("dacesr ", "accelerate launch ", "torchrun ")
    return [line.split("   ")[0] for line in lines if line.startswith(starts)]  # explanations stand after three blanks


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_parse(name):
    node = COMMANDS[name]
    found = examples(node)
    assert found, f"{name} -h has no example"
    for example in found:
        parse(words_of(example))
    assert any(" ".join(["dacesr", *words_of(example)]).startswith(name) for example in found)


@pytest.mark.parametrize("name", COMMANDS)
def test_everything_has_a_help_text(name):
    node = COMMANDS[name]
    assert node.help, name
    for parameter in node.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help text"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_and_shows_the_examples_line_by_line(name):
    result = RUN.invoke(app, [*name.split()[1:], "--help"], env={"COLUMNS": "130"})
    assert result.exit_code == 0
    shown = [line.strip() for line in result.stdout.splitlines()]
    for example in examples(COMMANDS[name]):
        assert any(line.startswith(example) for line in shown)


def test_the_first_commands_come_first():
    text = RUN.invoke(app, ["-h"]).stdout
    first = text.partition("The first three commands:")[2].split("`")[0]
    assert [line.split()[:2] for line in first.strip().splitlines()] == [
        ["dacesr", "upscale"],
        ["dacesr", "inspect"],
        ["dacesr", "serve"],
    ]
    assert list(ROOT.commands)[:3] == ["upscale", "inspect", "serve"]


# --- suggestions


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["upscal", "photo.jpg"], "'upscale'"),
        (["evaluate", "tabel1"], "'table1'"),
        (["models", "lst"], "'list'"),
        (["upscale", "photo.jpg", "--tiel", "0"], "--tile"),
        (["upscale", "photo.jpg", "--skip-exsting"], "--skip-existing"),
        (["doctor", "--cheek"], "--check"),
    ],
)
def test_an_unknown_command_or_flag_suggests_the_nearest(words, suggestion):
    result = RUN.invoke(app, words)
    assert result.exit_code == 2
    assert suggestion in result.stderr


def test_a_picture_in_place_of_a_command(tmp_path):
    (tmp_path / "my photo.jpg").touch()
    result = RUN.invoke(app, [str(tmp_path / "my photo.jpg")], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert f"To enlarge it: dacesr upscale '{tmp_path / 'my photo.jpg'}'" in result.stderr
    assert "enlarge" not in RUN.invoke(app, ["nothing.jpg"]).stderr


# --- completion


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Complete a command line in a real bash, by the script that --show-completion gives; torch can't be imported."""
    bash = shutil.which("bash") or pytest.skip("needs bash")
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bin").mkdir()
    program = folder / "bin" / "dacesr"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.modules.update(dict.fromkeys(('torch', 'pyvips', 'numpy')))\n"
        "from dacesr.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    script = subprocess.run(
        [program], env={**env, "_DACESR_COMPLETE": "source_bash"}, capture_output=True, text=True, check=True
    ).stdout

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        listed = " ".join(shlex.quote(word) for word in words)
        code = f"{script}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n_dacesr_completion dacesr\n"
        done = subprocess.run(
            [bash, "--norc", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'],
            env=env, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert not done.stderr
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dacesr up", {"upscale"}),
        ("dacesr models ", {"list", "info", "convert"}),
        ("dacesr upscale --skip", {"--skip-existing"}),
        ("dacesr upscale --precision b", {"bf16"}),
        ("dacesr upscale -n dacesr-", {"dacesr-light", "dacesr-light-fidelity"}),
        ("dacesr analyze condition photo.jpg --extractor lite-r", {"lite-ram", "lite-ree"}),
        ("dacesr degrade photos --space level", {"level1", "level2", "level3"}),
    ],
)
def test_bash_completes(shell, line, expected):
    found = set(shell(line))
    assert found == expected or (line.endswith(" ") and found >= expected)


def test_bash_completes_file_names_where_nothing_is_known(shell):
    assert shell("dacesr upscale some") == []  # then bash itself proposes files: complete -o default
    assert shell("dacesr upscale -n ./my") == []
    assert shell("dacesr inspect some") == []


@pytest.mark.parametrize("name", ["bash", "zsh", "fish", "powershell"])
def test_other_shells_get_a_script(name):
    result = RUN.invoke(app, [], env={"_DACESR_COMPLETE": f"source_{name}"}, prog_name="dacesr")
    assert result.exit_code == 0
    assert "dacesr" in result.stdout
    assert "_DACESR_COMPLETE" in result.stdout


def test_what_is_proposed_is_what_there_is():
    assert completing.models() == ["default", *bundled_names()]
    assert completing.extractors() == ["lite", *recognition_names()]
    assert all(resolve(name).is_file() for name in completing.weights())
    assert completing.methods() == ["bicubic", "lanczos", *completing.models()]
    assert completing.spaces() == list(SPACES)
    assert set(completing.measures()) == set(NAMES)
    assert {format_of(Path(f"x.{ending}")) for ending in completing.formats()} == set(FORMATS)


# --- what to do next


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, with a picture in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DACESR_DATA", raising=False)
    Image.new("RGB", (24, 16)).save("photo.png")
    return tmp_path


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("train restorer nothing.toml", "name a TOML file of yours, or one in the folder configs of the repository"),
        ("evaluate table4", "configs/ablation_light.toml does not exist: name a TOML file of yours"),
        (f"train restorer {CONFIG} --set batch", "--set takes key=value, as in data.batch=16"),
        ("analyze attribution photo.png -o out --window 3,4", "as in 96,64,16"),
        ("upscale photo.png -t small", "--tile must be auto, 0 or a positive number"),
        ("upscale photo.png --precision half", "'auto', 'fp32', 'bf16', 'fp16'"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(here, call, step):
    result = RUN.invoke(app, call.split(), env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert step in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in here.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("analyze compare photo.png -o out", 'figures need matplotlib: pip install "dacesr[analysis]"'),
        ("analyze recognition photo.png -o out", 'figures need matplotlib: pip install "dacesr[analysis]"'),
        ("evaluate table1 --set . --plot", 'the plot needs matplotlib: pip install "dacesr[analysis]"'),
    ],
)
def test_a_missing_extra_is_named_with_its_command(here, monkeypatch, call, sentence):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = RUN.invoke(app, call.split())
    assert (result.exit_code, result.stderr) == (2, f"dacesr: {sentence}\n")


@pytest.mark.parametrize(
    ("number", "step"), [(28, "make room, or choose another place with -o"), (30, "; choose another")]
)
def test_outputs_that_cannot_be_written(here, monkeypatch, number, step):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = RUN.invoke(app, ["analyze", "condition", "photo.png", "-o", "out", "--side", "16"])
    assert result.exit_code == 2
    assert result.stderr.startswith("dacesr: out cannot be written: ")
    assert step in result.stderr
