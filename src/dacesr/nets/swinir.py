"""SwinIR (Liang et al. 2021, arXiv 2108.10257), under the parameter names of its release.

    group (RSTB):  6 x block -> 3x3 conv -> + input
    block (STL):   x + attention(LayerNorm(x)), then x + MLP(LayerNorm(x)); every other one shifts its windows

Without the stochastic depth of its training. For letters and the frame see `dacesr.nets.windows`.
"""

from torch import Tensor, nn

from dacesr.config.transformers import SwinIRConfig
from dacesr.nets.swin import Mlp
from dacesr.nets.windows import Grid, Order, WindowAttention, WindowRestorer, by_windows, inverse

__all__ = ["SwinIR", "SwinIRConfig"]


class Block(nn.Module):
    """Window attention and an MLP, each on normalised tokens with a residual."""

    def __init__(self, *, config: SwinIRConfig, heads: int) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim=dim, heads=heads, window=config.window)
        self.mlp = Mlp(dim=dim, hidden=config.mlp_ratio * dim)

    def forward(self, x: Tensor, order: Order, places: Tensor) -> Tensor:
        """(n, c), sorted by the order, -> the same; for the places see `Grid`. Without gradients x is written over."""
        return by_windows(self._look, x, order, self.attn.bias(places))

    def _look(self, windows: Tensor, mask: Tensor) -> Tensor:
        windows = windows + self.attn(self.norm1(windows), mask)
        return windows + self.mlp(self.norm2(windows))


class Blocks(nn.Module):
    """Blocks with and without a shift in turn; from one to the next tokens move from window to window."""

    def __init__(self, *, config: SwinIRConfig, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config=config, heads=heads) for _ in range(depth))

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(n, c) -> (n, c)."""
        back: Tensor | None = None  # from the order that x is in
        for number, block in enumerate(self.blocks):
            order = grid.orders[number % 2]
            x = x.index_select(0, order.places if back is None else back[order.places])
            x = block(x, order, grid.places)
            back = inverse(order.places)
        return x if back is None else x.index_select(0, back)


class SwinIR(WindowRestorer):
    """RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped."""

    def __init__(self, config: SwinIRConfig) -> None:
        """Make the network of `config`, randomly initialised as by its authors."""
        groups = zip(config.depths, config.heads, strict=True)
        super().__init__(config, [Blocks(config=config, depth=depth, heads=heads) for depth, heads in groups])
        self.config = config
