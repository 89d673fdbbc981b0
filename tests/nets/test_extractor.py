import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dacesr.config import TaggerConfig
from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Tagger

SMALL = TaggerConfig(
    image_size=32, resize=(48,), patch=4, embed_dim=8, depths=(1, 2), heads=(2, 4), window=4, width=6, tags=5,
    label_dim=4, head_dim=8, head_heads=2, head_mlp=8,
)  # fmt: skip


@pytest.fixture
def extractor() -> Extractor:
    torch.manual_seed(0)
    return Extractor(Tagger(SMALL, tags="abcde", thresholds=[0.01, 0.01, 0.01, 0.99, 0.99]))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(8, 90), width=st.integers(8, 90))
def test_pictures_of_any_size_become_the_same_number_of_tokens(height, width):
    extractor = Extractor(Tagger(SMALL))
    x = torch.rand(2, 3, height, width)
    assert extractor.prepare(x).shape == (2, 3, 32, 32)
    assert extractor.embed(x).shape == (2, 1 + 4 * 4, 6)


@pytest.mark.parametrize("shape", [(1, 3, 7, 100), (1, 3, 100, 1), (1, 3, 0, 9)])
def test_a_picture_too_small_is_refused_with_its_size(extractor, shape):
    with pytest.raises(ValueError, match=f"too small.*{shape[3]} x {shape[2]}"):
        extractor.embed(torch.rand(shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32)])
def test_another_shape_is_refused(extractor, shape):
    with pytest.raises(ValueError, match="takes RGB pictures"):
        extractor.embed(torch.rand(shape))


def test_a_picture_goes_through_the_sizes_of_the_config_and_is_normalised(extractor):
    x = torch.rand(1, 3, 60, 100)
    wanted = F.interpolate(x, (48, 48), mode="bilinear", antialias=True)
    wanted = F.interpolate(wanted, (32, 32), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = (wanted - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(extractor.prepare(x), wanted)


def test_a_picture_of_the_right_size_is_left_as_it_is():
    extractor = Extractor(Tagger(SMALL.model_copy(update={"resize": ()})))
    flat = extractor.prepare(torch.full((1, 3, 32, 32), 0.5))
    assert len(flat[0, 0].unique()) == 1
    x = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(extractor.prepare(x) * std.view(3, 1, 1) + mean.view(3, 1, 1), x)


def test_tokens_logits_and_tags_belong_together(extractor):
    x = torch.rand(3, 3, 40, 50)
    tokens, logits = extractor.recognise(x)
    torch.testing.assert_close(tokens, extractor.embed(x))
    torch.testing.assert_close(logits, extractor.tagger.classify(tokens))
    assert extractor.tags(x) == extractor.names(logits)
    assert [set(tags) for tags in extractor.tags(x)] == [{"a", "b", "c"}] * 3
    assert extractor.tag_names == ("a", "b", "c", "d", "e")


def test_weights_get_no_gradients_and_pictures_do(extractor):
    assert not any(value.requires_grad for value in extractor.parameters())
    x = torch.rand(1, 3, 40, 40, requires_grad=True)
    extractor.embed(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_it_stays_in_eval_mode_inside_a_network_that_is_trained(extractor):
    nn.ModuleList([extractor]).train()
    assert not any(module.training for module in extractor.modules())


def test_bf16_is_asked_for_and_keeps_dtype_and_thresholds(extractor):
    x = torch.rand(1, 3, 40, 40)
    exact = extractor.embed(x)
    limits = extractor.tagger.thresholds.clone()
    rough = extractor.to(torch.bfloat16).embed(x)
    assert extractor.tagger.fc.weight.dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).norm() < 0.05 * exact.norm()
    assert torch.equal(extractor.tagger.thresholds, limits)
    assert torch.equal(extractor.embed(x.double()).float(), rough)
