"""Local attribution maps: which input pixels the detail in a window of the output comes from (DACESR Fig. 5).

Gu and Dong 2021 (arXiv 2011.11036). Along a path of decreasing blur from x', the blurred input, to x, the input,

    LAM = sum over the path of  dD(F(x_i)) / dx_i * (x_i+1 - x_i),    x_i = x blurred with sigma * (1 - i / steps)

where F is the network and D the detail in the window: the sum of gradient magnitudes. The parts add up to D(F(x)) -
D(F(x')). Gradients are taken in the middle of each step (the authors': at its end), so the sum is closer.

    b  points of the path at a time     h, w  sides of the input
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.analysis.windows import Window, check_window, gradients
from dacesr.conditioning import Guided, View, kind_of, look, region_of
from dacesr.degradation.kernels import gaussian
from dacesr.degradation.ops import filter2d
from dacesr.memory import is_out_of_memory

SIGMA, STEPS = 1.2, 50  # of the path, as in the paper
ROUNDING = 1e-5  # of the detail: what fp32 makes of nothing
LOUD = 2.0**60  # gradients are taken so many times larger: far from the window they are too small for fast arithmetic
PIXEL = 1 / 12  # variance of a place within its pixel


class Attribution(NamedTuple):
    """Where the detail in a window comes from.

    Attributes:
        pixels: (3, h, w): what each value of the input adds, by way of the network.
        condition: (3, h, w): what it adds by way of the extractor; None where the condition was held fixed.
        start: Detail for the blurred input.
        end: Detail for the input itself.
    """

    pixels: Tensor
    condition: Tensor | None
    start: float
    end: float

    @property
    def signed(self) -> Tensor:
        """(3, h, w): what each value of the input adds in all."""
        return self.pixels if self.condition is None else self.pixels + self.condition

    @property
    def map(self) -> Tensor:
        """(h, w): how much each pixel matters, whatever its sign: LAM as the authors draw it."""
        return self.signed.sum(0).abs()

    @property
    def empty(self) -> bool:
        """Whether nothing comes from anywhere but rounding: the detail is the same along the whole path."""
        return float(self.map.sum()) <= ROUNDING * max(self.end, self.start)

    @property
    def away(self) -> float:
        """Distance of the sum of the parts from the difference of detail, which it should be."""
        return abs(float(self.signed.double().sum()) - (self.end - self.start))

    @property
    def error(self) -> float:
        """That distance as a share of the difference; NaN of an empty map."""
        return math.nan if self.empty else self.away / max(abs(self.end - self.start), 1e-30)

    @property
    def di(self) -> float:
        """The diffusion index of the map; NaN of an empty one."""
        return math.nan if self.empty else diffusion_index(self.map)

    @property
    def condition_share(self) -> float | None:
        """Of the absolute parts the share that comes by way of the extractor; None where the condition was fixed."""
        if self.condition is None:
            return None
        own, other = float(self.condition.abs().sum()), float(self.pixels.abs().sum())
        return own / max(own + other, 1e-30)


def detail(output: Tensor, window: Window) -> Tensor:
    """The detail in a window: gradient magnitudes summed over its pixels and channels.

    Args:
        output: (b, 3, H, W) of a network.
        window: In output pixels; its last row and column also look at the pixels beyond, where there are some.

    Returns:
        (b,).
    """
    beyond = window._replace(size=window.size + 1).of(output)
    return gradients(beyond).sum((1, 2, 3))


def on_path(x: Tensor, sigma: float, places: Tensor) -> Tensor:
    """The picture at places of the path, blurred with sigma * (1 - place); edges are mirrored.

    Args:
        x: (1, 3, h, w).
        sigma: Of the blur at place 0, in pixels; all kernels reach four times as far.
        places: (b,) in [0, 1].

    Returns:
        (b, 3, h, w).
    """
    size = 2 * math.ceil(4 * sigma) + 1
    kernels = torch.stack([_kernel(size, sigma * (1 - float(place))) for place in places])
    return filter2d(x.expand(len(places), -1, -1, -1), kernels)


def _kernel(size: int, sigma: float) -> Tensor:
    """A Gaussian; also of a sigma so small that all of it is in its middle."""
    if sigma > 1e-3:
        return gaussian(size, sigma, sigma)
    kernel = torch.zeros(size, size)
    kernel[size // 2, size // 2] = 1
    return kernel


def attribute(
    guided: Guided,
    x: Tensor,
    window: Window,
    *,
    sigma: float = SIGMA,
    steps: int = STEPS,
    batch: int | None = None,
    through_condition: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Attribution:
    """The local attribution map of a window.

    Args:
        guided: Network, with its extractor if it has one.
        x: Input, (1, 3, h, w) in [0, 1], on the network's device.
        window: In output pixels.
        sigma: Of the blur that the path begins with, in input pixels.
        steps: Of the path.
        batch: Points of the path at a time, if memory allows; fewer otherwise. 1 on the CPU, which gains little by
            more, and 8 elsewhere, unless given.
        through_condition: Let the extractor see the path too, and attribute what comes by way of it; the network is
            given the condition of `x` along the whole path otherwise.
        advance: Told how many steps were done.

    Raises:
        ValueError: Another shape, a window beyond the output, a sigma that is not positive, less than one step or
            point at a time, or a condition to attribute where the network takes none.
    """
    batch = batch if batch is not None else (1 if x.device.type == "cpu" else 8)
    _check(guided, x, window, sigma, steps, batch, through_condition)
    condition = guided.condition(x)
    start, end = _ends(guided, x, window, sigma, condition, through_condition)
    pixels, seen = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    done = 0
    while done < steps:
        numbers = torch.arange(done, min(done + batch, steps), dtype=torch.float64)
        before, middle, after = (on_path(x, sigma, (numbers + shift) / steps) for shift in (0, 0.5, 1))
        try:
            found = _gradients(guided, middle, window, None if through_condition else condition)
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
            batch = batch // 2
            continue
        for total, gradient in zip((pixels, seen), found, strict=False):
            total += (gradient * (after - before)).sum(0)
        done += len(numbers)
        if advance:
            advance(len(numbers))
    return Attribution(pixels.cpu(), seen.cpu() if through_condition else None, start, end)


def _check(
    guided: Guided, x: Tensor, window: Window, sigma: float, steps: int, batch: int, through_condition: bool
) -> None:
    if x.ndim != 4 or x.shape[:2] != (1, 3):
        raise ValueError(f"one picture (1, 3, h, w) is needed, not {tuple(x.shape)}")
    check_window(window, *(side * guided.config.scale for side in x.shape[-2:]))
    if not 0 < sigma <= 50 or steps < 1 or batch < 1:
        raise ValueError(f"sigma (0 to 50), steps and batch should be positive; got {sigma}, {steps} and {batch}")
    if through_condition and guided.extractor is None:
        raise ValueError("the network takes no condition, so none can be attributed")


@torch.no_grad()
def _ends(
    guided: Guided, x: Tensor, window: Window, sigma: float, condition: Tensor | None, through_condition: bool
) -> tuple[float, float]:
    """Detail for the blurred input and for the input."""
    found = []
    for end in (on_path(x, sigma, torch.zeros(1)), x):
        own = guided.condition(end) if through_condition else condition
        found.append(float(detail(_output(guided, end, own), window)))
    return found[0], found[1]


def _gradients(guided: Guided, x: Tensor, window: Window, condition: Tensor | None) -> tuple[Tensor, ...]:
    """Derivatives of the detail by a batch of inputs; without a fixed condition those by way of the extractor too."""
    pixels = x.clone().requires_grad_()
    leaves = [pixels]
    if condition is not None:
        condition = condition.expand(len(x), -1, -1)
    elif guided.extractor is not None:
        seen = x.clone().requires_grad_()
        leaves.append(seen)
        condition = guided.extractor.condition(look(region_of(seen), *x.shape[-2:]), kind_of(guided.config))
    with torch.enable_grad():
        total = detail(_output(guided, pixels, condition), window).sum()
        return tuple(found / LOUD for found in torch.autograd.grad(total * LOUD, leaves))


def _output(guided: Guided, x: Tensor, condition: Tensor | None) -> Tensor:
    return View(condition, x.shape[2], x.shape[3]).through(guided.net, x)


# --- what a map says


def gini(values: Tensor) -> float:
    """Gini coefficient, sum |v_i - v_j| / (2 n^2 mean): 0 where all are equal, near 1 where few hold everything.

    Args:
        values: Any shape, none negative.

    Returns:
        NaN where all are 0.

    Raises:
        ValueError: There is no value, or a negative one.
    """
    ordered = values.detach().double().flatten().sort().values
    n = len(ordered)
    if n == 0 or float(ordered[0]) < 0:
        raise ValueError("a Gini coefficient is of values of which none is negative")
    places = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device) - n - 1
    total = float(ordered.sum())
    return float((places * ordered).sum()) / (n * total) if total else math.nan


def diffusion_index(values: Tensor) -> float:
    """DI = (1 - Gini) * 100: the larger, the more pixels take part (Gu and Dong 2021, Eq. 8)."""
    return (1 - gini(values)) * 100


def above_below(values: Tensor, window: Window, scale: int) -> tuple[float, float]:
    """Shares of a map (h, w) that lie in rows above and below a window of output pixels.

    A scan in raster order alone sees nothing below, but for what convolutions reach.
    """
    top, bottom = window.y // scale, math.ceil((window.y + window.size) / scale)
    total = float(values.sum()) or math.nan
    return float(values[:top].sum()) / total, float(values[bottom:].sum()) / total


def informative_area(values: Tensor) -> Tensor:
    """The area that a map points at: its kernel density, with Scott's bandwidth, the maximum 1.

    Args:
        values: (h, w), none negative, not all 0.

    Returns:
        (h, w) float64.
    """
    weights = values.detach().cpu().double()
    weights = weights / weights.sum()
    h, w = weights.shape
    rows, columns = torch.meshgrid(*(torch.arange(n).to(weights) for n in (h, w)), indexing="ij")
    places = torch.stack((rows, columns)).flatten(1)
    flat = weights.flatten()
    centred = places - (places * flat).sum(1, keepdim=True)
    concentration = float(flat.square().sum())  # 1 / effective number of pixels
    spread = (centred * flat) @ centred.T / max(1 - concentration, 1e-9)
    spread = spread * concentration ** (1 / 3) + PIXEL * torch.eye(2).to(spread)  # Scott: n^(-1 / (d + 4)), squared
    offsets = torch.cartesian_prod(torch.arange(1 - h, h), torch.arange(1 - w, w)).to(spread)
    distance = ((offsets @ spread.inverse()) * offsets).sum(1).view(2 * h - 1, 2 * w - 1)
    size = 3 * h - 2, 3 * w - 2  # no end reaches around to the other
    product = torch.fft.rfft2(weights, size) * torch.fft.rfft2(torch.exp(-distance / 2), size)
    density = torch.fft.irfft2(product, size)[h - 1 : 2 * h - 1, w - 1 : 2 * w - 1].clamp_min(0)
    return density / density.max()
