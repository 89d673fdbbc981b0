import json
import os
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from weights_by_name import fill

from dacesr.checkpoint import load_restorer
from dacesr.nets import heads, mamba
from dacesr.nets.heads import HEADS
from dacesr.nets.restorer import Restorer, RestorerConfig

FIXTURES = Path(__file__).parents[1] / "fixtures"
DATA = os.environ.get("DACESR_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="DACESR_DATA is not set")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def fixture(name: str) -> dict[str, torch.Tensor]:
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def small(**changes) -> Restorer:
    """A network whose tensors are all of plain size, so that differences show."""
    return fill(Restorer(RestorerConfig.preset("light", **({"embed_dim": 8, "depths": (2, 1)} | changes))))


# --- parity with the authors' code


@pytest.mark.parametrize("preset", ["light", "base", "large"])
def test_outputs_are_the_releases(preset):
    reference = fixture("restorer_uncond")
    net = fill(Restorer(RestorerConfig.preset(preset)))
    with torch.no_grad():
        torch.testing.assert_close(net(reference["x"]), reference[f"y_{preset}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("preset", "parameters"), [("light", 424_428), ("base", 3_651_159), ("large", 7_432_131)])
def test_names_shapes_and_parameter_counts_are_the_releases(preset, parameters):
    net = Restorer(RestorerConfig.preset(preset))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    keys = json.loads((FIXTURES / f"restorer_{preset}_keys.json").read_text())
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == keys


@pytest.mark.parametrize("preset", ["light", "large"])
def test_the_releases_modulation_is_the_same(preset):
    reference = fixture("restorer_release")
    net = fill(Restorer(RestorerConfig.preset(preset, modulation="release")))
    with torch.no_grad():
        out = net(reference["x"], reference["condition"])
    torch.testing.assert_close(out, reference[f"y_{preset}"], rtol=0, atol=1e-4)


@needs_data
@pytest.mark.parametrize(("file", "key"), [("DVMSR.pth", "params_ema"), ("team07_DVMSR.pth", "team07")])
def test_published_checkpoints_give_the_published_outputs(file, key):
    reference = fixture("dvmsr")
    with torch.no_grad():
        out = load_restorer(Path(str(DATA), "checkpoints", file))(reference["x"])
    torch.testing.assert_close(out, reference[key], rtol=0, atol=1e-4)


# --- contract


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_has_every_scale_and_every_size(head, scale):
    net = small(head=head, head_dim=4, scale=scale, scan_order="alternate", image_skip="bilinear")
    with torch.no_grad():
        for size in [(1, 3, 1, 1), (2, 3, 1, 5), (1, 3, 7, 1), (3, 3, 5, 4)]:
            x = torch.rand(size)
            out = net(x)
            assert out.shape == (size[0], 3, scale * size[2], scale * size[3])
            assert out.dtype == x.dtype
            for i in range(size[0]):
                torch.testing.assert_close(net(x[i : i + 1]), out[i : i + 1])


@pytest.mark.parametrize("block_residual", [False, True])
@pytest.mark.parametrize("group_end", ["1conv", "3conv"])
@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_parameter(head, group_end, block_residual):
    net = small(head=head, group_end=group_end, block_residual=block_residual, scan_order="alternate").train()
    net(torch.rand(2, 3, 4, 5)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_training_under_autocast_gives_finite_fp32_gradients_near_the_plain_ones():
    net, x = small().train(), torch.rand(1, 3, 5, 6)
    net(x).square().mean().backward()
    plain = torch.cat([value.grad.flatten() for value in net.parameters()])
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
    assert out.dtype == torch.float32
    out.square().mean().backward()
    mixed = torch.cat([value.grad.flatten() for value in net.parameters()])
    assert mixed.dtype == torch.float32
    assert F.cosine_similarity(plain, mixed, dim=0) > 0.99


def test_any_memory_layout_of_the_input_gives_the_same_output():
    net, x = small(), torch.rand(2, 3, 6, 5)
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), expected)
        torch.testing.assert_close(net(x.repeat_interleave(2, dim=3)[..., ::2]), expected)
        torch.testing.assert_close(net(x.double()).float(), expected)


def test_the_order_of_blocks_runs_on_across_groups():
    net = small(depths=(2, 3), scan_order="alternate")
    orders = [order for group in net.layers for order in group.residual_group.orders]
    assert orders == [*mamba.ORDERS["alternate"], mamba.ORDERS["alternate"][0]]


def test_alternate_is_raster_of_turned_pictures():
    """One block per group: with symmetric convolutions, the second group's walk is a flip of the picture."""
    net = small(depths=(1,), scan_order="raster")
    backward = small(depths=(1,), scan_order="raster")
    backward.layers[0].residual_group.orders = [mamba.Order(by_column=True, backward=True)]
    for model in (net, backward):
        for name, value in model.named_parameters():
            if value.ndim == 4 and value.shape[-1] == 3:  # the same whichever way the picture is turned
                symmetric = value.data + value.data.mT
                value.data = symmetric + symmetric.flip(-1, -2)
            if name == "upsample.0.weight":  # all pixels of a block alike, as turning moves them
                value.data = (
                    value.data.view(3, 16, 8, 3, 3).mean(1, keepdim=True).expand(3, 16, 8, 3, 3).reshape(48, 8, 3, 3)
                )
            if name == "upsample.0.bias":
                value.data = value.data.view(3, 16).mean(1, keepdim=True).expand(3, 16).reshape(48)
    x = torch.rand(1, 3, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(backward(x), net(x.mT.flip(-1, -2)).flip(-1, -2).mT)
        assert not torch.allclose(backward(x), net(x), atol=1e-3)


def test_image_skip_adds_the_enlarged_input():
    x = torch.rand(2, 3, 5, 7)
    with torch.no_grad():
        net = small(image_skip="bilinear")
        net.upsample[0].weight.zero_()
        net.upsample[0].bias.zero_()
        torch.testing.assert_close(net(x), F.interpolate(x, scale_factor=4, mode="bilinear"))


def test_the_output_is_not_clamped():
    with torch.no_grad():
        out = small()(torch.rand(1, 3, 8, 8))
    assert out.min() < 0
    assert out.max() > 1


# --- condition


def test_each_image_has_its_own_condition():
    net = small(modulation="release")
    x, condition = torch.rand(1, 3, 5, 6).expand(2, -1, -1, -1), torch.randn(2, 5, 512)
    with torch.no_grad():
        out = net(x, condition)
        torch.testing.assert_close(net(x[:1], condition[1:]), out[1:])
        assert not torch.allclose(out[0], out[1], atol=1e-3)
        torch.testing.assert_close(net(x, torch.zeros_like(condition)), net(x))


def test_a_condition_without_a_modulation_is_an_error():
    with pytest.raises(ValueError, match="modulation 'none'"):
        small()(torch.rand(1, 3, 4, 4), torch.randn(1, 5, 512))


@pytest.mark.parametrize("shape", [(2, 5, 512), (1, 5, 64), (1, 512), (1, 0, 512)])
def test_a_condition_of_another_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"condition must be \(1, 1 \+ g\*g, 512\)"):
        small(modulation="release")(torch.rand(1, 3, 4, 4), torch.randn(shape))


@pytest.mark.parametrize("window", [(0.5, 0, 0.5, 1), (0, 0, 1, 1.1), (-0.1, 0, 1, 1)])
def test_a_window_outside_the_picture_is_an_error(window):
    with pytest.raises(ValueError, match="window"):
        small(modulation="release")(torch.rand(1, 3, 4, 4), torch.randn(1, 5, 512), window)


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (1, 3, 0, 4), (0, 3, 4, 4)])
def test_an_input_that_is_no_rgb_image_is_an_error(shape):
    with pytest.raises(ValueError, match="input must be"):
        small()(torch.rand(shape))


