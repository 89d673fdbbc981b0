"""What goes wrong most often is told in one sentence that says what to do next."""

import errno
import os

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dacesr import encoding
from dacesr.cli import app
from dacesr.conditioning import check_extractor
from dacesr.config import RestorerConfig

FILES = {
    "text.jpg": b"hello, this is text\n",
    "empty.jpg": b"",
    "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "camera.tif": b"II*\0\x10\0\0\0CR\x02\0" + bytes(200),
    "paper.png": b"%PDF-1.4\n" + bytes(100),
    "clip.png": b"\0\0\0\x18ftypisom" + bytes(100),
    "album.png": b"PK\x03\x04" + bytes(100),
}


@pytest.fixture
def here(tmp_path, monkeypatch, bilinear_file):
    """A working folder with a picture, what isn't one, and weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("DACESR_DATA", raising=False)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (24, 16)).save("photo.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "photo.png").read_bytes()[:60])
    (tmp_path / "folder" / "below").mkdir(parents=True)
    return tmp_path


def told(*words):
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "300"})
    assert result.exit_code in (1, 2), result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("source", "step"),
    [
        ("nothing.jpg", "No such file or directory; check its name and folder"),
        ("empty.jpg", "is empty; copy or download it again"),
        ("cut.png", "; copy or download it again"),
        ("text.jpg", "it seems to be text"),
        (
            "phone.jpg",
            "a HEIC photograph, not one of png, jpeg, webp, tiff, avif, bmp, ppm, gif; export it as JPEG first",
        ),
        ("camera.tif", "; develop it to TIFF first, as darktable and RawTherapee do"),
        ("paper.png", "; make pictures of its pages first, as pdftoppm -png does"),
        ("clip.png", "; take its frames first, as ffmpeg does"),
        ("album.png", "; unpack it first"),
    ],
)
def test_inputs_that_are_no_pictures(here, bilinear_file, source, step):
    sentence = told("upscale", source, "-n", str(bilinear_file), "-q")
    assert sentence.startswith(f"dacesr: {source} ")
    assert step in sentence


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("upscale", "folder"), "there is no picture in folder; --recursive looks into subfolders too"),
        (("upscale", "folder", "-r"), "there is no picture in folder; pictures end in .jpg"),
        (("upscale", "photo.png", "-n", "dacesr-lite"), "; did you mean dacesr-light"),
        (("upscale", "photo.png", "-n", "defualt"), "; did you mean default?"),
        (("upscale", "photo.png", "--extractor", "lite-rem"), "; did you mean lite-re"),
        (
            ("upscale", "photo.png", "-n", "owner/name"),
            "connect to the network, unset HF_HUB_OFFLINE if that is set, or name a file",
        ),
        (("upscale", "photo.png", "--device", "gpu"), "auto takes the best that is, `dacesr doctor` lists GPUs"),
        (("upscale", "photo.png", "--max-pixels", "10"), "which --max-pixels raises"),
        (("upscale", "photo.png", "-n", "light-fidelity", "--strength", "1"), "no strength to choose; leave it out"),
        (("train", "restorer", "recipe.toml"), "; export it, or name another place with --set"),
    ],
)
def test_wrong_calls(here, words, step):
    (here / "recipe.toml").write_text('iterations = 1\n[data]\nfolders = ["$DACESR_DATA/photos"]\n')
    assert step in told(*words)


def test_outputs_that_cannot_be_written(here, bilinear_file, monkeypatch):
    (here / "file").write_text("in the way")
    call = ("upscale", "photo.png", "-q", "-n", str(bilinear_file), "-o")
    assert "choose another with -o" in told(*call, "file/out")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(encoding, "scratch_file", refuse)
    assert "No space left on device; make room, or choose another place" in told(*call, "out")


def test_conditions_of_another_width():
    class Narrow(torch.nn.Module):
        def condition_dim(self, _: str) -> int:
            return 64

    config = RestorerConfig(embed_dim=8, depths=(1,), modulation="spatial", condition_dim=512)
    with pytest.raises(ValueError, match=r"takes conditions of 512 channels, and those of .* have 64"):
        check_extractor(config, Narrow(), "net")  # pyright: ignore[reportArgumentType]
