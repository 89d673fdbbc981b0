"""Networks exported and run elsewhere: the same numbers as in PyTorch, and as good as weights for Upscaler."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conditioned import conditioned, write_conditioned
from PIL import Image
from tiny_tagger import TAGS
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from dacesr import Upscaler, exporting
from dacesr.checkpoint import CheckpointError, convert, describe, load_extractor, load_restorer, save_restorer
from dacesr.cli import app
from dacesr.conditioning import condition_of, extractor_fields, region_of
from dacesr.config import RestorerConfig, SRVGGConfig, TaggerConfig
from dacesr.exporting import Exported, export_model
from dacesr.nets.baselines import SRVGGNetCompact
from dacesr.nets.inputs import reflect_to
from dacesr.nets.restorer import Restorer
from dacesr.onnxfile import read_onnx
from dacesr.onnxnetwork import OnnxNetwork
from dacesr.pairing import pair_restorers
from dacesr.tiling import TilePlan

DOCS = Path(__file__).parents[1] / "docs" / "export.md"
TILE = 32


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Soft shapes with texture."""
    generator = torch.Generator().manual_seed(seed)
    soft, fine = (torch.rand(1, 3, *sides, generator=generator) for sides in ((5, 6), (height, width)))
    return (F.interpolate(soft, (height, width), mode="bilinear") * 0.8 + fine * 0.2).clamp(0, 1)


