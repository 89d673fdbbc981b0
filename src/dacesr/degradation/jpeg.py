"""JPEG compression and decompression as libjpeg does it (4:2:0), on batches, on any device, without a file.

Per picture: RGB -> YCbCr of 8 bits; chroma halved by 2 x 2 means; 8 x 8 DCT; division by the quality's table and
rounding; the way back, with libjpeg's triangle filter for chroma. Edges are replicated up to whole blocks. Rounding
passes the gradient through, so the result is differentiable in the picture.

Tables and scaling: ITU-T T.81, Annex K, as libjpeg's `jpeg_set_quality` uses them.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.degradation.canvas import Sizes, extend
from dacesr.imresize import upload

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
_UNIT = 16  # pixels: two blocks along each side, one block of chroma


class _Numbers(NamedTuple):
    """What the arithmetic needs, on the device of the pictures.

    Attributes:
        luma: (b, 64) quantisation steps.
        chroma: (b, 64).
        dct: (64 coefficients, 64 pixels), the orthonormal DCT-II of 8 x 8 blocks.
        to_ycbcr: (3, 3).
        to_rgb: (3, 3).
    """

    luma: Tensor
    chroma: Tensor
    dct: Tensor
    to_ycbcr: Tensor
    to_rgb: Tensor


def jpeg(x: Tensor, quality: float | Tensor, sizes: Sizes | None = None) -> Tensor:
    """What is left of a picture after JPEG, chroma subsampled 4:2:0.

    Args:
        x: (b, 3, h, w) RGB in [0, 1]; rounded to 8 bits first.
        quality: 1 to 100, one number or one per picture (b,); rounded to a whole number, as libjpeg's is. A tensor on
            a GPU has to be waited for, one on the CPU has not.
        sizes: what of each canvas is valid.

    Returns:
        (b, 3, h, w) in [0, 1], 8-bit values.

    Raises:
        ValueError: `x` is not (b, 3, h, w), the qualities are not one or b, or one is outside 1 to 100.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"JPEG takes (b, 3, h, w), not {tuple(x.shape)}")
    levels = torch.as_tensor(quality, dtype=torch.float32, device="cpu").round()
    if levels.shape not in ((), x.shape[:1]):
        raise ValueError(f"JPEG takes one quality, or one for each of {x.shape[0]} pictures; got {tuple(levels.shape)}")
    levels = levels.expand(x.shape[0])
    if not bool(((levels >= 1) & (levels <= 100)).all()):
        raise ValueError(f"JPEG quality goes from 1 to 100; got {quality}")
    numbers = _numbers(levels, x.device)
    height, width = x.shape[-2:]
    pad = (0, -width % _UNIT, 0, -height % _UNIT)
    rgb = F.pad(round_through(extend(x, 0, sizes).float() * 255).clamp(0, 255), pad, mode="replicate")
    ycbcr = torch.einsum("oc,bchw->bohw", numbers.to_ycbcr, rgb)
    luma = round_through(ycbcr[:, :1]) - 128
    chroma = round_through(F.avg_pool2d(round_through(ycbcr[:, 1:]), 2))
    luma = _compressed(luma, numbers.luma, numbers.dct)
    chroma = _compressed(chroma, numbers.chroma, numbers.dct)
    if sizes:  # alone, a picture would end at its last whole block
        half = [(-(-high // _UNIT) * _UNIT // 2, -(-wide // _UNIT) * _UNIT // 2) for high, wide in sizes]
        chroma = extend(chroma, 0, half)
    chroma = round_through(F.interpolate(chroma, scale_factor=2, mode="bilinear"))
    rgb = torch.einsum("oc,bchw->bohw", numbers.to_rgb, torch.cat([luma + 128, chroma], dim=1))
    return (round_through(rgb).clamp(0, 255) / 255)[..., :height, :width].to(x.dtype)


def _numbers(quality: Tensor, device: torch.device) -> _Numbers:
    """All numbers in one copy."""
    parts = _Numbers(_tables(quality, _LUMA), _tables(quality, _CHROMA), *_constants())
    packed = upload(torch.cat([part.flatten() for part in parts]), device)
    split = packed.split([part.numel() for part in parts])
    return _Numbers(*(flat.view(part.shape) for flat, part in zip(split, parts, strict=True)))


def _tables(quality: Tensor, standard: tuple[tuple[int, ...], ...]) -> Tensor:
    """Quantisation steps (b, 64) of each picture: floor((T s + 50) / 100), from 1 to 255."""
    scale = torch.where(quality < 50, torch.floor(5000 / quality), 200 - 2 * quality)
    base = torch.tensor(standard, dtype=torch.float32).flatten()
    return torch.floor((base * scale[:, None] + 50) / 100).clamp(1, 255)


@cache
def _constants() -> tuple[Tensor, Tensor, Tensor]:
    """The DCT and the two changes of colours, on the CPU."""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    rows[0] /= math.sqrt(2)
    return torch.kron(rows, rows).float(), torch.tensor(_TO_YCBCR), torch.tensor(_TO_RGB)


def _compressed(planes: Tensor, steps: Tensor, dct: Tensor) -> Tensor:
    """Planes (b, c, h, w) around 0 (sides multiples of 8) through DCT, quantisation and back, rounded, in 8 bits.

    libjpeg's DCT works in eighths, so halves of a step are common in pictures that have been JPEGs before; they go away
    from 0.
    """
    b, c, h, w = planes.shape
    blocks = planes.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(b, -1, 64)
    steps = steps[:, None]
    eighths = round_through(8 * (blocks @ dct.mT))
    levels = eighths.sign() * torch.floor((eighths.abs() + 4 * steps) / (8 * steps))
    pixels = (_through(eighths / (8 * steps), levels) * steps @ dct).reshape(b, c, h // 8, w // 8, 8, 8).transpose(3, 4)
    return round_through(pixels.reshape(b, c, h, w)).clamp(-128, 127)


def round_through(x: Tensor) -> Tensor:
    """The nearest whole number; the gradient passes as if nothing had been rounded."""
    return _through(x, x.round())


def _through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `x`."""
    return x + (rounded - x).detach() if x.requires_grad else rounded
