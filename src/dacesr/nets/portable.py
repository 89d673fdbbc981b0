"""Networks for other runtimes: copies whose mixers compute in plain PyTorch operations, without dacesr's own kernels.

The scan over l tokens is done in chunks side by side, in two passes that hold no states but those of one step:

    1. all chunks step through their tokens together, each from a state of zero, to the state at its end;
    2. the states that enter the chunks follow from these ends and the chunks' decays, exp(A * sum of dt);
    3. all chunks step through their tokens again, each from the state that enters it, and give the output.

Letters: b batch, d channels, l tokens, n states, s steps of a chunk, k chunks.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.nets.extractor import Extractor
from dacesr.nets.mamba import MambaMixer, ViMM, causal_conv1d
from dacesr.nets.tagger import normalise

STEPS = 16  # of a chunk, each of which is some nodes of an exported program

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
M = TypeVar("M", bound=nn.Module)


def scan_plain(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The selective scan's recurrence in plain operations, none of which is a loop over tokens.

    Args:
        x: dt * u, (b, l, d).
        dt: steps after the softplus, (b, l, d).
        A: (d, n).
        B: (b, l, n).
        C: (b, l, n).

    Returns:
        The sum over n of C * h, (b, l, d).
    """
    length, chunks = x.shape[1], (x.shape[1] + STEPS - 1) // STEPS
    x, dt, B, C = (_in_chunks(rows, chunks) for rows in (x, dt, B, C))
    states = A.mT[None, :, :, None]  # (1, n, d, 1)

    def step(number: int, before: Tensor | None) -> Tensor:
        new = x[number].unsqueeze(1) * B[number].unsqueeze(2)  # (b, n, d, k)
        return new if before is None else torch.exp(dt[number].unsqueeze(1) * states) * before + new

    h = None
    for number in range(STEPS):
        h = step(number, h)
    assert h is not None  # there are steps
    h = _entering(h, torch.exp(dt.sum(0).unsqueeze(1) * states))
    ys = []
    for number in range(STEPS):
        h = step(number, h)
        ys.append((h * C[number].unsqueeze(2)).sum(1))  # (b, d, k)
    return torch.stack(ys, dim=1).permute(0, 3, 1, 2).flatten(1, 2)[:, :length]


def _in_chunks(rows: Tensor, chunks: int) -> Tensor:
    """(b, l, c) -> (s, b, c, k); what is added at the end leaves states as they are."""
    rows = F.pad(rows, (0, 0, 0, chunks * STEPS - rows.shape[1]))
    return rows.unflatten(1, (chunks, STEPS)).permute(2, 0, 3, 1).contiguous()


def _entering(ends: Tensor, decay: Tensor) -> Tensor:
    """States at the ends of chunks that began at zero, (b, n, d, k), and decays -> the states that enter the chunks."""
    shift, chunks = 1, ends.shape[-1]
    while shift < chunks:
        ends, decay = ends + decay * _shifted(ends, shift), decay * _shifted(decay, shift)
        shift *= 2
    return _shifted(ends, 1)


def _shifted(x: Tensor, places: int) -> Tensor:
    """Moved along the last dimension, zeros moving in."""
    return F.pad(x, (places, 0))[..., : x.shape[-1]]


class PortableMixer(nn.Module):
    """A Mamba mixer with the weights of another, in fp32 and for inference."""

    def __init__(self, mixer: MambaMixer, scan: Scan) -> None:
        """Take over a mixer's layers, and what computes its recurrence: as `scan_plain`."""
        super().__init__()
        self.split = [mixer.delta_rank, mixer.state_dim, mixer.state_dim]
        self.in_proj, self.x_proj, self.out_proj = mixer.in_proj, mixer.x_proj, mixer.out_proj
        self.conv1d, self.dt_proj = mixer.conv1d, mixer.dt_proj
        self.A, self.D = nn.Parameter(-mixer.A_log.detach().exp()), mixer.D
        self.scan = scan

    def mix(self, tokens: Tensor, lead: int = 0, state: None = None) -> tuple[Tensor, None]:
        """A whole sequence (b, l, c) -> (b, l, c) and no state; the rest is as `MambaMixer.mix` has it."""
        u, z = self.in_proj(tokens).chunk(2, dim=-1)
        u = F.silu(causal_conv1d(u, self.conv1d.weight, self.conv1d.bias))
        low_rank, B, C = self.x_proj(u).split(self.split, dim=-1)
        dt = F.softplus(F.linear(low_rank, self.dt_proj.weight, self.dt_proj.bias))
        y = self.scan(dt * u, dt, self.A, B, C) + self.D * u
        return self.out_proj(y * F.silu(z)), None


def portable(net: M, scan: Scan = scan_plain) -> M:
    """A copy of a network in fp32 whose mixers are portable; others are copied as they are."""
    copied = copy.deepcopy(net).float().eval().requires_grad_(False)
    for module in copied.modules():
        if isinstance(module, ViMM):
            module.mixer = PortableMixer(module.mixer, scan)  # pyright: ignore[reportAttributeAccessIssue]
    return copied


class PortableExtractor(nn.Module):
    """An extractor whose resizing is made of matrix products, which every runtime has."""

    def __init__(self, extractor: Extractor) -> None:
        """Take an extractor over."""
        super().__init__()
        self.tagger = extractor.tagger
        self.sides = (*extractor.tagger.config.resize, extractor.tagger.config.image_size)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """RGB (b, 3, h, w) in [0, 1] -> tokens (b, 1 + g * g, width) and logits (b, n)."""
        for side in self.sides:
            rows, columns = (_antialiased(length, side).to(image) for length in image.shape[2:])
            image = rows @ image @ columns.mT
        tokens, logits = self.tagger(normalise(image))
        return tokens, logits  # a program of torch.export knows no other tuples


def _antialiased(source: int, target: int) -> Tensor:
    """Bilinear, antialiased resizing of an axis, as PyTorch has it, as a matrix (target, source)."""
    places = torch.arange(source, dtype=torch.float64) + 0.5
    ratio = (places[-1] + 0.5) / target
    distance = places - ((torch.arange(target, dtype=torch.float64) + 0.5) * ratio)[:, None]
    weights = (1 - distance.abs() / ratio.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)
