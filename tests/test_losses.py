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


def test_asymmetric_without_focus_and_margin_is_binary_cross_entropy() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * 4
    labels = (torch.arange(35) % 3 == 0).reshape(5, 7)
    loss = losses.asymmetric(logits, labels, gamma_negative=0, margin=0)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum") / 5
    torch.testing.assert_close(loss, plain)


def test_asymmetric_by_hand() -> None:
    logits = torch.tensor([[math.log(3.0), math.log(1 / 3), math.log(4.0)]])  # 0.75, 0.25, 0.8
    labels = torch.tensor([[1, 0, 0]])
    loss = losses.asymmetric(logits, labels, gamma_negative=2, gamma_positive=1, margin=0.2)
    expected = -(0.25 * math.log(0.75) + 0.05**2 * math.log(0.95) + 0.6**2 * math.log(0.4))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    twice = losses.asymmetric(logits.expand(4, 3), labels.expand(4, 3), gamma_negative=2, gamma_positive=1, margin=0.2)
    assert twice.item() == pytest.approx(expected, rel=1e-5)  # the mean over pictures


def test_asymmetric_ignores_easy_absent_tags() -> None:
    logits = torch.tensor([[-3.0, -2.9, 0.0]], requires_grad=True)  # 0.047, 0.052 and 0.5
    losses.asymmetric(logits, torch.zeros(1, 3)).backward()
    assert logits.grad is not None
    easy, near, hard = logits.grad[0].tolist()
    assert easy == 0
    assert 0 < near < 1e-6
    assert hard > 0.01


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_asymmetric_stays_finite(gamma: float, margin: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-200.0, -20.0, 0.0, 20.0, 200.0]] * 2, dtype=dtype, requires_grad=True)
    labels = torch.tensor([[0.0] * 5, [1.0] * 5])
    loss = losses.asymmetric(logits, labels, gamma_negative=gamma, gamma_positive=gamma, margin=margin)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_asymmetric_has_the_gradient_of_its_formula() -> None:
    logits = torch.tensor([[-1.0, 0.3, 2.0, -2.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    losses.asymmetric(logits, labels, gamma_positive=1.5).backward()
    assert logits.grad is not None
    for i, gradient in enumerate(logits.grad[0].tolist()):
        ends = [logits.detach() + sign * 1e-2 * torch.eye(4)[i] for sign in (1, -1)]
        up, down = (losses.asymmetric(end, labels, gamma_positive=1.5).item() for end in ends)
        assert gradient == pytest.approx((up - down) / 2e-2, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("options", [{"gamma_negative": -1}, {"gamma_positive": -1}, {"margin": 1}, {"margin": -0.1}])
def test_asymmetric_refuses_impossible_numbers(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="make no asymmetric loss"):
        losses.asymmetric(torch.zeros(1, 1), torch.zeros(1, 1), **options)
    with pytest.raises(ValueError, match=r"labels \(3,\) should be \(b, tags\) as the logits \(2, 3\)"):
        losses.asymmetric(torch.zeros(2, 3), torch.zeros(3))
