"""KDSR: its authors' numbers and size, the parts' formulas, files, and what a network owes to `Upscaler`."""

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, describe, load_restorer, save_restorer
from dacesr.config import explain
from dacesr.config.adaptive import KDSRConfig
from dacesr.nets.kdsr import KDSR, DynamicConv

SIZES = {"num_feat": 8, "num_block": 3, "encoder_block": 2}
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])
SHIFTS = {
    "G.sub_mean.weight": torch.eye(3)[:, :, None, None],
    "G.sub_mean.bias": -MEAN,
    "G.add_mean.weight": torch.eye(3)[:, :, None, None],
    "G.add_mean.bias": MEAN,
}


def lively(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights drawn by name, the estimator's larger, so that what it says matters."""
    louder = {name for name in tensors if name.startswith("E_st.") and name.endswith("weight")}
    return {name: 1.5 * value if name in louder else value for name, value in tensors.items()}


def small(**changes) -> KDSR:
    net = fill(KDSR(KDSRConfig(**(SIZES | changes))))
    net.load_state_dict(lively(net.state_dict()))
    return net


def release(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file of the authors, with the layers that shift the mean."""
    return lively(recorded("kdsr", name)[0]) | SHIFTS


# --- parity with the authors' code


@pytest.mark.parametrize(("name", "scale"), [("x4", 4), ("x3", 3)])
def test_a_released_file_gives_the_recorded_outputs(name, scale):
    net = load_restorer({"params_ema": release(name)})
    assert isinstance(net, KDSR)
    assert net.config == KDSRConfig(scale=scale, **SIZES)
    for x, y in recorded("kdsr", name)[1]:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


def test_it_has_the_size_of_the_published_one():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # with gradients: no strips that overlap
        net = KDSR(KDSRConfig())
        net(torch.empty(1, 3, 256, 256))
    assert sum(value.numel() for value in net.parameters()) == 18_846_083  # Table II of DACESR: 18.85 M
    c = 128
    kernels = 42 * (c * c + 9 * c * c)
    generator = 9 * (3 * c + 42 * (c + c * c) + c * c + 4 * c * c + 4 * 4 * c * c + 16 * 3 * c)
    estimator = 9 * (3 * c + 6 * 2 * c * c + 2 * c * c + 4 * c * c + 8 * c * c)
    vector = 2 * (4 * c) ** 2 + 4 * c * c
    assert counter.get_total_flops() == 2 * (256 * 256 * (generator + estimator) + vector + kernels)
    assert counter.get_total_flops() / 2e9 == pytest.approx(867, rel=0.01)  # Table II


# --- formulas


def leaky(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0) + 0.1 * x.clamp(max=0)


def test_a_dynamic_convolution_is_written_out_pixel_by_pixel():
    torch.manual_seed(0)
    conv, x, vector = DynamicConv(dim=3), torch.randn(2, 3, 4, 5), torch.randn(2, 3)
    first, second = conv.kernel[0].weight, conv.kernel[2].weight
    padded, expected = F.pad(x, (1, 1, 1, 1)), torch.zeros_like(x)
    for picture in range(2):
        kernels = (second @ leaky(first @ vector[picture])).view(3, 3, 3)
        for row in range(4):
            for column in range(5):
                seen = padded[picture, :, row : row + 3, column : column + 3]
                expected[picture, :, row, column] = (kernels * seen).sum((1, 2))
    for memory in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(conv(x.to(memory_format=memory), vector), expected)


def test_it_is_its_formula():
    net, x = small(scale=2), torch.rand(2, 3, 7, 6)
    state = net.state_dict()

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return leaky(x @ state[f"{name}.weight"].T + state[f"{name}.bias"])

    out = leaky(conv("E_st.E.0", x))
    for number in (2, 3):
        out = out + conv(f"E_st.E.{number}.body.2", leaky(conv(f"E_st.E.{number}.body.0", out)))
    for number in (4, 6, 8):
        out = leaky(conv(f"E_st.E.{number}", out))
    vector = linear("E_st.mlp.2", linear("E_st.mlp.0", out.sum((2, 3)) / 42))
    vector = linear("E_st.compress.0", vector)

    mean = MEAN.view(3, 1, 1)
    features = out = conv("G.head.0", x - mean)
    for block in net.G.body[0].body:
        moved = leaky(block.da_conv1(out, vector))
        out = out + F.conv2d(moved, block.conv1.weight, block.conv1.bias, padding=1)
    out = conv("G.tail.0.0", conv("G.body.1", out) + features)
    out = out.view(2, 8, 2, 2, 7, 6).permute(0, 1, 4, 2, 5, 3).reshape(2, 8, 14, 12)
    torch.testing.assert_close(net(x), conv("G.tail.1", out) + mean)


# --- contract


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 8)])
def test_any_size_and_scale(shape, scale):
    with torch.no_grad():
        assert small(scale=scale)(torch.rand(2, 3, *shape)).shape == (2, 3, scale * shape[0], scale * shape[1])


def test_pictures_of_a_batch_do_not_see_each_other():
    net, x = small(), torch.rand(3, 3, 9, 6) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)
    with torch.no_grad():
        assert net.E_st(x).std(0).max() > 0.01
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-5)


# --- files


def test_a_saved_network_is_read_back(tmp_path):
    net = small(scale=8, rgb_mean=(0.1, 0.2, 0.3))
    save_restorer(tmp_path / "net.safetensors", net)
    loaded, x = load_restorer(tmp_path / "net.safetensors"), torch.rand(1, 3, 4, 4)
    assert loaded.config == net.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert torch.equal(loaded(x), net(x))
    assert describe(tmp_path / "net.safetensors").architecture == "KDSR"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"G.add_mean.bias": 255 * MEAN}, "unexpected: G.add_mean.bias"),  # the classic models, whose white is 255
        ({"G.sub_mean.bias": MEAN}, "unexpected: G.sub_mean.bias"),
        ({"G.sub_mean.weight": 2 * SHIFTS["G.sub_mean.weight"]}, "unexpected: G.sub_mean.weight"),
        ({"G.head.0.weight": None}, "lacks G.head.0.weight"),
        ({"G.tail.1.bias": None}, "missing: G.tail.1.bias"),
        ({"G.body.0.body.1.da_conv1.kernel.2.weight": torch.zeros(64, 8)}, "kernel.2.weight (64, 8) for (72, 8)"),
        ({"G.tail.0.2.weight": torch.zeros(1, 8, 3, 3)}, "scale"),
    ],
)
def test_a_file_that_is_no_kdsr_we_can_run_is_refused_in_one_sentence(changes, said):
    tensors = {name: value for name, value in (release("x4") | changes).items() if value is not None}
    with pytest.raises(CheckpointError) as caught:
        load_restorer(tensors)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("scale", 1), ("num_block", 0), ("encoder_block", 0), ("num_feat", 1.5)])
def test_an_impossible_value_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValidationError) as caught:
        KDSRConfig(**{field: value})
    assert field in explain(caught.value)


def test_the_estimate_of_memory_grows_with_the_network():
    narrow, published = (KDSRConfig(**changes).bytes_per_pixel(4) for changes in (SIZES, {}))
    assert narrow < 1000 < 3000 < published < 5000
