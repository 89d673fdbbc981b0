"""How well tags are recognised: average precision."""

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each tag over pictures: sum over thresholds of (gain in recall) x (precision there).

    Equal scores are one threshold, so that the order of the pictures does not matter.

    Args:
        scores: (n, tags), higher for pictures that more probably have the tag (logits or probabilities).
        labels: (n, tags), 0 or 1.

    Returns:
        (tags,) float32 in [0, 1]; NaN where no picture has the tag.

    Raises:
        ValueError: the shapes differ, there is no picture, or a score is NaN.
    """
    if scores.ndim != 2 or scores.shape != labels.shape or not len(scores):
        found = f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"scores and labels should be (n, tags) alike, not {found}")
    if scores.isnan().any():
        raise ValueError("scores that are NaN can't be ranked")
    count = len(scores)
    ranked, order = scores.T.sort(dim=1, descending=True)  # (tags, n)
    hits = labels.T.double().gather(1, order)
    place = torch.arange(count, device=scores.device).expand_as(ranked)
    last = F.pad(ranked[:, 1:] != ranked[:, :-1], (0, 1), value=True)  # of a run of equal scores
    end = torch.where(last, place, count).flip(1).cummin(1).values.flip(1)
    precision = (hits.cumsum(1) / (place + 1)).gather(1, end)
    return ((hits * precision).sum(1) / hits.sum(1)).float()


def mean_average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean of `average_precision` over the tags that some picture has, float32 (); NaN where none has any."""
    return average_precision(scores, labels).nanmean()
