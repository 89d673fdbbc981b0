"""What the scan's operators for the CPU and for CUDA share: how they are differentiated, and what goes in and out.

Both take channel-last tensors, u, delta, z (b, l, d); B, C (b, l, n); A (d, n); D, delta_bias (d), and return the
output, the last state, and the states kept for the backward operator, which gives the gradients of the eight tensors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def unit_stride(x: Tensor) -> Tensor:
    """Detached, with unit stride on the last dimension; a copy only where it must be."""
    x = x.detach()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def packed(x: Tensor | None) -> Tensor | None:
    """Detached, fp32 and contiguous."""
    return None if x is None else x.detach().float().contiguous()


def gradients(
    inputs: tuple[Tensor | None, ...], rows: tuple[Tensor, Tensor, Tensor | None], parts: tuple[Tensor, ...]
) -> list[Tensor]:
    """The gradients in the order of the inputs and in their types; those of absent inputs are empty or unused.

    Args:
        inputs: u, delta, A, B, C, D, z, delta_bias.
        rows: gradients of u, delta, z.
        parts: of A, B, C, D, delta_bias, to be summed over their first dimension.
    """
    u, _, A, B, C, D, _, delta_bias = inputs
    du, ddelta, dz = rows
    assert u is not None  # only D, z and delta_bias may be absent
    dA, dB, dC, dD, dbias = (
        part.sum(0).to((u if like is None else like).dtype)
        for part, like in zip(parts, (A, B, C, D, delta_bias), strict=True)
    )
    return [du, ddelta, dA, dB, dC, dD, u.new_empty(0) if dz is None else dz, dbias]


def fake_gradients(u, delta, A, B, C, D, z, delta_bias, delta_softplus, starts, dout, dlast) -> list[Tensor]:
    """Tensors like those that the backward operators return, for tracing."""
    d = u.shape[2]
    return [
        u.new_empty(u.shape),
        delta.new_empty(delta.shape),
        A.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        (u if D is None else D).new_empty((d,)),
        u.new_empty((0,)) if z is None else z.new_empty(z.shape),
        (u if delta_bias is None else delta_bias).new_empty((d,)),
    ]


def make_differentiable(scan: Any, backward: Callable[..., list[Tensor]], name: str) -> None:
    """Tell PyTorch how the forward operator `scan` is differentiated by the operator `backward`."""

    def setup_context(ctx, inputs, output):
        *tensors, ctx.delta_softplus, _, keep_states = inputs
        if not keep_states:
            raise RuntimeError(f"dacesr::{name} needs keep_states=True where gradients are wanted")
        ctx.save_for_backward(*tensors, output[2])
        ctx.mark_non_differentiable(output[2])

    def differentiate(ctx, dout, dlast, _):
        *tensors, starts = ctx.saved_tensors
        grads = backward(*tensors, ctx.delta_softplus, starts, dout, dlast)
        return *(g if x is not None else None for x, g in zip(tensors, grads, strict=True)), None, None, None

    scan.register_autograd(differentiate, setup_context=setup_context)


def run(
    scan: Callable[..., tuple[Tensor, Tensor, Tensor]],
    inputs: tuple[Tensor | None, ...],
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Call the forward operator on tensors (b, d, l) and (b, n, l): u, delta, A, B, C, D, z, delta_bias.

    Returns:
        The output (b, d, l) and the last state.
    """
    u, delta, A, B, C, D, z, delta_bias = inputs
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    u, delta, B, C, z = (None if x is None else x.mT for x in (u, delta, B, C, z))
    out, last, _ = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, keep)
    return out.mT, last
