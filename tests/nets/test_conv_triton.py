"""The Triton convolution: in Triton's interpreter on the CPU, compiled for a GPU without one, and on a GPU.

Triton reads TRITON_INTERPRET when it is imported, so this file also runs as a script and prints what it finds as JSON.
"""

import json
from importlib.util import find_spec

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = ("out", "x", "weight", "bias")
# name: (b, l, d, taps), and what differs from fp32 rows of a wider tensor with a bias
CASES = {
    "one token": ((2, 1, 3, 4), {}),
    "one channel": ((1, 131, 1, 4), {}),
    "two programs along tokens, two along channels": ((2, 130, 67, 4), {}),
    "one tap": ((1, 3, 5, 1), {}),
    "eight taps": ((1, 19, 5, 8), {}),
    "whole programs": ((1, 128, 64, 3), {}),
    "without a bias": ((1, 9, 5, 4), {"bias": False}),
    "channel-first memory": ((2, 9, 5, 4), {"layout": "channel-first"}),
    "packed rows": ((2, 9, 5, 4), {"layout": "packed"}),
    "bfloat16": ((1, 33, 7, 4), {"dtype": torch.bfloat16}),
    "float16 with weights of its own": ((1, 33, 7, 4), {"dtype": torch.float16, "weights": torch.float16}),
}


def draw(shape, bias=True, layout="wide", dtype=torch.float32, weights=torch.float32, device="cpu"):
    """x, weight, bias and the gradient of the output."""
    (b, l, d, taps), g = shape, torch.Generator().manual_seed(sum(shape))

    def rows():
        x = torch.randn(b, l, 2 * d, generator=g).to(device, dtype).chunk(2, dim=-1)[1]
        return {"wide": x, "packed": x.contiguous(), "channel-first": x.mT.contiguous().mT}[layout]

    weight, shift = torch.randn(d, 1, taps, generator=g), torch.randn(d, generator=g)
    return rows(), weight.to(device, weights), shift.to(device, weights) if bias else None, rows()


def plain(x, weight, bias):
    padded = F.pad(x.mT, (weight.shape[-1] - 1, 0))
    return F.silu(F.conv1d(padded, weight, bias, groups=x.shape[-1])).mT


def results(function, x, weight, bias, grad):
    """The output and the gradients of the inputs that there are."""
    leaves = {
        name: t.detach().requires_grad_() for name, t in zip(NAMES[1:], (x, weight, bias), strict=True) if t is not None
    }
    out = function(leaves["x"], leaves["weight"], leaves.get("bias"))
    return {
        "out": out.detach(),
        **dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), grad), strict=True)),
    }


def compared(function, inputs):
    """Largest errors relative to each tensor's largest value, or to 1; and the types."""
    ours = results(function, *inputs)
    exact = results(plain, *(None if t is None else t.double() for t in inputs))
    scaled = {k: (ours[k].double() - t).abs().max() / t.abs().max().clamp_min(1) for k, t in exact.items()}
    return {k: error.item() for k, error in scaled.items()}, {k: str(t.dtype) for k, t in ours.items()}


def main() -> None:
    from dacesr.nets.conv_triton import causal_conv_silu_triton, conv_op

    found = {}
    for name, (shape, differences) in CASES.items():
        found[name] = dict(
            zip(("errors", "types"), compared(causal_conv_silu_triton, draw(shape, **differences)), strict=True)
        )
    x, weight, bias, grad = draw((2, 9, 6, 4))
    args = [t.detach().requires_grad_() for t in (x, weight[:, 0], bias)]
    found["opcheck"] = [torch.library.opcheck(conv_op, args), torch.library.opcheck(conv_op, [*args[:2], None])]
    compiled = torch.compile(causal_conv_silu_triton, backend="aot_eager", fullgraph=True)
    one, other = (results(f, x, weight, bias, grad) for f in (compiled, causal_conv_silu_triton))
    found["compiled"] = all(torch.equal(one[k], other[k]) for k in one)
    x[0, 3, 1] = float("nan")
    found["not a number"] = causal_conv_silu_triton(x, weight, bias).isnan().nonzero().tolist()
    print(json.dumps(found))


@pytest.fixture(scope="module")
def interpreted():
    from interpreter import interpreted_by  # beside conftest: a script does not find it

    return interpreted_by(__file__)


def tolerance(dtype):
    return 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps


@pytest.mark.parametrize("name", CASES)
def test_interpreted_equals_fp64(interpreted, name):
    given = CASES[name][1]
    rows, weights = given.get("dtype", torch.float32), given.get("weights", torch.float32)
    dtypes = {"out": rows, "x": rows, "weight": weights, "bias": weights}
    if not given.get("bias", True):
        del dtypes["bias"]
    assert interpreted[name]["types"] == {k: str(dtype) for k, dtype in dtypes.items()}
    assert {k: e for k, e in interpreted[name]["errors"].items() if not e < tolerance(dtypes[k])} == {}


def test_interpreted_operator_passes_pytorch_checks_and_compiles(interpreted):
    assert [set(checks.values()) for checks in interpreted["opcheck"]] == [{"SUCCESS"}] * 2
    assert interpreted["compiled"]


def test_interpreted_not_a_number_reaches_the_tokens_that_see_it(interpreted):
    assert interpreted["not a number"] == [[0, token, 1] for token in range(3, 7)]


