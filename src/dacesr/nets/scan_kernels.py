"""Triton kernels of the selective scan. Which are launched when, and on what: `scan_triton`.

Tensors are channel-last: u, delta, z, out (b, l, d); B, C (b, l, n); states of an image (n, d), so that neighbouring
lanes hold neighbouring channels. All sums are fp32. A program is one warp. It takes `WIDTH` channels of one image and
walks over the tokens of one segment (`span` tokens, a multiple of `CHUNK`), the states of its channels in registers.
Programs: axis 0 images times blocks of channels, axis 1 segments. Distances between rows are constants of the
compilation, so that a token's address costs no arithmetic. `EVEN`: every chunk is whole, no token needs a mask.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false
# (to pyright a kernel's tuples stay empty, and indices of tensors are those of a list)
# ruff: noqa: RUF005 (Triton adds tuples, but does not unpack them)

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
MOST = tl.constexpr(8)  # segments whose states are on their way at a time while they are joined
# Triton lays a tile (states, channels) out as its loads and stores like it. Where they may take 16 bytes at a time, a
# lane gets a square of both, which makes sums over channels cheap and sums over states dearer. Where it does not know
# them to be aligned, a lane gets all states of one channel, and sums over states cost nothing.
_LANES = ("A", "ends", "entries", "last", "starts")


@triton.jit
def _softplus(x):
    """log(1 + e^x); the quotient restores the digits of a small e^x that 1 + e^x rounds away."""
    e = tl.exp2(tl.minimum(x, 20.0) * LOG2E)
    w = 1.0 + e
    small = tl.where(w == 1.0, e, tl.log(w) * (e / tl.where(w == 1.0, 1.0, w - 1.0)))
    return tl.where(x > 20.0, x, small)


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -LOG2E))


@triton.jit
def _where(mask, condition):
    """The mask where a condition on scalars holds, else nothing (`mask & condition` fails in Triton's interpreter)."""
    return mask & (tl.zeros_like(mask).to(tl.int32) < condition.to(tl.int32))


@triton.jit
def _rows(x, lanes, mask, rest, ROW: tl.constexpr, CHUNK: tl.constexpr, EVEN: tl.constexpr):
    """The next rows of `x`, zeros beyond the `rest` of the segment, asked for all at once: they travel together."""
    rows = ()
    for i in tl.static_range(CHUNK):
        rows = rows + (tl.load(x + i * ROW + lanes, mask if EVEN else _where(mask, i < rest), 0.0),)
    return rows


@triton.jit
def _place(d: tl.constexpr, n: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr):
    """This program's image, block of channels, channels and states, their offsets in (n, d), and the masks."""
    blocks: tl.constexpr = tl.cdiv(d, WIDTH)
    image = tl.cast(tl.program_id(0) // blocks, tl.int64)
    block = tl.program_id(0) % blocks
    channel = block * WIDTH + tl.arange(0, WIDTH)
    state = tl.arange(0, STATES)
    in_tile = (state < n)[:, None] & (channel < d)[None, :]
    return image, block, channel, state, state[:, None] * d + channel[None, :], channel < d, state < n, in_tile


@triton.jit
def _vector(x, channel, in_d, WIDTH: tl.constexpr):
    """A value for each channel; zeros without any."""
    values = tl.zeros((WIDTH,), tl.float32)
    if x is not None:
        values = tl.load(x + channel, in_d, 0.0)
    return values


@triton.jit
def _step(raw, shift, i, rest, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr):
    """The step of token i of a chunk: zero beyond the segment, where nothing may change."""
    dt = raw.to(tl.float32) + shift
    if SOFTPLUS:
        dt = _softplus(dt)
    return dt if EVEN else tl.where(i < rest, dt, 0.0)


@triton.jit
def _column(x, state, on):
    """B or C of one token, to go with every channel."""
    return tl.load(x + state, on, 0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize_on_alignment=_LANES)
def carry(
    x, x_image, delta, delta_image, M, M_image, z, z_image, A, bias, ends, sums, l, span,
    X_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, M_ROW: tl.constexpr, Z_ROW: tl.constexpr,
    d: tl.constexpr, n: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, EVEN: tl.constexpr,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """What a segment hands to the next one if it is given nothing, and the sum of its steps.

    Forward (x = u, M = B) the state after its last token, h <- a h + dt u B; in reverse (x = the output's gradient,
    M = C) the gradient of the state before its first one, g <- a (g + dy C).
    """
    image, _, channel, state, tile, in_d, in_n, in_tile = _place(d, n, WIDTH, STATES)
    segment = tl.program_id(1) + REVERSE  # nobody asks for what the first (forward: the last) one hands on
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    shift = _vector(bias, channel, in_d, WIDTH)
    count = tl.minimum(span, l - segment * span)
    chunks = tl.cdiv(count, CHUNK)
    first = tl.cast(segment * span + REVERSE * (chunks - 1) * CHUNK, tl.int64)
    x += image * x_image + first * X_ROW
    delta += image * delta_image + first * DELTA_ROW
    M += image * M_image + first * M_ROW
    if z is not None:
        z += image * z_image + first * Z_ROW
    onward: tl.constexpr = (1 - 2 * REVERSE) * CHUNK
    rest = count - REVERSE * (chunks - 1) * CHUNK
    state_sum = tl.zeros((STATES, WIDTH), tl.float32)
    step_sum = tl.zeros((WIDTH,), tl.float32)
    for _ in tl.range(0, chunks):
        xs = _rows(x, channel, in_d, rest, X_ROW, CHUNK, EVEN)
        raws = _rows(delta, channel, in_d, rest, DELTA_ROW, CHUNK, EVEN)
        gates = xs
        if z is not None:
            gates = _rows(z, channel, in_d, rest, Z_ROW, CHUNK, EVEN)
        for i in tl.static_range((CHUNK - 1) * REVERSE, CHUNK - (CHUNK + 1) * REVERSE, 1 - 2 * REVERSE):
            dt = _step(raws[i], shift, i, rest, SOFTPLUS, EVEN)
            m = _column(M + i * M_ROW, state, in_n if EVEN else _where(in_n, i < rest))
            a = tl.exp2(dt[None, :] * decay)
            value = xs[i].to(tl.float32)
            if REVERSE:
                if z is not None:
                    gate = gates[i].to(tl.float32)
                    value *= gate * _sigmoid(gate)
                state_sum = (state_sum + value[None, :] * m) * a
            else:
                state_sum = a * state_sum + (dt * value)[None, :] * m
            step_sum += dt
        x += onward * X_ROW
        delta += onward * DELTA_ROW
        M += onward * M_ROW
        if z is not None:
            z += onward * Z_ROW
        rest = CHUNK if REVERSE else rest - CHUNK
    place = image * (tl.num_programs(1) + 1) + segment
    tl.store(ends + place * (d * n) + tile, state_sum, in_tile)
    tl.store(sums + place * d + channel, step_sum, in_d)


@triton.jit
def join(
    ends, sums, A, first, entries, segments,
    d: tl.constexpr, n: tl.constexpr, REVERSE: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """What each segment is really given, from what `carry` found: `first` (None: zero) for the one that begins."""
    image, _, channel, _, tile, in_d, _, in_tile = _place(d, n, WIDTH, STATES)
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    h = tl.zeros((STATES, WIDTH), tl.float32)
    if first is not None:
        h = tl.load(first + image * (d * n) + tile, in_tile, 0.0)
    for begin in tl.range(0, segments, MOST):
        handed = ()
        steps = ()
        for i in tl.static_range(MOST):
            known = begin + i < segments - 1  # the last one hands on to nobody
            place = image * segments + (segments - 1 - begin - i if REVERSE else begin + i)
            handed = handed + (tl.load(ends + place * (d * n) + tile, _where(in_tile, known), 0.0),)
            steps = steps + (tl.load(sums + place * d + channel, _where(in_d, known), 0.0),)
        for i in tl.static_range(MOST):
            place = image * segments + (segments - 1 - begin - i if REVERSE else begin + i)
            tl.store(entries + place * (d * n) + tile, h, _where(in_tile, begin + i < segments))
            h = tl.exp2(steps[i][None, :] * decay) * h + handed[i]


@triton.jit(do_not_specialize_on_alignment=_LANES)
def forward(
    u, u_image, delta, delta_image, B, B_image, C, C_image, z, z_image, A, D, bias, entries, out, last, starts, l, span,
    U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, B_ROW: tl.constexpr, C_ROW: tl.constexpr, Z_ROW: tl.constexpr,
    d: tl.constexpr, n: tl.constexpr, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """The output, the state after the last token, and in `starts` (unless None) the state before every chunk."""
    image, _, channel, state, tile, in_d, in_n, in_tile = _place(d, n, WIDTH, STATES)
    segment = tl.program_id(1)
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    shift = _vector(bias, channel, in_d, WIDTH)
    skip = _vector(D, channel, in_d, WIDTH)
    h = tl.zeros((STATES, WIDTH), tl.float32)
    if entries is not None:
        h = tl.load(entries + (image * tl.num_programs(1) + segment) * (d * n) + tile, in_tile, 0.0)
    begin = tl.cast(segment * span, tl.int64)
    u += image * u_image + begin * U_ROW
    delta += image * delta_image + begin * DELTA_ROW
    B += image * B_image + begin * B_ROW
    C += image * C_image + begin * C_ROW
    if z is not None:
        z += image * z_image + begin * Z_ROW
    out += (image * l + begin) * d
    if starts is not None:
        starts += (image * tl.cdiv(l, CHUNK) + begin // CHUNK) * (d * n)
    rest = tl.minimum(span, l - segment * span)
    for _ in tl.range(0, tl.cdiv(rest, CHUNK)):
        xs = _rows(u, channel, in_d, rest, U_ROW, CHUNK, EVEN)
        raws = _rows(delta, channel, in_d, rest, DELTA_ROW, CHUNK, EVEN)
        gates = xs
        if z is not None:
            gates = _rows(z, channel, in_d, rest, Z_ROW, CHUNK, EVEN)
        if starts is not None:
            tl.store(starts + tile, h, in_tile)
            starts += d * n
        ys = ()
        for i in tl.static_range(CHUNK):
            on = in_n if EVEN else _where(in_n, i < rest)
            x = xs[i].to(tl.float32)
            dt = _step(raws[i], shift, i, rest, SOFTPLUS, EVEN)
            h = tl.exp2(dt[None, :] * decay) * h + (dt * x)[None, :] * _column(B + i * B_ROW, state, on)
            y = tl.sum(h * _column(C + i * C_ROW, state, on), 0) + skip * x
            if z is not None:
                gate = gates[i].to(tl.float32)
                y *= gate * _sigmoid(gate)
            ys = ys + (y,)
        for i in tl.static_range(CHUNK):  # at the end: no load may pass a store, and the loads take long
            tl.store(out + i * d + channel, ys[i].to(out.dtype.element_ty), in_d if EVEN else _where(in_d, i < rest))
        u += CHUNK * U_ROW
        delta += CHUNK * DELTA_ROW
        B += CHUNK * B_ROW
        C += CHUNK * C_ROW
        if z is not None:
            z += CHUNK * Z_ROW
        out += CHUNK * d
        rest -= CHUNK
    tl.store(last + image * (d * n) + tile, h, _where(in_tile, segment == tl.num_programs(1) - 1))


# The adjoint, with a_t the decay of token t, p_t = a_t h_(t-1) and g_t the gradient of its state:
#   g_t = dy_t C_t + a_(t+1) g_(t+1);  dC_t += dy_t h_t;  dB_t += g_t dt_t u_t
#   d(dt_t u_t) = sum g_t B_t;  q = g_t p_t;  d(dt_t) = sum q A;  dA += q dt_t
@triton.jit
def backward(
    u, u_image, delta, delta_image, B, B_image, C, C_image, z, z_image, dout, dout_image,
    A, D, bias, starts, exits, du, ddelta, dz, dA, dB, dC, dD, dbias, l, span,
    U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, B_ROW: tl.constexpr, C_ROW: tl.constexpr, Z_ROW: tl.constexpr,
    DOUT_ROW: tl.constexpr, d: tl.constexpr, n: tl.constexpr, SOFTPLUS: tl.constexpr, EVEN: tl.constexpr,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Gradients, chunk after chunk from the last to the first: each is run through again, its p_t kept in registers."""
    image, block, channel, state, tile, in_d, in_n, in_tile = _place(d, n, WIDTH, STATES)
    segment = tl.program_id(1)
    images = tl.num_programs(0) // tl.cdiv(d, WIDTH)
    place = image * tl.num_programs(1) + segment
    decay = tl.load(A + tile, in_tile, 0.0) * LOG2E
    shift = _vector(bias, channel, in_d, WIDTH)
    skip = _vector(D, channel, in_d, WIDTH)
    g = tl.load(exits + place * (d * n) + tile, in_tile, 0.0)
    sum_A = tl.zeros((STATES, WIDTH), tl.float32)
    sum_D = tl.zeros((WIDTH,), tl.float32)
    sum_bias = tl.zeros((WIDTH,), tl.float32)
    count = tl.minimum(span, l - segment * span)
    chunks = tl.cdiv(count, CHUNK)
    begin = tl.cast(segment * span + (chunks - 1) * CHUNK, tl.int64)
    u += image * u_image + begin * U_ROW
    delta += image * delta_image + begin * DELTA_ROW
    B += image * B_image + begin * B_ROW
    C += image * C_image + begin * C_ROW
    dout += image * dout_image + begin * DOUT_ROW
    if z is not None:
        z += image * z_image + begin * Z_ROW
    at = (image * l + begin) * d + channel  # in du, ddelta and dz
    part = ((tl.cast(block, tl.int64) * images + image) * l + begin) * n + state  # in dB and dC
    starts += (image * tl.cdiv(l, CHUNK) + begin // CHUNK) * (d * n)
    rest = count - (chunks - 1) * CHUNK
    for _ in tl.range(0, chunks):
        h = tl.load(starts + tile, in_tile, 0.0)
        xs = _rows(u, channel, in_d, rest, U_ROW, CHUNK, EVEN)
        raws = _rows(delta, channel, in_d, rest, DELTA_ROW, CHUNK, EVEN)
        douts = _rows(dout, channel, in_d, rest, DOUT_ROW, CHUNK, EVEN)
        gates = xs
        if z is not None:
            gates = _rows(z, channel, in_d, rest, Z_ROW, CHUNK, EVEN)
        steps = ()
        kept = ()
        for i in tl.static_range(CHUNK):
            dt = _step(raws[i], shift, i, rest, SOFTPLUS, EVEN)
            p = tl.exp2(dt[None, :] * decay) * h
            on = in_n if EVEN else _where(in_n, i < rest)
            h = p + (dt * xs[i].to(tl.float32))[None, :] * _column(B + i * B_ROW, state, on)
            steps = steps + (dt,)
            kept = kept + (p,)
        for i in tl.static_range(CHUNK - 1, -1, -1):
            on = in_n if EVEN else _where(in_n, i < rest)
            in_row = in_d if EVEN else _where(in_d, i < rest)
            b = _column(B + i * B_ROW, state, on)
            c = _column(C + i * C_ROW, state, on)
            x = xs[i].to(tl.float32)
            dt = steps[i]
            dy = douts[i].to(tl.float32)
            h = kept[i] + (dt * x)[None, :] * b
            if z is not None:
                gate = gates[i].to(tl.float32)
                open_ = _sigmoid(gate)
                y = tl.sum(h * c, 0) + skip * x
                d_gate = dy * y * open_ * (1.0 + gate * (1.0 - open_))
                tl.store(dz + at + i * d, d_gate.to(dz.dtype.element_ty), in_row)
                dy *= gate * open_
            g += dy[None, :] * c
            tl.store(dC + part + i * n, tl.sum(dy[None, :] * h, 1), on)
            tl.store(dB + part + i * n, tl.sum(g * (dt * x)[None, :], 1), on)
            d_in = tl.sum(g * b, 0)
            q = g * kept[i]
            g *= tl.exp2(dt[None, :] * decay)
            sum_A += q * dt[None, :]
            d_step = tl.sum(q * decay, 0) * LN2 + x * d_in
            if SOFTPLUS:
                d_step *= _sigmoid(raws[i].to(tl.float32) + shift)
            if not EVEN:
                d_step = tl.where(i < rest, d_step, 0.0)
            tl.store(du + at + i * d, (dt * d_in + skip * dy).to(du.dtype.element_ty), in_row)
            tl.store(ddelta + at + i * d, d_step.to(ddelta.dtype.element_ty), in_row)
            sum_D += dy * x
            sum_bias += d_step
        u -= CHUNK * U_ROW
        delta -= CHUNK * DELTA_ROW
        B -= CHUNK * B_ROW
        C -= CHUNK * C_ROW
        dout -= CHUNK * DOUT_ROW
        if z is not None:
            z -= CHUNK * Z_ROW
        at -= CHUNK * d
        part -= CHUNK * n
        starts -= d * n
        rest = CHUNK
    tl.store(dA + place * (d * n) + tile, sum_A, in_tile)
    tl.store(dD + place * d + channel, sum_D, in_d)
    tl.store(dbias + place * d + channel, sum_bias, in_d)
