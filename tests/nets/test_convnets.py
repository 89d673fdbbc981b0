"""SRResNet, EDSR and RRDBNet: published numbers and sizes, files as they were released, and what `Upscaler` needs."""

import copy
from itertools import accumulate

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, describe, load_restorer, save_restorer
from dacesr.config import EDSRConfig, RRDBConfig, SRResNetConfig, explain
from dacesr.inference import Upscaler
from dacesr.nets import heads
from dacesr.nets.baselines import BASELINES
from dacesr.nets.convnets import EDSR, RRDB, SRResNet

MEAN = torch.tensor((0.4488, 0.4371, 0.4040))


def srresnet(**changes) -> SRResNet:
    return fill(SRResNet(SRResNetConfig(**({"num_feat": 6, "num_block": 2, "scale": 2} | changes))))


def edsr(**changes) -> EDSR:
    return fill(EDSR(EDSRConfig(**({"num_feat": 6, "num_block": 2, "scale": 2} | changes))))


def rrdb(**changes) -> RRDB:
    return fill(RRDB(RRDBConfig(**({"num_feat": 6, "num_block": 1, "num_grow_ch": 4, "scale": 2} | changes))))


SMALL = {
    "srresnet": srresnet,
    "edsr": edsr,
    "rrdb": rrdb,
    "unshuffled rrdb": lambda **changes: rrdb(unshuffle=2, **changes),
}


# --- parity with the published implementations

SIZES = {"num_feat": 8, "num_block": 2}
GROWN = SIZES | {"num_grow_ch": 4}
RELEASES = {
    **{f"srresnet_x{scale}": SRResNetConfig(scale=scale, **SIZES) for scale in (2, 3, 4)},
    "srresnet_first": SRResNetConfig(num_feat=6, num_block=3, scale=4),
    **{f"edsr_x{scale}": EDSRConfig(scale=scale, **SIZES) for scale in (3, 4)},
    **{f"edsr_authors_x{scale}": EDSRConfig(scale=scale, **SIZES) for scale in (2, 3, 4)},
    "rrdb_x4": RRDBConfig(scale=4, **GROWN),
    "rrdb_x2": RRDBConfig(scale=2, unshuffle=2, **GROWN),
    "rrdb_x1": RRDBConfig(scale=1, unshuffle=4, **GROWN),
    "rrdb_trunk": RRDBConfig(num_feat=6, num_block=3, num_grow_ch=5, scale=4),
    **{f"rrdb_old_x{scale}": RRDBConfig(scale=scale, num_feat=8, num_block=2) for scale in (1, 2, 4, 8)},
}


def release(name: str) -> tuple[dict[str, torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """As `recorded`, with the authors' layers that shift the mean of EDSR as they are in every file of theirs."""
    tensors, pairs = recorded("convnets", name)
    if "sub_mean.weight" in tensors:
        shift = {"weight": torch.eye(3).view(3, 3, 1, 1), "bias": 255 * MEAN}
        tensors |= {f"add_mean.{part}": value for part, value in shift.items()}
        tensors |= {"sub_mean.weight": shift["weight"], "sub_mean.bias": -shift["bias"]}
    return tensors, pairs


@pytest.mark.parametrize("name", RELEASES)
def test_a_released_file_gives_the_recorded_outputs(name):
    tensors, pairs = release(name)
    net = load_restorer({"params_ema": tensors})
    assert net.config == RELEASES[name]
    for x, y in pairs:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "config", "parameters", "gmacs"),
    [
        (SRResNet, SRResNetConfig(), 1_517_571, 166),  # Table II of DACESR: 1.52 M, 166 G
        (EDSR, EDSRConfig(), 1_517_571, 130),  # 1.52 M, 130 G
        (EDSR, EDSRConfig(num_feat=256, num_block=32, res_scale=0.1), 43_089_923, None),  # its paper's Table 1: 43 M
        (RRDB, RRDBConfig(), 16_697_987, 1176),  # 16.70 M, 1176 G
        (RRDB, RRDBConfig(scale=2, unshuffle=2), 16_703_171, None),
    ],
)
def test_it_has_the_size_of_the_published_ones(net, config, parameters, gmacs):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # with gradients: no strips that overlap
        network = net(config)
        if gmacs:
            network(torch.empty(1, 3, 256, 256))
            assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)
    assert sum(value.numel() for value in network.parameters()) == parameters


# --- formulas


def conv(net, name: str, x: torch.Tensor) -> torch.Tensor:
    state = net.state_dict()
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)


