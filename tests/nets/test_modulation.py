import pytest
import torch
from torch.nn import functional as F

from dacesr.nets.modulation import WHOLE, Affine, LearnedModulation, ReleaseModulation, resizing, whole
from dacesr.nets.restorer import RestorerConfig

ALL = torch.tensor([WHOLE])


def release(groups: int = 1, **changes: str) -> ReleaseModulation:
    return ReleaseModulation(RestorerConfig(embed_dim=8, depths=(1,) * groups, modulation="release", **changes))


def learned(modulation: str = "spatial", **changes: object) -> LearnedModulation:
    """One whose projections are random."""
    config = RestorerConfig(embed_dim=8, depths=(1, 1), condition_dim=16, modulation=modulation, **changes)
    net = LearnedModulation(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return net


# --- the release's


def test_token_0_is_stretched_over_the_pixels_of_each_image():
    condition = torch.randn(2, 5, 512)
    affines = list(release(groups=3)(condition, 30, 40, ALL))
    assert len(affines) == 3
    expected = F.interpolate(condition[:, :1], size=1200, mode="linear").mT
    torch.testing.assert_close(affines[0].scale, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(affines[0].shift, expected, rtol=1e-4, atol=1e-4)


def test_pictures_smaller_than_the_condition_sample_it():
    condition = torch.randn(1, 1, 512)
    expected = F.interpolate(condition.double(), size=6, mode="linear").mT.float()
    torch.testing.assert_close(next(release()(condition, 2, 3, ALL)).shift, expected)


def test_a_window_gets_its_part_of_the_whole():
    condition, modulation = torch.randn(2, 2, 512), release()
    whole = next(modulation(condition, 40, 60, ALL)).shift.view(2, 40, 60)
    windows = torch.tensor([(10 / 40, 12 / 60, 31 / 40, 50 / 60), (0 / 40, 22 / 60, 21 / 40, 60 / 60)])
    part = next(modulation(condition, 21, 38, windows)).shift.view(2, 21, 38)
    torch.testing.assert_close(part[0], whole[0, 10:31, 12:50])
    torch.testing.assert_close(part[1], whole[1, :21, 22:])


# --- ours


def unit(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens without their mean, of length 1."""
    return F.normalize(tokens - tokens.mean(-1, keepdim=True), dim=-1)


@pytest.mark.parametrize("modulation", ["spatial", "global"])
def test_it_starts_as_none(modulation):
    config = RestorerConfig(embed_dim=8, depths=(1,), modulation=modulation)
    affine = next(LearnedModulation(config)(torch.randn(2, 10, 512), 4, 5, ALL))
    x = torch.randn(2, 20, 8)
    assert torch.equal(affine(x), x)


def test_spatial_tokens_are_projected_and_resized_bilinearly():
    net, condition = learned(), torch.randn(2, 10, 16)
    for affine, projection in zip(net(condition, 7, 11, ALL), net.projections, strict=True):
        grid = projection(unit(condition[:, 1:])).mT.unflatten(-1, (3, 3))
        expected = F.interpolate(grid, (7, 11), mode="bilinear").flatten(2).mT  # (b, h*w, 2 c)
        torch.testing.assert_close(torch.cat([affine.scale, affine.shift], -1), expected, rtol=1e-4, atol=1e-5)


def test_the_global_token_alone_decides_where_there_is_no_grid():
    net, condition = learned("global"), torch.randn(2, 10, 16)
    affine = next(net(condition, 7, 11, ALL))
    expected = net.projections[0](unit(condition[:, :1]))
    torch.testing.assert_close(torch.cat([affine.scale, affine.shift], -1), expected)
    other = torch.cat([condition[:, :1], torch.randn(2, 25, 16)], 1)
    assert torch.equal(next(net(other, 7, 11, ALL)).scale, affine.scale)


def test_each_picture_of_a_batch_gets_its_own_window():
    net, condition = learned(), torch.randn(2, 17, 16)
    whole = next(net(condition, 24, 30, ALL)).scale.view(2, 24, 30, 8)
    windows = torch.tensor([(6 / 24, 3 / 30, 18 / 24, 18 / 30), (0, 15 / 30, 12 / 24, 1)], dtype=torch.float64)
    part = next(net(condition, 12, 15, windows)).scale.view(2, 12, 15, 8)
    torch.testing.assert_close(part[0], whole[0, 6:18, 3:18], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part[1], whole[1, :12, 15:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [release, learned])
@pytest.mark.parametrize(("modulate", "without"), [("multiply", "shift"), ("add", "scale")])
def test_one_of_the_two_can_be_left_out(make, modulate, without):
    modulation = make(modulate=modulate)
    condition = torch.randn(1, 10, 16)
    affine = next(modulation(condition, 4, 4, ALL))
    assert getattr(affine, without) is None
    x = torch.randn(1, 16, 8)
    if modulate == "multiply":
        torch.testing.assert_close(affine(x), x * (1 + affine.scale))
    else:
        torch.testing.assert_close(affine(x), x + affine.shift)


def test_the_scale_of_tokens_does_not_matter():
    net, condition = learned(), torch.randn(1, 10, 16)
    one, nine = (next(net(factor * condition, 4, 4, ALL)).scale for factor in (1, 9))
    torch.testing.assert_close(nine, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 8])
def test_a_grid_is_needed(tokens):
    with pytest.raises(ValueError, match="square grid"):
        learned()(torch.randn(1, tokens, 16), 4, 4, ALL)


def test_resizing_adds_up_to_one_and_goes_on_beyond_the_ends():
    matrix = resizing(3, 12, torch.tensor([0.0]), torch.tensor([1.0]))[0]
    torch.testing.assert_close(matrix.sum(1), torch.ones(12))
    assert torch.equal(matrix[:2], torch.tensor([[1.0, 0, 0]] * 2))
    assert torch.equal(matrix[-2:], torch.tensor([[0, 0, 1.0]] * 2))


def test_the_whole_is_made_on_its_device():
    assert whole(torch.device("cpu")).tolist() == [list(WHOLE)]
    assert whole(torch.device("meta")).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scales_and_shifts_as_the_cpu_does():
    x, scale, shift = torch.randn(3, 2, 20, 8)
    found = Affine(scale.cuda(), shift.cuda())(x.cuda())
    torch.testing.assert_close(found.cpu(), Affine(scale, shift)(x))
    ends = torch.tensor([0.1, 0.3]), torch.tensor([0.6, 1.0])
    torch.testing.assert_close(resizing(5, 17, *(end.cuda() for end in ends)).cpu(), resizing(5, 17, *ends))
