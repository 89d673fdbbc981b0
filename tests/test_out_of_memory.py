"""Memory that runs out at any place: the run goes on with smaller tiles, or says so in a sentence; a file is whole.

At every tile it runs out once, or twice in a row; then in the extractor, in reading, blending, writing and encoding;
and at last for real, in processes that may take little.
"""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conditioned import conditioned, write_conditioned
from forked import Server

from dacesr import Upscaler, conditioning, encoding
from dacesr.checkpoint import load_extractor, save_restorer
from dacesr.config import RestorerConfig
from dacesr.image import PictureWriter, open_picture, read, write
from dacesr.inference import UpscaleError
from dacesr.nets.extractor import Extractor
from dacesr.nets.restorer import Restorer
from dacesr.picture import Picture
from dacesr.tiling import TilePlan

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
ERRORS = (torch.OutOfMemoryError("out of memory"), MemoryError(), RuntimeError(ALLOCATOR))
TILE = {"tile": 150, "overlap": 8}
TILES = 4  # that this makes of `picture`


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of 220 x 200 pixels, a network, and its extractor."""
    folder = tmp_path_factory.mktemp("memory")
    write_conditioned(folder)
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    write(folder / "picture.png", torch.nn.functional.interpolate(coarse, (200, 220), mode="bicubic").clamp(0, 1))
    return folder


@pytest.fixture
def up(place: Path) -> Upscaler:
    return upscaler(place)


@pytest.fixture(scope="module")
def expected(place: Path) -> torch.Tensor:
    """The enlarged picture."""
    return enlarge(upscaler(place), place)


def upscaler(place: Path) -> Upscaler:
    return Upscaler(
        conditioned(),
        precision="fp32",
        warn=lambda sentence: None,
        extractor=load_extractor(place / "eye.safetensors"),
    )


def enlarge(up: Upscaler, place: Path) -> torch.Tensor:
    """The picture through a file, which is there only if nothing was raised."""
    target = place / "out.png"
    target.unlink(missing_ok=True)
    try:
        up.upscale(open_picture(place / "picture.png"), target, **TILE)
        return read(target)
    finally:
        assert sorted(path.name for path in place.iterdir() if path != target) == sorted(
            ["eye.safetensors", "net.safetensors", "picture.png"]
        )


def failing(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: set[int], error: Exception) -> list[int]:
    """Make some calls of a function raise; the list of all calls."""
    original: Callable[..., object] = getattr(owner, name)
    made: list[int] = []

    def function(*args: object, **options: object) -> object:
        made.append(len(made))
        if made[-1] in calls:
            raise error
        return original(*args, **options)

    monkeypatch.setattr(owner, name, function)
    return made


def decibels(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


@pytest.mark.parametrize("call", range(TILES))
@pytest.mark.parametrize(("error", "times"), [*((error, 1) for error in ERRORS), (MemoryError(), 2)], ids=str)
def test_at_every_tile(
    up: Upscaler,
    place: Path,
    expected: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    call: int,
    times: int,
) -> None:
    made = failing(monkeypatch, Restorer, "forward", set(range(call, call + times)), error)
    assert decibels(enlarge(up, place), expected) > 43
    assert len(made) > TILES + times


@pytest.mark.parametrize("call", range(TILES))
def test_at_every_tile_down_to_the_smallest(
    up: Upscaler, place: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    failing(monkeypatch, Restorer, "forward", set(range(call, 100)), MemoryError())
    with pytest.raises(UpscaleError, match=r"there is too little memory on cpu even for \d\d x \d\d pixels"):
        enlarge(up, place)
    assert not (place / "out.png").exists()


PLACES = (
    (Extractor, "condition", 0, "on cpu for the extractor"),
    (conditioning, "look", 0, "on cpu for the extractor"),
    *((Picture, "region", call, "on cpu for the extractor" if call == 0 else "for ") for call in range(TILES + 1)),
    *((TilePlan, "_band", call, "for ") for call in range(2)),
    *((PictureWriter, "write_rows", call, "for ") for call in range(2)),
    (PictureWriter, "finish", 0, "for "),
    (encoding, "_save_vips", 0, "for "),
)


@pytest.mark.parametrize("number", range(len(PLACES)), ids=lambda number: f"{PLACES[number][1]}-{PLACES[number][2]}")
def test_anywhere_else_it_is_a_sentence(
    up: Upscaler, place: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    owner, name, call, said = PLACES[number]
    failing(monkeypatch, owner, name, {call}, ERRORS[number % len(ERRORS)])
    with pytest.raises(UpscaleError, match=f"^there is too little memory {said}"):
        enlarge(up, place)
    assert not (place / "out.png").exists()
    monkeypatch.undo()
    assert enlarge(up, place).shape == (1, 3, 400, 440)


def test_a_tensor_says_it_too(up: Upscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, TilePlan, "_band", {1}, MemoryError())
    with pytest.raises(UpscaleError, match="too little memory for the tensor"):
        up(torch.rand(1, 3, 200, 220), **TILE)


@pytest.mark.slow
def test_for_real(tmp_path: Path) -> None:
    """Below what it needs a run says so, or PyTorch or libvips end it (docs/reliability.md); nothing half is left."""
    folder, output = tmp_path / "streams", tmp_path / "out" / "picture_x4.png"
    folder.mkdir()
    config = RestorerConfig(embed_dim=32, depths=(1,), head="pixelshuffledirect", image_skip="bilinear")
    save_restorer(tmp_path / "net.safetensors", Restorer(config))
    write(tmp_path / "picture.png", torch.rand(1, 3, 150, 200))
    call = ["upscale", "picture.png", "-o", "out", "-n", "net.safetensors", "-t", "0", "--precision", "fp32"]
    with Server(folder) as server:
        for megabytes in (8, 40, 96, 512):
            ended = server.upscale(call, seconds=60, cwd=tmp_path, temporary=folder, memory=megabytes << 20)
            assert "Traceback" not in ended.stderr
            assert "should not happen" not in ended.stderr
            assert output.exists() == (ended.code == 0)
            if ended.code == 0:
                assert read(output).shape == (1, 3, 600, 800)
                output.unlink()
            elif ended.code > 0:
                assert re.search("memory|allocate|cannot be written", ended.stderr)
            else:
                assert 8 < megabytes < 512
                assert -ended.code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGTRAP)
            assert ended.code == 0 or megabytes < 512
            assert list((tmp_path / "out").glob(".*")) == []
