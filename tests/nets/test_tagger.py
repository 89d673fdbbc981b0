import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weights_by_name import weights

from dacesr.config import TaggerConfig
from dacesr.nets.tagger import THRESHOLD, Tagger
from dacesr.taggerfile import load_tagger

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMALL = TaggerConfig(
    image_size=32, patch=4, embed_dim=8, depths=(2, 2), heads=(2, 4), window=4, width=6, tags=5, label_dim=4,
    head_dim=8, head_heads=2, head_mlp=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def by_name(part: str) -> dict[str, torch.Tensor]:
    """A released state dict with weights drawn from its names, as the reference was made."""
    keys = json.loads((FIXTURES / "ram_keys.json").read_text())[part]
    return {name: weights(name, tuple(shape)) * (0.3 if name.endswith("lora_B") else 1) for name, shape in keys.items()}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["", "_lora"])
def test_ram_gives_the_numbers_of_the_authors_code(adapter):
    net = load_tagger(by_name("ram"), lora=by_name("lora") if adapter else None)
    assert net.config == TaggerConfig.preset("ram")
    image = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(21))
    with torch.no_grad():
        found = net(image)
    reference = np.load(FIXTURES / "ram.npz")
    for part, values in zip(("embeds", "logits"), found, strict=True):
        wanted = torch.from_numpy(reference[part + adapter])
        assert values.shape == wanted.shape
        assert (values - wanted).norm() < 1e-5 * wanted.norm(), part
        other = torch.from_numpy(reference[part + ("" if adapter else "_lora")])
        assert (values - other).norm() > 1e-3 * wanted.norm()  # the adapter matters


@pytest.mark.parametrize(("preset", "tokens", "millions"), [("lite", 145, (3, 7))])
def test_the_lite_preset_has_145_tokens_and_few_parameters(preset, tokens, millions):
    config = TaggerConfig.preset(preset, tags=80)
    net = Tagger(config)
    assert 1 + config.grid**2 == tokens
    assert millions[0] < sum(value.numel() for value in net.parameters()) / 1e6 < millions[1]
    with torch.no_grad():
        found = net(torch.randn(1, 3, config.image_size, config.image_size))
    assert found.tokens.shape == (1, tokens, 512)
    assert found.logits.shape == (1, 80)


def test_the_first_token_is_the_mean_of_the_others():
    """The projection is linear, so that the mean may be taken after it."""
    with torch.no_grad():
        tokens = Tagger(SMALL).embed(torch.randn(2, 3, 32, 32))
    assert tokens.shape == (2, 1 + SMALL.grid**2, 6)
    torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(1), rtol=1e-4, atol=1e-5)


def test_one_call_gives_what_its_parts_give():
    net, image = Tagger(SMALL).eval(), torch.randn(2, 3, 20, 36)
    with torch.no_grad():
        tokens, logits = net(image)
        assert torch.equal(tokens, net.embed(image))
        assert torch.equal(logits, net.classify(tokens))
        assert torch.equal(logits, net.logits(image))
        alone = torch.cat([net.logits(picture[None]) for picture in image])
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter():
    net = Tagger(SMALL)
    tokens, logits = net(torch.randn(2, 3, 32, 32))
    (tokens.square().mean() + logits.square().mean()).backward()
    still = {name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()}
    assert all(name.endswith(("attn.k.bias", "attn.key.bias")) for name in still)  # softmax cancels these


def test_tags_are_numbered_unless_named():
    assert Tagger(SMALL).tag_names == ("0", "1", "2", "3", "4")
    net = Tagger(SMALL, tags="abcde", thresholds=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert net.tag_names == ("a", "b", "c", "d", "e")
    assert "thresholds" not in net.state_dict()


@pytest.mark.parametrize("labels", [{"tags": "abcd"}, {"thresholds": [0.5] * 6}, {"thresholds": torch.ones(2, 5)}])
def test_another_number_of_names_or_thresholds_is_refused(labels):
    with pytest.raises(ValueError, match="knows 5 tags"):
        Tagger(SMALL, **labels)


@given(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_names_are_those_that_reach_their_threshold_the_most_probable_first(logits, thresholds):
    net = Tagger(SMALL, tags="abcde", thresholds=thresholds)
    values = torch.tensor([logits, [-9.0] * 5])
    first, _ = net.names(values)
    probability = dict(zip("abcde", values[0].sigmoid().tolist(), strict=True))
    assert set(first) == {
        tag for tag, limit in zip("abcde", net.thresholds.tolist(), strict=True) if probability[tag] >= limit
    }
    assert [probability[tag] for tag in first] == sorted((probability[tag] for tag in first), reverse=True)


def test_a_tag_at_its_threshold_is_given():
    net = Tagger(SMALL, thresholds=[0.5] * 5)
    assert net.names(torch.tensor([[0.0, -1e-3, -1, 2, 1]])) == [("3", "4", "0")]
    assert torch.equal(Tagger(SMALL).thresholds, torch.full((5,), THRESHOLD))
