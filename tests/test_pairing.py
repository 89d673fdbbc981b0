"""Pairs of weights: what lies between them, how files name each other, and how `Upscaler` uses them."""

import copy
import threading

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from dacesr import Upscaler, pairing, weightfiles
from dacesr.checkpoint import CheckpointError, convert, describe, save_restorer
from dacesr.nets.baselines import SRVGGConfig, SRVGGNetCompact
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.pairing import Pair, interpolate, pair_restorers

CONFIG = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect")


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return Restorer(CONFIG).eval(), Restorer(CONFIG).eval()


@pytest.fixture
def files(tmp_path, nets):
    """A fidelity and a perceptual file that are paired, without a strength of their own."""
    paths = tmp_path / "soft.safetensors", tmp_path / "crisp.safetensors"
    for path, net in zip(paths, nets, strict=True):
        save_restorer(path, net, info={"name": path.stem})
    pair_restorers(*paths)
    return paths


def mixed(nets, strength: float) -> Restorer:
    one, two = (net.state_dict() for net in nets)
    net = Restorer(CONFIG).eval()
    net.load_state_dict({name: (1 - strength) * one[name] + strength * two[name] for name in one})
    return net


def outputs(net, x):
    with torch.no_grad():
        return net(x).clamp(0, 1)


X = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("strength", [0, 0.25, 0.5, 1])
def test_the_weights_lie_on_the_line_between_the_two(nets, strength):
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    net = Pair(nets[1], lambda: nets[0]).at(strength)
    torch.testing.assert_close(net.state_dict(), mixed(nets, strength).state_dict())
    assert not net.training
    for now, then in zip(nets, before, strict=True):
        torch.testing.assert_close(now.state_dict(), then, rtol=0, atol=0)


def test_the_ends_are_the_files_themselves(nets):
    pair = Pair(nets[1], lambda: nets[0])
    assert (pair.at(0), pair.at(1)) == nets


def test_the_compact_network_can_be_interpolated_too():
    nets = [SRVGGNetCompact(SRVGGConfig(num_feat=4, num_conv=1)) for _ in range(2)]
    half = interpolate(nets[0], nets[1], 0.5).state_dict()
    for name, value in half.items():
        torch.testing.assert_close(value, (nets[0].state_dict()[name] + nets[1].state_dict()[name]) / 2)


# --- files


def test_pairing_changes_the_header_alone(tmp_path, nets):
    soft, crisp = tmp_path / "soft.safetensors", tmp_path / "crisp.safetensors"
    save_restorer(soft, nets[0])
    save_restorer(crisp, nets[1], dtype=torch.float16, info={"name": "Größe", "licence": "CC0"})
    before, config = safetensors.torch.load_file(crisp), describe(crisp).config
    pair_restorers(soft, crisp, strength=0.75)
    after = safetensors.torch.load_file(crisp)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    info = describe(crisp)
    assert info.config == config
    digest = describe(soft).sha256
    pair = {"fidelity": "soft.safetensors", "fidelity_sha256": digest}
    assert info.metadata == {"name": "Größe", "licence": "CC0", **pair, "strength": "0.75"}
    pair_restorers(soft, crisp)
    assert describe(crisp).metadata == {"name": "Größe", "licence": "CC0", **pair}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crisp.safetensors", "soft.safetensors"]


