"""The Triton scan: in Triton's interpreter on the CPU, compiled for a GPU without one, and on a GPU where there is one.

Triton reads TRITON_INTERPRET when it is imported, so this file also runs as a script and prints what it finds as JSON.
"""

import inspect
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dacesr.nets import scan
from dacesr.nets.scan import selective_scan, selective_scan_reference

FIXTURE = Path(__file__).parents[1] / "fixtures" / "selective_scan.npz"
pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OPTIONAL = ("D", "z", "delta_bias")
# name: (b, d, l, n), and what differs from all optional inputs, softplus, fp32 and channel-last memory
CASES = {
    "one token": ((1, 3, 1, 16), {}),
    "nothing optional": ((2, 5, 7, 5), {"optional": (), "softplus": False}),
    "D alone": ((1, 3, 7, 4), {"optional": ("D",)}),
    "z alone": ((1, 3, 7, 4), {"optional": ("z",)}),
    "bias alone, without softplus": ((1, 3, 7, 4), {"optional": ("delta_bias",), "softplus": False}),
    "three chunks, two blocks of channels, an initial state": ((2, 18, 67, 16), {"start": True}),
    "whole chunks": ((1, 4, 64, 5), {}),
    "64 states": ((1, 5, 33, 64), {}),
    "one state": ((1, 17, 9, 1), {}),
    "channel-first memory": ((1, 4, 9, 3), {"layout": "channel-first"}),
    "rows of a wider tensor": ((2, 4, 9, 3), {"layout": "wide"}),
    "bfloat16": ((1, 18, 35, 16), {"dtype": torch.bfloat16}),
    "float16": ((1, 5, 35, 5), {"dtype": torch.float16}),
    "bfloat16 with a float32 step": ((1, 5, 35, 5), {"dtype": torch.bfloat16, "step": torch.float32}),
}


def draw(shape, optional=OPTIONAL, softplus=True, start=False, layout="", dtype=torch.float32, step=None, device="cpu"):
    """Inputs, and options that have no gradient."""
    b, d, l, n = shape
    g = torch.Generator().manual_seed(sum(shape))

    def rows(width, dtype=dtype):
        x = torch.randn(b, l, width + 3 * (layout == "wide"), generator=g).to(device, dtype)[..., :width].mT
        return x.contiguous() if layout == "channel-first" else x

    delta = 0.5 * rows(d, step or dtype)
    inputs = {"u": rows(d), "delta": delta if softplus else delta.abs(), "B": rows(n), "C": rows(n), "z": rows(d)}
    inputs |= {"A": -4 * torch.rand(d, n, generator=g).to(device)}
    inputs |= {name: torch.rand(d, generator=g).to(device) for name in ("D", "delta_bias")}
    inputs = {k: x for k, x in inputs.items() if k not in OPTIONAL or k in optional}
    return inputs, {
        "delta_softplus": softplus,
        "initial_state": torch.randn(b, d, n, generator=g).to(device) if start else None,
    }


def results(function, inputs, options, weight=None, last_weight=None):
    """out, the last state and, under the names of the inputs, the gradients of their sum under random weights."""
    leaves = {k: x.detach().requires_grad_() for k, x in inputs.items()}
    y, last = function(**leaves, **options)
    g = torch.Generator().manual_seed(99)
    weight = torch.randn(y.shape, generator=g).to(y.device) if weight is None else weight
    last_weight = torch.randn(last.shape, generator=g).to(y.device) if last_weight is None else last_weight
    loss = (y.double() * weight).sum() + (last.double() * last_weight).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return {"y": y.detach(), "last": last.detach(), **dict(zip(leaves, grads, strict=True))}


def errors(ours, exact, least=1.0):
    """Largest errors, relative to each tensor's largest value or to `least`, the size of terms whose sum may cancel."""
    return {k: ((ours[k].double() - x).abs().max() / x.abs().max().clamp_min(least)).item() for k, x in exact.items()}


