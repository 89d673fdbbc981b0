"""Degrade batches: every picture gets a degradation of its own, drawn from a space, and pictures whose next step is of
the same kind take it together."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dacesr.degradation import ops
from dacesr.degradation.canvas import Sizes, fit, largest
from dacesr.degradation.jpeg import round_through
from dacesr.degradation.kernels import stack
from dacesr.degradation.spaces import SPACES, draw
from dacesr.degradation.steps import Bicubic, Blur, Degradation, Jpeg, Noise, Resize, Step
from dacesr.imresize import imresize, upload

__all__ = ["SPACES", "Degradation", "carry_out", "degrade", "draw"]


def degrade(
    x: Tensor, space: str, generator: torch.Generator | Sequence[torch.Generator], scale: int = 4
) -> tuple[Tensor, list[Degradation]]:
    """Make small, ruined pictures of sharp ones.

    Args:
        x: (b, 3, h, w) RGB in [0, 1].
        space: `bicubic`, `level1`, `level2`, `level3`, `dasr`, `realesrgan` or `bsrgan`.
        generator: for all pictures, or one for each. Parameters are drawn on its device (cheapest on the CPU), noise on
            that of `x`, so that the same seed gives the same parameters everywhere and the same bytes on one device.
        scale: how many times smaller the result is, at least 1.

    Returns:
        (b, 3, h // scale, w // scale) in [0, 1], rounded to 8 bit (gradients pass), and what was drawn for each.

    Raises:
        ValueError: no such space, pictures smaller than the scale, or another number of generators than of pictures.
    """
    if scale < 1 or x.ndim != 4 or x.shape[1] != 3 or min(x.shape[-2:]) < scale:
        raise ValueError(f"to degrade by {scale} takes pictures (b, 3, h, w) of at least that; got {tuple(x.shape)}")
    b, _, height, width = x.shape
    generators = [_spawn(generator) for _ in range(b)] if isinstance(generator, torch.Generator) else list(generator)
    if len(generators) != b:
        raise ValueError(f"{b} pictures need {b} generators; got {len(generators)}")
    drawn = [draw(space, height, width, scale, each) for each in generators]
    return carry_out(x, drawn, generators), drawn


def carry_out(x: Tensor, drawn: Sequence[Degradation], generators: Sequence[torch.Generator]) -> Tensor:
    """Degrade pictures as was drawn before, with noise of their own.

    On a GPU all pictures go together and nothing waits for the device, so that a thread with a stream of its own can
    do this while others compute. A picture depends on its own generator alone, whatever else is in the batch, but for
    sums in another order, which move a value across a rounding now and then.

    Args:
        x: (b, 3, h, w) RGB in [0, 1].
        drawn: one for each, from `draw` for this height and width, all with the same size of the result.
        generators: one for each; a seed for the picture's noise is taken from it.

    Returns:
        (b, 3, height, width) in [0, 1], rounded to 8 bit (gradients pass).

    Raises:
        ValueError: another number of degradations or generators than of pictures, or results of different sizes.
    """
    b = x.shape[0]
    if len(drawn) != b or len(generators) != b:
        raise ValueError(f"{b} pictures need {b} degradations and generators; got {len(drawn)} and {len(generators)}")
    sizes = {_final_size(each.steps, (x.shape[-2], x.shape[-1])) for each in drawn}
    if len(sizes) > 1:
        raise ValueError(f"degradations of one batch should end at one size, not at {sorted(sizes)}")
    noise = [_spawn(each, x.device) for each in generators]
    programs = [list(degradation.steps) for degradation in drawn]
    if x.device.type == "cpu":  # one at a time: nothing is spent on the filling around smaller pictures
        parts = [_run(x[i : i + 1], programs[i : i + 1], noise[i : i + 1]) for i in range(b)]
        small = torch.cat(parts)
    else:
        small = _run(x, programs, noise)
    return round_through(small.clamp(0, 1) * 255) / 255


def _final_size(steps: Sequence[Step], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after the steps."""
    for step in steps:
        if isinstance(step, Resize):
            size = step.height, step.width
        elif isinstance(step, Bicubic):
            size = size[0] // step.factor, size[1] // step.factor
    return size


def _spawn(generator: torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose seed is drawn from another."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))


def _run(x: Tensor, programs: list[list[Step]], generators: list[torch.Generator]) -> Tensor:
    """Carry out each picture's steps; of the kinds that come next the most frequent one is done first.

    The results all have the same size. Nothing waits for the device.
    """
    sizes: list[tuple[int, int]] = [(x.shape[-2], x.shape[-1])] * len(programs)
    done = [0] * len(programs)
    while waiting := [i for i, program in enumerate(programs) if done[i] < len(program)]:
        kinds = [type(programs[i][done[i]]) for i in waiting]
        kind = Counter(kinds).most_common(1)[0][0]
        members = [i for i, its in zip(waiting, kinds, strict=True) if its is kind]
        own_sizes = [sizes[i] for i in members]
        own_steps, own_generators = [programs[i][done[i]] for i in members], [generators[i] for i in members]
        index = _index(members, x)
        part = _taken(fit(x, *largest(own_sizes)), index)
        part, own_sizes = _ACTIONS[kind](part, own_sizes, own_steps, own_generators)
        for i, size in zip(members, own_sizes, strict=True):
            sizes[i] = size
            done[i] += 1
        x = _put_back(x, part, index, largest(sizes))
    return fit(x, *sizes[0])


def _index(members: list[int], x: Tensor) -> Tensor | None:
    """The members of a batch on its device; None for all of them."""
    return None if len(members) == x.shape[0] else upload(torch.tensor(members), x.device)


def _taken(x: Tensor, index: Tensor | None) -> Tensor:
    """Some pictures of a batch."""
    return x if index is None else x.index_select(0, index)


def _put_back(x: Tensor, part: Tensor, index: Tensor | None, canvas: tuple[int, int]) -> Tensor:
    """Replace some pictures of a batch, on a canvas for all."""
    part = fit(part, *canvas)
    return part if index is None else fit(x, *canvas).index_copy(0, index, part)


def _blur(x: Tensor, sizes: Sizes, steps: Sequence[Blur], _: object) -> tuple[Tensor, Sizes]:
    kernels = stack(steps)
    return ops.filter2d(x, kernels, sizes, [step.size // 2 for step in steps]), sizes


def _resize(x: Tensor, sizes: Sizes, steps: Sequence[Resize], _: object) -> tuple[Tensor, Sizes]:
    targets = [(step.height, step.width) for step in steps]
    return ops.resize(x, targets, [step.mode for step in steps], sizes), targets


def _bicubic(x: Tensor, sizes: Sizes, steps: Sequence[Bicubic], _: object) -> tuple[Tensor, Sizes]:
    """All pictures have the same size here: it is the first step of its space."""
    factor = steps[0].factor
    height, width = (side // factor for side in sizes[0])
    small = imresize(x[..., : height * factor, : width * factor], 1 / factor, eight_bit=True)
    return small, [(height, width)] * len(steps)


def _noise(
    x: Tensor, sizes: Sizes, steps: Sequence[Noise], generators: Sequence[torch.Generator]
) -> tuple[Tensor, Sizes]:
    x = x.clamp(0, 1)
    for kind, add, unit in (("gaussian", ops.gaussian_noise, 255), ("poisson", ops.poisson_noise, 1)):
        members = [i for i, step in enumerate(steps) if step.kind == kind]
        if members:
            index = _index(members, x)
            level = torch.tensor([steps[i].level / unit for i in members])
            gray = torch.tensor([steps[i].gray for i in members])
            own_generators, own_sizes = [generators[i] for i in members], [sizes[i] for i in members]
            noisy = add(_taken(x, index), level, gray, own_generators, own_sizes)
            x = _put_back(x, noisy, index, (x.shape[-2], x.shape[-1]))
    return x, sizes


def _jpeg(x: Tensor, sizes: Sizes, steps: Sequence[Jpeg], _: object) -> tuple[Tensor, Sizes]:
    return ops.jpeg(x.clamp(0, 1), torch.tensor([float(step.quality) for step in steps]), sizes), sizes


_ACTIONS: dict[type, Callable[..., tuple[Tensor, Any]]] = {
    Blur: _blur,
    Resize: _resize,
    Bicubic: _bicubic,
    Noise: _noise,
    Jpeg: _jpeg,
}
