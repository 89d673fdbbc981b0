"""`dacesr doctor`: what it tells, what it keeps to itself, and that something broken is told and stops nothing."""

import getpass
import json
import os
import platform
import re
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dacesr import doctor, weightfiles
from dacesr.checkpoint import save_restorer
from dacesr.cli import app
from dacesr.nets.scan import available_backends
from dacesr.tensorfile import sha256_of

WEIGHTS = weightfiles.WEIGHTS
RUN = CliRunner()


def test_facts_are_those_of_this_machine():
    found = doctor.facts()
    assert not [value for value in found.values() if value.startswith(doctor.BROKEN)]
    assert found["dacesr"] == metadata.version("dacesr")
    assert platform.python_version() in found["python"]
    assert torch.__version__ in found["torch"]
    assert f"{torch.get_num_threads()} threads" in found["torch"]
    assert found["cores"].startswith(str(os.cpu_count()))
    assert re.fullmatch(r"\d+\.\d GB free of \d+\.\d GB", found["memory"])
    assert found["scan backends"] == ", ".join(available_backends())
    assert "dacesr-light" in found["bundled weights"]
    assert "lite-ree" in found["bundled weights"]
    assert f"gradio {metadata.version('gradio')}" in found["extras"]


def test_checksums_are_those_of_every_bundled_file():
    listed = dict(reversed(line.split()) for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines())
    files = [path for path in WEIGHTS.rglob("*") if path.suffix in {".safetensors", ".json"}]
    # after a change of weights: cd src/dacesr/weights && sha256sum *.safetensors recognition/*.{safetensors,json}
    assert listed == {path.relative_to(WEIGHTS).as_posix(): sha256_of(path) for path in files}


def test_nothing_of_the_user_is_told(monkeypatch, tmp_path):
    home = tmp_path / "home" / "jane.roe"
    home.mkdir(parents=True)
    for name, value in (
        ("HOME", str(home)),
        ("DACESR_DATA", str(home / "data")),
        ("DACESR_AUTH", "jane:secret"),
        ("DACESR_OWNER", "jane"),
        ("HF_HUB_CACHE", str(home / "hub")),
        ("HF_HUB_TOKEN", "hf_abcdefghijklmnopqrstuvwx"),
        ("HF_HUB_OFFLINE", "1"),
        ("OMP_NUM_THREADS", "3"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("USERNAME_OF_ANOTHER_PROGRAM", "jane"),
    ):
        monkeypatch.setenv(name, value)
    text = "\n".join(f"{name} {value}" for name, value in doctor.facts().items())
    for secret in ("jane", "secret", "hf_a", str(tmp_path), str(Path.cwd()), str(Path(sys.prefix)), "/"):
        assert secret not in text.replace("Debian GNU/Linux", ""), secret
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert getpass.getuser() not in text.split()
    for told in ("HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=3", "CUDA_VISIBLE_DEVICES=0,1", "DACESR_AUTH=(set)"):
        assert told in text


def test_paths_are_cut_from_the_reasons_of_what_is_broken(monkeypatch):
    def broken() -> str:
        raise OSError("cannot load library '/home/jane/lib/libvips.so.42': ~/x/y.so and C:\\Users\\jane\\z.dll missing")

    monkeypatch.setattr(doctor, "_libvips", broken)
    said = doctor.facts()["libvips"]
    assert said == "broken: OSError: cannot load library 'libvips.so.42': y.so and z.dll missing"


def damaged_folder(folder, spoil):
    """A copy of the bundled weights' small files, one of them spoilt."""
    listed = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    names = [name for name in (line.split()[1] for line in listed) if "ram" not in name]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes((WEIGHTS / name).read_bytes())
    (folder / "SHA256SUMS").write_text("\n".join(line for line in listed if "ram" not in line))
    spoil(folder / "light.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (Path.unlink, "light.safetensors missing: install dacesr again"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
            "light.safetensors damaged: install dacesr again",
        ),
    ],
)
def test_damaged_weights_are_told_and_stop_nothing(tmp_path, monkeypatch, spoil, words):
    damaged_folder(tmp_path, spoil)
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    result = RUN.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["bundled weights"] == f"broken: ValueError: {words}"
    assert found["an upscale uses"].startswith("device")


def test_a_missing_library_is_told_and_stops_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvips", None)  # importing it fails
    result = RUN.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert re.search(r"^libvips +broken: ModuleNotFoundError", result.stdout, re.MULTILINE)
    assert re.search(r"^torch +\d", result.stdout, re.MULTILINE)
    assert "bug report" in result.stdout.splitlines()[-1]


def test_extras_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(doctor, "_EXTRAS", {"web": ("no-such-package",), "ray": ("pillow", "no-such-package")})
    assert doctor.facts()["extras"] == f"web: not installed; ray: pillow {metadata.version('pillow')}, not all"


def test_limits_of_containers(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    assert "limited" not in doctor.facts()["cores"]
    (tmp_path / "cpu").mkdir()
    for name, value in (("quota", -1), ("period", 100000)):
        (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert "limited" not in doctor.facts()["cores"]
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    assert doctor.facts()["cores"].endswith("limited to the time of 0.5")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert doctor.facts()["cores"].endswith("limited to the time of 2.5")


def test_the_check_passes_here_and_says_so():
    result = RUN.invoke(app, ["doctor", "--check"])
    assert result.exit_code == 0
    assert re.search(r"^check +OK: a drawn picture was upscaled in", result.stdout, re.MULTILINE)


def test_the_check_fails_with_weights_that_compute_nonsense(bilinear, tmp_path, monkeypatch):
    with torch.no_grad():
        bilinear.upsample[0].bias.fill_(0.2)
    save_restorer(tmp_path / "dacesr-light.safetensors", bilinear)
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    said = doctor.check()
    assert re.fullmatch(r"broken: ValueError: the result has \d+\.\d dB, below 28: .*", said)
    (tmp_path / "dacesr-light.safetensors").unlink()
    assert doctor.check().startswith("broken: CheckpointError: no weights are bundled")


def test_a_folder_for_temporary_files_that_is_not_there(monkeypatch):
    def refuse(*_: object) -> None:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/x']")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert doctor.facts()["temporary folder"].startswith("broken: FileNotFoundError: No usable temporary directory")
