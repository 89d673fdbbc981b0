"""Networks by name: strengths, other names, and random weights as a control."""

from pathlib import Path

import pytest
import torch
from conditioned import CONFIG, write_conditioned
from torch import nn

from dacesr import Upscaler
from dacesr.analysis.subjects import load_subject, load_subjects, random_network
from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer, RestorerConfig

X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_network_comes_with_its_extractor_and_without_gradients(tmp_path: Path) -> None:
    path = write_conditioned(tmp_path)
    (name, guided), = load_subjects([str(path)]).items()  # fmt: skip
    assert name == "net"
    assert guided.extractor is not None
    assert not guided.training
    assert not any(parameter.requires_grad for parameter in guided.parameters())
    assert torch.equal(guided(X).clamp(0, 1), Upscaler.load(path, precision="fp32")(X, tile=0))


def test_it_is_what_the_upscaler_runs() -> None:
    for source, model, strength in (("default", "default", None), ("default@0.25", "default", 0.25)):
        with torch.no_grad():
            found = load_subject(source)(X).clamp(0, 1)
        assert torch.allclose(found, Upscaler.load(model, precision="fp32")(X, tile=0, strength=strength), atol=1e-6)


def test_names() -> None:
    found = load_subjects(["light", "mine=light", "light@0.5", "random:srvgg", "r=random:light"])
    assert list(found) == ["light", "mine", "light@0.5", "random:srvgg", "r"]
    with pytest.raises(ValueError, match="two models are called light: give one another name, as in NAME=light"):
        load_subjects(["light", "light"])


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    save_restorer(path, Restorer(CONFIG.model_copy(update={"modulation": "none"})))
    with pytest.raises(ValueError, match="should enlarge alike, and their scales are two 2, light 4"):
        load_subjects([str(path), "light"])
    with pytest.raises(ValueError, match="has one set of weights, so there is no strength"):
        load_subject(f"{path}@0.5")
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1"):
        load_subject("light@7")
    with pytest.raises(ValueError, match="nothing is neither a network"):
        load_subject("random:nothing")
    with pytest.raises(ValueError, match="does not exist"):
        load_subject("nothing")


def test_random_weights_are_the_same_in_every_run_and_do_something() -> None:
    state = torch.get_rng_state()
    one, other = random_network("light"), random_network("light")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(one, Restorer)
    assert one.config == RestorerConfig.preset("light")
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    convolutions = [module for module in one.modules() if isinstance(module, nn.Conv2d)]
    assert all(float(conv.weight.detach().abs().max()) > 0 for conv in convolutions)
    with torch.no_grad():
        assert float(one(X).std()) > 1e-3


def test_a_file_of_a_conditioned_network_gives_its_sizes(tmp_path: Path) -> None:
    net = random_network(str(write_conditioned(tmp_path)))
    assert net.config == CONFIG.model_copy(update={"modulation": "none"})
