"""Bad input and bad places to write: one sentence that names the file, and nothing half-written left behind."""

import io
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image

from dacesr.formats import FORMATS
from dacesr.image import ImageError, Picture, PictureWriter, open_picture, read, write

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
ENCODED: dict[str, Callable[[pyvips.Image], bytes]] = {
    "png": lambda image: image.pngsave_buffer(),
    "jpeg": lambda image: image.jpegsave_buffer(),
    "webp": lambda image: image.webpsave_buffer(),
    "tiff": lambda image: image.tiffsave_buffer(compression="deflate"),
    "avif": lambda image: image.heifsave_buffer(compression="av1"),
    "gif": lambda image: image.gifsave_buffer(),
}


def noise(kind: str) -> bytes:
    if kind in ENCODED:
        return ENCODED[kind](pyvips.Image.new_from_array(NOISE))
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind.upper())
    return file.getvalue()


def sentence(error: pytest.ExceptionInfo[ImageError], path: Path) -> str:
    """The message, found to be one line that names the file."""
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("share", [0.02, 0.4, 0.9, 0.999])
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    data = noise(kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError) as error:
        read(path)
    assert re.search(r"damaged|seems to be|empty", sentence(error, path))


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_never_escapes_as_another_error(kind: str) -> None:
    data = bytearray(noise(kind))
    random = np.random.default_rng(0)
    for _ in range(25):
        broken = bytearray(data)
        for place in random.integers(0, min(len(data), 400), 4):
            broken[place] = random.integers(0, 256)
        with suppress(ImageError):
            picture = open_picture(bytes(broken), max_pixels=100_000)
            picture.region(0, 0, picture.width, picture.height)


