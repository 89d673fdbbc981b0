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


def rate(config: OptimizerConfig, iteration: int, iterations: int) -> float:
    """Learning rate of an iteration (from 0) of so many."""
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    if config.schedule == "step":
        return config.lr * config.gamma ** sum(milestone <= iteration for milestone in config.milestones)
    if config.schedule == "cosine":
        done = (iteration - config.warmup) / max(1, iterations - config.warmup)
        return config.lr * (config.final + (1 - config.final) * (1 + math.cos(math.pi * min(1, done))) / 2)
    return config.lr


class Learner:
    """Updates a network from the gradients that others put into it.

    Attributes:
        net: The network itself.
        model: The same, wrapped for several processes; losses go through this one.
        average: Exponential moving average of the weights, a network in eval mode; `net` without one.
    """

    def __init__(
        self, net: nn.Module, *, config: OptimizerConfig, iterations: int, ema: float, accelerator: Accelerator
    ) -> None:
        """Take a network on its device; `ema` is the decay of the average, 0 for none."""
        self.net = net
        self._frozen = {name: p for name, p in net.named_parameters() if not p.requires_grad}
        shared = {id(p): p for p in self._frozen.values()}
        self.average = copy.deepcopy(net, shared).eval().requires_grad_(False) if ema else net
        self.model = accelerator.prepare_model(net)
        self._config, self._iterations, self._ema = config, iterations, ema
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._optimizer = _OPTIMIZERS[config.name](
            self._parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )

    def gradient_norm(self) -> Tensor:
        """Norm of the whole gradient, which is clipped to the config's."""
        return nn.utils.clip_grad_norm_(self._parameters, self._config.clip or math.inf)

    def update(self, iteration: int) -> float:
        """Step along the gradients, follow with the average, and forget the gradients; the rate that was used."""
        lr = rate(self._config, iteration, self._iterations)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self.forget()
        if self._ema:
            self._follow(min(self._ema, (1 + iteration) / (10 + iteration)))
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
