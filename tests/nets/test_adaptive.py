"""What DASR and KDSR owe to training and to `Upscaler`, alike for both."""

import copy

import pytest
import test_dasr
import test_kdsr
import torch

from dacesr.nets import heads
from dacesr.nets.dasr import DASR, DASRConfig
from dacesr.nets.kdsr import KDSR, KDSRConfig


@pytest.fixture(params=[test_dasr.small, lambda: test_kdsr.small(scale=8)], ids=["dasr", "kdsr"])
def net(request):
    return request.param()


@pytest.mark.parametrize("strip", [1, 100])
def test_strips_give_the_same_and_leave_the_input_alone(net, monkeypatch, strip):
    monkeypatch.setattr(heads, "STRIP", strip)
    x = torch.rand(2, 3, 27, 14)
    kept, at_once = x.clone(), net(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(net(x), at_once, rtol=0, atol=1e-5)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(
    ("network", "config"), [(DASR, DASRConfig(**test_dasr.SIZES)), (KDSR, KDSRConfig(**test_kdsr.SIZES))]
)
def test_gradients_reach_every_parameter_from_the_start(network, config):
    torch.manual_seed(0)
    net = network(config).train()
    net(torch.rand(2, 3, 9, 8)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_fp32(net, dtype):
    x, half = torch.rand(1, 3, 16, 16), copy.deepcopy(net).to(dtype)
    with torch.no_grad():
        y = half(x)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, net(x), rtol=0, atol=0.02)


def test_other_shapes_are_refused(net):
    for shape in ((3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="no empty side"):
            net(torch.zeros(shape))
