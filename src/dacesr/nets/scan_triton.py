"""Selective scan in Triton, as the PyTorch operator `dacesr::selective_scan_triton`, for training on CUDA.

Channel-last tensors as in `scan_native`: u, delta, z (b, l, d); B, C (b, l, n); A (d, n); D, delta_bias (d). Sums are
fp32 whatever the inputs are. A program takes some channels of one image and walks over its tokens, their states in
registers. The forward pass keeps the state every `EVERY` tokens if gradients are wanted. The backward pass takes these
chunks from the last to the first: it runs through a chunk again, writes the state before each token to a scratch
buffer, then runs the adjoint back through it. What several programs add to (A, D and bias over images, B and C over
channels) is written apart and summed afterwards, so that a gradient has the same bytes on every run.
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# (the types of Triton describe a kernel's Python function, not its launch)

import torch
import triton
import triton.language as tl
from torch import Tensor

from dacesr.nets.scan_operator import fake_gradients, gradients, make_differentiable, packed, run, unit_stride

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_STATES = 64
EVERY = 32  # tokens
LOG2E = tl.constexpr(1.4426950408889634)
STAGES = tl.constexpr(4)  # loads run three tokens ahead of the arithmetic

# A program is one warp, so that no sum crosses warps, and its tile is small: the tokens come one after another, so
# only many programs keep a GPU busy. At b = 64, d = 120, n = 16 the forward pass has 64 * 15 programs of 8 channels for
# the 132 multiprocessors of an H100. The backward pass has 64 * 8 of 16 channels: each block of channels writes its own
# dB and dC (b, l, n), and half as many blocks halve that memory.
_FORWARD_TILE, _BACKWARD_TILE, _MOST_CHANNELS = 128, 256, 16
_LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}  # fused multiply-add: the default until Triton 3.9, which warns


@triton.jit
def _softplus(x):
    """log(1 + e^x); the quotient restores the digits of a small e^x that 1 + e^x rounds away."""
    e = tl.exp(tl.minimum(x, 20.0))
    w = 1.0 + e
    small = tl.where(w == 1.0, e, tl.log(w) * (e / tl.where(w == 1.0, 1.0, w - 1.0)))
    return tl.where(x > 20.0, x, small)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _row(x, at, lanes, mask):
    return tl.load(x + at + lanes, mask, 0.0).to(tl.float32)


@triton.jit
def _place(d, n, WIDTH: tl.constexpr, STATES: tl.constexpr):
    """This program's image, block of channels, channels and states, their offsets in a (d, n) matrix, and the masks."""
    blocks = tl.cdiv(d, WIDTH)
    image = tl.cast(tl.program_id(0) // blocks, tl.int64)
    block = tl.program_id(0) % blocks
    channel = block * WIDTH + tl.arange(0, WIDTH)
    state = tl.arange(0, STATES)
    tile = channel[:, None] * n + state[None, :]
    return image, block, channel, state, tile, channel < d, state < n, (channel < d)[:, None] & (state < n)[None, :]


@triton.jit
def _forward(
    u, u_image, u_row, delta, delta_image, delta_row, B, B_image, B_row, C, C_image, C_row, z, z_image, z_row,
    A, D, bias, first, out, last, starts, l, d, n,
    SOFTPLUS: tl.constexpr, EVERY: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    image, _, channel, state, tile, in_d, in_n, in_tile = _place(d, n, WIDTH, STATES)
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    h = tl.zeros((WIDTH, STATES), tl.float32)
    if first is not None:
        h = tl.load(first + image * d * n + tile, in_tile, 0.0)
    shift = tl.zeros((WIDTH,), tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, in_d, 0.0)
    skip = tl.zeros((WIDTH,), tl.float32)
    if D is not None:
        skip = tl.load(D + channel, in_d, 0.0)

    for token in tl.range(0, l, num_stages=STAGES):
        t = tl.cast(token, tl.int64)
        if starts is not None:  # noqa: SIM102 (Triton would evaluate both sides of an `and`)
            if token % EVERY == 0:
                tl.store(starts + (image * tl.cdiv(l, EVERY) + t // EVERY) * d * n + tile, h, in_tile)
        x = _row(u, image * u_image + t * u_row, channel, in_d)
        dt = _row(delta, image * delta_image + t * delta_row, channel, in_d) + shift
        if SOFTPLUS:
            dt = _softplus(dt)
        b = _row(B, image * B_image + t * B_row, state, in_n)
        c = _row(C, image * C_image + t * C_row, state, in_n)
        h = tl.exp2(dt[:, None] * decay) * h + (dt * x)[:, None] * b[None, :]
        y = tl.sum(h * c[None, :], 1) + skip * x
        if z is not None:
            gate = _row(z, image * z_image + t * z_row, channel, in_d)
            y *= gate * _sigmoid(gate)
        tl.store(out + (image * l + t) * d + channel, y.to(out.dtype.element_ty), in_d)
    tl.store(last + image * d * n + tile, h, in_tile)


# The adjoint, with a_t the decay of token t and g_t the gradient of its state:
#   g_t = dy_t C_t + a_(t+1) g_(t+1);  dC_t += dy_t h_t;  dB_t += g_t dt_t u_t
#   d(dt_t u_t) = sum g_t B_t;  q = g_t a_t h_(t-1);  d(dt_t) = sum q A;  dA += q dt_t
@triton.jit
def _backward(
    u, u_image, u_row, delta, delta_image, delta_row, B, B_image, B_row, C, C_image, C_row, z, z_image, z_row,
    dout, dout_image, dout_row, A, D, bias, starts, dlast, scratch,
    du, ddelta, dz, dA, dB, dC, dD, dbias, l, d, n,
    SOFTPLUS: tl.constexpr, EVERY: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    image, block, channel, state, tile, in_d, in_n, in_tile = _place(d, n, WIDTH, STATES)
    images = tl.num_programs(0) // tl.cdiv(d, WIDTH)
    part = (tl.cast(block, tl.int64) * images + image) * l  # of dB and dC
    local = tl.arange(0, WIDTH)[:, None] * STATES + state[None, :]
    scratch += tl.cast(tl.program_id(0), tl.int64) * (EVERY * WIDTH * STATES)
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    shift = tl.zeros((WIDTH,), tl.float32)
    if bias is not None:
        shift = tl.load(bias + channel, in_d, 0.0)
    skip = tl.zeros((WIDTH,), tl.float32)
    if D is not None:
        skip = tl.load(D + channel, in_d, 0.0)
    g = tl.load(dlast + image * d * n + tile, in_tile, 0.0)
    sum_A = tl.zeros((WIDTH, STATES), tl.float32)
    sum_D = tl.zeros((WIDTH,), tl.float32)
    sum_bias = tl.zeros((WIDTH,), tl.float32)

    chunks = tl.cdiv(l, EVERY)
    for turn in range(chunks):
        chunk = tl.cast(chunks - 1 - turn, tl.int64)
        tokens = tl.minimum(l - (chunks - 1 - turn) * EVERY, EVERY)
        h = tl.load(starts + (image * chunks + chunk) * d * n + tile, in_tile, 0.0)
        for i in tl.range(0, tokens, num_stages=STAGES):
            t = chunk * EVERY + i
            tl.store(scratch + i * (WIDTH * STATES) + local, h)
            x = _row(u, image * u_image + t * u_row, channel, in_d)
            dt = _row(delta, image * delta_image + t * delta_row, channel, in_d) + shift
            if SOFTPLUS:
                dt = _softplus(dt)
            b = _row(B, image * B_image + t * B_row, state, in_n)
            h = tl.exp2(dt[:, None] * decay) * h + (dt * x)[:, None] * b[None, :]
        tl.debug_barrier()  # another thread may read what this one wrote

        for back in tl.range(0, tokens, num_stages=STAGES):
            i = tokens - 1 - back
            t = chunk * EVERY + i
            before = tl.load(scratch + i * (WIDTH * STATES) + local)
            x = _row(u, image * u_image + t * u_row, channel, in_d)
            raw = _row(delta, image * delta_image + t * delta_row, channel, in_d) + shift
            dt = raw
            if SOFTPLUS:
                dt = _softplus(raw)
            b = _row(B, image * B_image + t * B_row, state, in_n)
            c = _row(C, image * C_image + t * C_row, state, in_n)
            dy = _row(dout, image * dout_image + t * dout_row, channel, in_d)
            at = (image * l + t) * d + channel
            if z is not None:
                gate = _row(z, image * z_image + t * z_row, channel, in_d)
                open_ = _sigmoid(gate)
                y = tl.sum(h * c[None, :], 1) + skip * x
                tl.store(dz + at, (dy * y * open_ * (1.0 + gate * (1.0 - open_))).to(dz.dtype.element_ty), in_d)
                dy *= gate * open_

            a = tl.exp2(dt[:, None] * decay)
            g += dy[:, None] * c[None, :]
            tl.store(dC + (part + t) * n + state, tl.sum(dy[:, None] * h, 0), in_n)
            tl.store(dB + (part + t) * n + state, tl.sum(g * (dt * x)[:, None], 0), in_n)
            d_in = tl.sum(g * b[None, :], 1)
            g *= a
            q = g * before
            sum_A += q * dt[:, None]
            d_step = tl.sum(q * decay, 1) / LOG2E + x * d_in
            if SOFTPLUS:
                d_step *= _sigmoid(raw)
            tl.store(du + at, (dt * d_in + skip * dy).to(du.dtype.element_ty), in_d)
            tl.store(ddelta + at, d_step.to(ddelta.dtype.element_ty), in_d)
            sum_D += dy * x
            sum_bias += d_step
            h = before
        tl.debug_barrier()  # the next chunk overwrites the scratch buffer
    tl.store(dA + image * d * n + tile, sum_A, in_tile)
    tl.store(dD + image * d + channel, sum_D, in_d)
    tl.store(dbias + image * d + channel, sum_bias, in_d)


def _tile(n: int, elements: int) -> tuple[int, int]:
    """Channels and (padded) states of a program."""
    states = 1 << (n - 1).bit_length()
    return min(elements // states, _MOST_CHANNELS), states


def _blocks(d: int, width: int) -> int:
    return (d + width - 1) // width


def _rows(x: Tensor | None) -> tuple[Tensor | None, int, int]:
    """A kernel's three arguments for a (b, l, ...) tensor; a copy only where its last dimension has gaps."""
    if x is None:
        return None, 0, 0
    x = unit_stride(x)
    return x, x.stride(0), x.stride(1)


def _starts_shape(u: Tensor, A: Tensor) -> tuple[int, int, int, int]:
    return u.shape[0], (u.shape[1] + EVERY - 1) // EVERY, u.shape[2], A.shape[1]


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
    last = u.new_empty((b, d, n), dtype=torch.float32)
    starts = u.new_empty(_starts_shape(u, A) if keep_states else (0,), dtype=torch.float32)
    width, states = _tile(n, _FORWARD_TILE)
    with torch.cuda.device_of(u):
        _forward[(b * _blocks(d, width),)](
            *_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z),
            *map(packed, (A, D, delta_bias, initial_state)), out, last, starts if keep_states else None, l, d, n,
            SOFTPLUS=delta_softplus, EVERY=EVERY, WIDTH=width, STATES=states, **_LAUNCH,
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
    width, states = _tile(n, _BACKWARD_TILE)
    blocks = _blocks(d, width)
    du, ddelta, dz = u.new_empty((b, l, d)), delta.new_empty((b, l, d)), None if z is None else z.new_empty((b, l, d))
    dA, dD, dbias, dB, dC, scratch = (
        u.new_empty(shape, dtype=torch.float32)
        for shape in ((b, d, n), (b, d), (b, d), *2 * [(blocks, b, l, n)], (b * blocks, EVERY, width, states))
    )
    with torch.cuda.device_of(u):
        _backward[(b * blocks,)](
            *_rows(u), *_rows(delta), *_rows(B), *_rows(C), *_rows(z), *_rows(dout),
            *map(packed, (A, D, delta_bias)), starts, packed(dlast), scratch,
            du, ddelta, dz, dA, dB, dC, dD, dbias, l, d, n,
            SOFTPLUS=delta_softplus, EVERY=EVERY, WIDTH=width, STATES=states, **_LAUNCH,
        )  # fmt: skip
    return gradients((u, delta, A, B, C, D, z, delta_bias), (du, ddelta, dz), (dA, dB, dC, dD, dbias))


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