def test_files_that_are_no_pair_are_refused_and_left_alone(tmp_path, files, nets):
    soft, crisp = files
    (tmp_path / "sub").mkdir()
    elsewhere, other, foreign = tmp_path / "sub" / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "c.pth"
    save_restorer(elsewhere, nets[0])
    save_restorer(other, Restorer(CONFIG.model_copy(update={"image_skip": "bilinear"})))
    torch.save(Restorer(CONFIG.model_copy(update={"modulation": "release"})).state_dict(), foreign)
    before = crisp.read_bytes()
    for fidelity, perceptual, words in [
        (elsewhere, crisp, "another file in the folder"),
        (crisp, crisp, "another file in the folder"),
        (other, crisp, "b.safetensors has another config"),
        (foreign, foreign, "c.pth is not in dacesr's own format"),
        (tmp_path / "none", crisp, "none does not exist"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            pair_restorers(fidelity, perceptual)
    with pytest.raises(ValueError, match=r"from 0 to 1; got 1\.5"):
        pair_restorers(soft, crisp, strength=1.5)
    assert crisp.read_bytes() == before


# --- Upscaler


def test_upscaler_interpolates_on_demand(files, nets, monkeypatch):
    loads = []
    load = pairing.load_restorer
    monkeypatch.setattr(pairing, "load_restorer", lambda path: loads.append(path) or load(path))
    up = Upscaler.load(files[1], precision="fp32")
    assert up.strength == 1
    torch.testing.assert_close(up(X), outputs(nets[1], X))
    torch.testing.assert_close(up(X, strength=1), outputs(nets[1], X))
    assert loads == []
    for strength in (0.5, 0, 0.25, 0.5):
        torch.testing.assert_close(up(X, strength=strength), outputs(mixed(nets, strength), X))
    torch.testing.assert_close(up(X), outputs(nets[1], X))
    assert loads == [files[0]]


def test_every_kind_of_input_takes_a_strength(files, nets):
    up = Upscaler.load(files[1], precision="fp32")
    array = (X[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    expected = outputs(mixed(nets, 0.5), torch.from_numpy(array).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0)
    for result in (up(array, strength=0.5), up(Image.fromarray(array), strength=0.5)):
        assert np.abs(np.asarray(result) / 255 - expected.numpy()).max() < 0.6 / 255


def test_the_last_strength_is_kept(files, monkeypatch):
    made = []
    monkeypatch.setattr(pairing, "interpolate", lambda *args: made.append(args[2]) or interpolate(*args))
    up = Upscaler.load(files[1], precision="fp32")
    for strength in (0.5, 0.5, 0.25, 0.25, 0.5):
        up(X, strength=strength)
    assert made == [0.5, 0.25, 0.5]


def test_the_model_has_a_strength_of_its_own(files, nets):
    pair_restorers(*files, strength=0.25)
    up = Upscaler.load(files[1], precision="fp32")
    assert up.strength == 0.25
    torch.testing.assert_close(up(X), outputs(mixed(nets, 0.25), X))
    torch.testing.assert_close(up(X, strength=1), outputs(nets[1], X))
    given = Upscaler.load(files[1], precision="fp32", strength=0)
    torch.testing.assert_close(given(X), outputs(nets[0], X))


def test_threads_with_different_strengths_get_their_own(files, nets):
    up, results = Upscaler.load(files[1], precision="fp32"), {}
    x = X.repeat(1, 1, 6, 6)

    def work(strength):
        results[strength] = [up(x, tile=32, overlap=0, strength=strength) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(s,)) for s in (0, 0.3, 0.6, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for strength, found in results.items():
        alone = Upscaler(mixed(nets, strength), precision="fp32")(x, tile=32, overlap=0)
        for y in found:
            torch.testing.assert_close(y, alone)
    assert len(results) == 4


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "half", True])
def test_an_impossible_strength_is_told(files, strength):
    up = Upscaler.load(files[1])
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1"):
        up(X, strength=strength)
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1"):
        Upscaler.load(files[1], strength=strength)


def test_a_model_alone_has_no_strength(files):
    up = Upscaler.load(files[0])
    assert up.strength is None
    for strength in (0, 0.5, 1):
        with pytest.raises(ValueError, match=r"soft\.safetensors has one set of weights"):
            up(X, strength=strength)
    with pytest.raises(ValueError, match="one set of weights"):
        Upscaler.load(files[0], strength=0.5)


def test_a_missing_or_wrong_partner_is_told_when_it_is_needed(files, nets):
    soft, crisp = files
    up = Upscaler.load(crisp, precision="fp32")
    content = soft.read_bytes()
    soft.unlink()
    with pytest.raises(CheckpointError, match=r"needs its fidelity partner soft\.safetensors beside it"):
        up(X, strength=0.5)
    save_restorer(soft, nets[1])
    with pytest.raises(CheckpointError, match=r"soft\.safetensors is not the fidelity partner .* sha256"):
        up(X, strength=0.5)
    torch.testing.assert_close(up(X), outputs(nets[1], X))
    soft.write_bytes(content)
    torch.testing.assert_close(up(X, strength=0), outputs(nets[0], X))


def test_a_partner_of_another_config_is_told(files, nets):
    soft, crisp = files
    save_restorer(soft, Restorer(CONFIG.model_copy(update={"image_skip": "bilinear"})))
    save_restorer(crisp, nets[1], info={"fidelity": soft.name, "fidelity_sha256": describe(soft).sha256})
    with pytest.raises(CheckpointError, match=r"soft\.safetensors has another config than .*crisp\.safetensors"):
        Upscaler.load(crisp)(X, strength=0.5)


@pytest.mark.parametrize("name", ["../soft.safetensors", "/etc/passwd", "sub/soft.safetensors", "..", ""])
def test_a_partner_outside_the_folder_is_refused(files, nets, name):
    save_restorer(files[1], nets[1], info={"fidelity": name, "fidelity_sha256": "0" * 64})
    with pytest.raises(CheckpointError, match="must be a file in the same folder"):
        Upscaler.load(files[1])


@pytest.mark.parametrize("strength", ["strong", "2", "nan", ""])
def test_a_header_with_an_impossible_strength_is_refused(files, nets, strength):
    save_restorer(
        files[1], nets[1], info={"fidelity": "soft.safetensors", "fidelity_sha256": "0" * 64, "strength": strength}
    )
    with pytest.raises(CheckpointError, match=f"has the strength '{strength}'"):
        Upscaler.load(files[1])


def test_half_precision_falls_back_for_every_strength(files, nets, monkeypatch):
    forward = Restorer.forward

    def fragile(self, tile, *args):
        y = forward(self, tile, *args)
        return y if self.conv_first.weight.dtype == torch.float32 else y * torch.nan

    monkeypatch.setattr(Restorer, "forward", fragile)
    sentences = []
    up = Upscaler.load(files[1], precision="bf16", warn=sentences.append)
    for strength in (0.5, 1, 0):
        torch.testing.assert_close(up(X, strength=strength), outputs(mixed(nets, strength), X))
    assert len(sentences) == 1


def test_a_bundled_name_and_a_converted_copy_keep_their_partner(files, nets, monkeypatch, tmp_path):
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    up = Upscaler.load("crisp", precision="fp32")
    torch.testing.assert_close(up(X, strength=0), outputs(nets[0], X))
    convert("crisp", tmp_path / "half.safetensors", dtype=torch.float16)
    torch.testing.assert_close(Upscaler.load("half", precision="fp32")(X, strength=0), outputs(nets[0], X))


def test_the_partner_on_the_hub_is_downloaded(files, nets, monkeypatch, tmp_path):
    import huggingface_hub

    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    files[1].rename(snapshot / "model.safetensors")

    def download(repository, name):
        assert (repository, name) == ("someone/model", "soft.safetensors")
        return str(files[0])

    monkeypatch.setattr(weightfiles, "_from_hub", lambda hub_id: snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    torch.testing.assert_close(Upscaler.load("someone/model", precision="fp32")(X, strength=0), outputs(nets[0], X))
    files[0].unlink()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: 1 / 0)
    with pytest.raises(CheckpointError, match="needs its fidelity partner"):
        Upscaler.load("someone/model")(X, strength=0)
