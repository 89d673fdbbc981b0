"""Stages: for every kind of network the features are where they should be, and the network is left as it was."""

import pytest
import torch
from conditioned import conditioned
from torch import Tensor

from dacesr.analysis.stages import STAGES, Stage, pick, run, stages_of
from dacesr.checkpoint import KINDS, Network
from dacesr.nets.baselines import BASELINES
from dacesr.nets.inputs import reflect_to
from dacesr.nets.mamba import to_image, to_tokens
from dacesr.nets.windows import Grid

WINDOWS = {"embed_dim": 8, "depths": (2, 1), "heads": (2, 1), "window": 4, "head_dim": 6, "scale": 2}
TINY = {
    "restorer": {"embed_dim": 8, "depths": (1, 1), "head": "pixelshuffledirect", "scale": 2},
    "srvgg": {"num_feat": 6, "num_conv": 3, "scale": 2},
    "srresnet": {"num_feat": 6, "num_block": 2, "scale": 2},
    "edsr": {"num_feat": 6, "num_block": 2, "scale": 2},
    "rrdb": {"num_feat": 6, "num_block": 2, "num_grow_ch": 4, "scale": 2},
    "rlfn": {"num_feat": 6, "num_block": 2, "mid_feat": 8, "esa_feat": 4, "scale": 2},
    "swinir": WINDOWS,
    "hat": {**WINDOWS, "overlap": 1, "conv_dim": 4, "squeeze_dim": 3},
    "dasr": {"num_feat": 8, "num_block": 2, "num_expert": 3, "predictor_feat": 6, "num_param": 7, "scale": 2},
    "kdsr": {"num_feat": 8, "num_block": 3, "encoder_block": 2, "scale": 2},
}
NAMES = {
    "restorer": ["RSSB 1", "RSSB 2"],
    "srvgg": ["conv 1", "conv 2", "conv 3"],
    "rrdb": ["RRDB 1", "RRDB 2"],
    "rlfn": ["RLFB 1", "RLFB 2"],
    "swinir": ["RSTB 1", "RSTB 2"],
    "hat": ["RHAG 1", "RHAG 2"],
    "kdsr": ["block 1", "block 2", "block 3"],
}


def tiny(kind: str, **changes: object) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KINDS[kind].network(KINDS[kind].config(**(TINY[kind] | changes))).eval()


def picture(height: int = 13, width: int = 22) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def mean(stage: str, features: Tensor) -> Tensor:
    return features.mean(1)


def test_every_kind_is_known() -> None:
    assert set(STAGES) == {"restorer", *BASELINES} == set(TINY)


@pytest.mark.parametrize("kind", TINY)
def test_maps_have_the_size_of_the_input_and_the_network_is_left_as_it_was(kind: str) -> None:
    net, x = tiny(kind), picture()
    stages = stages_of(net)
    assert [stage.name for stage in stages] == NAMES.get(kind, ["block 1", "block 2"])
    with torch.no_grad():
        expected = net(x)
    output, maps = run(net, x, None, stages, mean)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert list(maps) == [stage.name for stage in stages]
    assert all(values.shape == (1, 13, 22) and values.std() > 0 for values in maps.values())
    assert len({tuple(values.flatten().tolist()) for values in maps.values()}) == len(maps)  # no two are the same
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("kind", TINY)
def test_places_of_maps_are_those_of_pixels(kind: str) -> None:
    net, x = tiny(kind), picture()
    changed = x.clone()
    changed[..., 9, 17] = 1 - changed[..., 9, 17]
    first = stages_of(net)[:1]
    one, two = (run(net, each, None, first, mean)[1][first[0].name][0] for each in (x, changed))
    row, column = divmod(int((one - two).abs().argmax()), 22)
    assert max(abs(row - 9), abs(column - 17)) <= 3


def test_ours_are_taken_after_the_modulation() -> None:
    net, x = conditioned(), picture()
    condition = torch.randn(1, 5, net.config.condition_dim, generator=torch.Generator().manual_seed(2))
    found = run(net, x, condition, stages_of(net), mean)[1]
    with torch.no_grad():
        affines = net.modulation(condition, 13, 22, torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double())  # pyright: ignore
        tokens = net.patch_embed(to_tokens(net.conv_first(x - net.mean)))
        for number, group in enumerate(net.layers, start=1):
            plain = group(tokens, 13, 22)
            tokens = next(affines)(plain)
            assert (tokens - plain).abs().max() > 0.05
            torch.testing.assert_close(found[f"RSSB {number}"], to_image(tokens, 13, 22).mean(1))


@pytest.mark.parametrize("kind", ["swinir", "hat"])
def test_padding_to_windows_is_cut_off(kind: str) -> None:
    net, x = tiny(kind), picture()
    found = run(net, x, None, stages_of(net), mean)[1]
    with torch.no_grad():
        features = net.conv_first(reflect_to(x, 16, 24) - net.mean)  # pyright: ignore
        grid = Grid.of(features, 4)
        rows = net.patch_embed(grid.rows(features))  # pyright: ignore
        for number, group in enumerate(net.layers):  # pyright: ignore
            rows = group(rows, grid)
            expected = grid.image(rows).mean(1)[:, :13, :22]
            torch.testing.assert_close(found[list(found)[number]], expected)


def test_features_of_several_pixels_are_repeated() -> None:
    net, x = tiny("rrdb", unshuffle=2, scale=2), picture()
    maps = run(net, x, None, stages_of(net), mean)[1]
    for values in maps.values():
        assert values.shape == (1, 13, 22)
        torch.testing.assert_close(values[:, 0:12:2, 0::2], values[:, 1:12:2, 1::2], rtol=0, atol=0)
        assert (values[:, 1:11:2] != values[:, 2:12:2]).any()


def test_small_pictures_that_rlfn_enlarges() -> None:
    net = tiny("rlfn")
    maps = run(net, picture(6, 9), None, stages_of(net), mean)[1]
    assert all(values.shape == (1, 6, 9) for values in maps.values())


def test_hooks_are_gone_after_an_error() -> None:
    net = tiny("restorer")

    def fail(stage: str, features: Tensor) -> Tensor:
        raise RuntimeError(stage)

    with pytest.raises(RuntimeError, match="RSSB 1"):
        run(net, picture(), None, stages_of(net), fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_some_of_many_stages_are_shown() -> None:
    stages = [Stage(str(number), torch.nn.Identity()) for number in range(1, 24)]
    assert [stage.name for stage in pick(stages, 4)] == ["6", "12", "17", "23"]
    assert [stage.name for stage in pick(stages[:4], 4)] == ["1", "2", "3", "4"]
    assert [stage.name for stage in pick(stages[:2], 4)] == ["1", "2"]
    assert [stage.name for stage in pick(stages, 1)] == ["23"]
    with pytest.raises(ValueError, match="not 0"):
        pick(stages, 0)
