"""What SwinIR and HAT owe to `Upscaler`, to training and to the files they are saved in."""

import copy
from functools import partial

import pytest
import torch
from test_hat import small as hat
from test_swinir import small as swinir
from torch.nn import functional as F

from dacesr.checkpoint import describe, load_restorer, save_restorer
from dacesr.nets import heads, windows

small = pytest.mark.parametrize("make", [swinir, partial(hat, conv_scale=1.0)], ids=["SwinIR", "HAT"])
each_head = pytest.mark.parametrize(
    "make", [*(partial(swinir, head=head) for head in heads.HEADS), partial(hat, conv_scale=1.0)]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@each_head
@pytest.mark.parametrize("scale", heads.STEPS)
def test_any_size_and_scale(make, scale):
    net = make(scale=scale, depths=(2,), heads=(2,))
    for height, width in ((1, 1), (1, 9), (4, 2), (13, 8)):
        with torch.no_grad():
            assert net(torch.rand(2, 3, height, width)).shape == (2, 3, scale * height, scale * width)


@small
def test_what_is_missing_to_whole_windows_is_reflected_at_the_right_and_the_bottom(make):
    net, x = make(), torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        whole = net(F.pad(x, (0, 1, 0, 2), mode="reflect"))
        torch.testing.assert_close(net(x), whole[:, :, :12, :14])


@small
def test_pictures_of_a_batch_do_not_see_each_other(make):
    net, x = make(), torch.rand(3, 3, 9, 6)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-5)


@small
@pytest.mark.parametrize("part", [1, 40, 1000])
def test_parts_and_strips_give_the_same_and_leave_the_input_alone(monkeypatch, make, part):
    for place in ("dacesr.nets.windows.PART", "dacesr.nets.hat.PART", "dacesr.nets.heads.STRIP"):
        monkeypatch.setattr(place, part)
    net, x = make(), torch.rand(2, 3, 18, 13)
    kept, at_once = x.clone(), net(x).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(net(x), at_once, rtol=0, atol=1e-5)
    assert torch.equal(x, kept)


@each_head
def test_gradients_reach_every_parameter(make):
    net = make().train()
    net(torch.rand(2, 3, 9, 8)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


@small
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_and_give_fp32(make, dtype):
    net, x = make(), torch.rand(1, 3, 16, 16)
    half = copy.deepcopy(net).to(dtype)
    assert half.mean.dtype == torch.float32
    with torch.no_grad():
        y, exact = half(x), net(x)
    assert y.dtype == torch.float32
    assert (y - exact).std() < 0.02 * exact.std()


@small
def test_other_shapes_are_refused(make):
    for shape in ((3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)):
        with pytest.raises(ValueError, match="no empty side"):
            make()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make", "architecture"),
    [
        (partial(swinir, group_end="3conv", head="nearest+conv", scale=8), "SwinIR"),
        (partial(hat, overlap=0, conv_scale=0.5), "HAT"),  # which no tensor tells
    ],
)
def test_a_saved_network_is_read_back(tmp_path, make, architecture):
    net = make()
    save_restorer(tmp_path / "net.safetensors", net)
    loaded = load_restorer(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert describe(tmp_path / "net.safetensors").architecture == architecture


@pytest.mark.parametrize(("side", "shift", "runs"), [(4, 0, [3]), (4, 2, [3]), (8, 0, [12]), (8, 2, [3, 3, 3, 3])])
def test_an_order_holds_every_token_once_and_sorts_windows_by_their_mask(side, shift, runs):
    order = windows.Grid.of(torch.empty(3, 1, side, side), 4).orders[bool(shift)]
    assert order.places.sort().values.tolist() == list(range(3 * side * side))
    assert [run.windows for run in order.runs] == runs
    assert torch.equal(order.places[windows.inverse(order.places)], torch.arange(3 * side * side))
