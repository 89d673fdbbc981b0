"""Selective scan in C++ (`native/`), as the PyTorch operator `dacesr::selective_scan`.

The operator takes channel-last tensors, the layout of its memory traffic: u, delta, z (b, l, d); B, C (b, l, n);
A (d, n); D, delta_bias (d). Rows may have any stride, so that slices of a projection's output are read in place.
Sums are fp32 whatever the inputs are. The forward pass keeps the state once every 32 tokens if gradients are wanted;
the backward pass recomputes the rest.
"""

import torch
from torch import Tensor

from dacesr import _native
from dacesr.nets.scan_operator import fake_gradients, gradients, make_differentiable, packed, run, unit_stride

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_STATES: int = _native.MAX_STATES


def instruction_sets() -> list[str]:
    """Instruction sets that this build and this processor share, best first: avx512, avx2, baseline."""
    return list(_native.instruction_sets())


def _starts_shape(u: Tensor, A: Tensor) -> tuple[int, int, int, int]:
    blocks = (u.shape[1] + _native.BLOCK - 1) // _native.BLOCK
    width = _native.width()
    padded = (u.shape[2] + width - 1) // width * width
    return u.shape[0], blocks, padded, A.shape[1]


def _ready(x: Tensor | None) -> Tensor | None:
    return None if x is None else unit_stride(x)


@torch.library.custom_op("dacesr::selective_scan", mutates_args=(), device_types="cpu")
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
    out = torch.empty((b, l, d), dtype=u.dtype)
    last = torch.empty((b, d, n))
    starts = torch.empty(_starts_shape(u, A)) if keep_states else torch.empty(0)
    threads = torch.get_num_threads()
    slices = _native.slices_for(b, d, threads)
    _native.forward(
        *map(_ready, (u, delta)), packed(A), *map(_ready, (B, C)), packed(D), _ready(z), packed(delta_bias),
        delta_softplus, packed(initial_state), out, last, starts if keep_states else None, slices, threads,
    )  # fmt: skip
    return out, last, starts


@scan_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, keep_states):
    b, l, d = u.shape
    return (
        u.new_empty((b, l, d)),
        u.new_empty((b, d, A.shape[1]), dtype=torch.float32),
        u.new_empty(_starts_shape(u, A) if keep_states else (0,), dtype=torch.float32),
    )


@torch.library.custom_op("dacesr::selective_scan_backward", mutates_args=(), device_types="cpu")
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
    threads = torch.get_num_threads()
    slices = _native.slices_for(b, d, threads)
    du, ddelta = (torch.empty((b, l, d), dtype=x.dtype) for x in (u, delta))
    dz = None if z is None else torch.empty((b, l, d), dtype=z.dtype)
    dA, dD, dbias = torch.empty((b, d, n)), torch.empty((b, d)), torch.empty((b, d))
    dB, dC = torch.empty((slices, b, l, n)), torch.empty((slices, b, l, n))
    _native.backward(
        *map(_ready, (u, delta)), packed(A), *map(_ready, (B, C)), packed(D), _ready(z), packed(delta_bias),
        delta_softplus, starts, _ready(dout), packed(dlast), du, ddelta, dz, dA, dB, dC, dD, dbias, slices, threads,
    )  # fmt: skip
    return gradients((u, delta, A, B, C, D, z, delta_bias), (du, ddelta, dz), (dA, dB, dC, dD, dbias))


scan_backward_op.register_fake(fake_gradients)
make_differentiable(scan_op, scan_backward_op, "selective_scan")


def selective_scan_native(
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
    """`selective_scan` on the CPU; tensors as there, (b, d, l) and (b, n, l), without a copy if channel-last in memory.

    float16 is computed by way of float32 copies.
    """
    dtype = u.dtype
    u, delta, B, C = (x.float() if x.dtype == torch.float16 else x for x in (u, delta, B, C))
    z = z.float() if z is not None and z.dtype == torch.float16 else z
    out, last = run(scan_op, (u, delta, A, B, C, D, z, delta_bias), delta_softplus, initial_state)
    return out.to(dtype), last
