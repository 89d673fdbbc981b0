"""A network under training: its optimizer, the course of its learning rate, and the average of its weights.

Frozen parameters, which get no gradients, are shared with the average and are not a part of the state.
"""

import copy
import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dacesr.train.config import OptimizerConfig

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def rate(config: OptimizerConfig, iteration: int, iterations: int, minutes: float = 0.0) -> float:
    """Learning rate of an iteration (from 0) of so many.

    Args:
        config: The course.
        iteration: Its number.
        iterations: How many there are.
        minutes: Of training so far, which move a cosine on that should end by a time.
    """
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(milestone <= iteration for milestone in config.milestones)
    if config.schedule == "cosine":
        done = (iteration - config.warmup) / max(1, iterations - config.warmup)
        if config.schedule_minutes is not None:
            done = max(done, minutes / config.schedule_minutes)
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * min(1, done))) / 2)
    return config.lr


class Learner:
    """Updates a network from the gradients that others put into it.

    Attributes:
        net: The network itself.
        model: The same, wrapped for several processes; losses go through this one.
        average: Exponential moving average of the weights, a network in eval mode; `net` without one.
        minutes: Of training so far, as far as the rate depends on them.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        config: OptimizerConfig,
        iterations: int,
        ema: float,
        accelerator: Accelerator,
        fused: bool = False,
    ) -> None:
        """Take a network.

        Args:
            net: On its device.
            config: Of the optimizer.
            iterations: How many updates there will be.
            ema: Decay of the average, 0 for none.
            accelerator: Knows the other processes.
            fused: Update all weights by one kernel, which `update` can call off on the device.
        """
        self.minutes = 0.0
        self.net = net
        self._frozen = {name: p for name, p in net.named_parameters() if not p.requires_grad}
        shared = {id(p): p for p in self._frozen.values()}
        self.average = copy.deepcopy(net, shared).eval().requires_grad_(False) if ema else net
        self.model = accelerator.prepare_model(net)
        self._config, self._iterations, self._ema = config, iterations, ema
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._optimizer = _OPTIMIZERS[config.name](
            self._parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused or None
        )

    def gradient_norm(self) -> Tensor:
        """Norm of the whole gradient, which is clipped to the config's."""
        return nn.utils.clip_grad_norm_(self._parameters, self._config.clip or math.inf)

    @property
    def timed(self) -> bool:
        """Whether the rate depends on the minutes."""
        return self._config.schedule_minutes is not None

    def update(self, iteration: int, off: Tensor | None = None) -> float:
        """Step along the gradients, follow with the average, and forget the gradients.

        Args:
            iteration: Decides the rate and the average's decay.
            off: () float32 on the weights' device, 1 where nothing is to change and else 0, so that the decision need
                not be known here; for `fused` learners.

        Returns:
            The learning rate.
        """
        lr = rate(self._config, iteration, self._iterations, self.minutes)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        if off is not None:
            self._optimizer.found_inf = off  # what GradScaler tells a fused optimizer
        self._optimizer.step()
        self.forget()
        if self._ema:
            decay = min(self._ema, (1 + iteration) / (10 + iteration))
            if off is None:
                self._follow(decay)
            else:
                self._follow_unless(off, decay)
        return lr

    def forget(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
            if kept is not new:
                kept.lerp_(new, 1 - decay)
        for kept, new in zip(self.average.buffers(), self.net.buffers(), strict=True):
            kept.copy_(new)

    @torch.no_grad()
    def _follow_unless(self, off: Tensor, decay: float) -> None:
        """The same in a few kernels, and without effect where `off` is 1."""
        pairs = zip(self.average.parameters(), self.net.parameters(), strict=True)
        moving = [(kept, new) for kept, new in pairs if kept is not new]
        averages: list[Tensor] = [kept for kept, _ in moving]
        steps = torch._foreach_sub([new for _, new in moving], averages)  # pyright: ignore
        torch._foreach_mul_(steps, (1 - decay) * (1 - off))  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(averages, steps)  # pyright: ignore[reportPrivateImportUsage]
        for kept, new in zip(self.average.buffers(), self.net.buffers(), strict=True):
            kept.copy_(torch.where(off > 0, kept, new))

    def state_dict(self) -> dict[str, Any]:
        """Weights, average and moments."""
        average = self._learned(self.average) if self._ema else {}
        return {"net": self._learned(self.net), "average": average, "optimizer": self._optimizer.state_dict()["state"]}

    def _learned(self, net: nn.Module) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in net.state_dict().items() if name not in self._frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.net.load_state_dict({**self._frozen, **state["net"]})
        if self._ema:
            self.average.load_state_dict({**self._frozen, **state["average"]})
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state["optimizer"]})
        for parameter, moments in self._optimizer.state.items():
            for name, value in moments.items():  # into memory of their own, laid out as in an uninterrupted run
                moments[name] = value.clone() if name == "step" else torch.empty_like(parameter).copy_(value)
