"""Ablations of tiny networks on pictures made here."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
