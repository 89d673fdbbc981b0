import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dacesr.nets import conv_native, mamba, scan_native
from dacesr.nets.mamba import (
    ORDERS,
    ROW_ORDER,
    DeltaProjection,
    MambaMixer,
    Order,
    ViMM,
    ViMMs,
    causal_conv1d,
    causal_conv_silu,
    reorder,
    to_image,
    to_tokens,
)

WALKS = [Order(by_column, backward) for by_column in (False, True) for backward in (False, True)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_mixer(dim=8, **changes) -> MambaMixer:
    parts = {"dim": dim, "inner_dim": 2 * dim, "state_dim": 4, "conv_taps": 4, "delta_rank": 2} | changes
    return MambaMixer(**parts)


def walk(height: int, width: int, order: Order) -> list[int]:
    """Pixel numbers (in row order) in the sequence that a walk meets them, spelled out."""
    if order.by_column:
        pixels = [row * width + column for column in range(width) for row in range(height)]
    else:
        pixels = [row * width + column for row in range(height) for column in range(width)]
    return pixels[::-1] if order.backward else pixels


# --- tokens and walks


def test_tokens_and_image_are_views_of_the_same_channels_last_memory():
    image = torch.rand(2, 6, 3, 5).contiguous(memory_format=torch.channels_last)
    tokens = to_tokens(image)
    assert tokens.shape == (2, 15, 6)
    assert tokens.is_contiguous()
    assert tokens.data_ptr() == image.data_ptr()
    assert to_image(tokens, 3, 5).data_ptr() == image.data_ptr()
    assert to_image(tokens, 3, 5).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_image(tokens, 3, 5), image)


@pytest.mark.parametrize(("source", "target"), [*itertools.product(WALKS, WALKS)])
@pytest.mark.parametrize("size", [(3, 5), (1, 4), (4, 1), (1, 1)])
def test_reorder_goes_from_any_walk_to_any_other(source, target, size):
    pixels = torch.arange(size[0] * size[1])[None, :, None]
    start = pixels[:, walk(*size, source)]
    assert torch.equal(reorder(start, *size, source, target), pixels[:, walk(*size, target)])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(WALKS), st.sampled_from(WALKS))
def test_reorder_there_and_back_changes_nothing(height, width, source, target):
    tokens = torch.arange(2 * height * width * 3).view(2, height * width, 3)
    assert torch.equal(reorder(reorder(tokens, height, width, source, target), height, width, target, source), tokens)


def test_alternate_is_row_row_reversed_column_column_reversed():
    assert [walk(2, 2, order) for order in ORDERS["alternate"]] == [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [0, 2, 1, 3],
        [3, 1, 2, 0],
    ]
    assert ORDERS["raster"] == (ROW_ORDER,)


@pytest.mark.parametrize("first", range(4))
def test_blocks_walk_in_their_orders_and_hand_back_row_order(first):
    orders = [ORDERS["alternate"][(first + i) % 4] for i in range(3)]
    blocks = [ViMM(mixer=make_mixer(), residual=False) for _ in orders]
    height, width = 3, 4
    tokens = torch.randn(2, height * width, 8)
    expected = tokens
    for block, order in zip(blocks, orders, strict=True):
        pixels = walk(height, width, order)
        out = torch.empty_like(expected)
        out[:, pixels] = block(expected[:, pixels])
        expected = out
    torch.testing.assert_close(ViMMs(blocks=blocks, orders=orders)(tokens, height, width), expected)


# --- convolution and mixer


@pytest.mark.parametrize(("batch", "length", "taps"), [(1, 1, 4), (2, 3, 4), (3, 17, 4), (1, 9, 1), (2, 8, 7)])
def test_causal_conv1d_is_a_conv1d_that_never_looks_ahead(batch, length, taps):
    both = torch.randn(batch, length, 2 * 6)
    weight, bias = torch.randn(6, 1, taps), torch.randn(6)
    for x in both.chunk(2, dim=-1):  # strided slices, as from in_proj
        expected = F.conv1d(F.pad(x.mT, (taps - 1, 0)), weight, bias, groups=6).mT
        torch.testing.assert_close(causal_conv1d(x, weight, bias), expected)


def convolved(function, x, weight, bias, grad):
    """What a convolution gives, and its gradients."""
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = function(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, grad)


def assert_equal_to(exact, found, tolerance):
    for ours, theirs in zip(found, exact, strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1)
        assert error < tolerance


