"""Stages: the places in a network whose features an analysis looks at, for every kind of network.

    b  pictures     c  channels     h, w  sides of the input

They are taken while the network runs, by hooks that are gone afterwards; the network itself is left as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dacesr.conditioning import Network, View
from dacesr.nets.baselines import DASR, EDSR, HAT, KDSR, RLFN, RRDB, SRResNet, SRVGGNetCompact, SwinIR
from dacesr.nets.mamba import to_image
from dacesr.nets.restorer import Restorer

SHOWN = 4  # stages of a network that figures show unless told otherwise


class Stage(NamedTuple):
    """A place in a network.

    Attributes:
        name: What figures call it.
        module: What gives out the features.
        before: The features are what the module is given, instead.
        unit: Input pixels a side for each place of the features.
    """

    name: str
    module: nn.Module
    before: bool = False
    unit: int = 1


Reduce = Callable[[str, Tensor], Tensor]
"""(name of a stage, its features (b, c, h', w')) -> (b, h', w')."""


def stages_of(net: Network) -> list[Stage]:
    """All stages of a network, in the order in which they are done; each has features of its own."""
    return STAGES[net.config.kind](net)


def pick(stages: Sequence[Stage], count: int) -> list[Stage]:
    """So many of the stages at even distances, the last among them; all where there are no more.

    Raises:
        ValueError: The count is below 1.
    """
    if count < 1:
        raise ValueError(f"a figure shows one stage of a network or more, not {count}")
    count = min(count, len(stages))
    return [stages[round((place + 1) * len(stages) / count) - 1] for place in range(count)]


@torch.no_grad()
def run(
    net: Network, x: Tensor, condition: Tensor | None, stages: Sequence[Stage], reduce: Reduce
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a network once and keep a map of each stage.

    Args:
        net: The network.
        x: (b, 3, h, w) in [0, 1].
        condition: What it is conditioned on, as it describes `x`; None for nothing.
        stages: Of this network.
        reduce: Makes a map of features, while the network runs: it may write over them later.

    Returns:
        The output, and by the names of stages maps (b, h, w) on the CPU: padding is cut off, and a map of fewer places
        than pixels is repeated.
    """
    height, width = x.shape[-2:]
    maps: dict[str, Tensor] = {}

    def see(stage: Stage, features: Tensor) -> None:
        made = reduce(stage.name, features)
        for dim in (1, 2):
            made = made.repeat_interleave(stage.unit, dim)
        maps[stage.name] = made[:, :height, :width].float().cpu()

    with _watched(stages, see, height, width):
        output = View(condition, height, width).through(net, x)
    return output, maps


@contextmanager
def _watched(stages: Sequence[Stage], see: Callable[[Stage, Tensor], None], height: int, width: int) -> Iterator[None]:
    """While it lasts, `see` is given the features of each stage as (b, c, h', w')."""
    with ExitStack() as hooks:
        for stage in stages:
            if stage.before:

                def given_to(_: nn.Module, given: Any, stage: Stage = stage) -> None:
                    see(stage, _as_image(given[0], given, height, width))

                handle = stage.module.register_forward_pre_hook(given_to)
            else:

                def made_by(_: nn.Module, given: Any, made: Tensor, stage: Stage = stage) -> None:
                    see(stage, _as_image(made, given, height, width))

                handle = stage.module.register_forward_hook(made_by)
            hooks.callback(handle.remove)
        yield


def _as_image(features: Tensor, given: tuple[Any, ...], height: int, width: int) -> Tensor:
    """Features as (b, c, h', w'): tokens (b, h*w, c) in row order, and rows (n, c) that come with their `Grid`, too."""
    if features.ndim == 2:
        return given[1].image(features)
    return to_image(features, height, width) if features.ndim == 3 else features


# --- where each kind of network has them


def _numbered(name: str, modules: Sequence[nn.Module], **details: Any) -> list[Stage]:
    return [Stage(f"{name} {number}", module, **details) for number, module in enumerate(modules, start=1)]


def _restorer(net: Restorer) -> list[Stage]:
    """After the modulation of each group, which is what the next group or the last LayerNorm is given."""
    return _numbered("RSSB", [*list(net.layers)[1:], net.norm_f], before=True)


def _srvgg(net: SRVGGNetCompact) -> list[Stage]:
    """After each convolution and its PReLU, the first, which sees the picture itself, left out."""
    return _numbered("conv", list(net.body)[3::2])


def _blocks(net: SRResNet | EDSR | DASR) -> list[Stage]:
    return _numbered("block", list(net.body))


def _rrdb(net: RRDB) -> list[Stage]:
    return _numbered("RRDB", list(net.body), unit=net.config.unshuffle)


def _rlfn(net: RLFN) -> list[Stage]:
    return _numbered("RLFB", [net.get_submodule(f"block_{number + 1}") for number in range(net.config.num_block)])


def _swinir(net: SwinIR) -> list[Stage]:
    return _numbered("RSTB", list(net.layers))


def _hat(net: HAT) -> list[Stage]:
    return _numbered("RHAG", list(net.layers))


def _kdsr(net: KDSR) -> list[Stage]:
    return _numbered("block", list(net.G.body[0].get_submodule("body").children()))


STAGES: dict[str, Callable[[Any], list[Stage]]] = {
    "restorer": _restorer,
    "srvgg": _srvgg,
    "srresnet": _blocks,
    "edsr": _blocks,
    "rrdb": _rrdb,
    "rlfn": _rlfn,
    "swinir": _swinir,
    "hat": _hat,
    "dasr": _blocks,
    "kdsr": _kdsr,
}
"""By the kind of network."""
