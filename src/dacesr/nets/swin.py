"""The Swin transformer (Liu et al. 2021) that RAM looks through, for any input that the patch divides.

    b  pictures        h, w  tokens down and across    c  channels of a token
    s  tokens a side of a window                       g  windows of a picture

Deviations from the common implementation: q, k and v are layers of their own, so that LoRA finds them; what is filled
up to whole windows is never attended to; shifted windows and masks are made for the size at hand.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import TaggerConfig


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position."""

    def __init__(self, *, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("places", relative_places(window), persistent=False)

    def forward(self, x: Tensor, apart: Tensor | None) -> Tensor:
        """(b * g, s * s, c) -> the same; `apart` (g, s * s, s * s) is true where two tokens must not see each other."""
        n, length, _ = x.shape
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        places: Tensor = self.get_buffer("places")
        bias = self.bias[places.flatten()].view(length, length, -1).permute(2, 0, 1).to(q.dtype)
        if apart is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        else:
            groups = len(apart)
            mask = bias.masked_fill(apart[:, None], float("-inf"))  # (g, heads, s * s, s * s)
            if n != groups:
                mask = mask.expand(n // groups, *mask.shape).flatten(0, 1)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LocalConv(nn.Module):
    """A depth-wise 3x3 convolution around which the tokens pass: it says where things are, and learns from few data."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Window attention and an MLP, each on normalised tokens with a residual; every other block shifts its windows."""

    def __init__(self, *, config: TaggerConfig, stage: int, shifted: bool) -> None:
        super().__init__()
        dim = config.stage_dim(stage)
        self.window, self.shifted = config.window, shifted
        self.local = LocalConv(dim=dim) if config.local_conv else nn.Identity()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim=dim, heads=config.heads[stage], window=config.window)
        self.mlp = Mlp(dim=dim, hidden=config.mlp_ratio * dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, h, w, c)."""
        x = self.local(x)
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        s, (b, height, width, c) = self.window, x.shape
        down, right = -height % s, -width % s
        shift = s // 2 if self.shifted and max(height, width) > s else 0
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        rows, columns = x.shape[1] // s, x.shape[2] // s
        windows = x.view(b, rows, s, columns, s, c).transpose(2, 3).reshape(b * rows * columns, s * s, c)
        y = self.attn(windows, _apart(height, width, s, shift, x.device))
        y = y.view(b, rows, columns, s, s, c).transpose(2, 3).reshape(b, rows * s, columns * s, c)
        if shift:
            y = y.roll((shift, shift), (1, 2))
        return y[:, :height, :width]


class Merging(nn.Module):
    """Between stages: four neighbours become one token of twice the channels."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, h, w, c) -> (b, ceil(h / 2), ceil(w / 2), 2 c)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Stem(nn.Module):
    """Pixels become tokens."""

    def __init__(self, *, config: TaggerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        if config.stem == "patch":
            self.proj: nn.Module = nn.Conv2d(3, dim, config.patch, stride=config.patch)
        else:
            self.proj = _halvings(dim, config.patch.bit_length() - 1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """(b, 3, patch * h, patch * w) -> (b, h, w, c)."""
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Swin(nn.Module):
    """Stages of blocks over a pyramid of grids."""

    def __init__(self, *, config: TaggerConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.stem = Stem(config=config)
        self.stages = nn.ModuleList()
        self.merging = nn.ModuleList(Merging(dim=config.stage_dim(i)) for i in range(len(config.depths) - 1))
        for stage, depth in enumerate(config.depths):
            blocks = [Block(config=config, stage=stage, shifted=bool(i % 2)) for i in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(config.stage_dim(len(config.depths) - 1))

    def forward(self, image: Tensor) -> Tensor:
        """Look at pictures.

        Args:
            image: (b, 3, height, width), normalised; both sides multiples of the patch.

        Returns:
            (b, h, w, c), h = height / patch / 2^(stages - 1) rounded up at each halving.

        Raises:
            ValueError: The patch doesn't divide a side, or the picture has none or other channels than three.
        """
        if image.ndim != 4 or image.shape[1] != 3 or any(side % self.patch or not side for side in image.shape[2:]):
            wanted = f"(b, 3, h, w) with sides that are multiples of {self.patch}"
            raise ValueError(f"the encoder takes pictures {wanted}; got {tuple(image.shape)}")
        x = self.stem(image)
        for number, stage in enumerate(self.stages):
            x = stage(self.merging[number - 1](x) if number else x)
        return self.norm(x)


def _halvings(dim: int, times: int) -> nn.Sequential:
    """Convolutions that halve a picture so many times and end with `dim` channels, half of them in each one before."""
    widths = [3, *(dim >> (times - 1 - i) for i in range(times))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def relative_places(s: int) -> Tensor:
    """(s * s, s * s): the row of the bias table for a query and a key, by how far down and right the query is."""
    y, x = torch.meshgrid(torch.arange(s), torch.arange(s), indexing="ij")
    down = y.flatten()[:, None] - y.flatten() + s - 1
    right = x.flatten()[:, None] - x.flatten() + s - 1
    return down * (2 * s - 1) + right


def _apart(height: int, width: int, s: int, shift: int, device: torch.device) -> Tensor | None:
    """(g, s * s, s * s): true for pairs in a window that are no neighbours in the picture; None if there are none.

    Shifted windows join opposite edges of the picture; tokens beyond it, which fill the last windows, see only
    themselves, so that no row of the mask is empty.
    """
    if not shift and height % s == 0 and width % s == 0:
        return None
    regions = [_regions(side, s, shift, device) for side in (height, width)]
    region = regions[0][:, None] * 4 + regions[1]  # (rows * s, columns * s)
    rows, columns = region.shape[0] // s, region.shape[1] // s
    tokens = region.view(rows, s, columns, s).transpose(1, 2).reshape(rows * columns, s * s)
    return tokens[:, :, None] != tokens[:, None, :]


def _regions(side: int, s: int, shift: int, device: torch.device) -> Tensor:
    """For each place after the roll which part of the picture it is from: 0 or 1; 2 beyond the picture."""
    whole = side + -side % s
    place = (torch.arange(whole, device=device) + shift) % whole  # where its token was
    wrapped = torch.arange(whole, device=device) >= whole - shift
    return torch.where(place >= side, 2, wrapped.long())
