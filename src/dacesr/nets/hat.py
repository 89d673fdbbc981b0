"""HAT (Chen et al. 2023, arXiv 2205.04437 and 2309.05239), under the parameter names of its release.

    group (RHAG):  6 x HAB -> OCAB -> 3x3 conv -> + input
    HAB:           y = LayerNorm(x);  x + attention(y) + conv_scale * CAB(y), then x + MLP(LayerNorm(x))
    CAB:           3x3 conv -> GELU -> 3x3 conv -> times a gate for each channel, from the mean of the picture
    OCAB:          the tokens of a window attend to those of a larger window around it, then the MLP as above

Beyond the edges of the picture an OCAB sees keys and values of zero. Without the stochastic depth of its training. For
letters and the frame see `dacesr.nets.windows`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config.transformers import HATConfig
from dacesr.nets.heads import conv3x3
from dacesr.nets.swin import Mlp
from dacesr.nets.windows import (
    PART,
    BiasedAttention,
    Grid,
    WindowAttention,
    WindowRestorer,
    by_windows,
    in_parts,
    inverse,
)

__all__ = ["HAT", "HATConfig"]


class ChannelAttention(nn.Module):
    """A gate for each channel, from its mean over the picture."""

    def __init__(self, *, dim: int, squeeze_dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(dim, squeeze_dim, 1),
            nn.ReLU(),
            nn.Conv2d(squeeze_dim, dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return image * self.attention(image)


class CAB(nn.Module):
    """Channel attention block: two convolutions and a gate for each channel."""

    def __init__(self, *, dim: int, conv_dim: int, squeeze_dim: int) -> None:
        super().__init__()
        gate = ChannelAttention(dim=dim, squeeze_dim=squeeze_dim)
        self.cab = nn.Sequential(conv3x3(dim, conv_dim), nn.GELU(), conv3x3(conv_dim, dim), gate)

    def forward(self, image: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        return self.cab(image)


class HAB(nn.Module):
    """Hybrid attention block: window attention beside a channel attention block, then an MLP."""

    def __init__(self, *, config: HATConfig, heads: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.conv_scale = config.conv_scale
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim=dim, heads=heads, window=config.window)
        self.conv_block = CAB(dim=dim, conv_dim=config.conv_dim, squeeze_dim=config.squeeze_dim)
        self.mlp = Mlp(dim=dim, hidden=config.mlp_ratio * dim)

    def forward(self, x: Tensor, grid: Grid, *, shifted: bool) -> Tensor:
        """(n, c) -> (n, c)."""
        order = grid.orders[shifted]
        y = self.norm1(x)
        seen = by_windows(self.attn, y.index_select(0, order.places), order, self.attn.bias(grid.places))
        x = x + seen.index_select(0, inverse(order.places))
        x = torch.add(x, grid.rows(self.conv_block(grid.image(y))), alpha=self.conv_scale)
        return in_parts(lambda part: part + self.mlp(self.norm2(part)), x, PART)


class OCAB(BiasedAttention):
    """Overlapping cross-attention block: q from a window, k and v from a larger window around it."""

    def __init__(self, *, config: HATConfig, heads: int) -> None:
        dim, self_side, seen_side = config.embed_dim, config.window, config.window + 2 * config.overlap
        super().__init__(dim=dim, heads=heads, positions=(self_side + seen_side - 1) ** 2)
        self.overlap = config.overlap
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = Mlp(dim=dim, hidden=config.mlp_ratio * dim)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(n, c) -> (n, c)."""
        order = grid.orders[0]
        y, (dim, length) = self.norm1(x), (x.shape[-1], grid.window**2)
        k_v = F.linear(y, self.qkv.weight[dim:], self.qkv.bias[dim:]).view(grid.batch, grid.height, grid.width, -1)
        k_v = F.pad(k_v, (0, 0, *(self.overlap,) * 4)).flatten(0, 2)
        bias = self.bias(_overlapping_places(grid.window, self.overlap).to(x.device))

        def look(windows: Tensor, around: Tensor) -> Tensor:
            q = F.linear(windows, self.qkv.weight[:dim], self.qkv.bias[:dim])
            k, v = k_v.index_select(0, around.flatten()).view(*around.shape, -1).chunk(2, -1)
            return self.attend(q, k, v, bias)

        windows = y.index_select(0, order.places).view(-1, length, dim)
        seen = in_parts(look, windows, max(1, PART // length), _around(grid, self.overlap)).view(-1, dim)
        x = x + seen.index_select(0, inverse(order.places))
        return in_parts(lambda part: part + self.mlp(self.norm2(part)), x, PART)


def _around(grid: Grid, overlap: int) -> Tensor:
    """(g, (s + 2 overlap)^2): the rows around each window, of pictures with a margin of `overlap`."""
    height, width = grid.height + 2 * overlap, grid.width + 2 * overlap
    ids = torch.arange(grid.batch * height * width, device=grid.places.device).view(grid.batch, height, width)
    side = grid.window + 2 * overlap
    return ids.unfold(1, side, grid.window).unfold(2, side, grid.window).permute(1, 2, 0, 3, 4).reshape(-1, side**2)


def _overlapping_places(s: int, overlap: int) -> Tensor:
    """(s * s, (s + 2 overlap)^2): the row of the bias table for a query and a key, by how far the key is from it.

    The release counts from a negative row, and so do its tables: the rows below 0 are the last ones.
    """
    query, key = torch.arange(s), torch.arange(s + 2 * overlap)
    sides = 2 * s + 2 * overlap - 1  # relative positions along a side
    away = key - query[:, None] - 2 * overlap + 1  # (s, s + 2 overlap)
    return (away[:, None, :, None] * sides + away[None, :, None, :]).flatten(2).flatten(0, 1) % sides**2


class Blocks(nn.Module):
    """Hybrid attention blocks with and without a shift in turn, then the overlapping attention."""

    def __init__(self, *, config: HATConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(HAB(config=config, heads=heads) for _ in range(depth))
        self.overlap_attn = OCAB(config=config, heads=heads)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(n, c) -> (n, c)."""
        for number, block in enumerate(self.blocks):
            x = block(x, grid, shifted=bool(number % 2))
        return self.overlap_attn(x, grid)


class HAT(WindowRestorer):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped."""

    def __init__(self, config: HATConfig) -> None:
        """Make the network of `config`, randomly initialised as by its authors."""
        groups = zip(config.depths, config.heads, strict=True)
        super().__init__(config, [Blocks(config=config, depth=depth, heads=heads) for depth, heads in groups])
        self.config = config
