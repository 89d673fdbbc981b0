"""A network at work: on a device, in a precision, at any strength; a part of a picture in, a larger one out."""

import copy
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dacesr.checkpoint import Network
from dacesr.conditioning import View
from dacesr.device import choose_precision
from dacesr.memory import is_out_of_memory
from dacesr.pairing import Pair, checked

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class UpscaleError(RuntimeError):
    """The network cannot do it: too little memory for any tile, or weights that give no numbers."""


class _Running(NamedTuple):
    """A network as it runs: a copy on the device, and its precision."""

    net: Network
    precision: str


@dataclass
class Weights:
    """The network of one strength: in fp32 on the CPU, and as it runs."""

    strength: float | None
    exact: Network
    running: _Running


class Engine:
    """Runs a network, or what lies between the two of a pair.

    Attributes:
        name: Of the network, for messages.
        device: Where it runs.
        precision: `fp32`, `bf16` or `fp16`; fp32 once another gave broken numbers.
        strength: What is used where a call does not say; None where there is one set of weights.
    """

    def __init__(
        self,
        net: Network,
        *,
        pair: Pair | None,
        strength: float | None,
        device: torch.device,
        precision: Precision,
        name: str,
        warn: Callable[[str], None],
    ) -> None:
        """Take a network in fp32 and the pair it is part of, if it is.

        Raises:
            ValueError: An unknown precision, or an impossible strength.
        """
        if precision not in ("auto", *DTYPES):
            raise ValueError(f"precision must be auto, {', '.join(DTYPES)}; got {precision!r}")
        self.name = name
        self.device = device
        self.precision = choose_precision(device) if precision == "auto" else precision
        self._exact = net.eval()
        self._pair = pair
        self._weights: Weights | None = None  # of the last strength
        self.strength = pair.strength if pair else None
        self.strength = self._chosen(strength)
        self._warn = warn
        self._lock = threading.Lock()

    def _chosen(self, strength: float | None) -> float | None:
        if strength is None:
            return self.strength
        if self._pair is None:
            raise ValueError(f"{self.name} has one set of weights, so there is no strength to choose")
        return checked(strength)

    def at(self, strength: float | None) -> Weights:
        """The weights of a strength, made or from last time; a call keeps what it got, whatever others ask for.

        Raises:
            ValueError: The strength is impossible, or there is one set of weights.
            CheckpointError: The partner of the weights is missing or does not fit them.
        """
        strength = self._chosen(strength)
        with self._lock:
            if self._weights is None or self._weights.strength != strength:
                exact = self._exact if self._pair is None or strength is None else self._pair.at(strength)
                self._weights = Weights(strength, exact, _running(exact, self.device, self.precision))
            return self._weights

    @torch.no_grad()
    def run(self, weights: Weights, x: Tensor, view: View) -> Tensor | None:
        """The network on a part of a picture, in fp32 again if it gives no numbers or black.

        Args:
            weights: From `at`.
            x: The part, (b, 3, h, w) in [0, 1].
            view: Where it lies, and what conditions it.

        Returns:
            (b, 3, scale * h, scale * w) in [0, 1], fp32 on the device; None if memory runs out.

        Raises:
            UpscaleError: The weights give values that are not numbers.
        """
        try:
            x = x.to(self.device)
            running = weights.running
            output = view.through(running.net, x).float()
            if running.precision != "fp32" and _is_broken(output, x):
                output = view.through(self._fall_back(weights), x).float()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        if not _is_finite(output):
            raise UpscaleError(f"{self.name} gives values that are not numbers; its weights may be damaged")
        return output.clamp_(0, 1)

    def _fall_back(self, weights: Weights) -> Network:
        with self._lock:
            if self.precision != "fp32":
                self._warn(f"{self.precision} gave a black or broken tile: it is done again, and the rest, in fp32")
                self.precision = "fp32"
            if weights.running.precision != "fp32":
                weights.running = _running(weights.exact, self.device, "fp32")
            return weights.running.net


def _running(net: Network, device: torch.device, precision: str) -> _Running:
    """A copy on a device, in half precision where that is asked for (the network keeps what must stay fp32)."""
    copied = copy.deepcopy(net).to(device=device, dtype=DTYPES[precision]).requires_grad_(False).eval()
    return _Running(copied, precision)


def _is_finite(x: Tensor) -> bool:
    """As `x.isfinite().all()` in one pass: the extremes are NaN where any value is."""
    return all(math.isfinite(extreme) for extreme in x.aminmax())


def _is_broken(output: Tensor, x: Tensor) -> bool:
    """Not finite, or black where the input is not: what overflow in half precision looks like."""
    return not _is_finite(output) or bool(output.max() < 1 / 255 and x.max() > 8 / 255)
