"""Losses: pixel, perceptual and GAN of the restorer (DACESR Eq. 8), and the tagger's. Each returns a scalar in fp32."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.nets.features import Features


def pixel(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference (L1) of pictures (b, 3, h, w)."""
    return F.l1_loss(output.float(), target.float())


def perceptual(
    output: Tensor, target: Tensor, features: Features, weights: Mapping[str, float] | None = None
) -> Tensor:
    """Weighted sum over taps of the L1 between feature maps; no gradient flows into the target.

    Args:
        output: (b, 3, h, w), RGB around [0, 1].
        target: likewise.
        features: VGG19 for the paper's loss, or SqueezeNet.
        weights: of the taps; the network's own unless given.
    """
    chosen = features.weights if weights is None else weights
    with torch.no_grad():
        wanted = features(target)
    found = features(output)
    terms = [weight * F.l1_loss(found[tap].float(), wanted[tap].float()) for tap, weight in chosen.items()]
    return torch.stack(terms).sum()


def gan(logits: Tensor, *, real: bool) -> Tensor:
    """Vanilla GAN: binary cross-entropy of the discriminator's logits (b, 1, h, w) with real or fake everywhere.

    The discriminator lowers it for real pictures (`real=True`) and outputs (`real=False`), the restorer for its outputs
    with `real=True`.
    """
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def asymmetric(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    margin: float = 0.05,
) -> Tensor:
    """Asymmetric loss for multi-label tags (Ridnik et al. 2021, Eq. 4-7): the mean over pictures of sums over tags.

    With p = sigmoid(logit) and q = max(p - margin, 0), a tag that the picture has costs -(1 - p)^gamma_positive log p,
    one that it lacks -q^gamma_negative log(1 - q). With all three at 0 that is binary cross-entropy. Gradients flow
    through the focusing factors too.

    Args:
        logits: (b, tags).
        labels: (b, tags), 0 or 1; what lies between mixes both costs.
        gamma_negative: focus on the hard ones among the tags that are absent, at least 0.
        gamma_positive: likewise among those that are present.
        margin: absent tags of at most this probability cost nothing, within [0, 1).

    Raises:
        ValueError: a number is impossible, or the shapes differ.
    """
    if min(gamma_negative, gamma_positive) < 0 or not 0 <= margin < 1:
        raise ValueError(f"gammas {gamma_negative} and {gamma_positive} and margin {margin} make no asymmetric loss")
    if logits.shape != labels.shape or logits.ndim != 2:
        raise ValueError(f"labels {tuple(labels.shape)} should be (b, tags) as the logits {tuple(logits.shape)}")
    logits, labels = logits.float(), labels.float()
    absence = torch.sigmoid(-logits)  # 1 - p, precise where p is near 1
    present = _focus(absence, gamma_positive) * F.logsigmoid(logits)
    shifted = (absence + margin).clamp(max=1)  # 1 - q
    log_shifted = shifted.log() if margin else F.logsigmoid(-logits)
    absent = _focus(torch.sigmoid(logits) - margin, gamma_negative) * log_shifted
    return -(labels * present + (1 - labels) * absent).sum(1).mean()


def _focus(probability: Tensor, gamma: float) -> Tensor:
    """max(probability, 0)^gamma; the bound is just above 0, where powers below 1 have no gradient."""
    return probability.clamp(min=1e-8) ** gamma
