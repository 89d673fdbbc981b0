"""What the loop asks of everything that trains, and how a network with one learner does it."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dacesr.device import choose_precision
from dacesr.train.config import RunConfig
from dacesr.train.learner import Learner


class Outcome:
    """What a step came to. On CUDA it is on its way when the step returns, and reading it waits for it."""

    def __init__(self, values: Mapping[str, Tensor | float], updated: Tensor | bool) -> None:
        """Send the values to the CPU.

        Args:
            values: Loss terms, rate and norm by name; tensors are ().
            updated: Whether the updates were made, a tensor () where only the device knows.
        """
        self._fixed = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        sent = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        self._order, self._names = tuple(values), tuple(sent)
        flag = updated if isinstance(updated, Tensor) else torch.tensor(updated)
        self._event: torch.cuda.Event | None = None
        if flag.is_cuda:
            found = torch.stack([*(value.detach().float() for value in sent.values()), flag.float()])
            self._numbers = torch.empty(found.shape, pin_memory=True).copy_(found, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(found.device))
        else:
            self._numbers = torch.tensor([*(float(value) for value in sent.values()), float(flag)], dtype=torch.float64)

    def ready(self) -> bool:
        """Whether reading it takes no time."""
        return self._event is None or self._event.query()

    def read(self) -> tuple[dict[str, float], bool]:
        """The values by name, and whether the updates were made."""
        if self._event is not None:
            self._event.synchronize()
        *numbers, updated = self._numbers.tolist()
        known = {**self._fixed, **dict(zip(self._names, numbers, strict=True))}
        return {name: known[name] for name in self._order}, bool(updated)


class Stopwatch:
    """Adds up the seconds within its contexts."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of a context."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - start

    def take(self) -> float:
        """The seconds since they were last taken."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class Task(Protocol):
    """Networks under training with their data and losses."""

    learners: dict[str, Learner]

    def start(self, iteration: int) -> None:
        """Get ready for the steps from an iteration on."""
        ...

    def close(self) -> None:
        """Let go of what prepares batches."""
        ...

    def step(self, iteration: int) -> Outcome:
        """Gradients of one iteration, and the updates if all are finite.

        Returns:
            Loss terms (means over all processes), rate and norm by name, and whether the updates were made.
        """
        ...

    def waited(self) -> float:
        """Seconds that steps have waited for their data, since this was last asked."""
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
        self._watch = Stopwatch()

    @abstractmethod
    def terms(self, batch: Any) -> dict[str, Tensor]:
        """The weighted terms of the loss."""

    def close(self) -> None:
        """Let go of what prepares batches."""
        if close := getattr(self.waiting, "close", None):
            close()

    def waited(self) -> float:
        """Seconds that steps have waited for their batch, since this was last asked."""
        return self._watch.take()

    def step(self, iteration: int) -> Outcome:
        """Gradients of one iteration, and the update if all are finite; see `Task`."""
        with self._watch.running():
            batch = next(self.waiting)
        terms = self.terms(batch)
        torch.stack(list(terms.values())).sum().backward()
        terms = mean_of_processes({name: term.detach() for name, term in terms.items()}, self.accelerator)
        norm = self.learner.gradient_norm()
        if not torch.stack([*terms.values(), norm]).isfinite().all():
            self.learner.forget()
            return Outcome(terms, False)
        return Outcome({**terms, "lr": self.learner.update(iteration), "gradient": norm}, True)

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


def autocast(
    precision: str, device: torch.device, *, cached: bool = True
) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Makes contexts in which layers compute in bf16, or as they are.

    Args:
        precision: auto, fp32 or bf16.
        device: Where.
        cached: Keep converted weights within a context; not where a CUDA graph is recorded.
    """
    chosen = choose_precision(device) if precision == "auto" else precision
    if chosen != "bf16":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16, cache_enabled=cached)
