"""What the loop asks of everything that trains, and how a network with one learner does it."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dacesr.device import choose_precision
from dacesr.train.config import RunConfig
from dacesr.train.learner import Learner


class Task(Protocol):
    """Networks under training with their data and losses."""

    learners: dict[str, Learner]

    def start(self, iteration: int) -> None:
        """Get ready for the steps from an iteration on."""
        ...

    def close(self) -> None:
        """Let go of what prepares batches."""
        ...

    def step(self, iteration: int) -> tuple[dict[str, Tensor], bool]:
        """Gradients of one iteration, and the updates if all are finite.

        Returns:
            Loss terms (means over all processes), rate and norm by name, and whether the updates were made.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the config."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...

    def validate(self, iteration: int, folder: Path, measured: Container[tuple[str, str]]) -> list[dict[str, Any]]:
        """Measure the averaged weights, and what to compare with unless that was measured; rows for the table."""
        ...

    def export(self, folder: Path, iteration: int) -> None:
        """Write the averaged weights for use."""
        ...


class PlainTask(ABC):
    """One network, one loss of named terms; batches come from an iterator.

    Attributes:
        learner: What is trained.
        learners: The same by name.
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, *, name: str, net: nn.Module) -> None:
        """Take a network with its weights in place."""
        self.accelerator, self.device = accelerator, accelerator.device
        self.autocast = autocast(config.precision, self.device)
        self.learner = Learner(
            net.to(self.device),
            config=config.optimizer,
            iterations=config.iterations,
            ema=config.ema,
            accelerator=accelerator,
        )
        self.learners = {name: self.learner}
        self.waiting: Iterator[Any] = iter(())

    @abstractmethod
    def terms(self, batch: Any) -> dict[str, Tensor]:
        """The weighted terms of the loss."""

    def close(self) -> None:
        """Let go of what prepares batches."""
        if close := getattr(self.waiting, "close", None):
            close()

    def step(self, iteration: int) -> tuple[dict[str, Tensor], bool]:
        """Gradients of one iteration, and the update if all are finite; see `Task`."""
        terms = self.terms(next(self.waiting))
        torch.stack(list(terms.values())).sum().backward()
        terms = mean_of_processes({name: term.detach() for name, term in terms.items()}, self.accelerator)
        norm = self.learner.gradient_norm()
        if not torch.stack([*terms.values(), norm]).isfinite().all():
            self.learner.forget()
            return terms, False
        return {**terms, "lr": torch.tensor(self.learner.update(iteration)), "gradient": norm}, True

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the config."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])


def mean_of_processes(terms: dict[str, Tensor], accelerator: Accelerator) -> dict[str, Tensor]:
    """The mean of each term over all processes."""
    if accelerator.num_processes == 1:
        return terms
    means = cast(Tensor, accelerator.reduce(torch.stack(list(terms.values())), "mean"))
    return dict(zip(terms, means.unbind(), strict=True))


def autocast(precision: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Makes contexts in which layers compute in bf16, or as they are."""
    chosen = choose_precision(device) if precision == "auto" else precision
    if chosen != "bf16":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)
