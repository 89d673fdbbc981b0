"""Attention within windows of a picture, and the frame that SwinIR and HAT have in common.

    b  pictures    h, w  tokens down and across    c  channels of a token    n = b*h*w
    s  tokens a side of a window                   g = n / (s*s) windows of all pictures

Tokens are rows (n, c) of all pictures. They are sorted by windows with one gather, and stay sorted for as long as what
is done to them looks no further than a window. Windows that need the same mask stand together, so that masks are never
repeated, and without gradients a few windows at a time go through all of a block in place.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config.transformers import HATConfig, SwinIRConfig
from dacesr.nets.heads import HEADS, conv3x3, in_strips
from dacesr.nets.inputs import check_image, reflect_to
from dacesr.nets.mamba import AtLeastFloat32, group_end
from dacesr.nets.swin import relative_places

PART = 1 << 12  # tokens that go through a layer at a time where no gradient is wanted: the fastest of 2^11 to 2^16


class Run(NamedTuple):
    """Windows that stand together and need the same mask."""

    windows: int
    apart: Tensor | None  # (s*s, s*s): true where a token must not see another; None: all see all


class Order(NamedTuple):
    """Tokens sorted by windows."""

    places: Tensor  # (n): for each token its row among the unsorted ones
    runs: list[Run]


class Grid(NamedTuple):
    """Pictures of whole windows.

    Attributes:
        batch: Pictures.
        height: Tokens down, a multiple of the window.
        width: Tokens across, a multiple of the window.
        window: Tokens a side of a window.
        orders: Without and with a shift by half a window.
        places: (s*s, s*s): for a query and a key the row of the table of biases.
    """

    batch: int
    height: int
    width: int
    window: int
    orders: tuple[Order, Order]
    places: Tensor

    @classmethod
    def of(cls, image: Tensor, window: int) -> "Grid":
        """The grid of a (b, c, h, w) tensor."""
        batch, _, height, width = image.shape
        ids = torch.arange(batch * height * width, device=image.device).view(batch, height, width)
        orders = (_order(ids, window, 0), _order(ids, window, window // 2))
        return cls(batch, height, width, window, orders, relative_places(window).to(image.device))

    def rows(self, image: Tensor) -> Tensor:
        """(b, c, h, w) -> (n, c); a view where the memory is channels_last."""
        return image.permute(0, 2, 3, 1).flatten(0, 2)

    def image(self, rows: Tensor) -> Tensor:
        """(n, c) -> (b, c, h, w) in channels_last memory, a view."""
        return rows.view(self.batch, self.height, self.width, -1).permute(0, 3, 1, 2)


def _order(ids: Tensor, s: int, shift: int) -> Order:
    """The order of windows that are shifted so far down and right, around the edges; ids (b, h, w) count the tokens."""
    batch, height, width = ids.shape
    grid = ids.roll((-shift, -shift), (1, 2)).view(batch, height // s, s, width // s, s)
    grid = grid.permute(1, 3, 0, 2, 4)  # (rows, columns, b, s, s)
    if not shift:
        return Order(grid.flatten(), [Run(grid.shape[0] * grid.shape[1] * batch, None)])
    beyond = torch.arange(s, device=ids.device) >= s - shift  # these come from the opposite edge of the picture
    differ = beyond[:, None] != beyond
    down = differ.repeat_interleave(s, 0).repeat_interleave(s, 1)
    right = differ.repeat(s, s)
    parts = [
        (grid[:-1, :-1], None),
        (grid[-1:, :-1], down),
        (grid[:-1, -1:], right),
        (grid[-1:, -1:], down | right),
    ]
    runs = [Run(part.shape[:3].numel(), apart) for part, apart in parts if part.numel()]
    return Order(torch.cat([part.flatten() for part, _ in parts]), runs)


def inverse(places: Tensor) -> Tensor:
    """The permutation that undoes one."""
    return torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=places.device))


def in_parts(layer: Callable[..., Tensor], x: Tensor, size: int, *others: Tensor) -> Tensor:
    """Apply a layer that treats the rows of its arguments apart; without gradients `size` rows at a time.

    Args:
        layer: takes x and the others, or the same part of each, and returns what is like x.
        x: (rows, ...); without gradients the result is written over it.
        size: rows of a part.
        *others: (rows, ...).

    Returns:
        Like x.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return layer(x, *others)
    for part, *rest in zip(x.split(size), *(other.split(size) for other in others), strict=True):
        part.copy_(layer(part, *rest))
    return x


