"""Selective scan in Triton, as the PyTorch operator `dacesr::selective_scan_triton`, for CUDA.

Channel-last tensors as in `scan_native`: u, delta, z (b, l, d); B, C (b, l, n); A (d, n); D, delta_bias (d). Sums are
fp32 whatever the inputs are. The kernels are in `scan_kernels`.

One after another, tokens keep a GPU busy only if images and channels are many, as in a training batch: then one kernel
does it. Otherwise the sequence is cut into segments and the scan has two levels: `carry` finds what each segment hands
on if it is given nothing, `join` from that what each is really given, and then all segments run side by side. That
takes each exponential twice, still less than idle multiprocessors cost. The backward pass does the same from the end.

For gradients the forward pass keeps the state before every `CHUNK` tokens, (b, l / CHUNK, n, d); the backward pass runs
through each chunk again. What several programs add to (A, D and bias over images and segments, B and C over channels)
is written apart and summed afterwards, so that a gradient has the same bytes on every run.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (the types of Triton describe a kernel's Python function, not its launch)

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.nets import scan_kernels
from dacesr.nets.scan_operator import fake_gradients, gradients, make_differentiable, packed, run, unit_stride

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_STATES = 64
CHUNK = 4  # tokens
# A program is one warp with a tile of so many elements (state of a channel), 16 a lane: their states before 8 tokens
# fill half of a lane's registers.
_TILE, _MOST_CHANNELS = 512, 32
_FORWARD, _BACKWARD = 24, 12  # warps on a multiprocessor that hide one another's waiting, as far as registers go
_SHORTEST = 4 * CHUNK  # tokens of a segment
_LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}  # fused multiply-add: the default until Triton 3.9, which warns


class _Plan(NamedTuple):
    """How a scan is laid out: programs along images and blocks of channels, and segments of `span` tokens."""

    programs: int
    segments: int
    span: int
    width: int
    states: int


class _Scan(NamedTuple):
    """What all kernels of one scan are given: its layout, constants, and A as (n, d), D, bias."""

    plan: _Plan
    constants: dict[str, int | bool]
    A: Tensor
    D: Tensor | None
    bias: Tensor | None


@cache
def _multiprocessors(device: torch.device) -> int:
    """Of a GPU; that of an H100 for Triton's interpreter, which runs on the CPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def _plan(u: Tensor, n: int, warps: int) -> _Plan:
    """Segments enough for so many warps on each multiprocessor."""
    b, l, d = u.shape
    states = 1 << (n - 1).bit_length()
    width = min(_TILE // states, _MOST_CHANNELS, max(4, 1 << (d - 1).bit_length()))
    programs = b * -(-d // width)
    segments = -(-warps * _multiprocessors(u.device) // programs)
    span = -(-max(-(-l // segments), _SHORTEST) // CHUNK) * CHUNK
    return _Plan(programs, -(-l // span), span, width, states)


def _scan(u: Tensor, A: Tensor, D: Tensor | None, bias: Tensor | None, delta_softplus: bool, warps: int) -> _Scan:
    (_, l, d), n = u.shape, A.shape[1]
    plan = _plan(u, n, warps)
    constants = {"d": d, "n": n, "WIDTH": plan.width, "STATES": plan.states}
    constants |= {"SOFTPLUS": delta_softplus, "EVEN": l % CHUNK == 0, "CHUNK": CHUNK}
    transposed = packed(A.mT)
    assert transposed is not None  # as A is there
    return _Scan(plan, constants, transposed, packed(D), packed(bias))


def _rows(*tensors: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """A kernel's two arguments for each (b, l, ...) tensor."""
    found: list[Tensor | int | None] = []
    for x in tensors:
        found += (None, 0) if x is None else (x, x.stride(0))
    return tuple(found)


def _row_strides(**tensors: Tensor | None) -> dict[str, int]:
    """Distances between rows under the names that the kernels have for them."""
    return {f"{name}_ROW": 0 if x is None else x.stride(1) for name, x in tensors.items()}


def _entries(
    scan: _Scan, x: Tensor, delta: Tensor, M: Tensor, z: Tensor | None, first: Tensor | None, *, reverse: bool
) -> Tensor | None:
    """What each segment is given, (b, segments, n, d); None for nothing.

    Args:
        scan: The scan.
        x: u, or in reverse the gradient of the output, (b, l, d).
        delta: (b, l, d).
        M: B, or in reverse C, (b, l, n).
        z: The gate in reverse, or None.
        first: What the segment is given that begins, (b, n, d); None for nothing.
        reverse: From the last token to the first.
    """
    (b, l, d), plan = x.shape, scan.plan
    if plan.segments == 1:
        return first
    shape = (b, plan.segments, scan.constants["n"], d)
    ends, entries = x.new_empty(shape, dtype=torch.float32), x.new_empty(shape, dtype=torch.float32)
    sums = x.new_empty((b, plan.segments, d), dtype=torch.float32)
    scan_kernels.carry[(plan.programs, plan.segments - 1)](
        *_rows(x, delta, M, z), scan.A, scan.bias, ends, sums, l, plan.span,
        **_row_strides(X=x, DELTA=delta, M=M, Z=z), **scan.constants, REVERSE=int(reverse), **_LAUNCH,
    )  # fmt: skip
    tile = {name: scan.constants[name] for name in ("d", "n", "WIDTH", "STATES")}
    scan_kernels.join[(plan.programs,)](
        ends, sums, scan.A, first, entries, plan.segments, **tile, REVERSE=int(reverse), **_LAUNCH
    )
    return entries


def _starts_shape(u: Tensor, A: Tensor) -> tuple[int, int, int, int]:
    return u.shape[0], (u.shape[1] + CHUNK - 1) // CHUNK, A.shape[1], u.shape[2]


@torch.library.custom_op("dacesr::selective_scan_triton", mutates_args=())
def scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    keep_states: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return out (b, l, d) in u's type, the last state (b, d, n) and the kept states (empty unless asked for)."""
    (b, l, d), n = u.shape, A.shape[1]
    out = u.new_empty((b, l, d))
    last = u.new_empty((b, n, d), dtype=torch.float32)
    starts = u.new_empty(_starts_shape(u, A) if keep_states else (0,), dtype=torch.float32)
    scan = _scan(u, A, D, delta_bias, delta_softplus, _FORWARD)
    first = None if initial_state is None else packed(initial_state.mT)
    u, delta, B, C = map(unit_stride, (u, delta, B, C))
    z = None if z is None else unit_stride(z)
    with torch.cuda.device_of(u):
        entries = _entries(scan, u, delta, B, None, first, reverse=False)
        scan_kernels.forward[(scan.plan.programs, scan.plan.segments)](
            *_rows(u, delta, B, C, z), scan.A, scan.D, scan.bias, entries, out, last,
            starts if keep_states else None, l, scan.plan.span,
            **_row_strides(U=u, DELTA=delta, B=B, C=C, Z=z), **scan.constants, **_LAUNCH,
        )  # fmt: skip
    return out, last.mT, starts


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, keep_states):
    b, l, d = u.shape
    return (
        u.new_empty((b, l, d)),
        u.new_empty((b, A.shape[1], d), dtype=torch.float32).mT,
        u.new_empty(_starts_shape(u, A) if keep_states else (0,), dtype=torch.float32),
    )


@torch.library.custom_op("dacesr::selective_scan_triton_backward", mutates_args=())
def scan_backward_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    starts: Tensor,
    dout: Tensor,
    dlast: Tensor,
) -> list[Tensor]:
    """Return the gradients of u, delta, A, B, C, D, z and delta_bias (those of absent inputs are empty or unused)."""
    (b, l, d), n = u.shape, A.shape[1]
    scan = _scan(u, A, D, delta_bias, delta_softplus, _BACKWARD)
    plan = scan.plan
    du, ddelta, dz = u.new_empty((b, l, d)), delta.new_empty((b, l, d)), None if z is None else z.new_empty((b, l, d))
    places, blocks = b * plan.segments, plan.programs // b
    dA, dD, dbias, dB, dC = (
        u.new_empty(shape, dtype=torch.float32)
        for shape in ((places, n, d), (places, d), (places, d), *2 * [(blocks, b, l, n)])
    )
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    u, delta, B, C, dout = map(unit_stride, (u, delta, B, C, dout))
    z = None if z is None else unit_stride(z)
    with torch.cuda.device_of(u):
        exits = _entries(scan, dout, delta, C, z, packed(dlast.mT), reverse=True)
        scan_kernels.backward[(plan.programs, plan.segments)](
            *_rows(u, delta, B, C, z, dout), scan.A, scan.D, scan.bias, starts, exits,
            du, ddelta, dz, dA, dB, dC, dD, dbias, l, plan.span,
            **_row_strides(U=u, DELTA=delta, B=B, C=C, Z=z, DOUT=dout), **scan.constants, **_LAUNCH,
        )  # fmt: skip
    return gradients(inputs, (du, ddelta, dz), (dA.mT, dB, dC, dD, dbias))


scan_backward_op.register_fake(fake_gradients)
make_differentiable(scan_op, scan_backward_op, "selective_scan_triton")


def selective_scan_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` on CUDA; tensors as there, (b, d, l) and (b, n, l), without a copy if channel-last in memory."""
    return run(scan_op, (u, delta, A, B, C, D, z, delta_bias), delta_softplus, initial_state)
