"""Mamba-1 on the tokens of a picture: mixer, ViMM and RSSB (DACESR Fig. 3; Gu and Dao 2023, arXiv 2312.00752, Sec. 3).

Letters: b batch, h x w picture, l = h*w tokens, c token channels, d = expand*c inner channels, n states, r rank of
delta. Tokens are (b, l, c) in row order, which is the memory of a channels_last (b, c, h, w) tensor: `to_tokens` and
`to_image` are views, so convolutions and token layers hand over without a copy. Parameter names are those of the
authors' release.

Precision: `.to(torch.bfloat16)` or `.half()` converts everything but A_log, D and the projection to delta, which stay
fp32, as do delta, B, C and the state of the scan. The only cast is of the narrow (b, l, r+2n) tensor that delta, B and
C are cut from. The same holds under `torch.autocast`.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import GroupEnd
from dacesr.device import has_triton
from dacesr.nets.scan import selective_scan

try:
    from dacesr.nets import conv_native
except ImportError:  # installed without the compiled extension
    conv_native = None

PART = 1 << 12  # tokens that a block takes at a time on the CPU where no gradient is wanted


def to_tokens(image: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h*w, c); a view where the memory is channels_last."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """(b, h*w, c) -> (b, c, h, w) in channels_last memory, a view."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Order(NamedTuple):
    """The way a scan walks over a picture."""

    by_column: bool
    backward: bool


ORDERS: dict[str, tuple[Order, ...]] = {
    "raster": (Order(False, False),),
    "alternate": (Order(False, False), Order(False, True), Order(True, False), Order(True, True)),
}
ROW_ORDER = Order(by_column=False, backward=False)


def reorder(tokens: Tensor, height: int, width: int, source: Order, target: Order) -> Tensor:
    """Rearrange tokens (b, h*w, c) of an h x w picture from one walk to another: one copy, no arithmetic."""
    turn = source.backward != target.backward
    if source.by_column == target.by_column:
        return tokens.flip(1) if turn else tokens
    places = torch.arange(tokens.shape[1], device=tokens.device)
    places = places.unflatten(0, (width, height) if source.by_column else (height, width)).mT.flatten()
    return tokens.index_select(1, places.flip(0) if turn else places)


class AtLeastFloat32(nn.Module):
    """Its own parameters and buffers (not those of its children) are never converted below fp32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            shrunk = moved.is_floating_point() and moved.itemsize < min(tensor.itemsize, torch.float32.itemsize)
            return tensor.to(moved.device) if shrunk else moved

        if recurse:
            for child in self.children():
                child._apply(fn)
        return super()._apply(keep, recurse=False)


class _FewToMany(torch.autograd.Function):
    """`F.linear` from a few features. PyTorch's order of factors in its gradients is 5 to 12 times as slow on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        dx = (weight.mT @ rows.mT).mT.view(x.shape) if ctx.needs_input_grad[0] else None
        return dx, (x.flatten(0, -2).mT @ rows).mT if ctx.needs_input_grad[1] else None


class TokenNorm(nn.LayerNorm):
    """LayerNorm of tokens that stay in half precision under autocast on a GPU, with sums in fp32 all the same.

    PyTorch's would make fp32 tokens of them and the next layer half ones again: five times the bytes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(b, l, c) -> (b, l, c)."""
        kind = input.device.type
        if kind != "cuda" or not torch.is_autocast_enabled(kind):
            return super().forward(input)
        with torch.autocast(kind, enabled=False):
            weight, bias = self.weight.to(input.dtype), self.bias.to(input.dtype)
            return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class DeltaProjection(AtLeastFloat32, nn.Linear):
    """r -> d in fp32. Its bias is left for the scan, which adds it before the softplus (Algorithm 2)."""

    def forward(self, input: Tensor) -> Tensor:
        """(b, l, r) -> (b, l, d), both of the weight's dtype."""
        linear = _FewToMany.apply if torch.is_grad_enabled() and input.device.type == "cpu" else F.linear
        if not torch.is_autocast_enabled(input.device.type):
            return linear(input, self.weight)
        with torch.autocast(input.device.type, enabled=False):
            return linear(input, self.weight)


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depth-wise convolution over the current and the k - 1 previous tokens.

    Runs as a 1 x k convolution of a channels_last image one pixel high, so the tokens are not transposed: on the CPU 3
    to 5 times as fast as `conv1d` and as shifted multiply-adds.

    Args:
        x: (b, l, d), unit stride along d.
        weight: (d, 1, k).
        bias: (d).

    Returns:
        (b, l, d).
    """
    taps, line = weight.shape[-1], x.transpose(1, 2).unsqueeze(2)  # (b, d, 1, l)
    out = F.conv2d(line, weight.unsqueeze(2), bias, padding=(0, taps - 1), groups=x.shape[-1])
    return out[..., : x.shape[1]].squeeze(2).transpose(1, 2)


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU of `causal_conv1d`; one operator of ours on the CPU and on CUDA, mostly for its backward pass."""
    if x.device.type == "cpu" and conv_native is not None and _fits(conv_native, x, weight):
        return conv_native.causal_conv_silu_native(x, weight, bias)
    if x.device.type == "cuda" and has_triton():
        from dacesr.nets import conv_triton

        if _fits(conv_triton, x, weight):
            return conv_triton.causal_conv_silu_triton(x, weight, bias)
    return F.silu(causal_conv1d(x, weight, bias))


def _fits(backend: ModuleType, x: Tensor, weight: Tensor) -> bool:
    """Whether a module of ours takes such rows and so many taps."""
    return x.dtype in backend.DTYPES and weight.shape[-1] <= backend.MAX_TAPS


