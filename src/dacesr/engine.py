"""A network at work: on a device, in a precision, at any strength; a part of a picture in, a larger one out."""

import copy
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dacesr.checkpoint import Network
from dacesr.conditioning import View, given_together
from dacesr.device import choose_precision
from dacesr.graphs import Graphs
from dacesr.memory import made_or_none
from dacesr.nets.restorer import Restorer
from dacesr.onnxnetwork import OnnxNetwork
from dacesr.pairing import Pair, checked
from dacesr.transfer import Arriving, Copies

Precision = Literal["auto", "fp32", "bf16", "fp16"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class UpscaleError(RuntimeError):
    """The network cannot do it: too little memory for any tile, or weights that give no numbers."""


class _Running(NamedTuple):
    """A network as it runs: a copy on the device, its precision, and its CUDA graphs where it may have some."""

    net: Network
    precision: str
    graphs: Graphs | None = None

    def __call__(self, *inputs: Any) -> Tensor:
        return self.net(*inputs) if self.graphs is None else self.graphs(*inputs)


@dataclass
class Weights:
    """The network of one strength: in fp32 on the CPU, and as it runs."""

    strength: float | None
    exact: Network
    running: _Running


class Started(NamedTuple):
    """Work that a device was given.

    Attributes:
        inputs: Of the network.
        output: What it will give, in fp32.
        extremes: The least and the greatest value of the output, and the greatest of the input.
        running: What does it.
    """

    inputs: tuple[Any, ...]
    output: Tensor
    extremes: Arriving
    running: _Running


class Engine:
    """Runs a network, or what lies between the two of a pair.

    Attributes:
        name: Of the network, for messages.
        device: Where it runs.
        copies: To the device and from it.
        precision: `fp32`, `bf16` or `fp16`; fp32 once another gave broken numbers.
        strength: What is used where a call does not say; None where there is one set of weights.
        size: The only (height, width) that the network takes; None where it takes any.
        batched: Whether it is quicker with many tiles at once.
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
        self.copies = Copies(device)
        if isinstance(net, OnnxNetwork):
            if precision not in ("auto", "fp32"):
                raise ValueError(f"{name} is an ONNX file, which computes in its own precision, not in {precision}")
            precision = "fp32"
        self.precision = choose_precision(device) if precision == "auto" else precision
        self.size = net.size if isinstance(net, OnnxNetwork) else None
        self.batched = device.type == "cuda" and not isinstance(net, OnnxNetwork)
        self._exact = net.eval()
        self._pair = pair
        self._weights: Weights | None = None  # of the last strength
        self.strength = pair.strength if pair else None
        self.strength = self._chosen(strength)
        self._warn = warn
        self._lock = threading.Lock()

    @property
    def whole(self) -> bool:
        """Whether the network takes all pixels at once, so that its wide tensors are as long as a tile."""
        return self.device.type != "cpu" or isinstance(self._exact, OnnxNetwork)

    def _chosen(self, strength: float | None) -> float | None:
        if strength is None:
            return self.strength
        if self._pair is None:
            raise ValueError(f"{self.name} has one set of weights, so there is no strength to choose; leave it out")
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

    def run(self, weights: Weights, x: Tensor, view: View) -> Tensor | None:
        """The network on a part of a picture: `start` and `finish`."""
        started = self.start(weights, [x], [view])
        return None if started is None else self.finish(weights, started)

    @torch.no_grad()
    def start(self, weights: Weights, parts: Sequence[Tensor], views: Sequence[View]) -> Started | None:
        """Give the device parts of a picture, or of b pictures of one size, to work on; does not wait for a GPU.

        Args:
            weights: From `at`.
            parts: Each (b, 3, h, w) in [0, 1], all of one size.
            views: Where each lies, and what conditions all of them.

        Returns:
            What `finish` needs; None if memory runs out.
        """
        return self._fitting(weights, lambda: self._launch(weights.running, self._inputs(parts, views)))

    @torch.no_grad()
    def finish(self, weights: Weights, started: Started) -> Tensor | None:
        """Wait for what was started; done again in fp32 if it gave no numbers or black, as is what was started with it.

        Returns:
            (parts * b, 3, scale * h, scale * w) in [0, 1], fp32 on the device; None if memory runs out.

        Raises:
            UpscaleError: The weights give values that are not numbers.
        """
        low, high, brightest = started.extremes.in_memory().tolist()
        if started.running.precision != "fp32":
            if _is_broken(low, high, brightest):
                self._fall_back()
            if self.precision == "fp32":
                again = self._fitting(weights, lambda: self._launch(self._in_fp32(weights), started.inputs))
                return None if again is None else self.finish(weights, again)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UpscaleError(f"{self.name} gives values that are not numbers; its weights may be damaged")
        return started.output.clamp_(0, 1)

    def _inputs(self, parts: Sequence[Tensor], views: Sequence[View]) -> tuple[Any, ...]:
        there = [part.to(self.device) for part in parts]
        x, view = there[0] if len(there) == 1 else torch.cat(there), views[0]
        if len(views) > 1 or self.device.type == "cuda":
            return given_together(x, views)
        return (x,) if view.condition is None else (x, view.condition, view.window(*x.shape[2:]))

    def _launch(self, running: _Running, inputs: tuple[Any, ...]) -> Started:
        output = running(*inputs).float()
        extremes = torch.stack((*output.aminmax(), inputs[0].amax().float()))
        return Started(inputs, output, self.copies.fetch(extremes), running)

    def _fitting(self, weights: Weights, make: Callable[[], Started]) -> Started | None:
        """What is made; None if memory runs out, and then the graphs' and what PyTorch keeps is given back."""
        made = made_or_none(make)
        if made is None and weights.running.graphs is not None:
            weights.running.graphs.clear()
        return made

    def _fall_back(self) -> None:
        with self._lock:
            if self.precision != "fp32":
                self._warn(f"{self.precision} gave a black or broken tile: it is done again, and the rest, in fp32")
                self.precision = "fp32"

    def _in_fp32(self, weights: Weights) -> _Running:
        with self._lock:
            if weights.running.precision != "fp32":
                weights.running = _running(weights.exact, self.device, "fp32")
            return weights.running


def _running(net: Network, device: torch.device, precision: str) -> _Running:
    """A copy on a device, in half precision where that is asked for (the network keeps what must stay fp32)."""
    copied = copy.deepcopy(net).to(device=device, dtype=DTYPES[precision]).requires_grad_(False).eval()
    recorded = device.type == "cuda" and isinstance(net, Restorer)  # others may wait for the GPU
    return _Running(copied, precision, Graphs(copied) if recorded else None)


def _is_broken(low: float, high: float, brightest: float) -> bool:
    """Not finite, or black where the input is not: what overflow in half precision looks like."""
    return not (math.isfinite(low) and math.isfinite(high)) or (high < 1 / 255 and brightest > 8 / 255)
