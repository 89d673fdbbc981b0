"""Blur of a batch in Triton, for CUDA: every picture with its own size, kernel and edge, in one launch.

A program makes a tile of one channel. It walks over the taps that the picture's kernel really has, finds each source
pixel at the mirrored or repeated place, and so needs no extended copy of the picture. Neighbouring programs share
most of what they read through the caches; the arithmetic is what takes the time.
"""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# (the types of Triton describe a kernel's Python function, not its launch)

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from dacesr.degradation.canvas import Sizes, mirrors
from dacesr.imresize import upload

_ROWS, _COLUMNS = 32, 64  # of a tile: 16 pixels a lane
_LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}  # fused multiply-add: the default until Triton 3.9, which warns
_NUMBERS = ("channels", "height", "width", "side")


@triton.jit
def _source(place, side, mirrored):
    """The pixels of an axis to take at places up to a kernel's reach outside it."""
    last = side - 1
    reflected = tl.where(place > last, 2 * last - place, tl.abs(place))
    return tl.minimum(tl.maximum(tl.where(mirrored != 0, reflected, place), 0), last)


@triton.jit(do_not_specialize=_NUMBERS)  # one compilation, not one for each kind of size
def correlate(x, kernels, facts, out, channels, height, width, side, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tile of `out`: facts are (pictures, 4) of valid height and width, reach, and whether edges are mirrored."""
    across = tl.cdiv(width, COLUMNS)
    tiles = across * tl.cdiv(height, ROWS)
    plane, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    picture = plane // channels
    high, wide = tl.load(facts + picture * 4), tl.load(facts + picture * 4 + 1)
    reach, mirrored = tl.load(facts + picture * 4 + 2), tl.load(facts + picture * 4 + 3)
    row = (tile // across) * ROWS + tl.arange(0, ROWS)
    column = (tile % across) * COLUMNS + tl.arange(0, COLUMNS)
    start = plane.to(tl.int64) * height * width
    x += start
    taps = kernels + picture * side * side + (side // 2 - reach) * (side + 1)
    valid = (row < high)[:, None] & (column < wide)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    if ((tile // across) * ROWS < high) & ((tile % across) * COLUMNS < wide):
        for i in range(2 * reach + 1):
            line = x + (_source(tl.minimum(row, high - 1) + (i - reach), high, mirrored) * width)[:, None]
            for j in range(2 * reach + 1):
                pixel = _source(tl.minimum(column, wide - 1) + (j - reach), wide, mirrored)
                total += tl.load(line + pixel[None, :]) * tl.load(taps + i * side + j)
    inside = (row < height)[:, None] & (column < width)[None, :]
    tl.store(out + start + row[:, None] * width + column[None, :], tl.where(valid, total, 0.0), inside)


def filter2d_triton(x: Tensor, kernel: Tensor, sizes: Sizes, reach: Sequence[int]) -> Tensor:
    """`ops.filter2d` without gradients; the filling becomes 0.

    Args:
        x: (b, c, h, w) fp32.
        kernel: (b, k, k) fp32, on the CPU or with `x`.
        sizes: what of each canvas is valid.
        reach: how far each kernel goes from its centre; what lies beyond is not read.

    Returns:
        (b, c, h, w).
    """
    b, c, height, width = x.shape
    facts = [[*size, far, int(mirror)] for size, far, mirror in zip(sizes, reach, mirrors(sizes, reach), strict=True)]
    x, taps = x.contiguous(), upload(kernel, x.device).contiguous()
    out = torch.empty_like(x)
    grid = (b * c * triton.cdiv(height, _ROWS) * triton.cdiv(width, _COLUMNS),)
    with torch.cuda.device_of(x):
        correlate[grid](
            x,
            taps,
            upload(torch.tensor(facts, dtype=torch.int32), x.device),
            out,
            c,
            height,
            width,
            kernel.shape[-1],
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            **_LAUNCH,
        )
    return out