def worse(ours, reference):
    """Errors that are larger than those of the reference, but for what another order of an fp32 sum rounds."""
    return {k: (e, reference[k]) for k, e in ours.items() if not e <= 1.05 * reference[k] + 1e-6}


def double(inputs):
    return {k: x.double() for k, x in inputs.items()}


def types(tensors):
    return {k: str(x.dtype) for k, x in tensors.items()}


def in_triton(**arguments):
    return selective_scan(**arguments, return_last_state=True, backend="triton")


def main() -> None:
    from dacesr.nets import scan_triton
    from dacesr.nets.scan_triton import selective_scan_triton

    found = {}
    for name, (shape, differences) in CASES.items():
        inputs, options = draw(shape, **differences)
        ours = results(selective_scan_triton, inputs, options)
        exact = results(selective_scan_reference, double(inputs), options)
        found[name] = {
            "errors": errors(ours, exact),
            "of the reference": errors(results(selective_scan_reference, inputs, options), exact),
            "types": types(ours),
            "wanted": types({"y": inputs["u"], **inputs}),
        }

    recorded = {k: torch.from_numpy(v) for k, v in np.load(FIXTURE).items()}
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    ours = results(
        selective_scan_triton, {k: recorded[k] for k in names}, {"delta_softplus": True}, recorded["w"], torch.zeros(())
    )
    exact = {"y": recorded["y"], "last": recorded["last_state"], **{k: recorded[f"grad_{k}"] for k in names}}
    found["recorded"] = errors(ours, exact, least=1e-12)

    inputs, options = draw((1, 4, 8, 3), optional=())
    inputs["delta"] = torch.tensor([-300.0, -90.0, -9.0, 0.0, 20.0, 90.0, 300.0, 1e4]).expand(1, 4, 8)
    ours, exact = (f(**inputs, **options)[0] for f in (selective_scan_triton, selective_scan_reference))
    found["extreme steps"] = errors({"y": ours}, {"y": exact})
    inputs["u"][0, 1, 2] = float("nan")
    found["not a number"] = selective_scan_triton(**inputs, **options)[0].isnan().any(-1).tolist()

    u = torch.ones(1, 1, 1)
    steps = torch.linspace(-16, 25, 83)  # the state after one token from zero is the step itself
    ours = [selective_scan_triton(u, u * x, -u[0], u, u, delta_softplus=True)[1].item() for x in steps]
    exact = torch.nn.functional.softplus(steps.double())
    found["softplus"] = ((torch.tensor(ours).double() - exact) / exact).abs().max().item()

    scan_triton._SHORTEST = scan_triton.CHUNK
    inputs, options = draw((1, 3, 75, 2), start=True)  # ten segments, of which eight are joined at a time
    ours, exact = (
        results(f, x, options) for f, x in ((selective_scan_triton, inputs), (selective_scan_reference, double(inputs)))
    )
    found["ten segments"] = errors(ours, exact)

    inputs, options = draw((1, 3, 5, 2))
    rows = {k: x.mT if k in ("u", "delta", "B", "C", "z") else x for k, x in inputs.items()}
    order = inspect.signature(selective_scan_triton).parameters
    args = tuple(rows[k].detach().requires_grad_() for k in order if k in rows)
    found["opcheck"] = torch.library.opcheck(scan_triton.scan_op, (*args, True, None, True))

    compiled = torch.compile(selective_scan_triton, backend="aot_eager", fullgraph=True)
    plain = results(selective_scan_triton, inputs, options)
    found["compiled"] = errors(results(compiled, inputs, options), plain)
    y = selective_scan_triton(**inputs)[0]
    found["out is channel-last"] = y.mT.is_contiguous()
    print(json.dumps(found))


@pytest.fixture(scope="module")
def interpreted():
    from interpreter import interpreted_by  # beside conftest: a script does not find it

    return interpreted_by(__file__)


