"""Ablations of tiny networks on pictures made here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dacesr.image import write

TINY = """
iterations = 2
precision = "fp32"
threads = 1
log_every = 1
save_every = 1

[network]
embed_dim = 8
depths = [1]
head = "pixelshuffledirect"

[data]
folders = ["PHOTOS"]
crop = 32
batch = 2
spaces = { level1 = 1.0, bicubic = 1.0 }

[optimizer]
lr = 1e-3

[ablation]
arms = { plain = [], fast = ["optimizer.lr=1e-2"] }
seeds = [0, 1]
sets = ["PHOTOS"]
spaces = ["bicubic", "level1"]
tables = { "Rate" = ["plain", "fast"] }
"""

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures with soft shapes."""
    folder = tmp_path_factory.mktemp("photos")
    for i, (height, width) in enumerate([(64, 80), (48, 52), (70, 40)]):
        coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(i))
        write(folder / f"{i}.png", F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1))
    return folder


@pytest.fixture
def tiny(photos: Path, tmp_path: Path) -> Write:
    """Writes the tiny ablation with pieces of its text replaced."""

    def write_tiny(*changes: tuple[str, str]) -> Path:
        text = TINY.replace("PHOTOS", str(photos))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "tiny.toml"
        path.write_text(text)
        return path

    return write_tiny
