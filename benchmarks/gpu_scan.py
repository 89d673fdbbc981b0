"""The selective scan, forward and backward, against its floor, as the network calls it."""

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import torch
from gpu_bench import Bench
from gpu_floors import scan_work
from gpu_report import Row
from gpu_timing import sets_for

from dacesr.nets.scan import selective_scan

SHAPES = {  # b, d, l, n
    "training, base": (32, 360, 4096, 16),
    "training, light": (32, 64, 4096, 8),
    "256 x 256, base": (1, 360, 65536, 16),
    "128 x 128, base": (1, 360, 16384, 16),
    "16 tiles 128 x 128, base": (16, 360, 16384, 16),
}
QUICK = {"training, base": (2, 6, 16, 4)}
Call = Callable[[], object]
TARGETS = {"forward": 1.8, "backward": 2.5}
FOR_SCALE = ("training, light", "128 x 128, base")  # where the plain PyTorch backend is timed too


class Inputs(NamedTuple):
    """Of one call."""

    u: torch.Tensor
    delta: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor
    z: torch.Tensor
    delta_bias: torch.Tensor

    def scan(self, backend: str) -> torch.Tensor:
        u, delta, A, B, C, D, z, delta_bias = self
        return selective_scan(u, delta, A, B, C, D, z, delta_bias, True, backend=backend)


def inputs(shape: tuple[int, int, int, int], device: torch.device, seed: int) -> Inputs:
    """As in the network: bf16 u of its own and z of a wider tensor, fp32 delta, B and C cut from one tensor."""
    (b, d, l, n), r = shape, max(1, shape[1] // 30)
    g = torch.Generator(device).manual_seed(seed)

    def rows(width: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(b, l, width, generator=g, device=device).to(dtype)

    narrow = rows(r + 2 * n, torch.float32)
    return Inputs(
        u=rows(d, torch.bfloat16).mT,
        delta=(0.5 * rows(d, torch.float32)).mT,
        A=-torch.arange(1.0, n + 1, device=device).repeat(d, 1),
        B=narrow[..., r : r + n].mT,
        C=narrow[..., r + n :].mT,
        D=torch.ones(d, device=device),
        z=rows(2 * d, torch.bfloat16)[..., d:].mT,
        delta_bias=torch.rand(d, generator=g, device=device) - 4,
    )


def backward_of(given: Inputs, backend: str) -> Call:
    """A backward pass of a graph that stays."""
    leaves = Inputs(*(tensor.detach().requires_grad_() for tensor in given))
    out = leaves.scan(backend)
    weight = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, list(leaves), weight, retain_graph=True)


def measure_scan(bench: Bench) -> None:
    """All shapes, each apart from the others' failures."""
    for name, shape in (QUICK if bench.quick else SHAPES).items():
        with bench.report.guarded(f"scan, {name}"):
            _shape(bench, name, shape)
        bench.release()


def _shape(bench: Bench, name: str, shape: tuple[int, int, int, int]) -> None:
    work = scan_work(*shape, itemsize=2)
    fast = "triton" if bench.device.type == "cuda" else "chunked"
    count = sets_for(round(work["forward"].bytes)) if bench.device.type == "cuda" else 2
    sets = [inputs(shape, bench.device, seed) for seed in range(count)]
    runs: dict[str, list[Call]] = {
        "forward": [functools.partial(_forward, given, fast) for given in sets],
        "backward": [backward_of(given, fast) for given in sets],
    }
    rounds = 3 if bench.quick else 20
    for direction, calls in runs.items():
        times = bench.timer.alone(_in_turns(calls), rounds)
        bench.report.add(
            Row(
                "Selective scan",
                f"{direction}, {name} {shape}",
                "ms",
                times.median,
                work[direction].floor(bench.ceilings),
                TARGETS[direction],
                "times",
                {**work[direction]._asdict(), "least": times.least, "most": times.most, "backend": fast},
            )
        )
    if name in FOR_SCALE or bench.quick:
        times = bench.timer.one_after_another(lambda _: _forward(sets[0], "chunked"), 3)
        floor = work["forward"].floor(bench.ceilings)
        bench.report.add(Row("Selective scan", f"forward, {name}, chunked, for scale", "ms", times.median, floor))
    if find_spec("mamba_ssm"):
        calls: list[Call] = [functools.partial(_mamba_ssm, given) for given in sets]
        times = bench.timer.alone(_in_turns(calls), rounds)
        bench.report.add(Row("Selective scan", f"forward, {name}, mamba-ssm, for scale", "ms", times.median))


@torch.inference_mode()
def _forward(given: Inputs, backend: str) -> torch.Tensor:
    return given.scan(backend)


@torch.inference_mode()
def _mamba_ssm(given: Inputs) -> torch.Tensor:
    """The authors' kernel; it wants tokens last in memory and one type for u, delta, B, C and z."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    rows = (given.u, given.delta, given.B, given.C, given.z)
    u, delta, B, C, z = (x.to(torch.bfloat16).contiguous() for x in rows)
    return selective_scan_fn(u, delta, given.A, B, C, given.D, z, given.delta_bias, delta_softplus=True)


def _in_turns(calls: list[Call]) -> Callable[[int], object]:
    return lambda number: calls[number % len(calls)]()
