"""RLFN: the authors' numbers, sizes and published weights, small pictures, and what `Upscaler` needs."""

import copy
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, describe, load_restorer, save_restorer
from dacesr.config import RLFNConfig, explain
from dacesr.image import read
from dacesr.inference import Upscaler
from dacesr.metrics import psnr
from dacesr.nets import heads
from dacesr.nets.rlfn import RLFN, SMALLEST

NTIRE = RLFNConfig(num_feat=46, num_block=4, mid_feat=48)


def small(**changes) -> RLFN:
    return fill(
        RLFN(RLFNConfig(**({"num_feat": 6, "num_block": 2, "mid_feat": 8, "esa_feat": 4, "scale": 2} | changes)))
    )


# --- parity with the authors' implementation

RELEASES = {
    "ntire": RLFNConfig(num_feat=6, num_block=4, mid_feat=8, scale=2),
    "paper": RLFNConfig(num_feat=8, num_block=6, mid_feat=8, scale=3),
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_released_file_gives_the_recorded_outputs(name):
    tensors, pairs = recorded("rlfn", name)
    net = load_restorer(tensors)
    assert net.config == RELEASES[name]
    for x, y in pairs:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (NTIRE, 317_218),  # NTIRE 2022's report: 0.317 M
        (RLFNConfig(), 543_740),  # the paper: 543 K
        (RLFNConfig(num_feat=48, mid_feat=48, scale=2), 454_620),  # RLFN-S: 454 K
    ],
)
def test_it_has_the_size_of_the_published_ones(config, parameters):
    with torch.device("meta"):
        net = RLFN(config)
    assert sum(value.numel() for value in net.parameters()) == parameters


def test_the_pruned_one_multiplies_as_often_as_published():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        RLFN(NTIRE)(torch.empty(1, 3, 256, 256))
    assert round(counter.get_total_flops() / 2e9, 1) == 19.7  # NTIRE 2022's report


def test_published_weights_reach_their_published_level(data):
    """Mean over Set5 of what the authors' own code makes of the same file."""
    path = data / "checkpoints" / "team00_rlfn.pth"
    info = describe(path)
    assert (info.architecture, info.config, info.parameters) == ("RLFN", NTIRE, 317_218)
    up = Upscaler.load(str(path), precision="fp32", device="cpu")
    scores = []
    for sharp in sorted((data / "benchmarks" / "Set5" / "HR").glob("*.png")):
        small = read(sharp.parents[1] / "LR_bicubic_x4" / f"{sharp.stem}x4.png")
        scores.append(float(psnr(up(small, tile=0), read(sharp))))
    assert len(scores) == 5
    assert sum(scores) / 5 == pytest.approx(32.10, abs=0.01)


# --- contract


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_any_size_and_scale(scale):
    net = small(scale=scale)
    for height, width in ((1, 1), (1, 9), (14, 15), (16, 22)):
        with torch.no_grad():
            assert net(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


def test_a_small_picture_is_enlarged_by_reflection_to_the_smallest_that_the_authors_code_takes():
    net, x = small(), torch.rand(1, 3, 20, 9)
    with torch.no_grad():
        enlarged = net(F.pad(x, (0, SMALLEST - 9, 0, 0), mode="reflect"))
        torch.testing.assert_close(net(x), enlarged[..., :18])
        attention = net.get_submodule("block_1").esa
        assert attention(torch.rand(1, 6, SMALLEST, SMALLEST)).shape == (1, 6, SMALLEST, SMALLEST)
        with pytest.raises(RuntimeError):
            attention(torch.rand(1, 6, SMALLEST, SMALLEST - 1))


def test_pictures_of_a_batch_do_not_see_each_other():
    net, x = small(), torch.rand(3, 3, 17, 16)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("strip", [1, 100])
def test_strips_give_the_same_and_leave_the_input_alone(monkeypatch, strip):
    monkeypatch.setattr(heads, "STRIP", strip)
    net, x = small(), torch.rand(2, 3, 27, 16)
    kept, at_once = x.clone(), net(x).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(net(x), at_once, rtol=0, atol=1e-5)
    assert torch.equal(x, kept)


def test_gradients_reach_every_parameter():
    net = small().train()
    net(torch.rand(2, 3, 16, 18)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_fp32(dtype):
    net, x = small(), torch.rand(1, 3, 24, 24)
    half = copy.deepcopy(net).to(dtype)
    with torch.no_grad():
        y = half(x)
        assert y.dtype == torch.float32
        assert (y - net(x)).std() < 0.02 * net(x).std()


def test_other_shapes_are_refused():
    for shape in ((3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="no empty side"):
            small()(torch.zeros(shape))


@pytest.mark.parametrize(("field", "value"), [("scale", 5), ("num_block", 0), ("esa_feat", 10**6), ("img_range", 0.0)])
def test_an_impossible_value_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValidationError) as caught:
        RLFNConfig(**{field: value})
    assert field in explain(caught.value)


# --- files and pictures


def test_a_saved_network_is_read_back_and_upscales_in_tiles(tmp_path: Path):
    net = small(img_range=1.0, scale=3)
    save_restorer(tmp_path / "net.safetensors", net)
    loaded = load_restorer(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert describe(tmp_path / "net.safetensors").architecture == "RLFN"
    up = Upscaler.load(str(tmp_path / "net.safetensors"), precision="fp32", device="cpu")
    x = torch.rand(1, 3, 60, 44)
    with torch.no_grad():
        torch.testing.assert_close(up(x, tile=0), net(x).clamp(0, 1))
        assert up(x, tile=32, overlap=8).shape == net(x).shape


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("block_3.c5.weight", None, "missing: block_3.c5.weight"),
        ("conv_1.weight", None, "lacks conv_1.weight"),
        ("block_2.esa.conv2.weight", torch.ones(16, 16, 1, 1), "(16, 16, 1, 1) for (16, 16, 3, 3)"),
        ("upsampler.0.weight", torch.ones(13, 6, 3, 3), "gives 13 channels, not 3 for each pixel"),
        ("block_999.c5.weight", torch.ones(6, 6, 1, 1), "too few for 999 blocks"),
    ],
)
def test_a_file_that_does_not_fit_names_the_tensors(name, value, said):
    tensors = {**recorded("rlfn", "ntire")[0], name: value}
    with pytest.raises(CheckpointError) as caught:
        load_restorer({key: tensor for key, tensor in tensors.items() if tensor is not None})
    assert said in str(caught.value)
