"""The command line, mostly in this process; signals and start-up in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conditioned import write_conditioned
from PIL import Image
from tiny_tagger import write_tagger
from typer.testing import CliRunner

from dacesr import weightfiles
from dacesr.checkpoint import load_extractor, save_restorer
from dacesr.cli import app, main
from dacesr.image import read
from dacesr.nets.swin import Swin
from dacesr.pairing import pair_restorers

RUN = CliRunner()
PROGRAM = [sys.executable, "-c", "from dacesr.cli import main; main()"]


def photo(path, size=(24, 16), mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = {"RGB": 3, "L": 1}[mode]
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], bands), dtype=np.uint8)
    Image.fromarray(values.squeeze()).save(path)
    return path


def loaded(path):
    with Image.open(path) as image:
        image.load()
        return image


def call(*args):
    return RUN.invoke(app, [str(a) for a in args])


def upscale(weights, *args):
    return call("upscale", *args, "-n", weights, "--device", "cpu")


def test_a_folder_recursively(bilinear_file, tmp_path):
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/sub/b.jpg", mode="L")
    result = upscale(bilinear_file, tmp_path / "in", "-o", tmp_path / "out", "--recursive")
    assert result.exit_code == 0, result.output
    assert loaded(tmp_path / "out/a_x4.png").size == (96, 64)
    assert loaded(tmp_path / "out/sub/b_x4.jpg").mode == "L"
    assert "24 x 16 -> 96 x 64" in result.stderr


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        ((), (96, 64)),
        (("-s", "2"), (48, 32)),
        (("-s", "2.5"), (60, 40)),
        (("-s", "6"), (144, 96)),
        (("--width", "30"), (30, 20)),
        (("--height", "100"), (150, 100)),
    ],
)
def test_any_output_size(bilinear_file, tmp_path, flags, size):
    result = upscale(bilinear_file, photo(tmp_path / "a.png"), "-o", tmp_path / "b.png", *flags)
    assert result.exit_code == 0, result.output
    assert loaded(tmp_path / "b.png").size == size


def test_a_side_that_no_file_can_have_is_refused(bilinear_file, tmp_path):
    result = upscale(bilinear_file, photo(tmp_path / "a.png"), "-o", tmp_path / "b.png", "--width", "100000000")
    assert result.exit_code == 1
    assert "a.png: the result would be 100000000 x 66666667 pixels, and a side has 10,000,000 at most" in result.stderr
    assert not (tmp_path / "b.png").exists()


def test_failures_are_named_and_the_others_written(bilinear_file, tmp_path):
    good, text = photo(tmp_path / "good.png"), tmp_path / "text.png"
    text.write_text("this is no picture\n")
    result = upscale(bilinear_file, text, tmp_path / "missing.jpg", good, "-o", tmp_path / "out", "--json", "-j", "2")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    statuses = {Path(r["input"]).name: r["status"] for r in report["results"]}
    assert statuses == {"text.png": "failed", "missing.jpg": "failed", "good.png": "done"}
    assert report["results"][2]["output_size"] == [96, 64]
    assert "text.png is not a picture" in result.stderr
    assert "missing.jpg" in result.stderr
    assert "Traceback" not in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good_x4.png"]


def test_skip_existing(bilinear_file, tmp_path):
    source, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert upscale(bilinear_file, source, "-o", out).exit_code == 0
    before = (out / "a_x4.png").stat().st_mtime_ns
    result = upscale(bilinear_file, source, "-o", out, "--skip-existing", "--json")
    assert json.loads(result.stdout)["results"][0]["status"] == "skipped"
    assert (out / "a_x4.png").stat().st_mtime_ns == before


def test_a_pipe(bilinear_file, tmp_path):
    data = photo(tmp_path / "a.png").read_bytes()
    command = [*PROGRAM, "upscale", "-", "-o", "-", "--ext", "jpg", "-n", str(bilinear_file)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=120, check=True)
    (tmp_path / "b.jpg").write_bytes(done.stdout)
    image = loaded(tmp_path / "b.jpg")
    assert (image.format, image.size) == ("JPEG", (96, 64))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-s", "2", "--width", "9"), "exclude one another"),
        (("-t", "many"), "--tile must be auto, 0 or a positive number"),
        (("--device", "cuda:77"), "device 'cuda:77' is not available"),
        (("-n", "missing.pth"), "missing.pth does not exist"),
        (("--strength", "0.5"), "has one set of weights"),
        (("--strength", "1.5"), "--strength"),
        (("--ext", "docx"), "cannot be written as .docx"),
        (("--precision", "int4"), "int4"),
    ],
)
def test_wrong_calls_exit_with_2(bilinear_file, tmp_path, args, words):
    model = () if "-n" in args else ("-n", bilinear_file)
    result = call("upscale", photo(tmp_path / "a.png"), "-o", tmp_path / "out", *model, *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_two_inputs_with_one_output_and_input_as_output(bilinear_file, tmp_path):
    a, b = photo(tmp_path / "1/a.png"), photo(tmp_path / "2/a.png")
    result = upscale(bilinear_file, a, b, "-o", tmp_path / "out")
    assert (result.exit_code, "would both become" in result.stderr) == (2, True)
    before = a.read_bytes()
    result = upscale(bilinear_file, a, "-o", a)
    assert (result.exit_code, "would be overwritten" in result.stderr) == (2, True)
    assert a.read_bytes() == before


def test_an_output_that_cannot_be_made_is_told(bilinear_file, tmp_path):
    source = photo(tmp_path / "a.png")
    (tmp_path / "out/a_x4.png").mkdir(parents=True)
    result = upscale(bilinear_file, source, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "is a directory" in result.stderr
    (tmp_path / "file").write_text("in the way")
    result = upscale(bilinear_file, source, "-o", tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert "cannot be made" in result.stderr


def test_unicode_and_very_long_names(bilinear_file, tmp_path):
    photo(tmp_path / "in/Größe — 写真 🌄.png")
    photo(tmp_path / f"in/{'n' * 248}.png")
    photo(tmp_path / f"in/{'m' * 251}.png")  # its output's name would have 254 + 3 bytes
    result = upscale(bilinear_file, tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    made = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert made == ["Größe — 写真 🌄_x4.png", f"{'n' * 248}_x4.png"]
    assert "too long" in result.stderr


def test_metadata_and_the_limit_of_pixels(bilinear_file, tmp_path):
    source = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.new("RGB", (20, 10)).save(source, exif=exif)
    assert upscale(bilinear_file, source, "-o", tmp_path / "kept.jpg").exit_code == 0
    assert loaded(tmp_path / "kept.jpg").getexif()[0x010E] == "a description"
    assert upscale(bilinear_file, source, "-o", tmp_path / "bare.jpg", "--strip-metadata").exit_code == 0
    assert not loaded(tmp_path / "bare.jpg").getexif()
    result = upscale(bilinear_file, source, "-o", tmp_path / "none.jpg", "--max-pixels", "199")
    assert result.exit_code == 1
    assert "--max-pixels" in result.stderr


def _start(weights, source, target):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*PROGRAM, "upscale", str(source), "-o", str(target), "-n", str(weights), "-t", "32"]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
@pytest.mark.parametrize("moment", [0.0, 0.7])
def test_an_ended_run_leaves_whole_files_or_none(bilinear_file, tmp_path, number, code, moment):
    for i in range(3):
        photo(tmp_path / f"in/{i}.png", size=(900, 900), seed=i)
    out = tmp_path / "out"
    process = _start(bilinear_file, tmp_path / "in", out)
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert ("interrupted; whole outputs are kept" in said) == (code == 130)
    for path in out.iterdir():  # hidden parts would be listed too
        assert loaded(path).size == (3600, 3600)


@pytest.fixture
def pair_file(bilinear, tmp_path):
    """A file that gives a white picture, with a partner that enlarges bilinearly, and half of both by default."""
    save_restorer(tmp_path / "faithful.safetensors", bilinear)
    with torch.no_grad():
        bilinear.upsample[0].bias.fill_(2)
    save_restorer(tmp_path / "crisp.safetensors", bilinear)
    pair_restorers(tmp_path / "faithful.safetensors", tmp_path / "crisp.safetensors", strength=0.1)
    return tmp_path / "crisp.safetensors"


def test_strength_chooses_between_two_sets_of_weights(pair_file, tmp_path):
    source, means = tmp_path / "a.png", []
    Image.new("RGB", (9, 7), (0, 0, 0)).save(source)
    for flags in (("--strength", "0"), ("--strength", "0.05"), (), ("--strength", "1")):
        result = upscale(pair_file, source, "-o", tmp_path / "b.png", "--precision", "fp32", *flags)
        assert result.exit_code == 0, result.output
        means.append(np.asarray(loaded(tmp_path / "b.png")).mean())
    assert means == [0, pytest.approx(25.5, abs=0.5), 51, 255]


def test_strength_without_the_partner_file_is_a_wrong_call(pair_file, tmp_path):
    (tmp_path / "faithful.safetensors").unlink()
    source = photo(tmp_path / "a.png")
    for flags in (("--strength", "0.5"), ()):
        result = upscale(pair_file, source, "-o", tmp_path / "out", *flags)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert "faithful.safetensors" in result.stderr
        assert not (tmp_path / "out").exists()
    assert upscale(pair_file, source, "-o", tmp_path / "out", "--strength", "1").exit_code == 0


@pytest.mark.parametrize("sees", ["its own", "lite"])
def test_tags_are_told_for_each_picture(bilinear_file, tmp_path, monkeypatch, sees):
    model = write_conditioned(tmp_path) if sees == "its own" else bilinear_file
    extractor = load_extractor(tmp_path / "eye.safetensors" if sees == "its own" else sees)
    sources = [tmp_path / "red.png", photo(tmp_path / "noise.png")]
    Image.new("RGB", (24, 16), (255, 0, 0)).save(sources[0])
    expected = [extractor.tags(read(source))[0] for source in sources]
    assert sees == "lite" or expected == [("sun",), ()]
    runs, forward = [], Swin.forward
    monkeypatch.setattr(Swin, "forward", lambda self, image: runs.append(len(image)) or forward(self, image))
    result = upscale(model, *sources, "-o", tmp_path / "out", "--tags")
    assert result.exit_code == 0, result.output
    for source, tags in zip(sources, expected, strict=True):
        assert f"{source}: {', '.join(tags) or 'no tag is probable enough'}\n" in result.stderr
    assert runs == [1, 1]
    result = upscale(model, *sources, "-o", tmp_path / "out", "--tags", "--json", "-q", "-j", "2")
    assert [tuple(found["tags"]) for found in json.loads(result.stdout)["results"]] == expected
    assert f"{sources[0]}: " not in result.stderr
    result = upscale(model, *sources, "-o", tmp_path / "out", "--json")
    assert [found["tags"] for found in json.loads(result.stdout)["results"]] == [None, None]


def test_the_extractor_can_be_given_and_must_fit(bilinear_file, tmp_path):
    model, source = write_conditioned(tmp_path), photo(tmp_path / "a.png")
    (tmp_path / "eye.safetensors").rename(tmp_path / "moved.safetensors")
    other = write_tagger(tmp_path / "other.safetensors", seed=1)
    given = upscale(model, source, "-o", tmp_path / "b.png", "--extractor", tmp_path / "moved.safetensors")
    assert given.exit_code == 0, given.output
    for weights, flags, words in [
        (model, (), "needs its extractor eye.safetensors beside it"),
        (model, ("--extractor", other), "is not the extractor that"),
        (model, ("--extractor", "nothing"), "nothing does not exist"),
        (bilinear_file, ("--extractor", "lite"), "takes no condition"),
    ]:
        result = upscale(weights, source, "-o", tmp_path / "out", *flags)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert words in result.stderr
        assert not (tmp_path / "out").exists()


def test_models_info_and_convert_know_the_extractor(tmp_path):
    model, half = write_conditioned(tmp_path), tmp_path / "half.safetensors"
    assert call("models", "convert", model, "-o", half, "--half").exit_code == 0
    for path in (model, half):
        lines = dict(line.split(maxsplit=1) for line in call("models", "info", path).stdout.splitlines())
        assert lines["extractor"] == "eye.safetensors"
        assert len(lines["extractor_sha256"]) == 64
        assert "modulation spatial" in lines["config"]


def test_models_list_shows_descriptions(bilinear, tmp_path, monkeypatch):
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    assert "no weights are bundled" in call("models", "list").stdout
    save_restorer(tmp_path / "soft.safetensors", bilinear, info={"description": "enlarges bilinearly"})
    save_restorer(tmp_path / "plain.safetensors", bilinear)
    lines = call("models", "list").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [["plain"], ["soft", "enlarges bilinearly"]]
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "soft.safetensors").read_bytes()[:40])
    result = call("models", "list")
    assert (result.exit_code, "broken.safetensors" in result.stderr) == (2, True)


def test_models_list_info_and_convert(bilinear_file, tmp_path):
    assert call("models", "list").exit_code == 0
    found = json.loads(call("models", "info", bilinear_file, "--json").stdout)
    assert found["architecture"] == "restorer"
    assert found["config"]["image_skip"] == "bilinear"
    half = tmp_path / "half.safetensors"
    assert call("models", "convert", bilinear_file, "-o", half, "--half").exit_code == 0
    assert half.stat().st_size < bilinear_file.stat().st_size
    assert "float16" in call("models", "info", half).stdout
    (tmp_path / "text.pth").write_text("no weights")
    for args in (("info", tmp_path / "text.pth"), ("convert", tmp_path / "text.pth", "-o", tmp_path / "x")):
        result = call("models", *args)
        assert result.exit_code == 2
        assert "text.pth" in result.stderr
    result = call("models", "convert", bilinear_file, "-o", tmp_path / "no" / "where.safetensors")
    assert (result.exit_code, "cannot be written" in result.stderr) == (2, True)


def test_doctor_says_what_would_be_used():
    found = json.loads(call("doctor", "--json").stdout)
    assert "scan native" in found["an upscale uses"]
    assert "native, chunked, reference" in call("doctor").stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from dacesr import cli; print(sorted({'torch', 'numpy', 'pyvips', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert call("--help").exit_code == 0
    assert call("--version").stdout.strip()


@pytest.mark.parametrize(
    ("given", "found"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch, given, found):
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(sys, "argv", ["dacesr", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == found