def recalling() -> Restorer:
    """A conditioned network whose output depends on what its scans remember."""
    net = conditioned()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if ".x_proj." in name or re.fullmatch(r"layers\.\d\.conv\.weight", name):
                parameter.mul_(10)
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditioned network with its extractor, and both exported: for any size, for one, and as a program."""
    folder = tmp_path_factory.mktemp("exported")
    weights = write_conditioned(folder)
    save_restorer(
        weights, recalling(), info={"description": "conditioned", **extractor_fields(folder / "eye.safetensors")}
    )
    export_model(weights, folder / "dynamic.onnx")
    export_model(weights, folder / "fixed.onnx", tile=TILE)
    export_model(weights, folder / "program.pt2", format="torch", tile=TILE)
    export_model(folder / "eye.safetensors", folder / "eye.onnx")
    return folder


def ran(path: Path, **inputs: Tensor) -> list[Tensor]:
    started = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(x) for x in started.run(None, {key: value.numpy() for key, value in inputs.items()})]


def given(folder: Path, x: Tensor) -> dict[str, Tensor]:
    condition = load_extractor(folder / "eye.safetensors").embed(x)
    return {"image": x, "condition": condition, "window": torch.tensor([[0.2, 0.1, 0.7, 0.8]])}


@pytest.mark.parametrize("size", [(24, 40), (61, 35), (1, 3)])
def test_any_size_gives_what_pytorch_gives(folder: Path, size: tuple[int, int]) -> None:
    inputs = given(folder, picture(max(8, size[0]), max(8, size[1]))) | {"image": picture(*size)}
    (output,) = ran(folder / "dynamic.onnx", **inputs)
    with torch.no_grad():
        wanted = load_restorer(folder / "net.safetensors")(*inputs.values())
    assert (output - wanted).abs().max() < 1e-5
    assert (
        output - ran(folder / "dynamic.onnx", **inputs | {"window": torch.tensor([[0, 0, 1.0, 1]])})[0]
    ).abs().max() > 1e-4


def test_an_extractor_gives_the_same_tokens_and_logits(folder: Path) -> None:
    extractor = load_extractor(folder / "eye.safetensors")
    for size in ((20, 33), (200, 90), (32, 32)):
        wanted = extractor.recognise(picture(*size))
        tokens, logits = ran(folder / "eye.onnx", image=picture(*size))
        assert (tokens - wanted.tokens).abs().max() < 1e-4
        assert (logits - wanted.logits).abs().max() < 1e-4


def test_upscaler_runs_it_like_the_weights(folder: Path) -> None:
    x = picture(50, 70)
    exported, weights = (
        Upscaler.load(folder / "dynamic.onnx"),
        Upscaler.load(folder / "net.safetensors", precision="fp32"),
    )
    for tile in (0, 32):
        assert (exported(x, tile=tile, overlap=8) - weights(x, tile=tile, overlap=8)).abs().max() < 1e-5
    both = torch.cat((x, picture(50, 70, seed=1)))
    assert (exported(both) - weights(both)).abs().max() < 1e-5
    assert exported.tile_size("auto", 32) <= weights.tile_size("auto", 32)


def test_a_network_for_one_size_is_given_tiles_of_that_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = OnnxNetwork.forward
    monkeypatch.setattr(
        OnnxNetwork, "forward", lambda net, x, *rest: (shapes.append(x.shape), forward(net, x, *rest))[1]
    )
    up, x = Upscaler.load(folder / "fixed.onnx"), picture(70, 33)
    output = up(x, overlap=8)
    assert set(shapes) == {(1, 3, TILE, TILE)}
    net, extractor = load_restorer(folder / "net.safetensors"), load_extractor(folder / "eye.safetensors")
    condition = condition_of(extractor, region_of(x), 70, 33)

    def tiles(plan: TilePlan):
        for rows, columns in plan.tiles():
            top = max(0, min(rows.start - (TILE - rows.size) // 2, 70 - TILE))
            left = max(0, min(columns.start - (TILE - columns.size) // 2, 33 - TILE))
            window = (top / 70, left / 33, (top + TILE) / 70, (left + TILE) / 33)
            with torch.no_grad():
                done = net(x[:, :, top : top + TILE, left : left + TILE], condition, window).clamp(0, 1)
            first, before = 2 * (rows.start - top), 2 * (columns.start - left)
            yield done[:, :, first : first + 2 * rows.size, before : before + 2 * columns.size].clone()

    plan = TilePlan(height=70, width=33, scale=2, tile=TILE, overlap=8)
    assert len(plan) == 6
    assert (output - torch.cat(list(plan.blend(tiles(plan))), dim=2)).abs().max() < 1e-5


def test_a_smaller_picture_is_filled_up_by_reflection(folder: Path) -> None:
    net, x = load_restorer(folder / "fixed.onnx"), picture(20, 25)
    condition = given(folder, x)["condition"]
    filled = net(reflect_to(x, TILE, TILE), condition, (0.0, 0.0, 0.5 * TILE / 20, 0.5 * TILE / 25))
    assert torch.equal(net(x, condition, (0.0, 0.0, 0.5, 0.5)), filled[:, :, :40, :50])
    assert Upscaler.load(folder / "fixed.onnx")(x).shape == (1, 3, 40, 50)
    with pytest.raises(ValueError, match="takes pictures of 32 x 32 pixels, not 33 x 32"):
        net(picture(32, 33), condition)


def test_a_file_says_what_it_holds_and_not_where_it_was_made(folder: Path) -> None:
    found = describe(folder / "fixed.onnx")
    assert (found.container, found.architecture, found.scale, found.dtype) == ("ONNX", "restorer", 2, "float32")
    assert found.config == conditioned().config
    fields = extractor_fields(folder / "eye.safetensors")
    assert (
        found.metadata.items()
        >= {**fields, "tile": "32", "scale": "2", "name": "net", "description": "conditioned"}.items()
    )
    assert describe(folder / "dynamic.onnx").metadata["tile"] == "dynamic"
    eye = describe(folder / "eye.onnx")
    assert isinstance(eye.config, TaggerConfig)
    assert json.loads(read_onnx(folder / "eye.onnx").header["tags"]) == list(TAGS)
    for path in folder.glob("*.onnx"):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b"dacesr/nets" not in content


def test_a_program_needs_nothing_but_torch(folder: Path) -> None:
    inputs = given(folder, picture(TILE, TILE))
    torch.save(list(inputs.values()), folder / "inputs.pt")
    code = """
import sys, json, torch
extra = {"dacesr.json": ""}
program = torch.export.load("program.pt2", extra_files=extra).module()
torch.save(program(*torch.load("inputs.pt")), "output.pt")
assert json.loads(extra["dacesr.json"])["tile"] == "32"
assert not [name for name in sys.modules if name.split(".")[0] in ("dacesr", "onnx", "onnxscript")]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        wanted = load_restorer(folder / "net.safetensors")(*inputs.values())
    assert (torch.load(folder / "output.pt") - wanted).abs().max() < 1e-5


