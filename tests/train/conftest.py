"""Tiny training runs on pictures made here, and what they leave behind."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from dacesr.train.config import RestorerTraining, load_config
from train.fake_cuda import FakeCuda

TINY = """
iterations = 6
seed = 3
accumulate = 2
ema = 0.9
precision = "fp32"
threads = 1
log_every = 2
save_every = 2

[network]
embed_dim = 8
depths = [1]
head = "pixelshuffledirect"

[data]
folders = ["PHOTOS"]
crop = 32
batch = 2
pool = 6
spaces = { level1 = 1.0, bicubic = 1.0 }

[optimizer]
lr = 1e-3
warmup = 2
schedule = "cosine"
clip = 1.0

[loss]
gan = 0.1
pixel_target = "sharp"

[discriminator]
width = 2

[validation]
every = 3
folder = "PHOTOS"
spaces = ["bicubic", "level1"]
limit = 1
crop = 32
images = 1
"""
PLAIN = ["loss.gan=0", "data.pool=0", "accumulate=1", "validation.every=1000", "loss.pixel_target=plain"]

Recipe = Callable[..., RestorerTraining]


def write_tiny(folder: Path, photos: Path) -> Path:
    """A config file with everything on; its run takes half a second."""
    path = folder / "tiny.toml"
    path.write_text(TINY.replace("PHOTOS", str(photos)))
    return path


@pytest.fixture
def cuda_accelerator() -> Iterator[Accelerator]:
    """One on the GPU, whatever other tests asked for before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """See `FakeCuda`."""
    return FakeCuda(monkeypatch)


@pytest.fixture
def tiny(photos: Path, tmp_path: Path) -> Path:
    """See `write_tiny`."""
    return write_tiny(tmp_path, photos)


@pytest.fixture
def recipe(tiny: Path, tmp_path: Path) -> Recipe:
    """Makes the tiny config with changes, for a run in tmp_path / NAME."""
    return lambda name="run", *changes: load_config(tiny, [*changes, f"output={tmp_path / name}"])


def rows(path: Path) -> list[dict[str, str]]:
    """Of a table, without what depends on the clock."""
    with path.open(newline="") as file:
        clock = ("seconds", "waiting")
        return [{key: value for key, value in row.items() if key not in clock} for row in csv.DictReader(file)]


def tensors(folder: Path) -> dict[str, Tensor]:
    """All of the last state, and the exported weights."""
    found = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    (state,) = folder.glob("state-*")
    for path in state.glob("*.safetensors"):
        found |= load_file(path)
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit the same tensors, and the same tables."""
    expected, got = tensors(one), tensors(other)
    assert expected.keys() == got.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])]
    for name in ("log.csv", "validation.csv"):
        assert rows(one / name) == rows(other / name)
        assert rows(one / name)
    names = [sorted(path.name for path in (folder / "images").iterdir()) for folder in (one, other)]
    assert names[0] == names[1]
