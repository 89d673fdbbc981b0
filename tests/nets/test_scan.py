"""The selective scan: every backend against the authors' numbers, against fp64, and against its contract."""

import inspect
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from dacesr.nets import scan, scan_native
from dacesr.nets.scan import available_backends, selective_scan, selective_scan_reference
from dacesr.nets.scan_chunked import SEGMENT_ELEMENTS

FIXTURE = Path(__file__).parents[1] / "fixtures" / "selective_scan.npz"
INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
BACKENDS = [name for name in available_backends() if name != "triton"]  # those for the CPU
FAST = [name for name in BACKENDS if name != "reference"]


def draw(b, d, l, n, *, seed=0, dtype=torch.float32, channel_last=True, optional=True):
    g = torch.Generator().manual_seed(seed)

    def rows(width):
        x = torch.randn(b, l, width, generator=g, dtype=torch.float64).to(dtype).mT
        return x if channel_last else x.contiguous()

    inputs = {"u": rows(d), "delta": 0.5 * rows(d), "B": rows(n), "C": rows(n)}
    inputs["A"] = -4 * torch.rand(d, n, generator=g, dtype=torch.float64).float()
    if optional:
        inputs |= {"z": rows(d), "D": torch.randn(d, generator=g), "delta_bias": torch.randn(d, generator=g)}
    return inputs


def differentiate(inputs, backend, weight=None, last_weight=None, **options):
    leaves = {k: x.detach().requires_grad_() for k, x in inputs.items()}
    y, last = selective_scan(**leaves, backend=backend, return_last_state=True, **options)
    g = torch.Generator().manual_seed(99)
    weight = torch.randn(y.shape, generator=g) if weight is None else weight
    last_weight = torch.randn(last.shape, generator=g) if last_weight is None else last_weight
    loss = (y.double() * weight.double()).sum() + (last.double() * last_weight.double()).sum()
    return y.detach(), last.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def assert_all_close(ours, exact, tolerance, least=1e-12):
    """Errors relative to each tensor's largest value, or to `least`, the size of terms whose sum may cancel."""
    for name, x in exact.items():
        scale = x.abs().max().clamp_min(least)
        error = ((ours[name].double() - x) / scale).abs().max().item()
        assert error < tolerance, f"{name}: relative error {error:.2e}"


def against_fp64(inputs, backend, tolerance, **options):
    y, last, grads = differentiate(inputs, backend, **options)
    exact = differentiate({k: x.double() for k, x in inputs.items()}, "reference", **options)
    assert_all_close({"y": y, "last": last, **grads}, {"y": exact[0], "last": exact[1], **exact[2]}, tolerance, least=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_authors_scan_and_gradients(backend):
    reference = {k: torch.from_numpy(v) for k, v in np.load(FIXTURE).items()}
    y, last, grads = differentiate(
        {k: reference[k] for k in INPUTS},
        backend,
        weight=reference["w"],
        last_weight=torch.zeros_like(reference["last_state"]),
        delta_softplus=True,
    )
    exact = {"y": reference["y"], "last_state": reference["last_state"]}
    exact |= {k: reference[f"grad_{k}"] for k in INPUTS}
    assert_all_close({"y": y, "last_state": last, **grads}, exact, 2e-6)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(1, 3),
    d=st.integers(1, 40),
    l=st.integers(1, 100),
    n=st.sampled_from([1, 2, 3, 5, 8, 13, 16, 17, 31, 64]),
    softplus=st.booleans(),
    optional=st.booleans(),
    channel_last=st.booleans(),
)
def test_any_size_equals_fp64(backend, b, d, l, n, softplus, optional, channel_last):
    inputs = draw(b, d, l, n, seed=b + d + l, channel_last=channel_last, optional=optional)
    if not softplus:
        inputs |= {k: inputs[k].abs() for k in ("delta", "delta_bias") if k in inputs}  # steps are positive
    against_fp64(inputs, backend, 2e-5, delta_softplus=softplus)


@pytest.mark.parametrize("backend", FAST)
def test_long_sequence_with_slow_decay(backend):
    inputs = draw(1, 3, 6000, 4)
    inputs["A"] = inputs["A"] * 1e-3  # remembers thousands of tokens
    inputs["delta_bias"] = inputs["delta_bias"] - 3
    against_fp64(inputs, backend, 5e-5, delta_softplus=True)


