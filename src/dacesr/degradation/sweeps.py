"""Sweeps of one degradation from mild to severe, at the picture's own size (DACESR Fig. 1 and 2)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.degradation import kernels, ops
from dacesr.degradation.jpeg import round_through

Apply = Callable[[Tensor, float, torch.Generator], Tensor]


class Sweep(NamedTuple):
    """A degradation and the levels to try, the mildest first.

    Attributes:
        apply: (x, level, generator) -> degraded: pictures (b, 3, h, w) in [0, 1], those returned of 8-bit values;
            random numbers come from the generator, which is on the device of `x`.
        levels: Levels, mild to severe.
        unit: What a level measures, for people.
    """

    apply: Apply
    levels: tuple[float, ...]
    unit: str


def blur(x: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Isotropic Gaussian blur of a sigma in pixels; the kernel reaches four sigmas."""
    kernel = kernels.gaussian(2 * math.ceil(4 * level) + 1, level, level)
    return _to_8_bit(ops.filter2d(x, kernel))


def noise(x: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """White Gaussian noise on each channel, of a sigma in 8-bit levels."""
    b = x.shape[0]
    sigma, gray = torch.full((b,), level / 255), torch.zeros(b, dtype=torch.bool)
    return _to_8_bit(ops.gaussian_noise(x, sigma, gray, [generator] * b))


def jpeg(x: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """JPEG of a quality from 1 to 100."""
    return ops.jpeg(x, level)


def _to_8_bit(x: Tensor) -> Tensor:
    return round_through(x.clamp(0, 1) * 255) / 255


SWEEPS: dict[str, Sweep] = {
    "blur": Sweep(blur, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), "sigma in pixels"),
    "noise": Sweep(noise, (5.0, 10.0, 20.0, 30.0), "sigma of 255"),
    "jpeg": Sweep(jpeg, tuple(float(quality) for quality in range(90, 0, -10)), "quality"),
}