def test_an_extractor_as_a_program(folder: Path, tmp_path: Path) -> None:
    export_model(folder / "eye.safetensors", tmp_path / "eye.pt2", format="torch", tile=40)
    wanted = load_extractor(folder / "eye.safetensors").recognise(picture(40, 40))
    tokens, logits = torch.export.load(tmp_path / "eye.pt2").module()(picture(40, 40))
    assert (tokens - wanted.tokens).abs().max() < 1e-4
    assert (logits - wanted.logits).abs().max() < 1e-4


def test_the_documented_program_without_dacesr(folder: Path, tmp_path: Path) -> None:
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
        if "dacesr.onnx" in block
    )
    (tmp_path / "dacesr.onnx").write_bytes((folder / "dynamic.onnx").read_bytes())
    (tmp_path / "extractor.onnx").write_bytes((folder / "eye.onnx").read_bytes())
    pixels = (picture(40, 52)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    with Image.open(tmp_path / "photo.jpg") as photo:
        wanted = np.asarray(Upscaler.load(folder / "net.safetensors", precision="fp32")(photo, tile=0)).astype(int)
    with Image.open(tmp_path / "big.png") as big:
        assert np.abs(np.asarray(big).astype(int) - wanted).max() <= 1


def test_weights_between_two_sets(tmp_path: Path) -> None:
    faithful, crisp = (write_conditioned(tmp_path, f"{seed}.safetensors", seed) for seed in (0, 1))
    pair_restorers(faithful, crisp, strength=0.8)
    export_model(crisp, tmp_path / "half.onnx", strength=0.5, tile=16)
    x = picture(16, 16)
    wanted = Upscaler.load(crisp, strength=0.5, precision="fp32")(x)
    assert (Upscaler.load(tmp_path / "half.onnx")(x) - wanted).abs().max() < 1e-5
    assert describe(tmp_path / "half.onnx").metadata["strength"] == "0.5"
    with pytest.raises(ValueError, match="no strength to choose"):
        Upscaler.load(tmp_path / "half.onnx", strength=0.5)
    with pytest.raises(ValueError, match="no strength to choose"):
        export_model(faithful, tmp_path / "other.onnx", strength=0.5)


def compact(folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "compact.safetensors"
    save_restorer(path, SRVGGNetCompact(SRVGGConfig(num_feat=8, num_conv=2, scale=2)))
    return path


def test_networks_of_others_export_too(tmp_path: Path) -> None:
    weights = compact(tmp_path)
    done = export_model(weights, tmp_path / "compact.onnx")
    assert done == Exported(None, done.difference, {"image": (1, 3, "?", "?")})
    with torch.no_grad():
        wanted = load_restorer(weights)(picture(30, 21)).clamp(0, 1)
    assert (Upscaler.load(tmp_path / "compact.onnx")(picture(30, 21), tile=0) - wanted).abs().max() < 1e-5


def test_a_released_network_exports_without_a_condition(tmp_path: Path) -> None:
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", scale=2, modulation="release")
    save_restorer(tmp_path / "released.safetensors", Restorer(config))
    export_model(tmp_path / "released.safetensors", tmp_path / "released.onnx", tile=16)
    found = describe(tmp_path / "released.onnx").config
    assert isinstance(found, RestorerConfig)
    assert found.modulation == "none"


def test_what_differs_from_pytorch_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = compact(tmp_path)
    monkeypatch.setattr(exporting, "TOLERANCE", -1)
    for name, format in (("net.onnx", "onnx"), ("net.pt2", "torch")):
        with pytest.raises(ValueError, match="something else than in PyTorch"):
            export_model(weights, tmp_path / name, format=format, tile=8)
    assert list(tmp_path.iterdir()) == [weights]


@pytest.mark.parametrize(("format", "name"), [("onnx", "net.onnx"), ("torch", "net.pt2")])
def test_what_gives_no_numbers_is_not_written(tmp_path: Path, format: exporting.Format, name: str) -> None:
    net = SRVGGNetCompact(SRVGGConfig(num_feat=8, num_conv=1, scale=2))
    with torch.no_grad():
        net.body[0].bias.fill_(torch.nan)
    save_restorer(tmp_path / "net.safetensors", net)
    with pytest.raises(ValueError, match=r"\(nan\): nothing is written"):
        export_model(tmp_path / "net.safetensors", tmp_path / name, format=format, tile=8)
    assert not (tmp_path / name).exists()


def test_calls_that_make_no_sense(folder: Path, tmp_path: Path) -> None:
    cases = [
        (("dynamic.onnx", "a.onnx"), {}, "an ONNX file already"),
        (("net.safetensors", "a.pt"), {}, r"ends in \.onnx"),
        (("net.safetensors", "a.onnx"), {"format": "torch"}, "no ONNX file: take .pt2"),
        (("net.safetensors", "a.onnx"), {"tile": 0}, "1 to 16384 pixels a side; got 0"),
        (("eye.safetensors", "a.onnx"), {"tile": 7}, "8 to 16384 pixels a side; got 7"),
        (("eye.safetensors", "a.onnx"), {"strength": 0.5}, "is an extractor"),
    ]
    for (source, name), options, said in cases:
        with pytest.raises(ValueError, match=said):
            export_model(folder / source, tmp_path / name, **options)
    with pytest.raises(OSError, match="no such folder"):
        export_model(folder / "net.safetensors", tmp_path / "nowhere" / "a.onnx")
    with pytest.raises(ValueError, match="in its own precision, not in bf16"):
        Upscaler.load(folder / "dynamic.onnx", precision="bf16")
    up = Upscaler.load(folder / "fixed.onnx")
    for tile in (0, TILE + 1):
        with pytest.raises(ValueError, match="takes tiles of 32 pixels"):
            up(picture(40, 40), tile=tile)
    with pytest.raises(CheckpointError, match="convert the weights"):
        convert(folder / "dynamic.onnx", tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="holds a tagger"):
        load_restorer(folder / "eye.onnx")
    with pytest.raises(CheckpointError, match="an ONNX network"):
        load_extractor(folder / "eye.onnx")
    with pytest.raises(ValueError, match="no gradients"):
        load_restorer(folder / "dynamic.onnx")(picture(8, 8).requires_grad_(), torch.zeros(1, 65, 16))


def test_memory_that_runs_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dacesr.onnxnetwork.run", fail)
    with pytest.raises(RuntimeError, match="too little memory for the 32 x 32 pixels that the file takes"):
        Upscaler.load(folder / "fixed.onnx")(picture(40, 40))


def test_the_command(folder: Path, tmp_path: Path) -> None:
    runner, source = CliRunner(), str(folder / "net.safetensors")
    done = runner.invoke(app, ["models", "export", source, "-o", str(tmp_path / "a.onnx"), "--tile", "16"])
    assert done.exit_code == 0, done.output
    assert re.search(r"a\.onnx: image \(1, 3, 16, 16\), condition .* at most \S+ from PyTorch", done.output)
    assert "tile             16" in runner.invoke(app, ["models", "info", str(tmp_path / "a.onnx")]).output
    done = runner.invoke(
        app, ["models", "export", source, "-o", str(tmp_path / "s.safetensors"), "--format", "spandrel"]
    )
    assert done.exit_code == 0, done.output
    for wrong in (
        ["--dynamic", "--tile", "16"],
        ["--dynamic", "--format", "torch"],
        ["--format", "spandrel", "-t", "8"],
    ):
        done = runner.invoke(app, ["models", "export", source, "-o", str(tmp_path / "b.onnx"), *wrong])
        assert done.exit_code == 2, done.output
    done = runner.invoke(app, ["models", "export", source, "-o", str(tmp_path / "no" / "b.onnx")])
    assert done.exit_code == 2
    assert "cannot be written: there is no such folder" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "s.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["light-fidelity", "dacesr-light", "lite-ree"])
def test_bundled_weights(name: str, tmp_path: Path) -> None:
    done = export_model(name, tmp_path / "a.onnx", tile=48)  # which compares it with PyTorch
    assert done.difference < 1e-4
    if name != "lite-ree":
        x = picture(48, 48)
        assert (Upscaler.load(tmp_path / "a.onnx")(x) - Upscaler.load(name, precision="fp32")(x)).abs().max() < 1e-4
