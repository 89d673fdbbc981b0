"""What a device can do at the most, measured, and the times that follow from bytes and operations.

A floor is the greatest of bytes over the copy bandwidth, operations over the rate of matrix products, and exponentials
over the rate of the units that make them. Matrix products of the network are thinner than the large one that is
measured, so they are expected at a half of its rate.
"""

import math
from typing import NamedTuple

import torch
from gpu_timing import Timer

from dacesr.nets.restorer import RestorerConfig

THIN = 0.5  # share of the large product's rate that the network's own reach
ASSUMED = 132 * 16 * 1.755e9  # exponentials a second: 16 a cycle in each multiprocessor of an H100
SLOWER = 2  # a backward pass moves and computes about twice what the forward pass does


class Ceilings(NamedTuple):
    """A second's worth of each."""

    bytes: float  # read and written
    operations: float  # multiplications and additions of bf16 matrix products
    exponentials: float  # fp32


class Work(NamedTuple):
    """What something must do at the least."""

    bytes: float = 0.0
    operations: float = 0.0
    exponentials: float = 0.0

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds."""
        return max(
            self.bytes / ceilings.bytes,
            self.operations / (THIN * ceilings.operations),
            self.exponentials / ceilings.exponentials,
        )


# --- measured


def measure_ceilings(timer: Timer, *, quick: bool) -> Ceilings:
    """The rates of a device; exponentials as `ASSUMED` until `exponential_rate` is asked."""
    rounds = 3 if quick else 10
    return Ceilings(_copied(timer, rounds, quick), _multiplied(timer, rounds, quick), ASSUMED)


def _copied(timer: Timer, rounds: int, quick: bool) -> float:
    source = torch.empty((1 << 18) if quick else (1 << 30), dtype=torch.float32, device=timer.device).normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / timer.alone(lambda _: target.copy_(source), rounds).median


def _multiplied(timer: Timer, rounds: int, quick: bool) -> float:
    side = 128 if quick else 8192
    a, b = (torch.randn(side, side, device=timer.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / timer.alone(lambda _: a @ b, rounds).median


def exponential_rate(timer: Timer, *, quick: bool) -> float:
    """Exponentials a second of the special function units, of values in registers."""
    if timer.device.type == "cuda":
        from gpu_kernels import exponentials

        return exponentials(timer)
    x = torch.rand((1 << 12) if quick else (1 << 24), device=timer.device)
    return x.numel() / timer.alone(lambda _: torch.exp2(x), 5).median


# --- counted


def scan_work(b: int, d: int, l: int, n: int, itemsize: int) -> dict[str, Work]:
    """Of the selective scan with u and z of so many bytes and fp32 delta, B and C: forward, backward."""
    tokens = b * l
    wide, step, maps = tokens * d * itemsize, tokens * d * 4, 2 * tokens * n * 4
    exponentials = tokens * d * n
    forward = Work(3 * wide + step + maps, 0, exponentials)  # u, z, out; delta; B, C
    backward = Work(5 * wide + 2 * step + 2 * maps, 0, exponentials)  # u, z, dout, du, dz; delta, ddelta; B, C, dB, dC
    return {"forward": forward, "backward": backward}


def network_parts(config: RestorerConfig, b: int, height: int, width: int, itemsize: int) -> dict[str, Work]:
    """Of each kind of layer of a forward pass, all of its occurrences together."""
    tokens, c, d, n, r = b * height * width, config.embed_dim, config.inner_dim, config.state_dim, config.delta_rank
    blocks, groups = config.block_count, len(config.depths) + 1  # the body ends like a group
    narrow = r + 2 * n

    def dense(inputs: int, outputs: int, times: float = 1, size: int = itemsize) -> Work:
        return Work(times * tokens * (inputs + outputs) * size, times * 2 * tokens * inputs * outputs)

    taps = 9
    parts = {
        "norms": Work(2 * (blocks + 2) * tokens * c * itemsize),
        "in_proj": dense(c, 2 * d, blocks),
        "conv + SiLU": Work(2 * blocks * tokens * d * itemsize),
        "x_proj, to fp32": _sum(dense(d, narrow, blocks), Work(blocks * tokens * narrow * (itemsize + 4))),
        "dt_proj": Work(blocks * tokens * (r + d) * 4),
        "scan": _times(scan_work(b, d, height * width, n, itemsize)["forward"], blocks),
        "out_proj": dense(d, c, blocks),
        "group convs": Work(2 * groups * tokens * c * itemsize, groups * 2 * tokens * taps * c * c),
        "residuals": Work(3 * (groups + config.block_residual * blocks) * tokens * c * itemsize),
        "first conv": Work(tokens * (3 + c) * itemsize, 2 * tokens * taps * 3 * c),
        "head": _head(config, tokens, itemsize),
    }
    return parts


def _head(config: RestorerConfig, tokens: int, itemsize: int) -> Work:
    c, w, scale, taps = config.embed_dim, config.head_dim, config.scale, 9
    picture = tokens * scale**2 * 3
    if config.head == "pixelshuffledirect":
        out = 3 * scale**2
        return Work(tokens * (c + 3 * out) * itemsize + 8 * picture, 2 * tokens * taps * c * out)
    steps = round(math.log2(scale))
    pixels, total = tokens, Work(tokens * (c + 3 * w) * itemsize, 2 * tokens * taps * c * w)
    for _ in range(steps):  # a convolution to four times the channels, and the shuffle
        total = _sum(total, Work(pixels * w * (1 + 4 + 8) * itemsize, 2 * pixels * taps * w * 4 * w))
        pixels *= 4
    return _sum(total, Work(pixels * (w + 3) * itemsize + 8 * picture, 2 * pixels * taps * w * 3))


def network_seconds(config: RestorerConfig, b: int, height: int, width: int, itemsize: int, c: Ceilings) -> float:
    """Expected of a forward pass."""
    return sum(part.floor(c) for part in network_parts(config, b, height, width, itemsize).values())


def step_seconds(config: RestorerConfig, b: int, side: int, parameters: int, ceilings: Ceilings) -> float:
    """Expected of a training step in bf16: both passes, the loss, AdamW."""
    parts = network_parts(config, b, side, side, 2)
    scan = parts.pop("scan").floor(ceilings)
    back = scan_work(b, config.inner_dim, side * side, config.state_dim, 2)["backward"].floor(ceilings)
    rest = sum(part.floor(ceilings) for part in parts.values())
    adamw = Work(7 * 4 * parameters).floor(ceilings)  # weight, gradient, two moments; all but the gradient written
    loss = Work(5 * 4 * 3 * b * (side * config.scale) ** 2).floor(ceilings)
    return scan + config.block_count * back + (1 + SLOWER) * rest + adamw + loss


def _times(work: Work, count: float) -> Work:
    return Work(*(count * amount for amount in work))


def _sum(a: Work, b: Work) -> Work:
    return Work(*(x + y for x, y in zip(a, b, strict=True)))