class MambaMixer(AtLeastFloat32):
    """The Mamba-1 mixer: gated, causal, selective state space over tokens (Gu and Dao 2023, Fig. 3 and Algorithm 2)."""

    def __init__(self, *, dim: int, inner_dim: int, state_dim: int, conv_taps: int, delta_rank: int) -> None:
        """Make a mixer with c `dim`, d `inner_dim`, n `state_dim`, r `delta_rank`; A, D and delta start as in Mamba."""
        super().__init__()
        self.delta_rank, self.state_dim = delta_rank, state_dim
        self.in_proj = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.conv1d = nn.Conv1d(inner_dim, inner_dim, conv_taps, groups=inner_dim)
        self.x_proj = nn.Linear(inner_dim, delta_rank + 2 * state_dim, bias=False)
        self.dt_proj = DeltaProjection(delta_rank, inner_dim)
        self.A_log = nn.Parameter(torch.arange(1, state_dim + 1).float().log().repeat(inner_dim, 1))  # S4D-real
        self.D = nn.Parameter(torch.ones(inner_dim))
        self.out_proj = nn.Linear(inner_dim, dim, bias=False)
        self._init_delta()

    def _init_delta(self, low: float = 1e-3, high: float = 0.1) -> None:
        """Draw softplus(bias) log-uniformly from [low, high] (Gu and Dao 2023, Sec. 3.6)."""
        bound = self.delta_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        delta = torch.empty_like(self.dt_proj.bias).uniform_(math.log(low), math.log(high)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # the inverse of softplus

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, l, c) -> (b, l, c); token t sees tokens 0..t."""
        return self.mix(tokens)[0]

    def mix(self, tokens: Tensor, lead: int = 0, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A part of a sequence, which may go on from an earlier one.

        Args:
            tokens: (b, l, c).
            lead: Tokens at the beginning that the convolution only looks back at.
            state: Of the scan before the others; None for the beginning of the sequence.

        Returns:
            What comes out for the others, (b, l - lead, c), and the state after them.
        """
        u, z = self.in_proj(tokens).chunk(2, dim=-1)  # (b, l, d) each
        u = causal_conv_silu(u, self.conv1d.weight, self.conv1d.bias)[:, lead:]
        selection = self.x_proj(u).to(self.dt_proj.weight.dtype)  # (b, l, r+2n)
        low_rank, B, C = selection.split([self.delta_rank, self.state_dim, self.state_dim], dim=-1)
        y, state = selective_scan(
            u.transpose(1, 2),
            self.dt_proj(low_rank).transpose(1, 2),
            -self.A_log.exp(),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            z=z[:, lead:].transpose(1, 2),
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            return_last_state=True,
            initial_state=state,
        )  # (b, d, l)
        return self.out_proj(y.transpose(1, 2)), state


class ViMM(nn.Module):
    """LayerNorm, then the mixer; with `residual`, added to the input (the paper's text; the release drops it)."""

    def __init__(self, *, mixer: MambaMixer, residual: bool) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = TokenNorm(mixer.in_proj.in_features)
        self.residual = residual

    def forward(self, tokens: Tensor, *, overwrite: bool = False) -> Tensor:
        """(b, l, c) -> (b, l, c).

        On the CPU, long sequences without gradients are done in parts: that gives the same and keeps the wide tensors
        small. A GPU, which parts one after another would leave idle, does them at once.

        Args:
            tokens: (b, l, c).
            overwrite: Whether what the parts give may take the place of the tokens in memory.
        """
        length, on_cpu = tokens.shape[1], tokens.device.type == "cpu"
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or length <= PART or not on_cpu:
            return self._part(tokens, 0, None)[0]
        done = tokens if overwrite else torch.empty_like(tokens)
        back, state = self.mixer.conv1d.kernel_size[0] - 1, None  # earlier tokens that the convolution looks back at
        before = tokens[:, :0]
        for start in range(0, length, PART):
            part = torch.cat((before, tokens[:, start : start + PART]), dim=1)
            done[:, start : start + PART], state = self._part(part, before.shape[1], state)
            before = part[:, part.shape[1] - back :]
        return done

    def _part(self, tokens: Tensor, lead: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed, state = self.mixer.mix(self.norm(tokens), lead, state)
        return tokens[:, lead:] + mixed if self.residual else mixed, state


class ViMMs(nn.Module):
    """ViMMs one after another, each along its own walk over the picture; tokens go in and come out in row order."""

    def __init__(self, *, blocks: list[ViMM], orders: list[Order]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.orders = orders

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(b, h*w, c) -> (b, h*w, c)."""
        current, given = ROW_ORDER, tokens
        for block, order in zip(self.blocks, self.orders, strict=True):
            tokens = reorder(tokens, height, width, current, order)
            tokens = block(tokens, overwrite=tokens is not given)
            current = order
        return reorder(tokens, height, width, current, ROW_ORDER)


def group_end(kind: GroupEnd, dim: int) -> nn.Module:
    """The convolutions that end a group: one 3x3, or a bottleneck 3x3, 1x1, 3x3 of a quarter of the channels."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )


class RSSB(nn.Module):
    """Residual state space block: ViMMs, then convolutions, and a residual around both (Fig. 3)."""

    def __init__(self, *, residual_group: ViMMs, conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = residual_group
        self.conv = conv

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(b, h*w, c) -> (b, h*w, c)."""
        return tokens + to_tokens(self.conv(to_image(self.residual_group(tokens, height, width), height, width)))
