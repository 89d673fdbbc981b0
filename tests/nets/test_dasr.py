"""DASR: its authors' numbers and size, kernels mixed for each picture, files, and what a network owes to `Upscaler`."""

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, describe, load_restorer, save_restorer
from dacesr.config import SRResNetConfig, explain
from dacesr.config.adaptive import DASRConfig
from dacesr.nets.convnets import SRResNet
from dacesr.nets.dasr import DASR, MixedConv

SIZES = {"num_feat": 8, "num_block": 2, "num_expert": 3, "predictor_feat": 6, "num_param": 7}


def lively(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights drawn by name, but for a mixture that is far from 0 and depends on the picture."""
    return tensors | {
        "MappingNet.0.weight": 10 * tensors["MappingNet.0.weight"],
        "MappingNet.1.bias": torch.tensor([-0.9, 0.6, 1.4]),
    }


def small(**changes) -> DASR:
    net = fill(DASR(DASRConfig(**(SIZES | changes))))
    net.load_state_dict(lively(net.state_dict()))
    return net


# --- parity with the authors' code


@pytest.mark.parametrize(("name", "scale"), [("x4", 4), ("x3", 3)])
def test_released_files_give_the_recorded_outputs(name, scale):
    tensors, pairs = recorded("dasr", name)
    net = load_restorer({"params": lively(tensors)})
    assert isinstance(net, DASR)
    assert net.config == DASRConfig(scale=scale, **SIZES)
    for x, y in pairs:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


def test_the_two_files_of_the_release_belong_together(tmp_path):
    net = small()
    parts = {"net_p": {}, "net_g": {}}
    for name, value in net.state_dict().items():
        parts["net_p" if name.startswith(("ConvNet", "MappingNet")) else "net_g"][name] = value
    torch.save({"params": parts["net_g"]}, tmp_path / "net_g_latest.pth")
    with pytest.raises(CheckpointError, match="holds DASR without its predictor: put that beside it"):
        load_restorer(tmp_path / "net_g_latest.pth")
    torch.save({"params": parts["net_p"]}, tmp_path / "net_p_latest.pth")
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(load_restorer(tmp_path / "net_g_latest.pth")(x), net(x))
    assert describe(tmp_path / "net_g_latest.pth").architecture == "DASR"


def test_it_has_the_size_of_the_published_one():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # with gradients: no strips that overlap
        net = DASR(DASRConfig())
        net(torch.empty(1, 3, 256, 256))
    c, k = 64, 5
    kernels = 9 * (3 * c + 33 * c * c + 2 * 4 * c * c + 3 * c)
    biases = 34 * c + 2 * 4 * c + 3
    predictor = 25 * (3 * c + 4 * c * c + 33 * c) + 5 * c + 33
    mapping = 33 * 15 + 15 + 15 * k + k
    parameters = sum(value.numel() for value in net.parameters())
    assert parameters == k * (kernels + biases) + predictor + mapping == 8_055_998
    per_pixel = 9 * (3 * c + 32 * c * c + 4 * c * c + 4 * 4 * c * c + 16 * c * c + 16 * 3 * c)
    predicting = 25 * (3 * c + 2 * c * c + (2 * c * c + 33 * c) / 4)
    once = k * (kernels + biases) + 33 * 15 + 15 * k
    assert counter.get_total_flops() == 2 * (256 * 256 * (per_pixel + predicting) + once)
    assert counter.get_total_flops() / 2e9 == pytest.approx(184, rel=0.01)  # Table II of DACESR
    assert parameters / 1e6 == pytest.approx(8.07, rel=0.01)  # as well


# --- the mixture


def test_a_mixed_convolution_is_the_sum_of_the_experts_for_each_picture():
    torch.manual_seed(0)
    conv = MixedConv(inputs=4, outputs=5, experts=3)
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter)
    x, weights = torch.randn(2, 4, 6, 7), torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, 0.1]])
    expected = torch.zeros(2, 5, 6, 7)
    for picture in range(2):
        for expert in range(3):
            alone = F.conv2d(x[picture], conv.weight[expert], conv.bias[expert], padding=1)
            expected[picture] += weights[picture, expert] * alone
    for memory in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(conv(x.to(memory_format=memory), weights), expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_with_one_expert_chosen_it_is_that_srresnet(scale):
    net, x = small(scale=scale), torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        net.MappingNet[1].weight.zero_()
        net.MappingNet[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    alone = SRResNet(SRResNetConfig(num_feat=8, num_block=2, scale=scale))
    alone.load_state_dict({name: net.state_dict()[name][1] for name in alone.state_dict()})
    torch.testing.assert_close(net(x), alone(x))


def test_the_predictor_is_its_formula():
    net, x = small(), torch.rand(2, 3, 9, 6)
    state, out = net.state_dict(), x
    for number in range(6):
        weight, bias = (state[f"ConvNet.{2 * number}.{kind}"] for kind in ("weight", "bias"))
        out = F.conv2d(F.pad(out, (2, 2, 2, 2)), weight, bias, stride=2 if number == 3 else 1)
        out = out.clamp(min=0) + 0.2 * out.clamp(max=0)
    parameters = out.sum((2, 3)) / (5 * 3)
    hidden = parameters @ state["MappingNet.0.weight"].T + state["MappingNet.0.bias"]
    prediction = net.predict(x)
    torch.testing.assert_close(prediction.parameters, parameters)
    torch.testing.assert_close(prediction.weights, hidden @ state["MappingNet.1.weight"].T + net.MappingNet[1].bias)


def test_experts_start_alike_and_small():
    torch.manual_seed(0)
    net = DASR(DASRConfig(num_block=1))
    kernels = net.body[0].conv1.weight.detach()
    assert torch.equal(kernels, kernels[:1].expand(5, -1, -1, -1, -1))
    assert float(kernels.std()) == pytest.approx(0.1 * (2 / (9 * 64)) ** 0.5, rel=0.02)
    assert not net.body[0].conv1.bias.any()


# --- contract


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 8)])
def test_any_size_and_scale(shape, scale):
    with torch.no_grad():
        assert small(scale=scale)(torch.rand(2, 3, *shape)).shape == (2, 3, scale * shape[0], scale * shape[1])


def test_pictures_of_a_batch_do_not_see_each_other():
    net, x = small(), torch.rand(3, 3, 9, 6) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1, 1)
    with torch.no_grad():
        assert net.predict(x).weights.std(0).max() > 0.01
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-5)


# --- files


def test_a_saved_network_is_read_back(tmp_path):
    net = small(scale=2)
    save_restorer(tmp_path / "net.safetensors", net)
    loaded = load_restorer(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert describe(tmp_path / "net.safetensors").architecture == "DASR"


def is_predictor(name: str) -> bool:
    return name.startswith(("ConvNet.", "MappingNet."))


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (is_predictor, "predictor alone, which belongs with net_g.pth"),
        (lambda name: not is_predictor(name), "conv_first.weight has the shape (3, 8, 3, 3, 3)"),
        (lambda name: name != "upconv1.weight", "missing: upconv1.weight"),
        (lambda name: name != "ConvNet.4.bias", "missing: ConvNet.4.bias"),
    ],
)
def test_a_part_of_the_release_is_refused_in_one_sentence(keep, said):
    tensors = recorded("dasr", "x4")[0]
    with pytest.raises(CheckpointError) as caught:
        load_restorer({name: value for name, value in tensors.items() if keep(name)})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("scale", 1), ("num_block", 0), ("num_expert", 0), ("num_param", 10**6), ("num_feat", 64.0)]
)
def test_an_impossible_value_is_an_error_that_names_the_field(field, value):
    with pytest.raises(ValidationError) as caught:
        DASRConfig(**{field: value})
    assert field in explain(caught.value)


def test_the_estimate_of_memory_grows_with_the_network():
    narrow, published, wide = (DASRConfig(**changes).bytes_per_pixel(4) for changes in (SIZES, {}, {"num_feat": 128}))
    assert narrow < 1000 < published < wide < 4000
    assert DASRConfig(predictor_feat=512).bytes_per_pixel(4) > wide
