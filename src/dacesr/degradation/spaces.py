"""Degradation spaces: which steps are drawn, from which ranges.

`level1`, `level2`, `level3` are the three spaces of DASR (Liang et al. 2022, arXiv 2203.14672) that the paper tests on,
`dasr` draws one of them for every picture. `realesrgan` is the space of Real-ESRGAN (arXiv 2107.10833), from which the
Real Embedding Extractor's severe degradations are chosen. `bsrgan` shuffles its operations (Zhang et al. 2021, arXiv
2103.14006); what differs from the authors' code stands in docs/degradation.md. `bicubic` is MATLAB's clean x1/4.

DASR's vector of 33, each in [0, 1] over the range of its own space (0 where a step was not drawn):
    0-9    size, sigma_x, sigma_y, theta of the 1st and 2nd blur; size and cutoff of the final sinc
    10-17  factor and mode (one-hot: area, bilinear, bicubic) of the 1st and 2nd resize
    18-25  level, gray, kind (one-hot: Gaussian, Poisson) of the 1st and 2nd noise
    26-32  quality of the 1st and 2nd JPEG; order of the last two steps (one-hot: resize first, JPEG first); last mode
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from dacesr.degradation.kernels import Family
from dacesr.degradation.steps import Bicubic, Blur, Degradation, Jpeg, Noise, Resize, Step
from dacesr.imresize import Mode

T = TypeVar("T")
Range = tuple[float, float]

SIZES = tuple(range(7, 22, 2))
_WIDE_SIZES = tuple(range(7, 26, 2))  # BSRGAN's
RESIZE_MODES: tuple[Mode, ...] = ("area", "bilinear", "bicubic")
ROTATION = (-math.pi, math.pi)
CUTOFF = (math.pi / 3, math.pi)
NO_VECTOR = (0.0,) * 33


class Draws:
    """Random numbers for the parameters of one picture, all taken from the generator at once."""

    def __init__(self, generator: torch.Generator) -> None:
        """Take 96 uniform numbers, which is more than any space asks for."""
        numbers = torch.rand(96, generator=generator, device=generator.device, dtype=torch.float64)
        self._left = iter(numbers.tolist())

    def uniform(self, bounds: Range) -> float:
        """A number from [low, high)."""
        low, high = bounds
        return low + (high - low) * next(self._left)

    def chance(self, probability: float) -> bool:
        """True that often."""
        return next(self._left) < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options, as likely as its weight says."""
        weights = weights or (1.0,) * len(options)
        left = next(self._left) * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in a random order."""
        return [option for _, option in sorted(((next(self._left), i), o) for i, o in enumerate(options))]


class Pass(NamedTuple):
    """Ranges of one pass of blur, resize, noise and JPEG."""

    sigma: Range
    resize: tuple[float, float, float]  # weights of up, down, keep
    factor: Range
    gaussian: Range  # sigma in 8-bit levels
    poisson: Range
    quality: Range
    blur: float = 1.0  # probability
    shapes: tuple[tuple[Family, bool, float], ...] = (("gaussian", True, 0.65), ("gaussian", False, 0.35))
    sinc: float = 0.0  # probability that the blur is a sinc


class Space(NamedTuple):
    """One pass, or two and the final sinc."""

    first: Pass
    second: Pass | None = None


_SIX = (  # family, isotropic, probability
    ("gaussian", True, 0.45),
    ("gaussian", False, 0.25),
    ("generalized", True, 0.12),
    ("generalized", False, 0.03),
    ("plateau", True, 0.12),
    ("plateau", False, 0.03),
)
_BETA = {"generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}
_SEVERE = Pass((0.2, 3), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3), (30, 95))
_SECOND = Pass((0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5), (30, 95), blur=0.8)
_FINAL_SINC = 0.8
_GRAY = 0.4

LEVELS = {
    "level1": Space(Pass((0.2, 0.8), (0.1, 0.2, 0.7), (0.85, 1.2), (1, 10), (0.05, 0.5), (90, 95))),
    "level2": Space(Pass((0.2, 1.5), (0.3, 0.4, 0.3), (0.5, 1.2), (1, 20), (0.05, 1.5), (50, 95))),
    "level3": Space(_SEVERE, _SECOND),
    "realesrgan": Space(
        _SEVERE._replace(shapes=_SIX, sinc=0.1),
        _SECOND._replace(shapes=_SIX, sinc=0.1),
    ),
}


def draw(space: str, height: int, width: int, scale: int, generator: torch.Generator) -> Degradation:
    """Draw a degradation for a picture of height x width, whose result has height // scale x width // scale.

    Raises:
        ValueError: there is no such space.
    """
    if space not in SPACES:
        raise ValueError(f"no degradation space {space!r}; there are {', '.join(SPACES)}")
    return SPACES[space](height, width, scale, Draws(generator))


def _bicubic(height: int, width: int, scale: int, draws: Draws) -> Degradation:
    return Degradation("bicubic", "bicubic", (Bicubic(scale),), NO_VECTOR)


def _dasr(height: int, width: int, scale: int, draws: Draws) -> Degradation:
    level = draws.pick(("level1", "level2", "level3"), (0.3, 0.3, 0.4))
    return _leveled(level)(height, width, scale, draws, space="dasr")


def _leveled(level: str) -> Callable[..., Degradation]:
    def make(height: int, width: int, scale: int, draws: Draws, space: str = level) -> Degradation:
        first, second = LEVELS[level]
        target = (height // scale, width // scale)
        steps, vector = _pass(first, (height, width), draws)
        quality = _jpeg(first, draws)
        numbers = dict(zip((0, 1, 2, 3, *range(10, 14), *range(18, 22)), vector, strict=True))
        numbers[26] = _within(quality.quality, first.quality)
        steps.append(quality)
        if second is None:
            steps.append(_last_resize(target, draws, numbers))
        else:
            further, vector = _pass(second, target, draws)
            numbers |= dict(zip((4, 5, 6, 7, *range(14, 18), *range(22, 26)), vector, strict=True))
            steps += further + _last_steps(second, target, draws, numbers)
        return Degradation(space, level, tuple(steps), tuple(numbers.get(i, 0.0) for i in range(33)))

    return make


def _pass(ranges: Pass, size: tuple[int, int], draws: Draws) -> tuple[list[Step], list[float]]:
    """Blur, resize and noise of one pass, and their 12 numbers of the vector."""
    steps: list[Step] = []
    numbers = [0.0] * 4
    if draws.chance(ranges.blur):
        blur = _blur(ranges, draws)
        steps.append(blur)
        numbers = [_within(blur.size, (SIZES[0], SIZES[-1])), *(0.0,) * 3]
        if blur.family != "sinc":
            sigmas = [_within(sigma, ranges.sigma) for sigma in (blur.sigma_x, blur.sigma_y)]
            numbers[1:] = [*sigmas, _within(blur.theta, ROTATION)]
    low, high = ranges.factor
    bounds = draws.pick(((1, high), (low, 1), (1, 1)), ranges.resize)
    factor, mode = draws.uniform(bounds), draws.pick(RESIZE_MODES)
    steps.append(Resize(mode, max(1, int(size[0] * factor)), max(1, int(size[1] * factor))))
    numbers += [_within(factor, ranges.factor), *_one_hot(mode, RESIZE_MODES)]
    kind = "gaussian" if draws.chance(0.5) else "poisson"
    span = ranges.gaussian if kind == "gaussian" else ranges.poisson
    noise = Noise(kind, draws.uniform(span), draws.chance(_GRAY))
    steps.append(noise)
    numbers += [_within(noise.level, span), float(noise.gray), *_one_hot(kind, ("gaussian", "poisson"))]
    return steps, numbers


def _blur(ranges: Pass, draws: Draws) -> Blur:
    size = draws.pick(SIZES)
    if draws.chance(ranges.sinc):
        low = math.pi / 3 if size < 13 else math.pi / 5
        return Blur("sinc", size, cutoff=draws.uniform((low, math.pi)))
    family, isotropic, _ = draws.pick(ranges.shapes, [weight for *_, weight in ranges.shapes])
    sigma_x, sigma_y, theta = draws.uniform(ranges.sigma), draws.uniform(ranges.sigma), draws.uniform(ROTATION)
    beta = 0.0
    if family in _BETA:  # half of them below 1, half above
        low, high = _BETA[family]
        beta = draws.uniform((low, 1) if draws.chance(0.5) else (1, high))
    if isotropic:
        return Blur(family, size, sigma_x, sigma_x, 0.0, beta)
    return Blur(family, size, sigma_x, sigma_y, theta, beta)


def _jpeg(ranges: Pass, draws: Draws) -> Jpeg:
    return Jpeg(round(draws.uniform(ranges.quality)))


def _last_resize(target: tuple[int, int], draws: Draws, numbers: dict[int, float]) -> Resize:
    mode = draws.pick(RESIZE_MODES)
    numbers |= dict(zip(range(30, 33), _one_hot(mode, RESIZE_MODES), strict=True))
    return Resize(mode, *target)


def _last_steps(ranges: Pass, target: tuple[int, int], draws: Draws, numbers: dict[int, float]) -> list[Step]:
    """Resize to the target and sinc, with JPEG after them or before."""
    quality = _jpeg(ranges, draws)
    numbers[27] = _within(quality.quality, ranges.quality)
    small: list[Step] = [_last_resize(target, draws, numbers)]
    if draws.chance(_FINAL_SINC):
        sinc = Blur("sinc", draws.pick(SIZES), cutoff=draws.uniform(CUTOFF))
        numbers |= {8: _within(sinc.size, (SIZES[0], SIZES[-1])), 9: _within(sinc.cutoff, CUTOFF)}
        small.append(sinc)
    resize_first = draws.chance(0.5)
    numbers[28 if resize_first else 29] = 1.0
    return [*small, quality] if resize_first else [quality, *small]


def _bsrgan(height: int, width: int, scale: int, draws: Draws) -> Degradation:
    """Two blurs, two resizes (the second to the target), noise and JPEG in random order; JPEG at the end."""
    target = Resize(draws.pick(RESIZE_MODES), height // scale, width // scale)
    factor = 1 / draws.uniform((1, 2 * scale)) if draws.chance(0.75) else 1 / math.sqrt(scale)
    between = Resize(draws.pick(RESIZE_MODES), max(1, int(height * factor)), max(1, int(width * factor)))
    noise = Noise("gaussian", draws.uniform((2, 25)), draws.chance(_GRAY))
    order: list[Step | str] = ["resize", "resize", _wide_blur(draws), _wide_blur(draws), noise]
    if draws.chance(0.9):
        order.append(_final_quality(draws))
    resizes = iter((between, target))
    steps = [next(resizes) if isinstance(step, str) else step for step in draws.shuffled(order)]
    return Degradation("bsrgan", "bsrgan", (*steps, _final_quality(draws)), NO_VECTOR)


def _wide_blur(draws: Draws) -> Blur:
    """BSRGAN's blur for x4: isotropic sigma up to 2.8, or anisotropic with variances up to 8."""
    size = draws.pick(_WIDE_SIZES)
    if draws.chance(0.5):
        sigma = draws.uniform((0.1, 2.8))
        return Blur("gaussian", size, sigma, sigma)
    sigma_x, sigma_y = (math.sqrt(draws.uniform((0.1, 8))) for _ in range(2))
    return Blur("gaussian", size, sigma_x, sigma_y, draws.uniform((0, math.pi)))


def _final_quality(draws: Draws) -> Jpeg:
    return Jpeg(round(draws.uniform((30, 95))))


def _within(value: float, bounds: Range) -> float:
    """Where a value lies in a range: 0 at its low end, 1 at its high end."""
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def _one_hot(value: str, options: Sequence[str]) -> list[float]:
    return [float(value == option) for option in options]


SPACES: dict[str, Callable[[int, int, int, Draws], Degradation]] = {
    "bicubic": _bicubic,
    **{level: _leveled(level) for level in ("level1", "level2", "level3")},
    "dasr": _dasr,
    "realesrgan": _leveled("realesrgan"),
    "bsrgan": _bsrgan,
}