def test_edsr_scales_what_its_blocks_add_and_sees_its_own_range_around_its_mean():
    net, x = edsr(num_block=1, res_scale=0.3, img_range=7.0, rgb_mean=(0.1, 0.2, 0.3)), torch.rand(2, 3, 7, 5)
    mean = torch.tensor((0.1, 0.2, 0.3)).view(3, 1, 1)
    first = conv(net, "conv_first", 7 * (x - mean))
    block = first + 0.3 * conv(net, "body.0.conv2", conv(net, "body.0.conv1", first).clamp(min=0))
    wide = conv(net, "upsample.0", first + conv(net, "conv_after_body", block))
    shuffled = wide.view(2, 6, 2, 2, 7, 5).permute(0, 1, 4, 2, 5, 3).reshape(2, 6, 14, 10)
    torch.testing.assert_close(net(x).detach(), conv(net, "conv_last", shuffled) / 7 + mean)


@pytest.mark.parametrize("unit", [2, 4])
def test_what_is_missing_to_whole_units_is_reflected_at_the_right_and_the_bottom(unit):
    net, x = rrdb(unshuffle=unit), torch.rand(1, 3, 5, 7)
    with torch.no_grad():
        whole = net(F.pad(x, (0, 1, 0, -5 % unit), mode="reflect"))
        torch.testing.assert_close(net(x), whole[:, :, :10, :14])


# --- contract


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *(("srresnet", {"scale": scale}) for scale in (2, 3, 4)),
        *(("edsr", {"scale": scale}) for scale in (2, 3, 4)),
        *(("rrdb", {"scale": scale, "unshuffle": unit}) for scale in (1, 2, 4, 8) for unit in (1, 2, 4)),
    ],
)
def test_any_size_and_scale(kind, changes):
    net, scale = SMALL[kind](**changes), changes["scale"]
    for height, width in ((1, 1), (1, 9), (4, 2), (13, 8)):
        with torch.no_grad():
            assert net(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


@pytest.mark.parametrize("kind", SMALL)
def test_pictures_of_a_batch_do_not_see_each_other(kind):
    net, x = SMALL[kind](), torch.rand(3, 3, 9, 6)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("strip", [1, 100])
def test_strips_give_the_same_and_leave_the_input_alone(monkeypatch, kind, strip):
    monkeypatch.setattr(heads, "STRIP", strip)
    net, x = SMALL[kind](), torch.rand(2, 3, 27, 14)
    kept, at_once = x.clone(), net(x).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(net(x), at_once, rtol=0, atol=1e-5)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_reach_every_parameter(kind):
    net = SMALL[kind]().train()
    net(torch.rand(2, 3, 9, 8)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


def spread(conv: torch.nn.Conv2d) -> float:
    """The standard deviation of the weights, in units of He et al.'s for a convolution before a ReLU."""
    return float(conv.weight.std() / (2 / conv.weight[0].numel()) ** 0.5)


@torch.no_grad()
def test_they_start_as_their_authors_start_them():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 8, 8)
    net = SRResNet(SRResNetConfig(num_feat=32))
    assert spread(net.body[3].conv2) == pytest.approx(0.1, rel=0.05)
    assert not net.conv_first.bias.any()
    assert (net(x) - F.interpolate(x, scale_factor=4, mode="bilinear")).abs().max() < 1e-4
    grown = RRDB(RRDBConfig(num_feat=32, num_block=1))
    assert spread(grown.body[0].rdb2.conv4) == pytest.approx(0.1, rel=0.05)
    for plain in (grown.conv_body, EDSR(EDSRConfig(num_feat=32)).body[1].conv1):  # uniform within 1 / sqrt(fan in)
        assert spread(plain) == pytest.approx(6**-0.5, rel=0.05)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_fp32(kind, dtype):
    net, x = SMALL[kind](), torch.rand(1, 3, 16, 16)
    half = copy.deepcopy(net).to(dtype)
    with torch.no_grad():
        y = half(x)
        assert y.dtype == torch.float32
        assert (y - net(x)).std() < 0.02 * net(x).std()


@pytest.mark.parametrize("kind", SMALL)
def test_other_shapes_are_refused(kind):
    for shape in ((3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="no empty side"):
            SMALL[kind]()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (SRResNetConfig, "scale", 1),
        (SRResNetConfig, "num_block", 0),
        (EDSRConfig, "img_range", 0.0),
        (EDSRConfig, "res_scale", -1.0),
        (EDSRConfig, "rgb_mean", (0.5, 0.5)),
        (RRDBConfig, "unshuffle", 3),
        (RRDBConfig, "num_grow_ch", 10**6),
    ],
)
def test_an_impossible_value_is_an_error_that_names_the_field(config, field, value):
    with pytest.raises(ValidationError) as caught:
        config(**{field: value})
    assert field in explain(caught.value)


