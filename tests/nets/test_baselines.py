"""The compact network of Real-ESRGAN: its formula, its names, and what a network owes to `Upscaler`."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from dacesr.config import SRVGGConfig, explain
from dacesr.nets.baselines import SRVGGNetCompact


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SRVGGNetCompact(SRVGGConfig(num_feat=6, num_conv=2, scale=2)).eval()


def test_it_is_the_formula_under_the_names_of_the_release(net):
    state, x = net.state_dict(), torch.rand(2, 3, 7, 5)
    assert list(state) == [
        *("body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight", "body.2.bias", "body.3.weight"),
        *("body.4.weight", "body.4.bias", "body.5.weight", "body.6.weight", "body.6.bias"),
    ]
    out = x
    for i in (0, 2, 4, 6):
        out = F.conv2d(out, state[f"body.{i}.weight"], state[f"body.{i}.bias"], padding=1)
        if i < 6:
            out = out.clamp(min=0) + state[f"body.{i + 1}.weight"].view(1, -1, 1, 1) * out.clamp(max=0)
    shuffled = out.view(2, 3, 2, 2, 7, 5).permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 14, 10)
    expected = shuffled + x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(("convolutions", "scale", "parameters"), [(16, 4, 621_424), (32, 4, 1_213_296)])
def test_it_has_the_size_of_the_published_ones(convolutions, scale, parameters):
    with torch.device("meta"):
        net = SRVGGNetCompact(SRVGGConfig(num_conv=convolutions, scale=scale))
    assert sum(value.numel() for value in net.parameters()) == parameters


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 8)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_any_size_and_scale(shape, scale):
    net = SRVGGNetCompact(SRVGGConfig(num_feat=4, num_conv=1, scale=scale))
    assert net(torch.rand(2, 3, *shape)).shape == (2, 3, scale * shape[0], scale * shape[1])


def test_gradients_reach_every_parameter(net):
    net(torch.rand(1, 3, 8, 8)).square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in net.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_fp32(net, dtype):
    x = torch.rand(1, 3, 16, 16)
    half = copy.deepcopy(net).to(dtype)
    with torch.no_grad():
        y = half(x)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, net(x), rtol=0, atol=0.02)


def test_other_shapes_are_refused(net):
    for shape in ((3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="no empty side"):
            net(torch.zeros(shape))


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 5), ("num_conv", 0), ("num_conv", 10**9), ("num_feat", 64.0), ("activation", "relu"), ("depth", 3)],
)
def test_an_impossible_value_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValidationError) as caught:
        SRVGGConfig(**{field: value})
    assert field in explain(caught.value)
