"""The terms of the restorer's loss against values by hand."""

import math

import pytest
import torch

from dacesr import losses
from dacesr.nets.features import Features


@pytest.fixture(scope="module")
def features() -> Features:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Features(name="squeezenet")


def picture(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(2, 3, 24, 28, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_pixel_is_the_mean_absolute_difference() -> None:
    output = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).requires_grad_()
    loss = losses.pixel(output, torch.tensor([0.3, 0.5, 0.4]).reshape(1, 3, 1, 1))
    assert loss.item() == pytest.approx(0.3)
    loss.backward()
    assert output.grad is not None
    torch.testing.assert_close(output.grad.flatten(), torch.tensor([-1, 0, 1]) / 3)


def test_perceptual_is_the_weighted_distance_of_maps(features: Features) -> None:
    one, two = picture(0), picture(1)
    assert losses.perceptual(one, one, features).item() == 0
    maps = zip(features(one).items(), features(two).values(), strict=True)
    distances = {tap: (a - b).abs().mean() for (tap, a), b in maps}
    whole = sum(features.weights[tap] * distance for tap, distance in distances.items())
    torch.testing.assert_close(losses.perceptual(one, two, features), whole)
    torch.testing.assert_close(losses.perceptual(one, two, features, {"fire5": 2.0}), 2 * distances["fire5"])


def test_perceptual_sends_gradients_into_the_output_only(features: Features) -> None:
    output, target = picture(0).requires_grad_(), picture(1).requires_grad_()
    losses.perceptual(output, target, features).backward()
    assert target.grad is None
    assert output.grad is not None
    assert output.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in features.parameters())


def test_gan_is_binary_cross_entropy() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 1, 1, 3)
    softplus = [math.log1p(math.exp(x)) for x in (-2, 0, 3)]
    assert losses.gan(logits, real=False).item() == pytest.approx(sum(softplus) / 3)
    assert losses.gan(logits, real=True).item() == pytest.approx((sum(softplus) - 1) / 3)
    assert losses.gan(torch.full((1, 1, 2, 2), 1e4), real=False).item() == pytest.approx(1e4)


def test_losses_are_in_fp32_whatever_comes_in(features: Features) -> None:
    one, two = picture(0, torch.bfloat16), picture(1, torch.bfloat16)
    assert losses.pixel(one, two).dtype == torch.float32
    assert losses.gan(one, real=True).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert losses.perceptual(one.float(), two.float(), features).dtype == torch.float32