def test_chunked_in_many_segments():
    n, d = 64, 128
    inputs = draw(1, d, 3 * SEGMENT_ELEMENTS // (n * d) + 7, n, seed=4)
    against_fp64(inputs, "chunked", 2e-5, delta_softplus=True)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_lose_no_more_than_their_rounding(backend, dtype):
    inputs = draw(2, 20, 70, 16, dtype=dtype)
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    exact, exact_last = selective_scan(
        **{k: x.double() for k, x in inputs.items()}, delta_softplus=True, return_last_state=True, backend="reference"
    )
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    assert ((y.double() - exact).abs() <= 0.51 * eps * exact.abs() + 1e-5).all()
    torch.testing.assert_close(last.double(), exact_last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_gradients_have_the_type_of_their_inputs(dtype):
    inputs = draw(1, 12, 40, 16, dtype=dtype)
    _, _, grads = differentiate(inputs, "native", delta_softplus=True)
    _, _, exact = differentiate({k: x.double() for k, x in inputs.items()}, "reference", delta_softplus=True)
    assert {k: g.dtype for k, g in grads.items()} == {k: x.dtype for k, x in inputs.items()}
    assert_all_close(grads, exact, 2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("isa", scan_native.instruction_sets())
def test_every_instruction_set_of_this_processor(isa, monkeypatch):
    class Forced:
        BLOCK = scan_native._native.BLOCK
        width = staticmethod(lambda: native.width(isa))
        forward = staticmethod(lambda *args: native.forward(*args, isa))
        backward = staticmethod(lambda *args: native.backward(*args, isa))
        slices_for = staticmethod(lambda *args: native.slices_for(*args, isa))

    native = scan_native._native
    monkeypatch.setattr(scan_native, "_native", Forced)
    for d, l, n in [(37, 75, 16), (8, 33, 5), (1, 1, 1), (50, 64, 64)]:
        against_fp64(draw(2, d, l, n, seed=d), "native", 1e-5, delta_softplus=True)


def test_same_bytes_on_any_run_and_close_on_any_number_of_threads():
    inputs = draw(1, 48, 200, 16)
    threads = torch.get_num_threads()
    try:
        runs = []
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            runs.append(differentiate(inputs, "native", delta_softplus=True))
    finally:
        torch.set_num_threads(threads)
    for name, g in runs[1][2].items():
        assert torch.equal(g, runs[2][2][name]), name
        torch.testing.assert_close(g, runs[0][2][name], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(g, runs[3][2][name], rtol=1e-5, atol=1e-4)
    assert torch.equal(runs[0][0], runs[3][0])


@pytest.mark.parametrize("backend", FAST)
def test_extreme_steps_and_not_a_number(backend):
    inputs = draw(1, 9, 12, 16, optional=False)
    inputs["delta"] = torch.tensor([-300.0, -90.0, -20.0, 0.0, 20.0, 90.0, 300.0, 1e4, 0, 0, 0, 0]).expand(1, 9, 12)
    y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    exact = selective_scan(**inputs, delta_softplus=True, backend="reference")
    torch.testing.assert_close(y, exact, rtol=1e-5, atol=1e-5)
    for name in ("u", "delta", "B", "C", "A"):
        broken = {k: x.clone() for k, x in inputs.items()}
        broken[name][(0,) * broken[name].ndim] = float("nan")
        assert selective_scan(**broken, delta_softplus=True, backend=backend).isnan().any(), name


def test_rows_of_a_wider_tensor_are_read_in_place():
    wide = torch.randn(2, 50, 2 * 24 + 2 * 16)
    u, z, B, C = (x.mT for x in wide.split([24, 24, 16, 16], dim=-1))
    delta, A = torch.rand(2, 50, 24).mT, -torch.rand(24, 16)
    y = selective_scan(u, delta, A, B, C, z=z, backend="native")
    y_copied = selective_scan(*(x.contiguous() for x in (u, delta, A, B, C)), z=z.contiguous(), backend="native")
    assert torch.equal(y, y_copied)
    assert y.mT.is_contiguous()


def test_operator_passes_pytorch_checks():
    inputs = {k: x.requires_grad_() for k, x in draw(2, 6, 40, 5).items()}
    rows = {k: x.mT if k in ("u", "delta", "B", "C", "z") else x for k, x in inputs.items()}
    order = inspect.signature(scan_native.selective_scan_native).parameters
    args = tuple(rows[k].detach().requires_grad_() for k in order if k in rows)
    torch.library.opcheck(scan_native.scan_op, (*args, True, None, True))


def test_export_traces_through_the_operator():
    class Net(torch.nn.Module):
        def forward(self, u, delta, A, B, C):
            return selective_scan(u, delta, A, B, C, delta_softplus=True)

    inputs = draw(1, 4, 20, 3, optional=False)
    args = tuple(inputs[k] for k in ("u", "delta", "A", "B", "C"))
    length = torch.export.Dim("length", min=2, max=4096)
    shapes = ({2: length}, {2: length}, None, {2: length}, {2: length})
    program = torch.export.export(Net(), args, dynamic_shapes=shapes)
    assert "dacesr.selective_scan" in str(program.graph)
    longer = draw(1, 4, 45, 3, optional=False)
    args = tuple(longer[k] for k in ("u", "delta", "A", "B", "C"))
    assert torch.equal(program.module()(*args), Net()(*args))


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_parts_equals_at_once(backend):
    inputs = draw(2, 10, 70, 6)
    whole, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True, backend=backend)
    state, parts = None, []
    for part in (slice(0, 33), slice(33, 34), slice(34, 70)):
        some = {k: x[..., part] if k in ("u", "delta", "B", "C", "z") else x for k, x in inputs.items()}
        y, state = selective_scan(
            **some, delta_softplus=True, return_last_state=True, backend=backend, initial_state=state
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_after_an_initial_state(backend):
    inputs = draw(1, 5, 40, 4)
    start = torch.randn(1, 5, 4)
    against_fp64(inputs, backend, 1e-5, delta_softplus=True, initial_state=start)
    with pytest.raises(ValueError, match="detach it"):
        selective_scan(**inputs, initial_state=start.requires_grad_(), backend=backend)


def test_backends_are_listed_and_bad_calls_are_told():
    assert available_backends()[0] == "native"
    inputs = draw(1, 4, 5, 3)
    with pytest.raises(ValueError, match=r"unknown selective scan backend 'cuda'; available: auto, native"):
        selective_scan(**inputs, backend="cuda")
    with pytest.raises(ValueError, match=r"the triton selective scan cannot be used here: it (runs on|needs)"):
        selective_scan(**inputs, backend="triton")
    with pytest.raises(ValueError, match=r"float64"):
        selective_scan(**{k: x.double() for k, x in inputs.items()}, backend="native")
    with pytest.raises(ValueError, match=r"up to 64 states and A has 65"):
        selective_scan(**draw(1, 2, 3, 65), backend="native")
    with pytest.raises(ValueError, match=r"B must be \(1, 3, 5\).*got \(1, 3, 4\)"):
        selective_scan(**{**inputs, "B": inputs["B"][..., :4]})
    with pytest.raises(ValueError, match=r"l >= 1"):
        selective_scan(**draw(1, 2, 0, 3))


def test_auto_falls_back_where_native_cannot_help():
    inputs = draw(1, 2, 9, 65)
    torch.testing.assert_close(selective_scan(**inputs), selective_scan(**inputs, backend="reference"))
    double = {k: x.double() for k, x in draw(1, 2, 9, 4).items()}
    assert selective_scan(**double).dtype == torch.float64


@pytest.mark.parametrize("backend", FAST)
def test_autocast_changes_nothing(backend):
    inputs = draw(1, 5, 40, 3)
    plain = differentiate(inputs, backend, delta_softplus=True)
    with torch.autocast("cpu", torch.bfloat16):
        y, last, grads = differentiate(inputs, backend, delta_softplus=True)
    assert torch.equal(y, plain[0])
    assert torch.equal(last, plain[1])
    assert [name for name, grad in grads.items() if not torch.equal(grad, plain[2][name])] == []


def test_mamba_ssm_is_called_as_it_wants_to_be(monkeypatch):
    """Its kernel takes channel-first tensors of one type, and fp32 for D and the bias; here the reference stands in."""

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        assert all(x.is_contiguous() and x.dtype == torch.float32 for x in (u, delta, B, C, z, A, D, delta_bias))
        assert return_last_state
        return selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus)

    module = ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = selective_scan_fn
    monkeypatch.setitem(sys.modules, module.__name__, module)
    inputs = draw(2, 5, 7, 3)
    given = {**inputs, "u": inputs["u"].bfloat16(), "z": inputs["z"].bfloat16(), "D": inputs["D"].bfloat16()}
    out, last = scan._selective_scan_mamba(**given, delta_softplus=True, initial_state=None)
    exact, wanted = selective_scan(**given, delta_softplus=True, return_last_state=True, backend="reference")
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact)
    assert torch.allclose(last, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("there", "device", "words"),
    [(False, "cuda", "it needs the package mamba-ssm"), (True, "cpu", "it runs on CUDA devices and u is on cpu")],
)
def test_mamba_ssm_says_what_it_lacks(there, device, words, monkeypatch):
    monkeypatch.setattr(scan, "_HAS_MAMBA", there)
    with FakeTensorMode():
        u, A, B = (torch.empty(*shape, device=device) for shape in ((1, 4, 9), (4, 2), (1, 2, 9)))
    with pytest.raises(ValueError, match=f"the mamba selective scan cannot be used here: {words}"):
        selective_scan(u, u, A, B, B, backend="mamba")
