"""Shared pieces of the tests: the data folder, and a network whose output is known."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dacesr.checkpoint import save_restorer
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
