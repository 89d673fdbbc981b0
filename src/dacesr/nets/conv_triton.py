"""Mamba's causal convolution and the SiLU behind it in Triton, as the operator `dacesr::causal_conv_silu_triton`.

Channel-last tensors (b, l, d) as in `conv_native`; sums are fp32 whatever the inputs are. It is bound by memory: each
way every row should travel once. A program has `WIDTH` channels of `STREAMS` times `ROWS` tokens of one image, where
each lane holds some neighbouring channels of one stream and walks over its rows, so that a row is loaded once for all
taps. The few rows before and after a stream are those of its neighbours, in a cache by then. The backward pass computes
the convolution again. What programs add to the gradients of weight and bias is written apart and summed afterwards, so
that a gradient has the same bytes on every run.
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
# (the types of Triton describe a kernel's Python function, not its launch)

import torch
import triton
import triton.language as tl
from torch import Tensor

from dacesr.nets.conv_operator import make_differentiable
from dacesr.nets.scan_operator import unit_stride

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_TAPS = 8
_ROWS, _WIDTH = 8, 64
_FORWARD_STREAMS = 16  # 8 elements of a row for each lane
_BACKWARD_STREAMS = 8  # 4, as the registers of a lane do not hold all that belongs to 8
_LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}  # fused multiply-add: the default until Triton 3.9, which warns

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _place(l, d: tl.constexpr, ROWS: tl.constexpr, STREAMS: tl.constexpr, WIDTH: tl.constexpr):
    """This program's number apart from its channels, its image, the first token of each stream, and its channels."""
    blocks: tl.constexpr = tl.cdiv(d, WIDTH)
    part = tl.program_id(0) // blocks
    channel = (tl.program_id(0) % blocks) * WIDTH + tl.arange(0, WIDTH)
    parts = tl.cdiv(l, ROWS * STREAMS)
    token = (part % parts) * (ROWS * STREAMS) + tl.arange(0, STREAMS) * ROWS
    return part, tl.cast(part // parts, tl.int64), token, channel


@triton.jit
def _rows(x, token, channel, l, d: tl.constexpr, ROW: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Rows token + FIRST, ... of an image for each stream; zeros outside the image. All are asked for at once."""
    x += (tl.cast(token, tl.int64) * ROW)[:, None] + channel[None, :]
    rows = ()
    for i in tl.static_range(COUNT):
        at = token + (FIRST + i)
        mask = ((at >= 0) & (at < l))[:, None] & (channel < d)[None, :]
        rows += (tl.load(x + (FIRST + i) * ROW, mask, 0.0),)
    return rows


@triton.jit
def _taps(weight, channel, d: tl.constexpr, TAPS: tl.constexpr):
    """The weights of each tap for the channels."""
    taps = ()
    for k in tl.static_range(TAPS):
        taps += (tl.load(weight + channel * TAPS + k, channel < d, 0.0).to(tl.float32)[None, :],)
    return taps


@triton.jit
def _shift(bias, channel, d: tl.constexpr, WIDTH: tl.constexpr):
    """The bias of the channels; zeros without any."""
    shift = tl.zeros((WIDTH,), tl.float32)
    if bias is not None:
        shift += tl.load(bias + channel, channel < d, 0.0)
    return shift[None, :]


@triton.jit
def _convolve(rows, taps, shift, I: tl.constexpr, TAPS: tl.constexpr):
    """The convolution whose window begins at row I."""
    out = rows[I].to(tl.float32) * taps[0] + shift
    for k in tl.static_range(1, TAPS):
        out += rows[I + k].to(tl.float32) * taps[k]
    return out


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -_LOG2E))


@triton.jit
def conv_forward(
    x, x_image, weight, bias, out, l,
    X_ROW: tl.constexpr, d: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, STREAMS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """SiLU of the convolution."""
    _, image, token, channel = _place(l, d, ROWS, STREAMS, WIDTH)
    rows = _rows(x + image * x_image, token, channel, l, d, X_ROW, 1 - TAPS, ROWS + TAPS - 1)
    taps = _taps(weight, channel, d, TAPS)
    shift = _shift(bias, channel, d, WIDTH)
    out += ((image * l + token) * d)[:, None] + channel[None, :]
    for i in tl.static_range(ROWS):
        y = _convolve(rows, taps, shift, i, TAPS)
        y *= _sigmoid(y)
        mask = (token + i < l)[:, None] & (channel < d)[None, :]
        tl.store(out + i * d, y.to(out.dtype.element_ty), mask)


@triton.jit
def _added(sums, g, rows, I: tl.constexpr, TAPS: tl.constexpr):
    """What token I adds to the gradient of each tap's weights."""
    added = ()
    for k in tl.static_range(TAPS):
        added += (sums[k] + g * rows[I + k].to(tl.float32),)
    return added


# With v the convolution and s = sigmoid(v): g = dout s (1 + v (1 - s)) is the gradient of v, and
#   dx_t = sum_k w_k g_(t + TAPS-1 - k);  dw_k = sum_t g_t x_(t - (TAPS-1) + k);  dbias = sum_t g_t
@triton.jit
def conv_backward(
    x, x_image, weight, bias, dout, dout_image, dx, dweight, dbias, l,
    X_ROW: tl.constexpr, DOUT_ROW: tl.constexpr, d: tl.constexpr,
    TAPS: tl.constexpr, ROWS: tl.constexpr, STREAMS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients: of x for these tokens, and what the tokens add to those of weight and bias."""
    part, image, token, channel = _place(l, d, ROWS, STREAMS, WIDTH)
    rows = _rows(x + image * x_image, token, channel, l, d, X_ROW, 1 - TAPS, ROWS + 2 * (TAPS - 1))
    douts = _rows(dout + image * dout_image, token, channel, l, d, DOUT_ROW, 0, ROWS + TAPS - 1)
    taps = _taps(weight, channel, d, TAPS)
    shift = _shift(bias, channel, d, WIDTH)
    dx += ((image * l + token) * d)[:, None] + channel[None, :]
    slopes = ()  # g of the tokens so far
    sums = (tl.zeros((STREAMS, WIDTH), tl.float32),) * TAPS
    total = tl.zeros((STREAMS, WIDTH), tl.float32)
    for i in tl.static_range(ROWS + TAPS - 1):
        v = _convolve(rows, taps, shift, i, TAPS)
        s = _sigmoid(v)
        g = douts[i].to(tl.float32) * s * (1.0 + v * (1.0 - s))
        slopes += (g,)
        if i < ROWS:  # the others are those of the next stream
            total += g
            sums = _added(sums, g, rows, i, TAPS)
        if i >= TAPS - 1:
            y = g * taps[0]
            for k in tl.static_range(1, TAPS):
                y += slopes[i - k] * taps[k]
            mask = (token + (i - (TAPS - 1)) < l)[:, None] & (channel < d)[None, :]
            tl.store(dx + (i - (TAPS - 1)) * d, y.to(dx.dtype.element_ty), mask)
    in_part = tl.cast(part, tl.int64) * d + channel
    for k in tl.static_range(TAPS):
        tl.store(dweight + in_part * TAPS + k, tl.sum(sums[k], 0), channel < d)
    tl.store(dbias + in_part, tl.sum(total, 0), channel < d)


def _image_stride(x: Tensor) -> int:
    """Distance between images; 0 for a single one, so that the kernel's addresses stay multiples of 16 bytes."""
    return x.stride(0) if x.shape[0] > 1 else 0


def _parts(x: Tensor, streams: int) -> int:
    """Programs along images and tokens."""
    return x.shape[0] * triton.cdiv(x.shape[1], _ROWS * streams)


def _grid(x: Tensor, streams: int) -> tuple[int]:
    return (_parts(x, streams) * triton.cdiv(x.shape[2], _WIDTH),)


def _constants(x: Tensor, weight: Tensor, streams: int) -> dict[str, int]:
    tile = {"ROWS": _ROWS, "STREAMS": streams, "WIDTH": _WIDTH}
    return {"X_ROW": x.stride(1), "d": x.shape[2], "TAPS": weight.shape[1], **tile}


def _detached(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.detach().contiguous(), None if bias is None else bias.detach().contiguous()


@torch.library.custom_op("dacesr::causal_conv_silu_triton", mutates_args=())
def conv_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (b, l, d), weight (d, taps), bias (d) -> (b, l, d) in x's type."""
    x, (weight, bias) = unit_stride(x), _detached(weight, bias)
    out = x.new_empty(x.shape)
    with torch.cuda.device_of(x):
        conv_forward[_grid(x, _FORWARD_STREAMS)](
            x, _image_stride(x), weight, bias, out, x.shape[1],
            **_constants(x, weight, _FORWARD_STREAMS), **_LAUNCH,
        )  # fmt: skip
    return out


@torch.library.custom_op("dacesr::causal_conv_silu_triton_backward", mutates_args=())
def conv_backward_op(x: Tensor, weight: Tensor, bias: Tensor | None, dout: Tensor) -> list[Tensor]:
    """Return the gradients of x, weight and bias (unused where there is none)."""
    like = weight if bias is None else bias
    x, dout, (weight, bias) = unit_stride(x), unit_stride(dout), _detached(weight, bias)
    parts = _parts(x, _BACKWARD_STREAMS)
    dx = x.new_empty(x.shape)
    dweight, dbias = (x.new_empty((parts, *like.shape), dtype=torch.float32) for like in (weight, weight[:, 0]))
    with torch.cuda.device_of(x):
        conv_backward[_grid(x, _BACKWARD_STREAMS)](
            x, _image_stride(x), weight, bias, dout, _image_stride(dout), dx, dweight, dbias, x.shape[1],
            DOUT_ROW=dout.stride(1), **_constants(x, weight, _BACKWARD_STREAMS), **_LAUNCH,
        )  # fmt: skip
    return [dx, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(like.dtype)]


make_differentiable(conv_op, conv_backward_op)


def causal_conv_silu_triton(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU of a depth-wise convolution over the current and the taps - 1 previous tokens, on CUDA.

    Args:
        x: (b, l, d) of one of `DTYPES`, l >= 1; read in place where the stride along d is 1.
        weight: (d, 1, taps), at most `MAX_TAPS`.
        bias: (d) or None.

    Returns:
        (b, l, d) in x's dtype.
    """
    return conv_op(x, weight.squeeze(1), bias)
