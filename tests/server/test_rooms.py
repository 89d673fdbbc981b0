"""Private folders, and names of strangers' files made safe."""

import stat
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dacesr.serving.rooms import NAME_BYTES, Rooms, result_name, safe_name


def test_rooms_are_private_and_removed(tmp_path):
    rooms = Rooms(tmp_path)
    first, second = rooms.make(), rooms.make()
    (first.path / "a").write_text("x")
    assert first.path != second.path
    assert stat.S_IMODE(rooms.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    first.discard()
    first.discard()
    with second:
        pass
    assert list(rooms.path.iterdir()) == []
    rooms.make()
    rooms.close()
    rooms.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_the_rest_stays(tmp_path):
    code = f"import os; from dacesr.serving.rooms import Rooms; Rooms({str(tmp_path)!r}).make(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    target = tmp_path / "kept"
    target.mkdir()
    (tmp_path / "dacesr-serve-link").symlink_to(target)
    alive = Rooms(tmp_path)
    assert not left.exists()
    other = Rooms(tmp_path)
    assert alive.path.exists()
    assert target.exists()
    alive.close()
    other.close()


@pytest.mark.parametrize(
    ("given", "safe"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.PNG", "photo.PNG"),
        ("..", "picture"),
        ("", "picture"),
        (".hidden.png", "hidden.png"),
        ("a\r\nSet-Cookie: x.jpg", "a Set-Cookie x.jpg"),
        ("evil\u202egnp.exe", "evil gnp.exe"),
        ('say "hi"<b>.png', "say hi b.png"),
        ("n\0ul.png", "n ul.png"),
        ("Фото 1.jpg", "Фото 1.jpg"),
        ("x" * 300 + ".tiff", "x" * (NAME_BYTES - 5) + ".tiff"),
        ("é" * 300 + ".png", "é" * 58 + ".png"),
    ],
)
def test_names_of_strangers(given, safe):
    assert safe_name(given) == safe


@given(st.text(max_size=400))
def test_any_name_is_safe(name):
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= NAME_BYTES
    assert not set(safe) & set('/\\<>:"|?*\r\n')
    assert not safe.startswith(".")
    assert all(unicodedata.category(c)[0] != "C" for c in safe)
    assert safe_name(safe) == safe


def test_names_of_results():
    assert result_name("photo.JPG", ".png") == "photo_x4.png"
    assert result_name("v1.2", ".png") == "v1.2_x4.png"
