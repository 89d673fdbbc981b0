"""Learning rates, clipping, the average of weights, and the optimizers."""

import math
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dacesr.train.config import OptimizerConfig
from dacesr.train.learner import Learner, rate
from dacesr.train.state import pack


def options(**fields: object) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"lr": 0.1, **fields})


def learner(net: nn.Module, ema: float = 0.0, *, fused: bool = False, **fields: object) -> Learner:
    accelerator = Accelerator(cpu=True)
    return Learner(net, config=options(**fields), iterations=10, ema=ema, accelerator=accelerator, fused=fused)


def linear(seed: int = 0) -> nn.Linear:
    net = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return net


def push(net: nn.Module, seed: int) -> None:
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))


def test_warm_up_is_linear_and_ends_at_the_full_rate() -> None:
    config = options(warmup=4)
    assert [rate(config, i, 10) for i in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rate(options(), 0, 10) == 0.1


def test_cosine_falls_from_the_end_of_the_warm_up_to_the_final_share() -> None:
    config = options(warmup=2, schedule="cosine", final=0.2)
    rates = [rate(config, i, 12) for i in range(2, 13)]
    assert rates == pytest.approx([0.1 * (0.2 + 0.4 * (1 + math.cos(math.pi * i / 10))) for i in range(11)])
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.02)
    assert rate(config, 50, 12) == pytest.approx(0.02)
    assert rate(options(warmup=12, schedule="cosine"), 11, 12) == pytest.approx(0.1)


def test_a_cosine_ends_by_its_time_if_that_comes_first() -> None:
    config = options(schedule="cosine", schedule_minutes=4.0, final=0.2)
    assert rate(config, 2, 10, 2.0) == pytest.approx(rate(config, 5, 10))
    assert rate(config, 8, 10, 2.0) == pytest.approx(rate(config, 8, 10))
    assert rate(config, 0, 10, 4.0) == rate(config, 0, 10, 9.0) == pytest.approx(0.02)
    assert rate(options(schedule="cosine"), 0, 10, 4.0) == 0.1
    timed = learner(linear(), schedule="cosine", schedule_minutes=4.0)
    timed.minutes = 2.0
    push(timed.net, 0)
    assert timed.timed
    assert timed.update(0) == pytest.approx(0.05)


@pytest.mark.parametrize("milestones", [[3, 5], [5, 3]])
def test_steps_multiply_from_their_milestone_on(milestones: list[int]) -> None:
    config = options(schedule="step", milestones=milestones, gamma=0.5, warmup=1)
    assert [rate(config, i, 10) for i in range(7)] == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_gradients_are_clipped_to_the_norm_and_their_own_norm_is_told() -> None:
    for clip, expected in ((0.0, 5.0), (10.0, 5.0), (2.0, 2.0)):
        net = linear()
        net.weight.grad, net.bias.grad = torch.zeros(2, 3), torch.tensor([3.0, 4.0])
        assert learner(net, clip=clip).gradient_norm().item() == pytest.approx(5)
        assert net.bias.grad.norm().item() == pytest.approx(expected, rel=1e-5)


def test_the_average_follows_the_formula() -> None:
    net = linear()
    net.register_buffer("seen", torch.zeros(()))
    trained = learner(net, ema=0.3)
    expected = net.weight.detach().clone()
    for iteration in range(5):
        push(net, iteration)
        net.get_buffer("seen").add_(1)
        trained.update(iteration)
        decay = min(0.3, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * net.weight.detach()
        torch.testing.assert_close(trained.average.get_parameter("weight").detach(), expected)
    assert trained.average.get_buffer("seen") == 5
    assert not trained.average.training
    assert not any(parameter.requires_grad for parameter in trained.average.parameters())
    assert learner(linear()).average is not None
    without = learner(net)
    assert without.average is without.net


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    start = linear().weight.detach()
    moved = {}
    for name in ("adam", "adamw"):
        net = linear()
        push(net, 1)
        gradient = net.weight.grad
        assert gradient is not None
        lr = learner(net, name=name, weight_decay=0.5, lr=0.01).update(0)
        assert lr == 0.01
        moved[name] = net.weight.detach()
        assert net.weight.grad is None
    gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved["adamw"], start * (1 - 0.01 * 0.5) - 0.01 * gradient.sign())
    torch.testing.assert_close(moved["adam"], start - 0.01 * (gradient + 0.5 * start).sign())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_learner_goes_on_alike(ema: float) -> None:
    def make(seed: int) -> Learner:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return learner(net, ema, schedule="cosine", name="adamw", weight_decay=0.1)

    whole, other = make(0), make(1)
    for iteration in range(6):
        push(whole.net, iteration)
        whole.update(iteration)
        if iteration == 2:
            state = whole.state_dict()
            other.load_state_dict({**state, "optimizer": {k: dict(v) for k, v in state["optimizer"].items()}})
        if iteration > 2:
            push(other.net, iteration)
            other.update(iteration)
    for one, two in zip(whole.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(whole.average.parameters(), other.average.parameters(), strict=True):
        assert torch.equal(one, two)


def test_resumed_moments_lie_in_memory_like_their_parameters() -> None:
    net = nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last)
    first = learner(net)
    push(net, 0)
    first.update(0)
    saved = {
        key: {k: v.contiguous() for k, v in value.items()} for key, value in first.state_dict()["optimizer"].items()
    }
    second = learner(net)
    second.load_state_dict({**first.state_dict(), "optimizer": saved})
    for moments in second.state_dict()["optimizer"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].ndim == 4:
                assert moments[name].stride() == net.weight.stride()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_an_update_can_be_called_off_on_the_device(name: str) -> None:
    nets = linear(), linear()
    for net in nets:
        net.register_buffer("seen", torch.zeros(3))
    plain, guarded = (learner(net, 0.9, name=name, weight_decay=0.1, fused=i > 0) for i, net in enumerate(nets))
    for iteration in range(4):
        for net in nets:
            push(net, iteration)
            net.get_buffer("seen").add_(1)
        if iteration == 2:
            before = {key: value.clone() for key, value in flat(guarded.state_dict()).items()}
            nets[1].weight.grad.fill_(torch.nan)  # type: ignore[union-attr]
            nets[0].get_buffer("seen").sub_(1)
            plain.forget()
            guarded.update(iteration, torch.ones(()))
            nets[1].get_buffer("seen").sub_(1)
            after = flat(guarded.state_dict())
            assert not [key for key, value in before.items() if "net.seen" not in key and (value != after[key]).any()]
            assert nets[1].weight.grad is None
        else:
            plain.update(iteration)
            guarded.update(iteration, torch.zeros(()))
    expected, got = flat(plain.state_dict()), flat(guarded.state_dict())
    assert expected["optimizer.0.step"] == got["optimizer.0.step"] == 3
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value)


def flat(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All tensors of a learner's state by their dotted names."""
    tensors: dict[str, torch.Tensor] = {}
    pack("", state, tensors)
    return {name.removeprefix("."): tensor for name, tensor in tensors.items()}