@pytest.mark.parametrize("name", CASES)
def test_interpreted_equals_fp64(interpreted, name):
    dtype = CASES[name][1].get("dtype", torch.float32)
    tolerance = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    found = interpreted[name]
    assert {k: e for k, e in found["errors"].items() if not e < tolerance} == {}
    assert found["types"] == {"last": "torch.float32", **found["wanted"]}


def test_interpreted_float16_is_no_worse_than_the_references(interpreted):
    """Both round their results, so the largest errors are alike. (The interpreter cuts bfloat16 off instead.)"""
    ours, reference = (interpreted["float16"][which] for which in ("errors", "of the reference"))
    assert worse(ours, reference) == {}


def test_interpreted_equals_the_authors_scan_and_gradients(interpreted):
    assert {k: e for k, e in interpreted["recorded"].items() if not e < 2e-6} == {}


def test_interpreted_extreme_steps_and_not_a_number(interpreted):
    assert interpreted["extreme steps"]["y"] < 1e-5
    assert interpreted["not a number"] == [[False, True, False, False]]


def test_interpreted_softplus_keeps_the_digits_of_small_steps(interpreted):
    assert interpreted["softplus"] < 1e-6


def test_interpreted_in_many_segments(interpreted):
    assert {k: e for k, e in interpreted["ten segments"].items() if not e < 1e-5} == {}


def test_interpreted_operator_passes_pytorch_checks_and_compiles(interpreted):
    assert set(interpreted["opcheck"].values()) == {"SUCCESS"}
    assert set(interpreted["compiled"].values()) == {0.0}
    assert interpreted["out is channel-last"]


