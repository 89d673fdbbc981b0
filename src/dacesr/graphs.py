"""CUDA graphs of a network: the same work given to the GPU again at once, for shapes that come again."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

MOST_PIXELS = 1 << 18  # of an input: more keep the GPU busy for longer than it takes to give it the work
MOST_SHAPES = 8
_MOST_SEEN = 64  # shapes that are remembered

# One launch at a time in the whole process: PyTorch's allocator gives nothing back while a graph is recorded, and what
# a graph reads and writes is shared by all that replay it.
_LAUNCHING = threading.Lock()

_BROKEN: list[torch.cuda.CUDAGraph] = []  # see `end_recording`


class Recorded(Protocol):
    """A network for inputs of one shape."""

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Its output, a tensor that nothing else holds."""
        ...


Record = Callable[[Callable[..., Tensor], tuple[Tensor, ...]], Recorded]


class Graphs:
    """A network on CUDA: run as it is when a thread first has a shape, recorded when it has it again, then replayed.

    What cannot be recorded, for want of memory say, is run as it is. All graphs share one pool of memory.
    """

    def __init__(self, net: nn.Module, *, record: Record | None = None) -> None:
        """Take a network that never waits for the GPU nor copies to it.

        Args:
            net: Without gradients.
            record: Makes a graph of a function for given inputs; a CUDA graph unless given.
        """
        self._net = net
        self._given = record
        self._record = record or _Recorder()
        self._seen: set[tuple[object, ...]] = set()
        self._graphs: dict[tuple[object, ...], Recorded | None] = {}  # None: it cannot be recorded; last used last

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's output for inputs on its device."""
        with _LAUNCHING:
            graph = self._graph(inputs)
            return self._net(*inputs) if graph is None else graph(inputs)

    def clear(self) -> None:
        """Drop all graphs and give unused memory back to the device."""
        with _LAUNCHING:
            self._graphs.clear()
            self._seen.clear()
            self._record = self._given or _Recorder()
            torch.cuda.empty_cache()

    def _graph(self, inputs: tuple[Tensor, ...]) -> Recorded | None:
        (b, _, height, width), key = inputs[0].shape, tuple((x.shape, x.dtype) for x in inputs)
        if b * height * width > MOST_PIXELS:
            return None
        if key in self._graphs:
            self._graphs[key] = graph = self._graphs.pop(key)
            return graph
        first = (threading.get_ident(), *key)  # libraries have handles for each thread, which a graph may not make
        if first not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(first)
            return None
        if len(self._graphs) >= MOST_SHAPES:
            dropped = next(iter(self._graphs))
            del self._graphs[dropped]
            self._seen = {seen for seen in self._seen if seen[1:] != dropped}  # to be recorded, it comes twice again
        try:
            self._graphs[key] = self._record(self._net, inputs)
        except RuntimeError:
            self._graphs[key] = None
        return self._graphs[key]


class _Recorder:
    """Records graphs that share a pool of memory and a stream, and are replayed one after another."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None
        self._read: torch.cuda.Event | None = None

    def __call__(self, net: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Recorded:
        with torch.cuda.device(inputs[0].device):
            if self._stream is None or self._read is None:
                self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
                self._read = torch.cuda.Event()
            torch.cuda.empty_cache()  # the pool takes its memory from the device
            return _Graph(net, inputs, self._pool, self._stream, self._read)


def end_recording(graph: torch.cuda.CUDAGraph, pool: Any) -> None:
    """End a recording. Where it broke off, PyTorch's allocators would take it to go on, and look at the graph later."""
    try:
        graph.capture_end()
    except RuntimeError:
        _BROKEN.append(graph)
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            with contextlib.suppress(AttributeError, RuntimeError):  # of a PyTorch that does it
                getattr(torch._C, name)(torch.cuda.current_device(), pool)
        raise


class _Graph:
    """A CUDA graph, with the tensors that it reads and writes. One replay at a time is given to the GPU.

    `read` marks when the output of the last replay has been copied, of whatever graph in the same memory.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        pool: Any,
        stream: torch.cuda.Stream,
        read: torch.cuda.Event,
    ) -> None:
        with torch.inference_mode(False):  # they are written to again, in whatever mode
            self._inputs = tuple(x.clone() for x in inputs)
        self._read = read
        self._graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                self._output = net(*self._inputs)
            finally:
                end_recording(self._graph, pool)
        current.wait_stream(stream)

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.cuda.device(inputs[0].device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._read)
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given)
            self._graph.replay()
            output = self._output.clone()
            self._read.record(stream)
        return output
