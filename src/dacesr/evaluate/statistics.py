"""How sure a mean over pictures is: intervals from the bootstrap."""

from typing import NamedTuple

import torch
from torch import Tensor

DRAWS = 4000
CONFIDENCE = 0.95
AT_ONCE = 1 << 22  # pictures drawn at a time, over all samples


class Interval(NamedTuple):
    """A mean over pictures and the interval in which it lies with the wanted confidence."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def text(self, digits: int) -> str:
        """`+0.014 [+0.004, +0.024] *`, the mark where the interval leaves out 0."""
        mean, low, high = (f"{value:+.{digits}f}" for value in self)
        return f"{mean} [{low}, {high}]{' *' if self.clear else ''}"


def bootstrap(
    values: Tensor, *, generator: torch.Generator, draws: int = DRAWS, confidence: float = CONFIDENCE
) -> Interval:
    """Mean and percentile interval of values by drawing as many of them with replacement, again and again.

    Args:
        values: (n,), one for each picture; of a paired comparison the differences.
        generator: on the CPU; the same one in the same state draws the same pictures.
        draws: how often.
        confidence: share of the drawn means that the interval holds.

    Raises:
        ValueError: there are no values, or they are not in one row.
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"the mean of values of shape {tuple(values.shape)} cannot be taken: (n,) is needed, n >= 1")
    values, n = values.double().cpu(), len(values)
    parts = torch.arange(draws).split(max(1, AT_ONCE // n))
    means = torch.cat([values[torch.randint(n, (len(part), n), generator=generator)].mean(1) for part in parts])
    tail = (1 - confidence) / 2
    low, high = means.quantile(means.new_tensor((tail, 1 - tail))).tolist()
    return Interval(values.mean().item(), low, high)
