"""Tiny networks, pictures and services for the tests of the server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.serving.service import Service
from dacesr.serving.wishes import Limits


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that answers at once."""
    torch.manual_seed(3)
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_restorer(path, Restorer(config).eval())
    return path


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes pictures of noise, each once."""
    folder = tmp_path_factory.mktemp("pictures")

    def made(name: str = "a.png", size: tuple[int, int] = (24, 16), seed: int = 0) -> Path:
        path = folder / f"{size[0]}x{size[1]}-{seed}" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(values).save(path)
        return path

    return made


@pytest.fixture
def serving(tiny: Path) -> Iterator[Callable[..., Service]]:
    """Makes services, which are closed at the end, when nothing of them may be left."""
    made: list[Service] = []

    def make(*, workers: int = 1, **limits: float) -> Service:
        made.append(Service([str(tiny)], limits=Limits(**limits), workers=workers))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for service in made:
        service.close()
        assert not service.rooms.path.exists()