class OneDevice(TorchDispatchMode):
    """Nothing is made on, or comes from, another device."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves((args, kwargs, out)):
            assert not isinstance(x, torch.Tensor) or x.device.type == self.device, func
        return out


@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize("modulation", ["spatial", "global", "release"])
def test_a_network_on_a_device_never_waits_for_it_nor_copies_to_it(monkeypatch, modulation, windows):
    """`meta` stands for the device: its tensors have no values, so that looking at one is an error."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it knows no autocast on `meta`
    monkeypatch.setattr(mamba, "selective_scan", lambda u, *_, z, **__: (u * z, None))  # nor does the scan
    net = Restorer(RestorerConfig.preset("light", depths=(1, 2), scan_order="alternate", modulation=modulation))
    net.to("meta", torch.bfloat16)
    x, condition = torch.empty(2, 3, 5, 6, device="meta"), torch.empty(2, 10, 512, device="meta")
    window = torch.empty(2, 4, device="meta") if windows else None
    with OneDevice("meta"):
        net(x, condition, window).sum().backward()
        with torch.no_grad():
            assert net(x, condition, window).shape == (2, 3, 20, 24)


# --- precision


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * (a.clamp(0, 1) - b.clamp(0, 1)).square().mean().log10().item()


@needs_data
def test_bf16_is_within_50_db_of_fp32_on_photographs():
    net = load_restorer(Path(str(DATA), "checkpoints", "DVMSR.pth"))
    files = sorted(Path(str(DATA), "benchmarks", "Set5", "LR_bicubic_x4").glob("*.png"))[:3]
    crops = [torch.from_numpy(_rgb(file))[None, :, :32, :40] for file in files]
    with torch.inference_mode():
        expected = [net(x) for x in crops]
        net.to(torch.bfloat16)
        assert min(psnr(net(x), y) for x, y in zip(crops, expected, strict=True)) >= 50


