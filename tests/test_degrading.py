"""`dacesr degrade`: names, bytes, parameters, and what happens to pictures that cannot be used."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.degradation.recipe import SPACES
from dacesr.degrading import Degrader, Failed, Made, plan
from dacesr.image import read

EXAMPLES = Path(__file__).parents[1] / "examples"


def photo(path, size=(40, 32), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    if mode == "I;16":
        Image.fromarray(generator.integers(0, 65535, size[::-1], dtype=np.uint16)).save(path)
    else:
        bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
        Image.fromarray(generator.integers(0, 255, (*size[::-1], bands), dtype=np.uint8).squeeze()).save(path)
    return path


def degrade(*args):
    return CliRunner().invoke(app, ["degrade", *map(str, args)])


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_becomes_a_test_set(tmp_path):
    photo(tmp_path / "in/a.jpg")
    photo(tmp_path / "in/sub/b.png", size=(43, 30))
    out = tmp_path / "out"
    result = degrade(tmp_path / "in", "-o", out, "--space", "level2", "--seed", 1, "--recursive")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert sorted(files(out)) == ["a.png", "sub/b.png"]
    assert read(out / "a.png").shape == (1, 3, 8, 10)
    assert read(out / "sub/b.png").shape == (1, 3, 7, 10)
    assert "40 x 28 -> 10 x 7" in result.stderr  # 43 x 30, cropped


@pytest.mark.parametrize("space", SPACES)
def test_every_run_writes_the_same_bytes(tmp_path, space):
    for i in range(3):
        photo(tmp_path / f"in/{i}.png", seed=i)
    for out in ("one", "two"):
        call = ("--space", space, "--seed", 7, "--save-parameters")
        assert degrade(tmp_path / "in", "-o", tmp_path / out, *call).exit_code == 0
    first, second = (files(tmp_path / out) for out in ("one", "two"))
    assert first == second
    assert len(first) == 4


def test_another_process_writes_the_same_bytes(tmp_path):
    assert degrade(EXAMPLES, "-o", tmp_path / "here", "--space", "dasr", "--save-parameters").exit_code == 0
    program = [sys.executable, "-c", "from dacesr.cli import main; main()"]
    command = [*program, "degrade", EXAMPLES, "-o", tmp_path / "there", "--space", "dasr", "--save-parameters"]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, check=True, capture_output=True, env=threads)
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_growing_folder_leaves_the_other_pictures_as_they_were(tmp_path):
    photo(tmp_path / "in/m.png")
    space = ("--space", "level3", "--seed", 2)
    assert degrade(tmp_path / "in", "-o", tmp_path / "one", *space).exit_code == 0
    photo(tmp_path / "in/a.png", seed=1)
    assert degrade(tmp_path / "in", "-o", tmp_path / "two", *space).exit_code == 0
    assert degrade(tmp_path / "in/m.png", "-o", tmp_path / "three/else.png", *space).exit_code == 0
    expected = (tmp_path / "one/m.png").read_bytes()
    assert (tmp_path / "two/m.png").read_bytes() == expected
    assert (tmp_path / "three/else.png").read_bytes() == expected


def test_name_and_seed_decide(tmp_path):
    for name in ("a", "b", "sub/a"):
        photo(tmp_path / f"in/{name}.png")
    made = set()
    for seed in (0, 1, -5, 2**63):
        out = tmp_path / f"{seed}"
        assert degrade(tmp_path / "in", "-o", out, "--space", "level3", f"--seed={seed}", "-r").exit_code == 0
        made |= set(files(out).values())
    assert len(made) == 12


def test_saved_parameters(tmp_path):
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/b.png")
    out = tmp_path / "out"
    assert degrade(tmp_path / "in", "-o", out, "--space", "dasr", "--seed", 3, "--save-parameters").exit_code == 0
    saved = json.loads((out / "parameters.json").read_text())
    assert {key: saved[key] for key in ("space", "seed", "scale")} == {"space": "dasr", "seed": 3, "scale": 4}
    assert saved["version"]
    assert [each["name"] for each in saved["pictures"]] == ["a", "b"]
    for each in saved["pictures"]:
        assert hashlib.sha256((out / each["file"]).read_bytes()).hexdigest() == each["sha256"]
        assert each["level"] in ("level1", "level2", "level3")
        assert len(each["vector"]) == 33
        kinds = [step["step"] for step in each["steps"]]
        assert kinds[:4] == ["blur", "resize", "noise", "jpeg"]
        assert each["steps"][0].keys() == {"step", "family", "size", "sigma_x", "sigma_y", "theta", "beta", "cutoff"}
        assert isinstance(each["steps"][3]["quality"], int)


def test_describe_prints_a_line_for_each(tmp_path):
    for i in range(3):
        photo(tmp_path / f"in/{i}.png")
    result = degrade(tmp_path / "in", "-o", tmp_path / "out", "--space", "level1", "--describe", "--limit", 2)
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all("level1: gaussian blur" in line and "JPEG 9" in line for line in lines)
    assert sorted(files(tmp_path / "out")) == ["0.png", "1.png"]


def test_formats_suffix_and_scale(tmp_path):
    source = photo(tmp_path / "in/a.png")
    out = tmp_path / "out"
    call = ("--space", "bicubic", "--ext", "webp", "--suffix", "x2", "-s", 2)
    assert degrade(tmp_path / "in", "-o", out, *call).exit_code == 0
    assert read(out / "ax2.webp").shape == (1, 3, 16, 20)
    assert degrade(source, "-o", tmp_path / "b.bmp", "--space", "bicubic").exit_code == 0
    assert read(tmp_path / "b.bmp").shape == (1, 3, 8, 10)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_depth_and_transparency_are_dropped(tmp_path, mode):
    photo(tmp_path / "in/a.png", mode=mode)
    assert degrade(tmp_path / "in", "-o", tmp_path / "out", "--space", "level1").exit_code == 0
    with Image.open(tmp_path / "out/a.png") as image:
        assert (image.mode, image.size) == ("RGB", (10, 8))


def test_failures_are_named_and_the_others_written(tmp_path):
    photo(tmp_path / "in/good.png")
    photo(tmp_path / "in/tiny.png", size=(40, 3))
    (tmp_path / "in/text.png").write_text("no picture")
    out = tmp_path / "out"
    result = degrade(tmp_path / "in", tmp_path / "gone.png", "-o", out, "--space", "level1", "--save-parameters")
    assert result.exit_code == 1
    assert "tiny.png has 3 pixels a side, less than the scale 4" in result.stderr
    assert "text.png is not a picture" in result.stderr
    assert "gone.png" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(files(out)) == ["good.png", "parameters.json"]
    assert [each["name"] for each in json.loads((out / "parameters.json").read_text())["pictures"]] == ["good"]


def test_outputs_that_cannot_be_written_are_told(tmp_path):
    source = photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    result = degrade(source, "-o", tmp_path / "file/out", "--space", "level1")
    assert (result.exit_code, "cannot be made" in result.stderr) == (1, True)
    (tmp_path / "out/parameters.json").mkdir(parents=True)
    result = degrade(source, "-o", tmp_path / "out", "--space", "level1", "--save-parameters")
    assert (result.exit_code, "parameters.json cannot be written" in result.stderr) == (1, True)
    result = degrade(source, "-o", tmp_path / "b.png", "--space", "level1", "--max-pixels", 100)
    assert (result.exit_code, "--max-pixels" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--space", "level4"), "no degradation space 'level4'; there are bicubic, level1"),
        ((), "--space"),
        (("--space", "level1", "--scale", "0"), "--scale"),
        (("--space", "level1", "--limit", "0"), "--limit"),
        (("--space", "level1", "--ext", "docx"), "cannot be written as .docx"),
        (("--space", "level1", "-"), "standard input"),
    ],
)
def test_wrong_calls_exit_with_2(tmp_path, args, words):
    result = degrade(photo(tmp_path / "a.png"), "-o", tmp_path / "out", *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_inputs_are_never_overwritten(tmp_path):
    source = photo(tmp_path / "in/a.png")
    before = source.read_bytes()
    for output in (tmp_path / "in", source):
        assert degrade(source, "-o", output, "--space", "level1").exit_code == 2
    photo(tmp_path / "in/a.jpg")
    result = degrade(tmp_path / "in", "-o", tmp_path / "out", "--space", "level1")
    assert (result.exit_code, "would both become" in result.stderr) == (2, True)
    assert source.read_bytes() == before


def test_from_python(tmp_path):
    photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("no picture")
    jobs, folder = plan([str(tmp_path / "in")], str(tmp_path / "out"))
    made, failed = Degrader(space="level1", seed=0).run(jobs, folder)
    assert isinstance(made, Made)
    assert (made.name, made.before, made.after) == ("a", (40, 32), (10, 8))
    assert isinstance(failed, Failed)
    with pytest.raises(ValueError, match="at least 1; got 0"):
        Degrader(space="level1", seed=0, scale=0)


def test_the_command_names_every_space():
    shown = degrade("--help").stdout
    assert all(space in shown for space in SPACES)
