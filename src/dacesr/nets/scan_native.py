"""Selective scan in C++ (`native/`), as the PyTorch operator `dacesr::selective_scan`.

The operator takes channel-last tensors, the layout of its memory traffic: u, delta, z (b, l, d); B, C (b, l, n);
A (d, n); D, delta_bias (d). Rows may have any stride, so that slices of a projection's output are read in place.
Sums are fp32 whatever the inputs are. The forward pass keeps the state once every 32 tokens if gradients are wanted;
the backward pass recomputes the rest.
"""

import torch
from torch import Tensor

from dacesr import _native

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
    """Detached, with unit stride on the last dimension; a copy only where it must be."""
    if x is None:
        return None
    x = x.detach()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _packed(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()


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
        *map(_ready, (u, delta)), _packed(A), *map(_ready, (B, C)), _packed(D), _ready(z), _packed(delta_bias),
        delta_softplus, _packed(initial_state), out, last, starts if keep_states else None, slices, threads,
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
        *map(_ready, (u, delta)), _packed(A), *map(_ready, (B, C)), _packed(D), _ready(z), _packed(delta_bias),
        delta_softplus, starts, _ready(dout), _packed(dlast), du, ddelta, dz, dA, dB, dC, dD, dbias, slices, threads,
    )  # fmt: skip
    return [
        du,
        ddelta,
        dA.sum(0).to(A.dtype),
        dB.sum(0).to(B.dtype),
        dC.sum(0).to(C.dtype),
        dD.sum(0).to(u.dtype if D is None else D.dtype),
        torch.empty(0) if dz is None else dz,
        dbias.sum(0).to(u.dtype if delta_bias is None else delta_bias.dtype),
    ]


@scan_backward_op.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, starts, dout, dlast):
    d = u.shape[2]
    return [
        u.new_empty(u.shape),
        delta.new_empty(delta.shape),
        A.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        (u if D is None else D).new_empty((d,)),
        u.new_empty((0,), dtype=torch.float32) if z is None else z.new_empty(z.shape),
        (u if delta_bias is None else delta_bias).new_empty((d,)),
    ]


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _, keep_states = inputs
    if not keep_states:
        raise RuntimeError("dacesr::selective_scan needs keep_states=True where gradients are wanted")
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])


def _backward(ctx, dout, dlast, _):
    *tensors, starts = ctx.saved_tensors
    grads = scan_backward_op(*tensors, ctx.delta_softplus, starts, dout, dlast)
    return *(g if x is not None else None for x, g in zip(tensors, grads, strict=True)), None, None, None


scan_op.register_autograd(_backward, setup_context=_setup_context)


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
    rows = [x if x is None else x.mT for x in (u, delta, B, C, z)]
    u_, delta_, B_, C_, z_ = (x.float() if x is not None and x.dtype == torch.float16 else x for x in rows)
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    out, last, _ = scan_op(u_, delta_, A, B_, C_, D, z_, delta_bias, delta_softplus, initial_state, keep)
    return out.mT.to(dtype), last