@pytest.mark.parametrize("kernel", ["forward", "backward", "carry", "join"])
@pytest.mark.parametrize(
    ("dtype", "n", "l", "optional"),
    [("fp32", 16, 64, True), ("fp32", 16, 64, False), ("bf16", 16, 67, True), ("fp16", 64, 64, True)],
)
def test_compiles_for_an_h100(kernel, dtype, n, l, optional, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dacesr.nets import scan_kernels, scan_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(scan_kernels, kernel)
    u, A = torch.empty(2, l, 360), torch.empty(360, n)
    constants = scan_triton._scan(u, A, None, None, True, 8).constants | {"REVERSE": 1}
    constants |= {name: 360 for name in function.arg_names if name.endswith("_ROW")}
    if not optional:
        absent = {"forward": ("D", "z", "bias", "entries", "starts"), "backward": ("D", "z", "bias", "dz")}
        constants |= dict.fromkeys(absent.get(kernel, ("z", "bias", "first")))
    given = ("u", "x", "delta", "B", "C", "M", "z", "dout", "out", "du", "ddelta", "dz")  # the others are fp32 always
    signature = {}
    for name in function.arg_names:
        number = name in ("l", "span", "segments") or name.endswith("_image")
        signature[name] = "i32" if number else f"*{dtype}" if name in given else "*fp32"
        if name in constants:
            signature[name] = "constexpr"
    known = {name: value for name, value in constants.items() if name in signature}
    aligned = [p for p in function.params if signature[p.name].startswith("*") and not p.do_not_specialize_on_alignment]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs=known,
        attrs={(p.num,): [["tt.divisibility", 16]] for p in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=scan_triton._LAUNCH)
    assert made.metadata.shared < 16 * 1024
    assert "lg2.approx" not in made.asm["ptx"]  # it has too few digits for the softplus of small steps


@pytest.mark.parametrize(
    ("shape", "n", "segments"),
    [
        ((32, 4096, 360), 16, 3),
        ((96, 4096, 360), 16, 1),
        ((1, 65536, 360), 16, 88),
        ((1, 16384, 64), 8, 512),
        ((1, 1, 3), 16, 1),
        ((1, 33, 3), 2, 3),
    ],
)
def test_short_batches_are_cut_into_segments(shape, n, segments):
    from dacesr.nets import scan_triton

    plan = scan_triton._plan(torch.empty(shape), n, 8)
    assert plan.segments == segments
    assert plan.span % scan_triton.CHUNK == 0
    assert (segments - 1) * plan.span < shape[1] <= segments * plan.span


@pytest.mark.parametrize(
    ("installed", "n", "dtype", "wanted"),
    [
        (True, 16, torch.float32, "triton"),
        (True, 16, torch.bfloat16, "triton"),
        (True, 65, torch.float32, "chunked"),
        (True, 16, torch.float64, "chunked"),
        (False, 16, torch.float32, "chunked"),
    ],
)
def test_auto_takes_triton_for_cuda_tensors_where_it_can(installed, n, dtype, wanted, monkeypatch):
    monkeypatch.setattr(scan, "has_triton", lambda: installed)
    for name in ("triton", "chunked"):
        monkeypatch.setitem(scan._BACKENDS, name, lambda *_, name=name: (name, None))
    with FakeTensorMode():
        u, A, B = (torch.empty(*shape, device="cuda", dtype=dtype) for shape in ((1, 4, 9), (4, n), (1, n, 9)))
        assert selective_scan(u, u, A, B, B) == wanted


class TestOnGpu:
    pytestmark = on_gpu

    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [
            ((24, 360, 1024, 16), torch.float32),
            ((24, 360, 1024, 16), torch.bfloat16),
            ((2, 360, 2049, 16), torch.bfloat16),
            ((1, 64, 16384, 8), torch.float32),
            ((3, 67, 501, 5), torch.float16),
            ((1, 40, 300, 64), torch.float32),
        ],
    )
    def test_equals_fp64(self, shape, dtype):
        inputs, options = draw(shape, start=True, dtype=dtype, device="cuda")
        ours = results(in_triton, inputs, options)

        def chunked(**arguments):
            return selective_scan(**arguments, return_last_state=True, backend="chunked")

        tolerance = 5e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        found = errors(ours, results(chunked, double(inputs), options))
        assert {k: e for k, e in found.items() if not e < tolerance} == {}

    def test_bfloat16_is_no_worse_than_the_references(self):
        inputs, options = draw((2, 67, 300, 16), dtype=torch.bfloat16, device="cuda")
        exact = results(selective_scan_reference, double(inputs), options)
        reference = errors(results(selective_scan_reference, inputs, options), exact)
        assert worse(errors(results(in_triton, inputs, options), exact), reference) == {}

    def test_auto_is_this_and_gives_the_same_bytes_on_any_run(self):
        def auto(**arguments):
            return selective_scan(**arguments, return_last_state=True)

        inputs, options = draw((4, 120, 1024, 16), device="cuda")
        first, second = results(auto, inputs, options), results(in_triton, inputs, options)
        assert [k for k in first if not torch.equal(first[k], second[k])] == []

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_agrees_with_mamba_ssm(self, dtype):
        pytest.importorskip("mamba_ssm")
        inputs, options = draw((2, 360, 2048, 16), dtype=dtype, device="cuda")
        del options["initial_state"]

        def theirs(**arguments):
            return selective_scan(**arguments, return_last_state=True, backend="mamba")

        found = errors(results(in_triton, inputs, options), double(results(theirs, inputs, options)))
        tolerance = 1e-4 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
        assert {k: e for k, e in found.items() if not e < tolerance} == {}

    @pytest.mark.filterwarnings("default")  # PyTorch warns of its own parts while it loads the compiler
    def test_compiled_by_pytorch(self):
        inputs, options = draw((2, 60, 300, 16), device="cuda")
        compiled = torch.compile(in_triton, fullgraph=True)
        found = errors(results(compiled, inputs, options), results(in_triton, inputs, options))
        assert {k: e for k, e in found.items() if not e < 1e-5} == {}


if __name__ == "__main__":
    main()
