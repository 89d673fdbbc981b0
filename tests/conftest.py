"""Shared pieces of the tests: the data folder, pictures made here, and a network whose output is known."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.nn import functional as F

from dacesr.checkpoint import save_restorer
from dacesr.image import write
from dacesr.nets.restorer import Restorer, RestorerConfig

settings.register_profile("repeatable", derandomize=True)  # a failure in CI is one here
settings.load_profile("repeatable")


@pytest.fixture
def data() -> Path:
    """The folder of shared photographs and checkpoints; the test is skipped without it."""
    folder = os.environ.get("DACESR_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the shared data: set DACESR_DATA to its folder")
    return Path(folder)


@pytest.fixture
def bilinear() -> Restorer:
    """A restorer with the head at zero and the image skip on: it enlarges bilinearly, and every layer runs."""
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear")
    net = Restorer(config).eval()
    with torch.no_grad():
        for parameter in net.upsample.parameters():
            parameter.zero_()
    return net


@pytest.fixture
def bilinear_file(bilinear: Restorer, tmp_path: Path) -> Path:
    """The weights of `bilinear` as a file."""
    path = tmp_path / "bilinear.safetensors"
    save_restorer(path, bilinear)
    return path


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
