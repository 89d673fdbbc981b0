"""Conditional feature modulator (DACESR Eq. 6): after each group, x <- alpha * x + beta, from the condition's tokens.

    b  pictures     g  sides of the grid of tokens     h, w  sides of the feature map     c  its channels

A condition is (b, 1 + g*g, width): a global token, then a g x g grid, row by row. A modulation yields one `Affine` for
each group. `window` says which part of the picture that the tokens describe is being worked on, so that a tile or a
training crop gets what the whole picture would have had there.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import RestorerConfig

Window = tuple[float, float, float, float] | Tensor
WHOLE = (0.0, 0.0, 1.0, 1.0)


def whole(device: torch.device) -> Tensor:
    """`WHOLE` as a tensor (1, 4), made on its device, so that nothing is copied there."""
    return torch.cat((torch.zeros(1, 2, device=device), torch.ones(1, 2, device=device)), dim=1)


class Affine(NamedTuple):
    """x <- (1 + scale) * x + shift for the tokens x (b, h*w, c) of a group; both broadcast to them, None is zero."""

    scale: Tensor | None
    shift: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it to tokens, in their precision."""
        if self.scale is None:
            return x if self.shift is None else x + self.shift.to(x.dtype)
        factor = 1 + self.scale.to(x.dtype)
        if self.shift is None:
            return x * factor
        shift = self.shift.to(x.dtype)
        if x.device.type == "cpu":
            return x * factor + shift
        return torch.addcmul(shift, x, factor)  # a pass over the tokens less


class ReleaseModulation(nn.Module):
    """The released code's modulation, which has no weights: h <- h*s + s + h, so scale and shift are both s.

    s is token 0 alone, its values stretched over the picture's pixels in row order (linearly, half-pixel centres), the
    same for every channel and group. The release gives image i of a batch token i of image 0; here each has its own.
    """

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, condition: Tensor, height: int, width: int, window: Tensor) -> Iterator[Affine]:
        """Condition (b, 1 + g*g, width), window (1 or b, 4) -> for each group an Affine of (b, h*w, 1)."""
        values = condition[:, 0]  # (b, width)
        top, left, bottom, right = window.double().unsqueeze(-1).unbind(1)  # each (1 or b, 1)
        full_height, full_width = (height / (bottom - top)).round(), (width / (right - left)).round()
        rows = torch.arange(height, device=window.device) + (top * full_height).round()
        columns = torch.arange(width, device=window.device) + (left * full_width).round()
        pixel = (rows[:, :, None] * full_width[:, :, None] + columns[:, None]).flatten(1)  # index in the whole picture
        last = values.shape[1] - 1
        place = (pixel + 0.5) * (values.shape[1] / (full_height * full_width)) - 0.5
        place = place.clamp(0, last).expand(len(values), -1)  # (b, h*w)
        before = place.long()
        share = (place - before).to(values)
        before = before.to(values.device)
        s = values.gather(1, before).lerp(values.gather(1, (before + 1).clamp(max=last)), share).unsqueeze(-1)
        wanted = self.config.modulate
        affine = Affine(None if wanted == "add" else s, None if wanted == "multiply" else s)
        return iter([affine] * len(self.config.depths))


class LearnedModulation(nn.Module):
    """Scale and shift as a linear function of the tokens, one for each group; it starts at zero, as no modulation.

    With a grid (`spatial`) the g*g spatial tokens are projected where they are, and the result is resized bilinearly
    (half-pixel centres) to the feature map. Without (`global`) the global token is projected, alike for all pixels.
    Tokens are normalised first, LayerNorm without weights and then to unit length. So any extractor's have the same
    scale, and a step of the optimizer, which moves every weight alike, moves scale and shift no more than it does
    elsewhere (docs/ablations.md).
    """

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        wide = config.embed_dim * (2 if config.modulate == "both" else 1)
        self.projections = nn.ModuleList(nn.Linear(config.condition_dim, wide) for _ in config.depths)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, condition: Tensor, height: int, width: int, window: Tensor) -> Iterator[Affine]:
        """Condition (b, 1 + g*g, width), window (1 or b, 4) -> for each group an Affine of (b, 1 or h*w, c).

        Raises:
            ValueError: a grid is needed, and the tokens after the first are none.
        """
        grid = self.config.modulation == "spatial"
        tokens = condition[:, 1:] if grid else condition[:, :1]
        side = math.isqrt(tokens.shape[1])
        if side < 1 or side * side != tokens.shape[1]:
            raise ValueError(f"the condition must be a global token and a square grid, not {condition.shape[1]} tokens")
        tokens = F.normalize(F.layer_norm(tokens.float(), tokens.shape[-1:]), dim=-1)
        rows = resizing(side, height, window[:, 0], window[:, 2]).to(tokens)
        columns = resizing(side, width, window[:, 1], window[:, 3]).to(tokens)
        return self._affines(tokens, side, rows, columns)

    def _affines(self, tokens: Tensor, side: int, rows: Tensor, columns: Tensor) -> Iterator[Affine]:
        """One group's after the other, so that only one group's maps are in memory."""
        for projection in self.projections:
            values = projection(tokens.to(next(projection.parameters()).dtype))  # (b, t, c or 2 c)
            if self.config.modulation == "spatial":
                values = _resized(values.unflatten(1, (side, side)), rows.to(values), columns.to(values)).flatten(1, 2)
            if self.config.modulate == "both":
                yield Affine(*values.chunk(2, dim=-1))
            else:
                yield Affine(values, None) if self.config.modulate == "multiply" else Affine(None, values)


def resizing(source: int, target: int, start: Tensor, end: Tensor) -> Tensor:
    """Bilinear resizing of the part [start, end] of an axis, as matrices.

    Args:
        source: values along the whole axis, at half-pixel centres; the first and last go on beyond them.
        target: values wanted, at half-pixel centres of the part.
        start: (b,) where the part begins, as a fraction of the axis.
        end: (b,) where it ends.

    Returns:
        (b, target, source) float32 on the device of `start`, each row adding up to 1.
    """
    steps = (torch.arange(target, dtype=torch.float64, device=start.device) + 0.5) / target
    start, end = start.double()[:, None], end.double()[:, None]
    place = ((start + steps * (end - start)) * source - 0.5).clamp(0, source - 1)  # (b, target)
    distance = place[:, :, None] - torch.arange(source, device=start.device)
    return (1 - distance.abs()).clamp(min=0).float()


def _resized(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(b, g, g, c) by (1 or b, h, g) and (1 or b, w, g) -> (b, h, w, c)."""
    b, g, _, c = values.shape
    values = columns.unsqueeze(1) @ values  # (b, g, w, c)
    return (rows @ values.reshape(b, g, -1)).view(b, rows.shape[1], -1, c)


MODULATIONS: dict[str, Callable[[RestorerConfig], nn.Module | None]] = {
    "none": lambda config: None,
    "release": ReleaseModulation,
    "spatial": LearnedModulation,
    "global": LearnedModulation,
}