@pytest.mark.parametrize(("kernel", "wide"), [("forward", 16), ("backward", 8)])
@pytest.mark.parametrize(("d", "taps", "bias"), [(360, 4, True), (120, 4, False), (67, 8, True)])
def test_compiles_for_an_h100_with_wide_loads(kernel, wide, d, taps, bias, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dacesr.nets import conv_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(conv_triton, f"conv_{kernel}")
    x, weight = torch.empty(1, 9, 2 * d)[..., :d], torch.empty(d, taps)
    streams = conv_triton._FORWARD_STREAMS if kernel == "forward" else conv_triton._BACKWARD_STREAMS
    constants = conv_triton._constants(x, weight, streams) | {"DOUT_ROW": d} | ({} if bias else {"bias": None})
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    signature, multiples = {}, {}
    for place, name in enumerate(function.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        else:
            number = name == "l" or name.endswith("_image")
            fp32 = name in ("weight", "bias", "dweight", "dbias")
            signature[name] = "i32" if number else "*fp32" if fp32 else "*bf16"
            multiples[place,] = [["tt.divisibility", 16]]
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=multiples)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=conv_triton._LAUNCH)
    assert made.metadata.shared < 16 * 1024
    rows = conv_triton._ROWS + (taps - 1) * (1 if kernel == "forward" else 3)  # and dout's backward
    rows += 0 if kernel == "forward" else conv_triton._ROWS
    narrow = d % 8 != 0
    loads = made.asm["ptx"].count(f"ld.global.v{wide // 4}.b32")
    assert narrow or loads >= rows


@pytest.mark.parametrize(
    ("installed", "taps", "dtype", "wanted"),
    [
        (True, 4, torch.bfloat16, "triton"),
        (True, 8, torch.float32, "triton"),
        (True, 9, torch.float32, "torch"),
        (True, 4, torch.float64, "torch"),
        (False, 4, torch.float32, "torch"),
    ],
)
def test_cuda_tensors_are_convolved_by_triton_where_it_can(installed, taps, dtype, wanted, monkeypatch):
    from dacesr.nets import conv_triton, mamba

    monkeypatch.setattr(mamba, "has_triton", lambda: installed)
    monkeypatch.setattr(conv_triton, "causal_conv_silu_triton", lambda *_: "triton")
    monkeypatch.setattr(mamba, "causal_conv1d", lambda x, *_: x)
    monkeypatch.setattr(F, "silu", lambda _: "torch")
    with FakeTensorMode():
        x, weight = torch.empty(1, 9, 6, device="cuda", dtype=dtype), torch.empty(6, 1, taps, device="cuda")
        assert mamba.causal_conv_silu(x, weight, None) == wanted


class TestOnGpu:
    pytestmark = on_gpu

    @pytest.mark.parametrize(
        ("d", "l", "taps", "dtype"),  # each makes kernels of its own, which takes seconds
        [
            (360, 1000, 4, torch.bfloat16),
            (360, 3, 4, torch.bfloat16),
            (360, 1000, 4, torch.float32),
            (360, 2, 8, torch.float16),
            (67, 1000, 8, torch.float32),
            (67, 1000, 1, torch.bfloat16),
            (67, 1, 4, torch.float32),
            (1, 1, 1, torch.float32),
            (1, 1000, 4, torch.float16),
        ],
    )
    def test_equals_fp64(self, d, l, taps, dtype):
        from dacesr.nets.conv_triton import causal_conv_silu_triton

        errors, _ = compared(causal_conv_silu_triton, draw((3, l, d, taps), dtype=dtype, device="cuda"))
        wanted = {"out": dtype, "x": dtype, "weight": torch.float32, "bias": torch.float32}  # of the types
        assert {k: e for k, e in errors.items() if not e < tolerance(wanted[k])} == {}

    @pytest.mark.parametrize("layout", ["packed", "channel-first"])
    def test_equals_fp64_in_any_memory(self, layout):
        from dacesr.nets.conv_triton import causal_conv_silu_triton

        errors, _ = compared(causal_conv_silu_triton, draw((2, 300, 40, 4), layout=layout, device="cuda"))
        assert {k: e for k, e in errors.items() if not e < tolerance(torch.float32)} == {}

    def test_gives_the_same_bytes_on_any_run(self):
        from dacesr.nets.conv_triton import causal_conv_silu_triton

        inputs = draw((8, 4096, 120, 4), dtype=torch.bfloat16, device="cuda")
        first, second = (results(causal_conv_silu_triton, *inputs) for _ in range(2))
        assert [k for k in first if not torch.equal(first[k], second[k])] == []

    def test_beyond_two_to_the_31_elements(self):
        from dacesr.nets.conv_triton import causal_conv_silu_triton

        tokens, d = 3 << 20, 720
        x = torch.zeros(1, tokens, d, dtype=torch.bfloat16, device="cuda")
        x[0, -1] = 1
        weight = torch.ones(d, 1, 4, device="cuda")
        out = causal_conv_silu_triton(x, weight, None)
        expected = F.silu(torch.ones((), device="cuda")).bfloat16()
        assert torch.equal(out[0, -1], expected.expand(d))
        assert out[0, :-1].count_nonzero() == 0


if __name__ == "__main__":
    main()