# --- files and pictures


@pytest.mark.parametrize(
    ("net", "architecture"),
    [
        (edsr(res_scale=0.5, img_range=1.0), "EDSR"),
        (srresnet(scale=3), "SRResNet"),
        (rrdb(scale=1, unshuffle=2), "RRDB (ESRGAN)"),
    ],
)
def test_a_saved_network_is_read_back_and_upscales_in_tiles(tmp_path, net, architecture):
    save_restorer(tmp_path / "net.safetensors", net)
    loaded = load_restorer(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert describe(tmp_path / "net.safetensors").architecture == architecture
    up = Upscaler.load(str(tmp_path / "net.safetensors"), precision="fp32", device="cpu")
    x = torch.rand(1, 3, 60, 44)
    with torch.no_grad():
        torch.testing.assert_close(up(x, tile=0), net(x).clamp(0, 1))
        assert up(x, tile=32, overlap=8).shape == net(x).shape


def test_what_blocks_of_the_large_edsr_add_is_scaled_as_in_the_published_ones():
    with torch.device("meta"):
        net = EDSR(EDSRConfig(num_feat=256, num_block=1, scale=3))
    loaded = load_restorer({name: torch.zeros(value.shape) for name, value in net.state_dict().items()})
    assert loaded.config == EDSRConfig(num_feat=256, num_block=1, scale=3, res_scale=0.1)


def changed(name: str, **changes) -> dict[str, torch.Tensor]:
    tensors = release(name)[0] | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (changed("edsr_authors_x2", sub_mean__bias=-MEAN), "unexpected: sub_mean.weight, sub_mean.bias, add_mean"),
        (changed("edsr_authors_x2", sub_mean__weight=torch.ones(3)), "unexpected: sub_mean"),
        (changed("edsr_authors_x2", tail__1__weight=None), "missing: conv_last.weight"),
        (changed("edsr_x4", upsample__0__weight=torch.ones(30, 8, 3, 3)), "gives 30 channels, not 8 for each pixel"),
        (changed("edsr_x4", body__999__conv1__weight=torch.ones(8, 8, 3, 3)), "too few for 1000 blocks"),
        (changed("edsr_x4", conv_first__weight=None), "lacks conv_first.weight"),
        (changed("srresnet_x2", upconv1__weight=torch.ones(8, 8, 3, 3)), "scale: Input should be 2, 3 or 4"),
        (changed("srresnet_x3", upconv1__weight=torch.ones(2)), "should have 4 sides"),
        (changed("srresnet_x4", body__0__conv2__weight=torch.ones(8, 8, 1, 1)), "(8, 8, 1, 1) for (8, 8, 3, 3)"),
        (changed("rrdb_x4", conv_first__weight=torch.ones(8, 4, 3, 3)), "takes 4 channels, not three"),
        (changed("rrdb_x1", conv_up1__weight=None), "makes a picture smaller"),
        (changed("rrdb_x4", body__1__rdb1__conv1x1__weight=torch.ones(4, 8, 1, 1)), "unexpected: body.1.rdb1.conv1x1"),
        (changed("rrdb_old_x4", model__0__weight=None, model__10__bias=None), "lacks conv_first.weight"),
    ],
)
def test_a_file_that_does_not_fit_names_the_tensors(tensors, said):
    with pytest.raises(CheckpointError) as caught:
        load_restorer(tensors)
    assert said in str(caught.value)


# --- memory


@pytest.mark.parametrize(
    "config",
    [
        SRResNetConfig(num_feat=32, num_block=1, scale=2),
        EDSRConfig(num_feat=32, num_block=1, scale=4),
        RRDBConfig(num_feat=32, num_block=1, num_grow_ch=16, scale=1),
        RRDBConfig(num_feat=32, num_block=1, num_grow_ch=16, scale=2, unshuffle=2),
        RRDBConfig(num_feat=32, num_block=1, num_grow_ch=16, scale=1, unshuffle=4),
    ],
)
def test_the_estimate_of_memory_is_above_what_tensors_take_and_not_far(config):
    side = 256
    net, x = BASELINES[config.kind][1](config), torch.rand(1, 3, side, side)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        net(x)
    changes = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns()))
    assert 1 < config.bytes_per_pixel(4) * side**2 / max(held) < 3
