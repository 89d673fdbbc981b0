"""What the fuzz runs found, each once: files that lie, refused in one sentence and before they cost memory."""

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import pyvips
import torch
from forked import ROOT
from PIL import ImageCms
from tiny_tagger import write_tagger

from dacesr import encoding, tensorfile
from dacesr.checkpoint import load_restorer, save_restorer
from dacesr.config import RestorerConfig
from dacesr.image import ImageError, PictureWriter, open_picture, read, write
from dacesr.nets.restorer import Restorer
from dacesr.taggerfile import load_tagger
from dacesr.tensorfile import CheckpointError, read_tensors, replace_header, write_whole
from dacesr.train.config import ConfigError, load_config


def tensors(**changes: Any) -> dict[str, torch.Tensor]:
    config = RestorerConfig(**{"embed_dim": 8, "depths": (1,), "head": "pixelshuffledirect", "scale": 2, **changes})
    with torch.device("meta" if changes else "cpu"):
        return Restorer(config).state_dict()


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_restorer(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    assert len(message) <= tensorfile.LONGEST_SENTENCE + 3
    return message


# --- pictures


@pytest.mark.parametrize("size", ["99999999999 4", "4 99999999999", "2000000000 2000000000", "1" * 5000 + " 4"])
def test_a_size_beyond_numbers(tmp_path: Path, size: str) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(f"P6 {size} 255\n".encode() + bytes(48))
    with pytest.raises(ImageError, match=r"a\.ppm is damaged"):
        read(path)


def test_a_bitmap_with_a_size_beyond_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    write(path, torch.rand(1, 3, 4, 4))
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<II", 2**32 - 1, 2**31)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.bmp"):
        read(path)


NOISY = """
import struct, sys
import pyvips
from dacesr import formats
from dacesr.image import ImageError, open_picture
if sys.argv[1] == "loud":
    formats.hush = lambda: None
image = pyvips.Image.black(32, 24, bands=3).cast("uchar").copy(interpretation="srgb")
tiff, avif = bytearray(image.tiffsave_buffer()), bytearray(image.heifsave_buffer(compression="av1"))
start = struct.unpack_from("<I", tiff, 4)[0]
for place in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", tiff, start)[0], 12):
    if struct.unpack_from("<H", tiff, place)[0] == 277:
        struct.pack_into("<H", tiff, place + 8, 40)
place = avif.find(b"ispe") + 12
avif[place : place + 4] = struct.pack(">I", 2130706458)
for content in (tiff, avif):
    try:
        picture = open_picture(bytes(content), name="NAME")
        picture.region(0, 0, 1, 1)
    except ImageError as error:
        print(error)
"""


def test_libraries_keep_quiet() -> None:
    """A TIFF that Pillow has words for, an AVIF that GLib has words for: nothing on standard error."""
    said = {}
    for volume in ("loud", "quiet"):
        call = [sys.executable, "-c", NOISY, volume]
        ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
        said[volume] = ran.stderr
        assert "NAME" in ran.stdout
    assert "GLib-GObject-CRITICAL" in said["loud"]
    assert "samples per pixel" in said["loud"]
    assert said["quiet"] == ""