@pytest.mark.parametrize(
    ("content", "seems"),
    [
        (b"", "empty"),
        (b"just some words\n", "text"),
        ("ein paar Wörter".encode(), "text"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photograph"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "a video"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(20), "raw"),
        (bytes(range(128, 256)), "unknown"),
    ],
)
def test_what_it_seems_to_be_is_said(tmp_path: Path, content: bytes, seems: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        read(path)
    assert seems in sentence(error, path)


def test_missing_directory_and_device(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.png", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ImageError) as error:
            read(path)
        assert reason in sentence(error, path)
    with pytest.raises(ImageError, match="cannot be written: it is not a regular file"):
        PictureWriter(plain(), Path(os.devnull), format="png", width=8, height=8)
    assert not Path(os.devnull).is_file()


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder, and the permissions of an ordinary user, whoever runs the tests."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.geteuid() == 0
        if root:
            try:
                os.seteuid(65534)
            except OSError:
                pytest.skip("cannot give up being root")
            os.seteuid(0)
        yield Path(folder)
        if root:
            os.seteuid(0)
        os.chmod(folder, 0o755)


def test_unreadable_file_and_read_only_folder() -> None:
    with as_nobody() as folder:
        path = folder / "a.png"
        path.write_bytes(noise("png"))
        path.chmod(0)
        folder.chmod(0o555)
        errors = []
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            for act in (lambda: read(path), lambda: write(folder / "b.png", torch.zeros(1, 1, 8, 8))):
                with pytest.raises(ImageError) as error:
                    act()
                errors.append(str(error.value))
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
        assert errors == [
            f"{path} cannot be read: Permission denied",
            f"{folder / 'b.png'} cannot be written: {DENIED}",
        ]
        assert [entry.name for entry in folder.iterdir()] == ["a.png"]


DENIED = "Permission denied"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def test_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(100_000, 100_000))
    with pytest.raises(ImageError, match=r"10000 million.*--max-pixels") as error:
        open_picture(path)
    sentence(error, path)
    for data in (
        b"P6 60000 60000 255\n\0\0\0",
        noise("bmp")[:18] + struct.pack("<ii", 60000, 60000) + noise("bmp")[26:],
    ):
        with pytest.raises(ImageError, match="--max-pixels"):
            open_picture(data)
    with pytest.raises(ImageError, match="more than the limit"):
        open_picture(noise("jpeg"), max_pixels=64 * 64 - 1)
    assert open_picture(noise("jpeg"), max_pixels=64 * 64).width == 64


@pytest.mark.parametrize("format", ["float", "int", "short", "uint"])
def test_samples_beyond_16_bits_are_refused(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.tif"
    pyvips.Image.new_from_array(NOISE).cast(format).tiffsave(str(path))
    with pytest.raises(ImageError, match=f"it holds {format} samples") as error:
        open_picture(path)
    sentence(error, path)


def plain(size: int = 8) -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(file, "PNG")
    return open_picture(file.getvalue())


@pytest.mark.parametrize(("kind", "limit"), [("jpeg", 65_500), ("webp", 16_383), ("avif", 16_384), ("gif", 65_535)])
def test_limits_of_formats_are_said_before_any_work(tmp_path: Path, kind: str, limit: int) -> None:
    path = tmp_path / f"a.{kind}"
    with pytest.raises(ImageError, match=f"{kind.upper()} holds {limit} a side") as error:
        PictureWriter(plain(), path, format=kind, width=4, height=limit + 1)
    sentence(error, path)
    PictureWriter(plain(), path, format=kind, width=4, height=limit + 1, final_size=(4, limit)).close()
    assert not list(tmp_path.iterdir())


def test_bad_targets_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for path, reason in (
        (tmp_path / "folder.png", "is a directory"),
        (tmp_path / "none" / "a.png", "No such file or directory"),
        (tmp_path / ("n" * 256 + ".png"), "File name too long"),
    ):
        with pytest.raises(ImageError) as error:
            PictureWriter(plain(), path, format="png", width=8, height=8)
        assert reason in sentence(error, path)
    with pytest.raises(ImageError, match=r"ending should be one of \.png \.jpg"):
        write(tmp_path / "a.xyz", torch.zeros(1, 1, 2, 2))


def test_wrong_arguments(tmp_path: Path) -> None:
    for image in (torch.zeros(3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 4, 4)):
        with pytest.raises(ValueError, match="should be"):
            write(tmp_path / "a.png", image)
    for options in ({"bits": 12}, {"quality": 0}, {"quality": 101}):
        with pytest.raises(ValueError, match="bits should be 8 or 16 and quality 1 to 100"):
            write(tmp_path / "a.png", torch.zeros(1, 1, 4, 4), **options)
    with pytest.raises(ValueError, match="no numbers"):
        write(tmp_path / "a.png", torch.full((1, 1, 4, 4), float("nan")))
    with PictureWriter(plain(), tmp_path / "a.png", format="png", width=8, height=8) as writer:
        writer.write_rows(torch.zeros(1, 3, 5, 8))
        for rows in (torch.zeros(1, 3, 1, 7), torch.zeros(1, 3, 4, 8), torch.zeros(1, 2, 1, 8)):
            with pytest.raises(ValueError, match="rows"):
                writer.write_rows(rows)
        with pytest.raises(ValueError, match="5 rows were written, of 8"):
            writer.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["Ünïcödé 図 [page=2].png", "n" * 251 + ".png", "ü" * 125 + ".png", "-.png", ".png.jpg"]
)
def test_unusual_names(tmp_path: Path, name: str) -> None:
    for value in (0.0, 1.0):
        write(tmp_path / name, torch.full((1, 1, 3, 3), value))
        assert read(tmp_path / name).mean() == value
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    write(path, torch.ones(1, 1, 3, 3))
    assert read(path).mean() == 1


def test_links_lead_to_the_file_and_rights_are_ordinary(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("file.png")
    write(tmp_path / "link.png", torch.ones(1, 1, 3, 3))
    assert (tmp_path / "link.png").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "file.png").stat().st_mode & 0o777 == 0o666 & ~umask


def test_same_input_and_output(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write(path, torch.rand(1, 3, 8, 8))
    picture = open_picture(path)
    before = read(path)
    with PictureWriter(picture, path, format="png", width=8, height=8) as writer:
        writer.write_rows(1 - picture.region(0, 0, 8, 8))
        assert torch.equal(read(path), before)
        writer.finish()
    torch.testing.assert_close(read(path), 1 - before)


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Limits the size of files, which the kernel enforces as it does a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1000, 65536])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_leaves_the_previous_file(
    tmp_path: Path, full_disk: Callable[[int], None], kind: str, room: int
) -> None:
    size = 148 if room > 1000 else 32  # whose rows fit into the larger room or do not
    path = tmp_path / ("a" + FORMATS[kind].extensions[0])
    path.write_bytes(b"previous")
    noisy = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    if room > 1000:
        noisy = noisy[:, :1].repeat(1, 3, 1, 1)
    full_disk(room)

    def enlarge() -> None:
        with PictureWriter(plain(), path, format=kind, width=size, height=size, final_size=(900, 900)) as writer:
            writer.write_rows(noisy)
            writer.finish()

    with pytest.raises(ImageError) as error:
        enlarge()
    full_disk(resource.RLIM_INFINITY)
    assert "cannot be written" in sentence(error, path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"previous"


def test_a_full_file_system(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system")
    try:
        (mount / "a.png").write_bytes(b"previous")
        for side in (170, 1000):  # what fills it is the encoded file, or the rows
            with pytest.raises(ImageError, match="No space left on device") as error:
                write(mount / "a.png", torch.rand(1, 3, side, side * 2 - 40))
            sentence(error, mount / "a.png")
            assert [entry.name for entry in mount.iterdir()] == ["a.png"]
            assert (mount / "a.png").read_bytes() == b"previous"
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_interrupting_the_encoder_leaves_nothing(tmp_path: Path) -> None:
    noisy = torch.rand(1, 3, 1000, 1000, generator=torch.Generator().manual_seed(0))
    with PictureWriter(plain(), tmp_path / "a.webp", format="webp", width=1000, height=1000) as writer:
        writer.write_rows(noisy)
        timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
        timer.join()
    assert not list(tmp_path.iterdir())


def test_killing_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys, threading, time, torch\n"
        "from pathlib import Path\n"
        "from dacesr.image import write\n"
        "threading.Timer(float(sys.argv[2]), os.kill, [os.getpid(), 9]).start()\n"
        "write(Path(sys.argv[1]) / 'a.webp', torch.rand(1, 3, 2500, 2500))\n"
    )
    for delay in ("0.05", "1"):
        run = subprocess.run([sys.executable, "-c", code, str(tmp_path), delay], check=False)
        assert run.returncode == -signal.SIGKILL
        assert not list(tmp_path.iterdir())


def test_without_unnamed_files_the_part_is_hidden_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dacesr.encoding._UNNAMED", 0)
    stale, fresh = tmp_path / ".a.png.4194999-0.part", tmp_path / ".a.png.4194999-1.part"
    for path in (stale, fresh):
        path.write_bytes(b"left by a process that was killed")
    os.utime(stale, (0, 0))
    write(tmp_path / "a.png", torch.ones(1, 1, 3, 3))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [fresh.name, "a.png"]
    with pytest.raises(RuntimeError), PictureWriter(plain(), tmp_path / "b.png", format="png", width=8, height=8):
        raise RuntimeError
    assert not (tmp_path / "b.png").exists()


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "a.png", torch.ones(1, 1, 3, 3))
    assert read(tmp_path / "a.png").mean() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_nothing_is_said_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in FORMATS:
        data = noise(kind)
        for part in (data, data[: len(data) // 2], data[:-3]):
            with suppress(ImageError):
                picture = open_picture(part)
                picture.region(0, 0, picture.width, picture.height)
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png", icc_profile=b"no profile at all" * 20)
    write(tmp_path / "b.png", read(tmp_path / "a.png"))
    assert capfd.readouterr() == ("", "")


def test_files_are_closed_and_space_is_given_back(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")

    def held() -> list[str]:
        return [link for fd in folder.iterdir() if str(tmp_path) in (link := os.path.realpath(fd))]

    write(tmp_path / "a.png", torch.rand(1, 3, 50, 50))
    picture = open_picture(tmp_path / "a.png")
    with PictureWriter(picture, tmp_path / "b.png", format="png", width=50, height=50) as writer:
        writer.write_rows(picture.region(0, 0, 50, 50))
        assert any("deleted" in link for link in held())
        writer.finish()
    del picture, writer
    assert held() == []
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_large_outputs_need_little_memory(tmp_path: Path, kind: str) -> None:
    code = (
        "import io, sys, torch\n"
        "from pathlib import Path\n"
        "from dacesr.image import PictureWriter, open_picture, write\n"
        "source, target, kind = sys.argv[1:]\n"
        "write(source, torch.rand(1, 3, 512, 512))\n"
        "picture = open_picture(Path(source))\n"
        "with PictureWriter(picture, Path(target), format=kind, width=8192, height=8192) as writer:\n"
        "    rows = torch.rand(1, 3, 128, 8192)\n"
        "    for shift in range(64):\n"
        "        writer.write_rows(rows.roll(shift, -1))\n"
        "    writer.finish()\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png"), str(tmp_path / f"b.{kind}"), kind]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(run.stdout) < 800_000, f"{run.stdout} KiB"
    assert open_picture(tmp_path / f"b.{kind}").width == 8192
