"""Losses of the restorer (DACESR Eq. 8): pixel, perceptual and GAN. Each returns a scalar in fp32."""

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
