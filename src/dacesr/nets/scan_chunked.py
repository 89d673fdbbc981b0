"""Selective scan in PyTorch operations, for any device and dtype, forward and backward in bounded memory.

The sequence is cut into segments small enough that a segment's (b, s, d, n) states fit a fixed budget. Within a segment
the recurrence h_t = a_t h_(t-1) + x_t runs over chunks side by side: all chunks step through their tokens together,
then the state that enters each chunk is carried along and added with its decay. Only the state at the start of each
segment is kept for the backward pass, which recomputes the rest, from the last segment to the first.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SEGMENT_ELEMENTS = 1 << 20  # of a segment's states (b, s, d, n): 4 MB in fp32


def _recur_(a: Tensor, x: Tensor, carry: Tensor, *, reverse: bool = False) -> Tensor:
    """x_t += a_t x_(t-1) over dimension 1 of (b, s, d, n), in place; x_(-1) = carry (b, d, n). Returns x.

    With `reverse`, x_t += a_t x_(t+1) from the last token to the first, x_s = carry.
    """
    b, s, d, n = x.shape
    steps = math.isqrt(s)
    whole = s // steps * steps
    rest = range(whole, s)  # shorter than a chunk, done token by token
    if reverse:
        carry = _recur_tokens_(a, x, carry, rest[::-1])
    decay, state = (y[:, :whole].view(b, whole // steps, steps, d, n) for y in (a.clone(), x))
    order = range(steps)[:: -1 if reverse else 1]
    for before, now in pairwise(order):
        state[:, :, now].addcmul_(decay[:, :, now], state[:, :, before])
        decay[:, :, now].mul_(decay[:, :, before])
    entering = torch.empty_like(state[:, :, 0])
    for k in range(whole // steps)[:: -1 if reverse else 1]:
        entering[:, k] = carry
        carry = torch.addcmul(state[:, k, order[-1]], decay[:, k, order[-1]], carry)
    state.addcmul_(decay, entering[:, :, None])
    if not reverse:
        _recur_tokens_(a, x, carry, rest)
    return x


def _recur_tokens_(a: Tensor, x: Tensor, carry: Tensor, tokens: range) -> Tensor:
    for t in tokens:
        carry = x[:, t].addcmul_(a[:, t], carry)
    return carry


def _states(dt: Tensor, x: Tensor, A: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states (b, s, d, n) of one segment."""
    a = torch.exp(dt[..., None] * A)
    return a, _recur_(a, x[..., None] * B[:, :, None], start)


class _Scan(torch.autograd.Function):
    """(dt, x = dt u, A, B, C), channel-last -> y = sum_n C h (b, l, d) and the last state (b, d, n)."""

    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        b, _, d = dt.shape
        size = max(1, SEGMENT_ELEMENTS // (b * d * A.shape[1]))
        starts, ys = [], []
        for dt_, x_, B_, C_ in zip(*(t.split(size, dim=1) for t in (dt, x, B, C)), strict=True):
            starts.append(state)
            _, h = _states(dt_, x_, A, B_, state)
            ys.append((h @ C_[..., None]).squeeze(-1))
            state = h[:, -1].clone()
        ctx.save_for_backward(dt, x, A, B, C, torch.stack(starts))
        ctx.size = size
        return torch.cat(ys, dim=1), state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return _Scan._gradients(ctx, *grads)

    @staticmethod
    def _gradients(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dt, x, A, B, C, starts = ctx.saved_tensors
        dy, carry = grads
        d_dt, d_x, dB, dC = (torch.empty_like(t) for t in (dt, x, B, C))
        dA = torch.zeros_like(A)
        segments = list(zip(*(t.split(ctx.size, dim=1) for t in (dt, x, B, C, dy, d_dt, d_x, dB, dC)), strict=True))
        for start, (dt_, x_, B_, C_, dy_, d_dt_, d_x_, dB_, dC_) in zip(starts.flip(0), segments[::-1], strict=True):
            a, h = _states(dt_, x_, A, B_, start)
            dC_.copy_((dy_[:, :, None] @ h).squeeze(2))
            after = torch.cat([a[:, 1:], torch.ones_like(a[:, :1])], dim=1)  # carry holds a_s g_s already
            g = _recur_(after, dy_[..., None] * C_[:, :, None], carry, reverse=True)
            dB_.copy_((x_[:, :, None] @ g).squeeze(2))
            d_x_.copy_((g @ B_[..., None]).squeeze(-1))
            g.mul_(a)
            carry = g[:, 0].clone()
            g[:, 0].mul_(start)
            g[:, 1:].mul_(h[:, :-1])  # now g a h_(t-1), the gradient of dt A
            dA += (g * dt_[..., None]).sum((0, 1))
            d_dt_.copy_((g * A).sum(-1))
        return d_dt, d_x, dA, dB, dC, None


def selective_scan_chunked(
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
    """`selective_scan` on any device; arithmetic in fp32, or fp64 where A is. Arguments and results as there."""
    work = torch.promote_types(A.dtype, torch.float32)
    x, dt, B_, C_ = (t.mT.to(work).contiguous() for t in (u, delta, B, C))  # (b, l, d), (b, l, n)
    if delta_bias is not None:
        dt = dt + delta_bias.to(work)
    if delta_softplus:
        dt = F.softplus(dt)
    none = x.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    state = none if initial_state is None else initial_state.to(work)
    with torch.autocast(u.device.type, enabled=False):  # which would take products of matrices in half precision
        y, last = _Scan.apply(dt, dt * x, A.to(work), B_, C_, state)  # pyright: ignore[reportGeneralTypeIssues]
    if D is not None:
        y = y + D.to(work) * x
    if z is not None:
        y = y * F.silu(z.mT.to(work))
    return y.to(u.dtype).mT, last
