"""The blur in Triton: in Triton's interpreter on the CPU, compiled for a GPU without one, and on a GPU.

Triton reads TRITON_INTERPRET when it is imported, so this file also runs as a script and prints what it finds as JSON.
"""

import json
from importlib.util import find_spec

import pytest
import torch

from dacesr.degradation import kernels, ops

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")
# name: canvas, sizes, sides of the kernels
CASES = {
    "two tiles each way, one size": ((37, 70), [(37, 70)] * 2, (7, 5)),
    "sizes of their own": ((20, 30), [(20, 30), (13, 11), (5, 30), (1, 1)], (9, 3, 9, 7)),
    "too narrow to be mirrored": ((6, 5), [(6, 5), (4, 4)], (11, 9)),
    "one pixel taken as it is": ((4, 4), [(4, 4)], (1,)),
}


def draw(name, device="cpu"):
    (height, width), sizes, sides = CASES[name]
    g = torch.Generator().manual_seed(len(name))
    x = torch.rand(len(sizes), 3, height, width, generator=g).to(device)
    stack = kernels.stack([kernels.Shape("gaussian", side, 1.5, 0.7, 0.4) for side in sides])
    return x, stack, sizes, [side // 2 for side in sides]


def worst(found, expected, sizes):
    """The largest error in what is valid, and the largest value elsewhere."""
    error = outside = 0.0
    for one, other, (height, width) in zip(found.cpu(), expected.cpu(), sizes, strict=True):
        error = max(error, (one - other)[:, :height, :width].abs().max().item())
        rest = one.clone()
        rest[:, :height, :width] = 0
        outside = max(outside, rest.abs().max().item())
    return error, outside


def main() -> None:
    from dacesr.degradation.blur_triton import filter2d_triton

    found = {}
    for name in CASES:
        x, stack, sizes, reach = draw(name)
        found[name] = worst(
            filter2d_triton(x, stack, sizes, reach), ops.filter2d(x.double(), stack, sizes, reach).float(), sizes
        )
    print(json.dumps(found))


@pytest.fixture(scope="module")
def interpreted():
    from interpreter import interpreted_by  # beside conftest: a script does not find it

    return interpreted_by(__file__)


@pytest.mark.parametrize("name", CASES)
def test_interpreted_equals_the_plain_one(interpreted, name):
    error, outside = interpreted[name]
    assert error < 1e-6
    assert outside == 0


def test_compiles_for_an_h100(tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dacesr.degradation import blur_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointers = {"x": "*fp32", "kernels": "*fp32", "facts": "*i32", "out": "*fp32"}
    constants = {"ROWS": blur_triton._ROWS, "COLUMNS": blur_triton._COLUMNS}
    names = blur_triton.correlate.arg_names
    signature = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in names}
    multiples = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in pointers}
    source = ASTSource(fn=blur_triton.correlate, signature=signature, constexprs=constants, attrs=multiples)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=blur_triton._LAUNCH)
    assert made.metadata.shared == 0
    assert made.asm["ptx"].count("fma.rn.f32") >= blur_triton._ROWS * blur_triton._COLUMNS // 128


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    x, stack, sizes, reach = draw(name, "cuda")
    assert ops._is_for_triton(x, stack)
    error, outside = worst(ops.filter2d(x, stack, sizes, reach), ops.filter2d(x.cpu(), stack, sizes, reach), sizes)
    assert error < 1e-5
    assert outside == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gradients_take_the_plain_way_on_a_gpu():
    x, stack, sizes, reach = draw("sizes of their own", "cuda")
    x.requires_grad_()
    found = ops.filter2d(x, stack, sizes, reach)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert gradient.isfinite().all()
    assert worst(found.detach(), ops.filter2d(x.detach(), stack, sizes, reach), sizes)[0] < 1e-5


if __name__ == "__main__":
    main()
