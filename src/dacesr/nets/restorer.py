"""The super-resolution network of DACESR (Fig. 3), which is DVMSR's with a modulation after each group.

    x - mean -> 3x3 conv -> f;  tokens(f) -> LayerNorm -> groups (RSSB), each followed by the modulation
    -> LayerNorm -> 3x3 conv -> + f -> head -> + mean

Any picture of 1x1 and larger, any batch: there are no windows, hence no padding. Parameter names are those of the
authors' release, so its checkpoints fit as they are. The weights decide the precision (`net.to(torch.bfloat16)`; see
`dacesr.nets.mamba` for what stays fp32 then), but the input should stay fp32: the mean is subtracted and added in fp32,
and the output has the dtype of the input. The network brings its tensors into channels_last memory by itself.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import RestorerConfig
from dacesr.device import has_fp64
from dacesr.nets.heads import HEADS, conv3x3, in_strips
from dacesr.nets.inputs import check_image
from dacesr.nets.mamba import (
    ORDERS,
    RSSB,
    AtLeastFloat32,
    MambaMixer,
    Order,
    TokenNorm,
    ViMM,
    ViMMs,
    group_end,
    to_image,
    to_tokens,
)
from dacesr.nets.modulation import MODULATIONS, Affine, Window, whole

__all__ = ["Restorer", "RestorerConfig"]


def _group(config: RestorerConfig, depth: int, orders: Iterator[Order]) -> RSSB:
    """One RSSB of `depth` ViMMs that take the next walks from `orders`."""
    blocks = [
        ViMM(
            mixer=MambaMixer(
                dim=config.embed_dim,
                inner_dim=config.inner_dim,
                state_dim=config.state_dim,
                conv_taps=config.conv_taps,
                delta_rank=config.delta_rank,
            ),
            residual=config.block_residual,
        )
        for _ in range(depth)
    ]
    vimms = ViMMs(blocks=blocks, orders=[next(orders) for _ in blocks])
    return RSSB(residual_group=vimms, conv=group_end(config.group_end, config.embed_dim))


class Restorer(AtLeastFloat32):
    """DACESR's network: RGB in [0, 1] to RGB `config.scale` times as large; the output isn't clamped."""

    mean: Tensor

    def __init__(self, config: RestorerConfig) -> None:
        """Make the network of `config`, randomly initialised."""
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.rgb_mean).view(1, 3, 1, 1), persistent=False)
        self.conv_first = conv3x3(3, config.embed_dim)
        self.patch_embed = nn.Sequential(OrderedDict(norm=TokenNorm(config.embed_dim)))
        orders = cycle(ORDERS[config.scan_order])
        self.layers = nn.ModuleList([_group(config, depth, orders) for depth in config.depths])
        self.modulation = MODULATIONS[config.modulation](config)
        self.norm_f = TokenNorm(config.embed_dim)
        self.conv_after_body = group_end(config.group_end, config.embed_dim)
        head = HEADS[config.head](config)
        self.head_layers = tuple(head)
        for name, layer in head.items():
            self.add_module(name, layer)
        _calm(self)

    def forward(self, x: Tensor, condition: Tensor | None = None, window: Window | None = None) -> Tensor:
        """Upscale.

        Args:
            x: (b, 3, h, w), RGB in [0, 1], h and w at least 1.
            condition: (b, 1 + g*g, condition_dim): a global token, then a square grid; None for no modulation.
            window: (top, left, bottom, right) of `x` within the picture the condition describes, as fractions of its
                sides, for all or as a tensor (b, 4) for each; None means `x` is the whole picture. A tensor on a GPU is
                used as it is; with the condition there too, the network never waits for the GPU nor copies to it, so
                that a CUDA graph can hold it.

        Returns:
            (b, 3, scale*h, scale*w), dtype of `x`.

        Raises:
            ValueError: `x` isn't (b, 3, h, w) of at least 1x1, the condition doesn't fit the config (no modulation, or
                a learned one and no condition), or a window in the CPU's memory isn't a part of the picture.
        """
        check_image(x)
        height, width = x.shape[-2:]
        affines = self._affines(x, condition, window)
        centred = x.to(self.mean.dtype) - self.mean
        features = self._first(centred)
        tokens = self.patch_embed(to_tokens(features))
        kept = features if torch.is_grad_enabled() else None  # else made again, which costs less than its memory
        del features
        for group in self.layers:
            tokens = group(tokens, height, width)
            if affines is not None:
                tokens = next(affines)(tokens)
        out = self.conv_after_body(to_image(self.norm_f(tokens), height, width))
        del tokens
        out = out + (self._first(centred) if kept is None else kept)
        out = in_strips(self._head, out, self.config.scale)
        if self.config.image_skip == "bilinear":
            out = out + F.interpolate(centred, scale_factor=self.config.scale, mode="bilinear")
        return (out + self.mean).to(x.dtype)

    def _first(self, centred: Tensor) -> Tensor:
        return self.conv_first(centred.to(self.conv_first.weight.dtype, memory_format=torch.channels_last))

    def _head(self, out: Tensor) -> Tensor:
        for name in self.head_layers:
            out = self.get_submodule(name)(out)
        return out

    def _affines(self, x: Tensor, condition: Tensor | None, window: Window | None) -> Iterator[Affine] | None:
        """What the condition does after each group; None without a condition."""
        if condition is None:
            if self.config.learned_modulation:
                raise ValueError(
                    f"this network was trained with a condition (modulation '{self.config.modulation}'): give one"
                )
            return None
        if self.modulation is None:
            raise ValueError("this network was made with modulation 'none', so it takes no condition")
        _check_condition(condition, x.shape[0], self.config.condition_dim)
        place = whole(x.device) if window is None else torch.as_tensor(window)
        place = place if has_fp64(place.device) else place.cpu()
        place = (place[None] if place.ndim == 1 else place).double()
        _check_window(place, x.shape[0])
        return self.modulation(condition.to(x.device), *x.shape[-2:], place)


def _check_condition(condition: Tensor, batch: int, dim: int) -> None:
    shape = tuple(condition.shape)
    if len(shape) != 3 or shape[0] != batch or shape[1] < 1 or shape[2] != dim:
        raise ValueError(f"the condition must be ({batch}, 1 + g*g, {dim}), not {shape}")


def _check_window(window: Tensor, batch: int) -> None:
    """The values only where they are at hand: a device would have to be waited for, and an export has none."""
    if window.ndim != 2 or window.shape[0] not in (1, batch) or window.shape[1] != 4:
        raise ValueError(f"windows must be (4,) or ({batch}, 4), not {tuple(window.shape)}")
    if window.device.type != "cpu" or torch.compiler.is_compiling():
        return
    top, left, bottom, right = window.unbind(1)
    inside = (top >= 0) & (top < bottom) & (bottom <= 1) & (left >= 0) & (left < right) & (right <= 1)
    if not bool(inside.all()):
        raise ValueError(f"window must be (top, left, bottom, right) within [0, 1], not {window.tolist()}")


@torch.no_grad()
def _calm(net: Restorer) -> None:
    """Start as plain enlargement: groups that add little to their residual, and a head that adds nothing.

    Ends of groups are drawn at a tenth of PyTorch's own scale, the last convolution is 0. (The release draws linear
    layers from a normal distribution of 0.02 and leaves the rest; docs/parity.md says what this gains.)
    """
    for group in net.layers:
        end = [module for module in group.modules() if isinstance(module, nn.Conv2d)][-1]
        end.weight.mul_(0.1)
        nn.init.zeros_(_bias(end))
    last = [module for name in net.head_layers for module in net.get_submodule(name).modules()]
    conv = [module for module in last if isinstance(module, nn.Conv2d)][-1]
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(_bias(conv))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # all of this network's have one
    return conv.bias