def by_windows(layer: Callable[[Tensor, Tensor], Tensor], x: Tensor, order: Order, bias: Tensor) -> Tensor:
    """Apply a layer that looks no further than a window.

    Args:
        layer: takes windows (g', s*s, c) and their mask (heads, s*s, s*s), which is added to the logits.
        x: (n, c), sorted by `order`; without gradients the result is written over it.
        order: of x.
        bias: (heads, s*s, s*s), the mask where nothing is apart.

    Returns:
        (n, c), in the same order.
    """
    length = bias.shape[-1]
    windows = x.view(-1, length, x.shape[-1])
    done = []
    for part, (_, apart) in zip(windows.split([run.windows for run in order.runs]), order.runs, strict=True):
        mask = bias if apart is None else bias.masked_fill(apart, float("-inf"))
        done.append(in_parts(lambda some, mask=mask: layer(some, mask), part, max(1, PART // length)))
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return torch.cat(done).view_as(x)
    return x


class BiasedAttention(nn.Module):
    """Attention of several heads with a learned bias for each relative position; q, k and v come from one layer."""

    def __init__(self, *, dim: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty(positions, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def bias(self, places: Tensor) -> Tensor:
        """(heads, queries, keys), from the row of the table for each query and key."""
        rows = self.relative_position_bias_table.index_select(0, places.flatten())
        return rows.view(*places.shape, self.heads).permute(2, 0, 1).contiguous()

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """(g', queries, c) from q of that shape, k and v (g', keys, c) and the mask (heads, queries, keys)."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype)[None])
        return self.proj(y.transpose(1, 2).flatten(2))


class WindowAttention(BiasedAttention):
    """Of the tokens of a window among themselves."""

    def __init__(self, *, dim: int, heads: int, window: int) -> None:
        super().__init__(dim=dim, heads=heads, positions=(2 * window - 1) ** 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(g', s*s, c) -> the same; the mask (heads, s*s, s*s) is added to the logits."""
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.attend(q, k, v, mask)


class Group(nn.Module):
    """Blocks, then a convolution, and a residual around both."""

    def __init__(self, *, residual_group: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = residual_group
        self.conv = conv

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(n, c) -> (n, c)."""
        return x + grid.rows(self.conv(grid.image(self.residual_group(x, grid))))


class WindowRestorer(AtLeastFloat32):
    """The frame of SwinIR and HAT: RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped.

        x - mean -> 3x3 conv -> f;  tokens(f) -> LayerNorm -> groups -> LayerNorm -> 3x3 conv -> + f -> head -> + mean

    The weights decide the precision (`net.to(torch.bfloat16)`), but the input should stay fp32, as for `Restorer`.
    """

    mean: Tensor

    def __init__(self, config: SwinIRConfig | HATConfig, bodies: list[nn.Module]) -> None:
        """Make the network around the blocks of each group, which take (n, c) and a grid."""
        super().__init__()
        self.window, self.scale, dim = config.window, config.scale, config.embed_dim
        mean = torch.tensor((0.4488, 0.4371, 0.4040))  # of DIV2K
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.conv_first = conv3x3(3, dim)
        self.patch_embed = nn.Sequential(OrderedDict(norm=nn.LayerNorm(dim)))
        self.layers = nn.ModuleList(
            Group(residual_group=body, conv=group_end(config.group_end, dim)) for body in bodies
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = group_end(config.group_end, dim)
        head = HEADS[config.head](config)
        self.head_layers = tuple(head)
        for name, layer in head.items():
            self.add_module(name, layer)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """As `dacesr.nets.convnets.SRResNet.forward`.

        What is missing to whole windows is reflected at the right and bottom edge and cut off again; a picture smaller
        than that is reflected there and back as often as it takes.
        """
        check_image(x)
        height, width = x.shape[-2:]
        whole = reflect_to(x, height + -height % self.window, width + -width % self.window)
        centred = whole.to(self.mean.dtype) - self.mean
        features = self.conv_first(centred.to(self.conv_first.weight.dtype, memory_format=torch.channels_last))
        out = in_strips(self._head, self._body(features), self.scale)
        return (out[:, :, : self.scale * height, : self.scale * width] + self.mean).to(x.dtype)

    def _body(self, features: Tensor) -> Tensor:
        grid = Grid.of(features, self.window)
        rows = self.patch_embed(grid.rows(features))
        for group in self.layers:
            rows = group(rows, grid)
        return self.conv_after_body(grid.image(self.norm(rows))) + features

    def _head(self, out: Tensor) -> Tensor:
        for name in self.head_layers:
            out = self.get_submodule(name)(out)
        return out