def test_a_damaged_profile_is_left_out(tmp_path: Path) -> None:
    """Otherwise it would go into the output, and stop what has to convert by it: formats that hold none."""
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = whole[:400] + bytes(len(whole) - 400)  # what a cut PNG chunk unpacks to
    image = pyvips.Image.black(8, 8, bands=3).cast("uchar").copy(interpretation="srgb")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    picture = open_picture(image.pngsave_buffer(), name="a.png")
    assert picture.metadata.profile is None
    assert picture.warnings == ("a.png: its colour profile is damaged or not one for such pixels, and is left out",)
    with PictureWriter(picture, tmp_path / "a.ppm", format="ppm", width=8, height=8) as writer:
        writer.write_rows(torch.rand(1, 3, 8, 8))
        writer.finish()
    assert read(tmp_path / "a.ppm").shape == (1, 3, 8, 8)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", torch.rand(1, 3, 8, 8))

    def starving(*_: object) -> None:
        raise pyvips.Error("unable to call copy_memory", "vips_tracked: out of memory --- size == 10MB")

    monkeypatch.setattr(pyvips.Image, "copy_memory", starving)
    picture = open_picture(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png cannot be read: there is too little memory for it"):
        picture.region(0, 0, 8, 8)


# --- checkpoints


ODD = {
    "meta": lambda value: value.to("meta"),
    "sparse": lambda value: value.to_sparse(),
    "complex": lambda value: value.to(torch.complex64),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, kind: str) -> None:
    torch.save({name: ODD[kind](value) for name, value in tensors().items()}, tmp_path / "net.pth")
    assert "as something else than a plain array of real numbers" in refusal(tmp_path / "net.pth")


def test_nested_tensors(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    torch.save({"conv_first.weight": nested}, tmp_path / "net.pth")
    assert "conv_first.weight" in refusal(tmp_path / "net.pth")


def test_views_that_claim_more_than_there_is(tmp_path: Path) -> None:
    one = torch.zeros(1)
    wide = {name: one.expand(value.shape) for name, value in tensors(embed_dim=4096, expand=16).items()}
    torch.save(wide, tmp_path / "net.pth")
    assert (tmp_path / "net.pth").stat().st_size < 10_000
    assert "bytes of weights and holds 4" in refusal(tmp_path / "net.pth")


def test_tied_weights_are_no_lie(tmp_path: Path) -> None:
    state = tensors()
    twice = torch.rand_like(state["layers.0.residual_group.blocks.0.norm.weight"])
    same = {name: twice if value.shape == twice.shape else value for name, value in state.items()}
    torch.save(same, tmp_path / "net.pth")
    assert load_restorer(tmp_path / "net.pth").config.embed_dim == 8


def test_an_archive_that_unpacks_to_far_more(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"weight": torch.zeros(1 << 23)}, file)
    with zipfile.ZipFile(file) as plain, zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "net.pth").stat().st_size < 100_000
    assert "bytes unpack to 33" in refusal(tmp_path / "net.pth")


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "net.pth")
    assert "holds no tensors by name" in refusal(tmp_path / "net.pth")


def test_names_that_steer_a_terminal(tmp_path: Path) -> None:
    torch.save({"a\x1b[2Jb\nc": torch.zeros(1), "x" * 9000: torch.zeros(1)}, tmp_path / "net.pth")
    assert "a?[2Jb?c" in refusal(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("field", "value"),
    [("tags", "5"), ("tags", '["a", 2]'), ("thresholds", '["0.5"]'), ("thresholds", "[NaN]"), ("tags", "[" * 100_000)],
)
def test_labels_of_another_kind(tmp_path: Path, field: str, value: str) -> None:
    path = write_tagger(tmp_path / "eye.safetensors")
    replace_header(path, {**tensorfile.read_header(path), field: value})
    with pytest.raises(CheckpointError, match=r"eye\.safetensors has tags or thresholds in its header that"):
        load_tagger(path)


# --- configs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iterations = " + "1" * 5000, "is not TOML: Exceeds the limit"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("iterations = 1\nseed = 0x" + "f" * 5000, "a number of too many digits"),
        ("".join(f"unknown_{i} = 1\n" for i in range(500)), "and 495 more"),
        (f"iterations = '{'x' * 5000}'", r"xxx\.\.\."),
    ],
)
def test_absurd_configs(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"a\.toml.*{said}") as caught:
        load_config(path)
    assert len(str(caught.value)) < 2500


def test_a_change_with_absurdly_many_digits(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("iterations = 1")
    with pytest.raises(ConfigError, match="iterations: Input should be a valid integer"):
        load_config(tmp_path / "a.toml", ["iterations=" + "1" * 5000])


# --- leavings


def test_a_new_file_has_no_other_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a process that is killed at any moment leaves nothing; where a file is replaced there is an instant."""
    if not encoding._UNNAMED:
        pytest.skip("needs files without a name")
    replaced = []
    monkeypatch.setattr(encoding.os, "replace", lambda *paths: replaced.append(paths) or os.rename(*paths))
    for content in (b"one", b"two"):
        write_whole(tmp_path / "a.bin", content)
        assert (tmp_path / "a.bin").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert len(replaced) == 1


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    save_restorer(tmp_path / "a.safetensors", Restorer(RestorerConfig(embed_dim=8, depths=(1,), head_dim=4)))
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(ZeroDivisionError), encoding.replacing(tmp_path / "a.safetensors") as file:
        file.write(bytes(1 // len(before[:0])))
    assert (tmp_path / "a.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert read_tensors(tmp_path / "a.safetensors").tensors