def _rgb(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_and_gives_fp32_images_with_an_exact_mean(dtype):
    net, x = small(), torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        expected = net(x)
        net.to(dtype)
        out = net(x)
        assert out.dtype == torch.float32
        assert (out - expected).square().mean().sqrt() < 0.02 * expected.std()
        assert net(x.to(dtype)).dtype == dtype
    assert torch.equal(net.mean.flatten(), torch.tensor(net.config.rgb_mean))


# --- graphs


def test_export_and_compile_trace_through_with_sizes_left_open():
    net = small(scan_order="alternate", image_skip="bilinear")
    batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "height", "width"))
    sizes = {"x": {0: batch, 2: height, 3: width}, "condition": None}
    program = torch.export.export(net, (torch.rand(2, 3, 6, 7), None), dynamic_shapes=sizes).module()
    compiled = torch.compile(net, dynamic=True, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for size in [(2, 3, 6, 7), (3, 3, 9, 5)]:
            x = torch.rand(size)
            torch.testing.assert_close(program(x, None), net(x))
            torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("head", list(HEADS))
def test_the_head_in_strips_equals_the_whole(monkeypatch, head, scale):
    torch.manual_seed(0)
    net = Restorer(RestorerConfig(embed_dim=8, depths=(1,), head=head, head_dim=8, scale=scale)).eval()
    x = torch.rand(2, 3, 23, 9)
    whole = net(x).detach()  # gradients are on, so it is done at once
    for strip in (1, 45, 99):
        monkeypatch.setattr(heads, "STRIP", strip)
        with torch.no_grad():
            torch.testing.assert_close(net(x), whole, rtol=1e-5, atol=1e-5)


def test_pixels_are_shuffled_within_channels_last_memory():
    x = torch.rand(2, 45, 4, 5).contiguous(memory_format=torch.channels_last)
    assert torch.equal(heads.shuffled(x, 3), F.pixel_shuffle(x, 3))
    assert heads.shuffled(x, 3).is_contiguous(memory_format=torch.channels_last)


def test_a_gpu_takes_the_head_at_once_unless_its_maps_are_huge():
    taken = []

    def head(features):
        taken.append(tuple(features.shape[2:]))
        return features.new_empty(features.shape[0], 3, *(4 * side for side in features.shape[2:]))

    with torch.no_grad():
        for side in (256, 2048):
            features = torch.empty(1, 180, side, side, device="meta", dtype=torch.bfloat16)  # a device without a GPU
            out = heads.in_strips(head, features, 4)
            assert out.shape == (1, 3, 4 * side, 4 * side)
    assert taken[0] == (256, 256)
    assert taken[1] == (182 + 4, 2048)  # 2 GB of 180 x 16 values of 2 bytes, and what the convolutions look at
    assert len(taken) == 1 + 12


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "pixelshuffle"},
        {"head": "pixelshuffle", "head_dim": 256},
        {"head": "nearest+conv", "scale": 2, "head_dim": 128},
        {"head": "pixelshuffledirect", "modulation": "spatial"},
    ],
)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_the_estimate_of_memory_of_a_whole_picture_is_above_what_tensors_take_and_not_far(
    monkeypatch, changes, itemsize
):
    monkeypatch.setattr(mamba, "PART", 1 << 30)
    monkeypatch.setattr(heads, "STRIP", 1 << 30)
    config, side = RestorerConfig(**({"embed_dim": 60, "depths": (2,), "head_dim": 32} | changes)), 96
    net = Restorer(config).to({2: torch.bfloat16, 4: torch.float32}[itemsize])
    condition = torch.randn(1, 10, 512) if "modulation" in changes else None
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        net(torch.rand(1, 3, side, side), condition)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    assert 1 < config.bytes_per_pixel(itemsize, whole=True) * side**2 / held < 2
    assert config.bytes_per_pixel(itemsize, whole=True) > config.bytes_per_pixel(itemsize)
