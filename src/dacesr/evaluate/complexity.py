"""How much a network computes: parameters, and multiply-adds for a picture, counted without computing anything."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dacesr.checkpoint import KINDS
from dacesr.config import NetworkConfig, RestorerConfig, TaggerConfig
from dacesr.nets.modulation import WHOLE
from dacesr.nets.restorer import Restorer

Shape = Sequence[int]

TOKENS = 1 + TaggerConfig.preset("lite").grid ** 2  # of a condition; RAM gives as many


class Complexity(NamedTuple):
    """What a network computes for one picture.

    Attributes:
        parameters: Numbers that are trained.
        macs: Multiply-adds of convolutions, matrix products and attention.
        scan_macs: Those of selective scans, which the paper's Table II leaves out; 0 where there are none.
    """

    parameters: int
    macs: int
    scan_macs: int


def count(config: NetworkConfig, side: int = 256) -> Complexity:
    """Count what the network of a config does for an input of `side` x `side` pixels.

    As usual for such tables biases, activations, normalisation, interpolation and gates are left out. A scan takes four
    multiply-adds for every channel, state and token: delta * A, (delta * u) * B, state * exp(delta * A) + that, and
    the sum of C * state. A modulation counts as part of the network, for conditions of `TOKENS` tokens.

    Args:
        config: Of a network that upscales; an extractor is not counted.
        side: In pixels.

    Raises:
        ValueError: The side is below 1.
    """
    if side < 1:
        raise ValueError(f"a picture has at least one pixel a side, not {side}")
    scan = torch.ops.dacesr.selective_scan
    formulas: Any = {
        scan: _scan_flops,
        torch.ops.dacesr.causal_conv_silu: _causal_conv_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with torch.random.fork_rng(devices=[]):
        net = KINDS[config.kind].network(config).eval()
        learned = config if isinstance(config, RestorerConfig) and config.learned_modulation else None
        plain = Restorer(learned.model_copy(update={"modulation": "none"})) if learned else net
    counter = FlopCounterMode(display=False, custom_mapping={op: _shaped(f) for op, f in formulas.items()})
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad(), counter:
        plain(torch.empty(1, 3, side, side))  # with gradients, as without them heads work in strips that overlap
        if learned:  # apart, as the network looks at the numbers of its window, and there are none here
            modulation, condition = net.get_submodule("modulation"), torch.empty(1, TOKENS, learned.condition_dim)
            list(modulation(condition, side, side, torch.tensor([WHOLE])))
    flops = dict(counter.get_flop_counts()["Global"])
    scans = flops.pop(scan, 0)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Complexity(parameters, sum(flops.values()) // 2, scans // 2)


def _shaped(formula: Any) -> Any:
    """A formula of shapes as the counter wants it; it also hands over what the operator returned."""
    return lambda *shapes, out_shape=None, **_: formula(*shapes)


def _scan_flops(u: Shape, delta: Shape, A: Shape, *_: Any) -> int:
    batch, tokens, channels = u
    return 2 * 4 * batch * tokens * channels * A[1]


def _causal_conv_flops(x: Shape, weight: Shape, *_: Any) -> int:
    batch, tokens, channels = x
    return 2 * batch * tokens * channels * weight[1]


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: Any) -> int:
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])
