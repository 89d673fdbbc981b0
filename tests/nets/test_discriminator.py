"""The discriminator: size, shapes, gradients, and the norm of its convolutions."""

import pytest
import torch
from torch.nn import functional as F

from dacesr.nets.discriminator import UNetDiscriminator


@pytest.fixture
def net() -> UNetDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNetDiscriminator(width=4)


def test_width_64_has_the_parameters_of_real_esrgan() -> None:
    with torch.device("meta"):
        net = UNetDiscriminator(width=64)
    assert sum(parameter.numel() for parameter in net.parameters()) == 4_376_897


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (64, 24)])
def test_one_logit_for_every_pixel(net: UNetDiscriminator, height: int, width: int) -> None:
    assert net(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)


def test_gradients_reach_every_parameter_and_pixel(net: UNetDiscriminator) -> None:
    x = torch.rand(1, 3, 16, 24, requires_grad=True)
    net(x).square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert x.grad is not None
    assert x.grad.abs().amin() > 0


def test_inner_convolutions_have_a_spectral_norm_near_one(net: UNetDiscriminator) -> None:
    with torch.no_grad():
        for _ in range(30):
            net(torch.rand(1, 3, 8, 8))
    normed = [*net.down, *net.up, *net.after]
    assert len(normed) == 8
    for conv in normed:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
        assert conv.bias is None
    assert net.first.bias is not None
    assert net.last.bias is not None


def test_maps_on_the_way_up_meet_those_of_their_size(net: UNetDiscriminator) -> None:
    """The U-Net written out, with the weights of this one."""
    net.eval()
    x = torch.rand(1, 3, 16, 16)

    def act(layer: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(layer(value), 0.2)

    def twice(value: torch.Tensor) -> torch.Tensor:
        return F.interpolate(value, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = act(net.first, x)
    x1 = act(net.down[0], x0)
    x2 = act(net.down[1], x1)
    x3 = act(net.down[2], x2)
    x4 = act(net.up[0], twice(x3)) + x2
    x5 = act(net.up[1], twice(x4)) + x1
    x6 = act(net.up[2], twice(x5)) + x0
    torch.testing.assert_close(net(x), net.last(act(net.after[1], act(net.after[0], x6))))


def test_evaluating_leaves_the_norms_alone(net: UNetDiscriminator) -> None:
    before = {name: value.clone() for name, value in net.named_buffers()}
    net.eval()(torch.rand(1, 3, 8, 8))
    assert before
    assert all(torch.equal(before[name], value) for name, value in net.named_buffers())
