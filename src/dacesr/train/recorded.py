"""The gradients of a step as a CUDA graph: recorded once, then replayed without Python and without single launches."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

WARM_UP = 3  # runs before the recording, in which kernels are compiled and chosen


class Part(NamedTuple):
    """What one of a step's batches gives to the losses; each (b, ...), and None where it is not used.

    `lr` and `gt` are pictures, `sharp` the sharpened ground truth, `condition` and `window` those of `Restorer`.
    """

    lr: Tensor
    gt: Tensor
    sharp: Tensor | None
    condition: Tensor | None
    window: Tensor | None


Work = Callable[[Sequence[Part]], dict[str, Tensor]]
"""Leaves gradients in parameters that have none, and gives the loss terms, each ()."""


class Recorded:
    """Work that is replayed on new inputs of the same shapes.

    The gradients lie where they lay when it was recorded, and so do the terms: both are good until the next call.
    """

    def __init__(self, work: Work, parts: Sequence[Part], nets: Sequence[nn.Module]) -> None:
        """Run the work to warm up, then record it.

        Neither weights nor buffers are changed by that. The graph keeps the memory of its activations.

        Args:
            work: Waits nowhere for the device.
            parts: Inputs on a CUDA device; they are copied.
            nets: All whose parameters get gradients and whose buffers the work changes.

        Raises:
            RuntimeError: The work cannot be recorded.
        """
        device = parts[0].lr.device
        self._inputs = [Part._make(None if x is None else x.detach().clone() for x in part) for part in parts]
        self._parameters = [p for net in nets for p in net.parameters() if p.requires_grad]
        buffers = [buffer for net in nets for buffer in net.buffers()]
        kept = [buffer.clone() for buffer in buffers]
        main, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        aside.wait_stream(main)
        try:
            with torch.cuda.stream(aside):
                for number in range(WARM_UP):
                    self._forget()
                    with _without_waiting() if number == WARM_UP - 1 else contextlib.nullcontext():
                        work(self._inputs)
                self._forget()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                terms = work(self._inputs)
                self._names, self._terms = tuple(terms), torch.stack(list(terms.values()))
            self._gradients = [p.grad for p in self._parameters]
        finally:
            torch.cuda.set_stream(main)  # a recording that fails leaves its own
            main.wait_stream(aside)
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)
            self._forget()

    def __call__(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Do the work on the current stream; the loss terms.

        Raises:
            ValueError: Inputs have other shapes than those it was recorded with.
        """
        for part, inputs in zip(parts, self._inputs, strict=True):
            if _shapes(part) != _shapes(inputs):
                raise ValueError(f"recorded for {_shapes(inputs)}, and called with {_shapes(part)}")
            for new, held in zip(part, inputs, strict=True):
                if new is not None and held is not None:
                    held.copy_(new, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return dict(zip(self._names, self._terms.unbind(), strict=True))

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None


def _shapes(part: Part) -> list[tuple[int, ...] | None]:
    return [None if tensor is None else tuple(tensor.shape) for tensor in part]


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """Fail where Python waits for the device: here that is an error like others, in a recording it leaves a mess."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
