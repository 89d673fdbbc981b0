"""Steps as CUDA graphs: what recording leaves as it was, and what a replay hands over; on a GPU, the same training."""

from collections.abc import Sequence

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dacesr.train.recorded import WARM_UP, Part, Recorded
from dacesr.train.restorer import RestorerTask
from dacesr.train.state import pack
from train.conftest import PLAIN, Recipe
from train.fake_cuda import FakeCuda
from train.test_restorer import task


def part(seed: int = 0, side: int = 4) -> Part:
    lr, gt = torch.rand(2, 2, 3, side, side, generator=torch.Generator().manual_seed(seed)).unbind()
    return Part(lr, gt, None, None, None)


class Judge:
    """A network whose buffers every run changes, and the work of giving it gradients."""

    def __init__(self) -> None:
        self.net = spectral_norm(nn.Conv2d(3, 3, 1))
        self.runs = 0
        self.seen: list[Part] = []

    def work(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        assert all(parameter.grad is None for parameter in self.net.parameters())
        self.runs += 1
        self.seen = list(parts)
        loss = sum(((self.net(each.lr) - each.gt).abs().mean() for each in parts), torch.zeros(()))
        loss.backward()
        return {"loss": loss.detach(), "twice": 2 * loss.detach()}


def test_recording_leaves_weights_buffers_and_gradients_as_they_were(fake_cuda: FakeCuda) -> None:
    judge = Judge()
    before = {name: value.clone() for name, value in judge.net.state_dict().items()}
    Recorded(judge.work, [part()], [judge.net])
    assert judge.runs == WARM_UP + 1
    assert fake_cuda.modes == ["error", 0]
    assert fake_cuda.current is fake_cuda.main
    assert all(torch.equal(value, before[name]) for name, value in judge.net.state_dict().items())
    assert all(parameter.grad is None for parameter in judge.net.parameters())


def test_a_replay_takes_new_inputs_and_gives_gradients_where_they_were_recorded(fake_cuda: FakeCuda) -> None:
    judge = Judge()
    first, new = part(0), part(1)
    recorded = Recorded(judge.work, [first, part(2)], [judge.net])
    terms = recorded([new, first])
    assert recorded._graph.replays == 1
    assert torch.equal(judge.seen[0].lr, new.lr)
    assert torch.equal(judge.seen[1].gt, first.gt)
    assert not torch.equal(first.lr, new.lr)
    assert terms["twice"] == 2 * terms["loss"] > 0
    gradients = [parameter.grad for parameter in judge.net.parameters()]
    assert all(gradient is not None and gradient.any() for gradient in gradients)
    for parameter in judge.net.parameters():
        parameter.grad = None  # as an optimizer leaves it
    recorded([new, first])
    assert all(p.grad is gradient for p, gradient in zip(judge.net.parameters(), gradients, strict=True))


def test_other_shapes_are_refused(fake_cuda: FakeCuda) -> None:
    judge = Judge()
    recorded = Recorded(judge.work, [part()], [judge.net])
    for wrong in (part(side=5), part()._replace(sharp=torch.zeros(2, 3, 4, 4))):
        with pytest.raises(ValueError, match="recorded for"):
            recorded([wrong])


def test_work_that_cannot_be_recorded_runs_as_it_is_with_one_warning(
    recipe: Recipe,
    fake_cuda: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    made = task(recipe("run", *PLAIN, "loss.gan=0.1"))
    plain = task(recipe("run", *PLAIN, "loss.gan=0.1"))
    made._recording, made._warn = True, said.append
    work, calls = made._work, []

    def failing(parts: Sequence[Part]) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == WARM_UP + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        return work(parts)

    monkeypatch.setattr(made, "_work", failing)
    for iteration in range(2):
        assert made.step(iteration).read() == plain.step(iteration).read()  # buffers too are as if nothing had been
    made.close()
    plain.close()
    assert said == [
        "the step cannot be recorded as a CUDA graph and runs as it is: operation not permitted when stream is "
        "capturing"
    ]
    assert fake_cuda.current is fake_cuda.main


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gan", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_five_recorded_steps_train_as_launched_ones_do(
    recipe: Recipe, cuda_accelerator: Accelerator, gan: float, accumulate: int
) -> None:
    changes = [*PLAIN, f"loss.gan={gan}", f"accumulate={accumulate}", "data.spaces={bicubic=1.0}"]
    changes += ["optimizer.lr=1e-4", "optimizer.warmup=0", "discriminator.optimizer.lr=1e-4"]
    losses, weights = [], []
    for recorded in ("true", "false"):
        made = RestorerTask(recipe("run", *changes, f"cuda_graph={recorded}"), cuda_accelerator, pytest.fail)
        made.start(0)
        found = [made.step(iteration).read() for iteration in range(5)]
        made.close()
        assert (made._recorded is not None) == (recorded == "true")
        assert all(updated for _, updated in found)
        losses.append([value for terms, _ in found for value in terms.values()])
        nets = [learner.net for learner in made.learners.values()] + [made.restorer.average]
        weights.append([torch.cat([value.flatten().float() for value in net.state_dict().values()]) for net in nets])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-5)
    for one, two in zip(*weights, strict=True):  # five steps move a weight by up to 5e-4; sums by atomics vary
        assert (one - two).abs().mean() < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_without_finite_losses_changes_nothing_on_the_gpu(
    recipe: Recipe, cuda_accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = RestorerTask(recipe("run", *PLAIN, "loss.gan=0.1"), cuda_accelerator, pytest.fail)
    made.start(0)
    assert made.step(0).read()[1]

    def state() -> dict[str, Tensor]:
        packed: dict[str, Tensor] = {}
        pack("task", made.state_dict(), packed)
        power = (".0._u", ".0._v")  # of the spectral norms, which every forward moves
        return {name: value.clone() for name, value in packed.items() if not name.endswith(power)}

    before, part_of = state(), made._part
    monkeypatch.setattr(made, "_part", lambda number: (it := part_of(number))._replace(gt=it.gt * torch.nan))
    terms, updated = made.step(1).read()
    assert not updated
    assert terms["pixel"] != terms["pixel"]
    after = state()
    assert not [name for name, value in before.items() if not torch.equal(value, after[name])]
    monkeypatch.undo()
    assert made.step(2).read()[1]
    assert [name for name, value in state().items() if not torch.equal(value, before[name])]
    made.close()