@pytest.mark.parametrize("isa", scan_native.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "length", "width", "taps"),
    [(1, 1, 1, 4), (2, 33, 37, 4), (3, 100, 8, 1), (1, 75, 40, 7), (1, 20, 50, 32), (2, 64, 128, 4)],
)
def test_native_convolution_and_its_gradients_are_those_of_pytorch(monkeypatch, isa, dtype, batch, length, width, taps):
    native = conv_native._native

    class Forced:
        conv_forward = staticmethod(lambda *args: native.conv_forward(*args, isa))
        conv_backward = staticmethod(lambda *args: native.conv_backward(*args, isa))
        slices_for = staticmethod(lambda *args: native.slices_for(*args, isa))

    monkeypatch.setattr(conv_native, "_native", Forced)
    x, grad = torch.randn(batch, length, 2 * width).to(dtype).chunk(2, dim=-1)
    weight, bias = torch.randn(width, 1, taps), torch.randn(width)

    def plain(x, weight, bias):
        return F.silu(F.conv1d(F.pad(x.mT, (taps - 1, 0)), weight, bias, groups=width).mT)

    exact = convolved(plain, x.double(), weight.double(), bias.double(), grad.double())
    found = convolved(causal_conv_silu, x, weight, bias, grad)
    assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
    assert_equal_to(exact[:2], found[:2], 2e-6 if dtype == torch.float32 else 4e-3)
    assert_equal_to(exact[2:], found[2:], 2e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_native_convolution_on_any_number_of_threads(threads):
    before = torch.get_num_threads()
    x, weight, bias, grad = torch.randn(1, 50, 40), torch.randn(40, 1, 4), torch.randn(40), torch.randn(1, 50, 40)
    try:
        torch.set_num_threads(threads)
        found = convolved(causal_conv_silu, x, weight, bias, grad)
    finally:
        torch.set_num_threads(before)
    exact = convolved(lambda *leaves: F.silu(causal_conv1d(*leaves)), x, weight, bias, grad)
    assert_equal_to([t.double() for t in exact], found, 2e-6)


def test_the_convolution_passes_pytorch_checks():
    args = [torch.randn(2, 9, 6), torch.randn(6, 4), torch.randn(6)]
    torch.library.opcheck(conv_native.conv_op, [t.requires_grad_() for t in args])
    torch.library.opcheck(conv_native.conv_op, [*(t.detach().requires_grad_() for t in args[:2]), None])


def test_what_native_cannot_take_is_convolved_by_pytorch(monkeypatch):
    x, weight, bias = torch.randn(1, 40, 6), torch.randn(6, 1, 4), torch.randn(6)
    wide = torch.randn(6, 1, conv_native.MAX_TAPS + 1)
    expected = causal_conv_silu(x, weight, bias)
    monkeypatch.setattr(conv_native, "conv_op", None)
    assert causal_conv_silu(x.double(), weight.double(), bias.double()).dtype == torch.float64
    assert causal_conv_silu(x, wide, bias).shape == x.shape
    monkeypatch.setattr(mamba, "conv_native", None)
    torch.testing.assert_close(causal_conv_silu(x, weight, bias), expected)


def test_gradients_of_the_delta_projection_are_those_of_a_linear_layer():
    layer = DeltaProjection(3, 10)
    x, grad = torch.randn(2, 7, 9)[..., :3].requires_grad_(), torch.randn(2, 7, 10)
    found = torch.autograd.grad(layer(x), (x, layer.weight), grad)
    expected = torch.autograd.grad(F.linear(x, layer.weight), (x, layer.weight), grad)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(layer(x), F.linear(x, layer.weight))


@pytest.mark.parametrize("wanted", ["x", "weight"])
def test_the_delta_projection_makes_only_gradients_that_are_wanted(wanted):
    layer, x = DeltaProjection(3, 10), torch.randn(2, 7, 3)
    layer.weight.requires_grad_(wanted == "weight")
    x.requires_grad_(wanted == "x")
    out = layer(x).sum()
    with ProductCounter() as products:
        out.backward()
    assert products.count == 1
    assert (x.grad is None, layer.weight.grad is None) == (wanted == "weight", wanted == "x")


class ProductCounter(TorchDispatchMode):
    """How many products of matrices there are."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket == torch.ops.aten.mm
        return func(*args, **(kwargs or {}))


def test_a_token_sees_only_tokens_before_it():
    mixer = make_mixer()
    tokens = torch.randn(1, 12, 8)
    changed = tokens.clone()
    changed[:, 7] += 1
    difference = (mixer(tokens) - mixer(changed)).abs().amax(dim=(0, 2))
    assert difference[:7].max() == 0
    assert difference[7:].min() > 0


def test_the_mixer_is_the_recurrence_of_the_paper():
    """Algorithm 2, one token and one channel at a time."""
    mixer = make_mixer(dim=3).double()
    tokens = torch.randn(1, 6, 3, dtype=torch.float64)
    u, z = (tokens[0] @ mixer.in_proj.weight.T).chunk(2, dim=-1)
    padded = F.pad(u, (0, 0, 3, 0))
    taps = mixer.conv1d.weight[:, 0]
    u = F.silu(torch.stack([(padded[t : t + 4] * taps.T).sum(0) for t in range(6)]) + mixer.conv1d.bias)
    low_rank, B, C = (u @ mixer.x_proj.weight.T).split([2, 4, 4], dim=-1)
    delta = F.softplus(low_rank @ mixer.dt_proj.weight.T + mixer.dt_proj.bias)
    expected = torch.empty(6, 6, dtype=torch.float64)
    for channel in range(6):
        state = torch.zeros(4, dtype=torch.float64)
        for t in range(6):
            decay = torch.exp(-delta[t, channel] * mixer.A_log[channel].exp())
            state = decay * state + delta[t, channel] * B[t] * u[t, channel]
            expected[t, channel] = (C[t] @ state + mixer.D[channel] * u[t, channel]) * F.silu(z[t, channel])
    torch.testing.assert_close(mixer(tokens)[0], expected @ mixer.out_proj.weight.T)


def test_a_new_mixer_starts_as_mamba_does():
    mixer = make_mixer(dim=64, delta_rank=4)
    delta = F.softplus(mixer.dt_proj.bias)
    assert delta.min() >= 0.99e-3
    assert delta.max() <= 0.101
    torch.testing.assert_close(mixer.A_log.exp()[5], torch.arange(1.0, 5.0))
    assert mixer.dt_proj.weight.abs().max() <= 0.5


def test_gradients_are_those_of_finite_differences():
    mixer = make_mixer(dim=2, state_dim=2, conv_taps=3, delta_rank=1).double()
    tokens = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    parameters = list(mixer.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: mixer(x), (tokens, *parameters))


@pytest.mark.parametrize("residual", [False, True])
def test_the_residual_of_a_block_is_a_switch(residual):
    block = ViMM(mixer=make_mixer(), residual=residual)
    torch.nn.init.zeros_(block.mixer.out_proj.weight)
    tokens = torch.randn(1, 5, 8)
    assert torch.equal(block(tokens), tokens if residual else torch.zeros_like(tokens))


# --- precision


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_what_decides_the_decay_stays_fp32_bit_for_bit(convert):
    mixer = make_mixer()
    before = {name: value.clone() for name, value in mixer.state_dict().items()}
    after = convert(mixer).state_dict()
    kept = {"A_log", "D", "dt_proj.weight", "dt_proj.bias"}
    assert {name for name, value in after.items() if value.dtype == torch.float32} == kept
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert all(value.dtype == torch.float64 for value in mixer.double().state_dict().values())


@pytest.mark.parametrize("autocast", [False, True])
def test_the_scan_gets_fp32_delta_b_and_c_at_bf16(monkeypatch, autocast):
    seen = {}

    def spy(u, delta, A, B, C, D, *, z, delta_bias, delta_softplus, **_):
        named = {"u": u, "z": z, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
        seen.update({name: value.dtype for name, value in named.items()})
        assert delta_softplus
        return u, None

    monkeypatch.setattr(mamba, "selective_scan", spy)
    mixer, tokens = make_mixer(), torch.randn(1, 6, 8)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            assert mixer(tokens).dtype == torch.bfloat16
    else:
        assert mixer.to(torch.bfloat16)(tokens.to(torch.bfloat16)).dtype == torch.bfloat16
    assert {name for name, dtype in seen.items() if dtype == torch.bfloat16} == {"u", "z"}
    assert {dtype for name, dtype in seen.items() if name not in ("u", "z")} == {torch.float32}


def test_tokens_reach_the_scan_without_a_copy_into_another_layout(monkeypatch):
    """(b, d, l) arguments whose memory is (b, l, d), which is what the fast scan wants."""

    def spy(u, delta, A, B, C, D, *, z, **_):
        assert all(x.stride(1) == 1 for x in (u, delta, B, C, z))
        return u, None

    monkeypatch.setattr(mamba, "selective_scan", spy)
    with torch.no_grad():
        assert make_mixer()(torch.randn(2, 6, 8)).is_contiguous()


def test_a_sequence_in_parts_equals_the_whole(monkeypatch):
    torch.manual_seed(0)
    mixer, tokens = make_mixer(), torch.randn(2, 50, 8)
    whole = mixer(tokens)  # gradients are on, so it is done at once
    for part in (2, 7, 49, 50, 51):
        monkeypatch.setattr(mamba, "PART", part)
        with torch.no_grad():
            torch.testing.assert_close(mixer(tokens), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("device", "parts"), [("cpu", 3), ("meta", 1)])  # a device that is no CPU
def test_only_the_cpu_takes_a_sequence_in_parts(monkeypatch, device, parts):
    taken = []

    def mix(tokens, lead=0, state=None):
        taken.append(tokens.shape[1] - lead)
        return tokens[:, lead:], state

    block = ViMM(mixer=make_mixer(), residual=True).to(device)
    monkeypatch.setattr(mamba, "PART", 20)
    monkeypatch.setattr(block.mixer, "mix", mix)
    with torch.no_grad():
        assert block(torch.empty(2, 50, 8, device=device)).shape == (2, 50, 8)
    assert len(taken) == parts
    assert sum(taken) == 50
