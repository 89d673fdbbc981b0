"""dacesr's networks in spandrel, here a stand-in with its signatures."""

import sys
from pathlib import Path

import pytest
import torch
from conditioned import write_conditioned
from safetensors.torch import load_file, save_file
from spandrel_stand_in import ArchRegistry, ModelLoader, ModelTiling, install_stand_in

from dacesr import spandrel_plugin
from dacesr.checkpoint import CheckpointError, load_restorer, save_restorer
from dacesr.conditioning import load_guided
from dacesr.config import SRVGGConfig
from dacesr.nets.baselines import SRVGGNetCompact
from dacesr.spandrel_plugin import ID, install, save


def test_a_conditioned_network_hides_its_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = install_stand_in(monkeypatch)
    install()
    install()
    assert len(registry) == 1
    assert ID in registry
    weights = write_conditioned(tmp_path)
    save(weights, tmp_path / "spandrel.safetensors")
    model = ModelLoader(registry).load_from_file(tmp_path / "spandrel.safetensors")
    x = torch.rand(1, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = load_guided(weights)(x).clamp(0, 1)
        assert not torch.allclose(load_restorer(weights)(x, torch.zeros(1, 65, 16)).clamp(0, 1), wanted, atol=1e-3)
    assert torch.equal(model(x), wanted)
    assert (model.scale, model.purpose, model.channels, model.tags) == (2, "SR", (3, 3), ["restorer", "conditioned"])
    assert model.tiling is ModelTiling.DISCOURAGED
    assert model.size_requirements.minimum == 8
    assert model.supports[torch.bfloat16]
    half = model.model.bfloat16()(x.bfloat16()).detach()
    assert half.dtype is torch.bfloat16
    assert (half - wanted).abs().mean() < 0.05


def test_a_network_alone(tmp_path: Path, bilinear_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    own = ArchRegistry()
    install(own)
    save(bilinear_file, tmp_path / "spandrel.safetensors")
    model = ModelLoader(own).load_from_file(tmp_path / "spandrel.safetensors")
    x = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        assert torch.equal(model(x), load_restorer(bilinear_file)(x).clamp(0, 1))
    assert (model.tags, model.tiling) == (["restorer"], ModelTiling.SUPPORTED)
    with pytest.raises(LookupError):
        ModelLoader(own).load_from_file(bilinear_file)  # has its config in a header that spandrel never sees


def test_a_network_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = install_stand_in(monkeypatch)
    install()
    net = SRVGGNetCompact(SRVGGConfig(num_feat=8, num_conv=1, scale=2))
    save_restorer(tmp_path / "compact.safetensors", net)
    save(tmp_path / "compact.safetensors", tmp_path / "spandrel.safetensors")
    model = ModelLoader(registry).load_from_file(tmp_path / "spandrel.safetensors")
    x = torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        assert torch.equal(model(x), net(x).clamp(0, 1))


def test_damaged_files_are_one_sentence(tmp_path: Path, bilinear_file: Path) -> None:
    save(bilinear_file, tmp_path / "spandrel.safetensors")
    state = load_file(tmp_path / "spandrel.safetensors")
    for header in (b"\xff", b"[]", b"3", b"{}", b'{"dacesr_format": "2"}', b'{"extractor": 3}', b'{"extractor": "{}"}'):
        changed = state | {"dacesr.header": torch.tensor(list(header), dtype=torch.uint8)}
        with pytest.raises(CheckpointError, match=r"^the file for spandrel [^\n]*$"):
            spandrel_plugin.read(changed)
    with pytest.raises(CheckpointError, match=r"missing: net\.norm_f\.weight"):
        spandrel_plugin.read({key: value for key, value in state.items() if key != "net.norm_f.weight"})


def test_calls_that_make_no_sense(tmp_path: Path, bilinear_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save(bilinear_file, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="no strength to choose"):
        save(bilinear_file, tmp_path / "a.safetensors", strength=0.5)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ImportError, match="pip install spandrel"):
        install()
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="unknown kind"):
        save(tmp_path / "foreign.safetensors", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
