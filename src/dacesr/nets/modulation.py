"""Conditional feature modulator (DACESR Eq. 6): after each group, x <- alpha * x + beta, from the condition's tokens.

A condition is (b, 1 + g*g, width): a global token, then a g x g grid. A modulation makes one `Affine` per group of it;
`window` = (top, left, bottom, right), as fractions, says which part of the picture the tokens cover, so that a tile
gets what the whole picture would have had there.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dacesr.config import RestorerConfig

Window = tuple[float, float, float, float]
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


class Affine(NamedTuple):
    """What a group's tokens (b, h*w, c) are multiplied by and then shifted by; both broadcast to them."""

    alpha: Tensor
    beta: Tensor


class ReleaseModulation(nn.Module):
    """The released code's modulation, which has no weights: h <- h*s + s + h, so alpha = 1 + s and beta = s.

    s is token 0 alone, its values stretched over the picture's pixels in row order (linearly, half-pixel centres), the
    same for every channel and group. The release gives image i of a batch token i of image 0; here each has its own.
    """

    def __init__(self, *, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, condition: Tensor, height: int, width: int, window: Window) -> Sequence[Affine]:
        """(b, 1 + g*g, width) -> for each group an Affine of (b, h*w, 1)."""
        values = condition[:, 0]  # (b, width)
        top, left, bottom, right = window
        full_height, full_width = round(height / (bottom - top)), round(width / (right - left))
        rows = torch.arange(height, device=values.device) + round(top * full_height)
        columns = torch.arange(width, device=values.device) + round(left * full_width)
        pixel = (rows[:, None] * full_width + columns).flatten()  # index in the whole picture, (h*w)
        last = values.shape[1] - 1
        place = (pixel + 0.5) * (values.shape[1] / (full_height * full_width)) - 0.5
        place = place.clamp(0, last)
        before = place.long()
        s = torch.lerp(values[:, before], values[:, (before + 1).clamp(max=last)], (place - before).to(values.dtype))
        s = s.unsqueeze(-1)
        return [Affine(1 + s, s)] * self.groups


MODULATIONS: dict[str, Callable[[RestorerConfig], nn.Module | None]] = {
    "none": lambda config: None,
    "release": lambda config: ReleaseModulation(groups=len(config.depths)),
}
