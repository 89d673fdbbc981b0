"""How long networks take for a picture and how much memory, measured side by side in one run.

python -m dacesr.evaluate.costs KIND CONFIG SIDE DTYPE THREADS   is the process in which memory is measured
"""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from dacesr.checkpoint import KINDS
from dacesr.config import NETWORKS, NetworkConfig, RestorerConfig
from dacesr.device import choose_precision
from dacesr.engine import DTYPES, Precision
from dacesr.evaluate.complexity import TOKENS
from dacesr.progress import progress_bar

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")  # takes "5" for: forget the greatest size so far
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc: what is freed goes back
MAX_SECONDS = 600.0  # after which no further round begins
WARM_UP = 32  # side of the picture that a network sees before its memory is measured


class Cost(NamedTuple):
    """What one picture takes.

    Attributes:
        seconds: Median over the rounds.
        rounds: Seconds of each round.
        peak_bytes: Of memory, beyond what the process or device held with the network loaded; None where the system
            does not tell.
    """

    seconds: float
    rounds: tuple[float, ...]
    peak_bytes: int | None


def measure(
    networks: Mapping[str, NetworkConfig],
    *,
    side: int = 256,
    device: torch.device,
    precision: Precision = "fp32",
    rounds: int = 5,
    max_seconds: float = MAX_SECONDS,
    console: Console,
) -> dict[str, Cost]:
    """Time networks in turns, with random weights, so that whatever else the machine does meets all of them alike.

    The first round only warms up, and the second always counts; after `max_seconds` none begins. On the CPU memory is
    that of a process of its own for each network, on as many threads: the greatest resident size during one picture,
    less the size with the network loaded and warmed up on a small one. On CUDA it is what PyTorch allocated at most,
    less what it held before.

    Args:
        networks: Configs by name.
        side: Of the input, in pixels.
        device: Where they run.
        precision: In which they run.
        rounds: How often each is timed.
        max_seconds: How long rounds may begin.
        console: For progress.

    Raises:
        ValueError: A process cannot run its network, for example for want of memory; the sentence says which.
    """
    chosen = choose_precision(device) if precision == "auto" else precision
    dtype = DTYPES[chosen]
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    times: dict[str, list[float]] = {name: [] for name in networks}
    peaks: dict[str, int | None] = {}
    with progress_bar(console) as progress:
        bar = progress.add_task("memory", total=len(networks) * (rounds + 2))
        for name, config in networks.items():
            peaks[name] = _peak(config, x, dtype)
            progress.advance(bar)
        nets = {name: _made(config, device, dtype) for name, config in networks.items()}
        start = time.perf_counter()
        for number in range(rounds + 1):
            if number > 1 and time.perf_counter() - start > max_seconds:
                break
            progress.update(bar, description=f"round {number} of {rounds}")
            for name, net in nets.items():
                seconds = _timed(net, x)
                times[name] += [seconds] if number else []
                progress.advance(bar)
    return {name: Cost(statistics.median(each), tuple(each), peaks[name]) for name, each in times.items()}


def _made(config: NetworkConfig, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network, given a condition where it needs one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = KINDS[config.kind].network(config).eval().requires_grad_(False).to(device=device, dtype=dtype)
    if isinstance(config, RestorerConfig) and config.learned_modulation:
        return partial(net, condition=torch.zeros(1, TOKENS, config.condition_dim, device=device))
    return net


@torch.inference_mode()
def _timed(net: Callable[[Tensor], Tensor], x: Tensor) -> float:
    _wait(x.device)
    start = time.perf_counter()
    net(x)
    _wait(x.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- memory


def _peak(config: NetworkConfig, x: Tensor, dtype: torch.dtype) -> int | None:
    if x.device.type == "cuda":
        return _peak_on_cuda(_made(config, x.device, dtype), x)
    if x.device.type != "cpu" or not STATUS.exists():
        return None
    arguments = (config.kind, config.model_dump_json(), x.shape[-1], str(dtype).removeprefix("torch."))
    command = [sys.executable, "-m", "dacesr.evaluate.costs", *map(str, arguments), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **RETURNING})
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise ValueError(f"the memory of a {config.kind} cannot be measured: {last[0]}")
    peak = int(done.stdout.split()[-1])
    return None if peak < 0 else peak


@torch.inference_mode()
def _peak_on_cuda(net: Callable[[Tensor], Tensor], x: Tensor) -> int:
    net(x[..., :WARM_UP, :WARM_UP])
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    net(x)
    return torch.cuda.max_memory_allocated(x.device) - before


@torch.inference_mode()
def _report_peak(kind: str, config: str, side: str, dtype: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    net = _made(NETWORKS[kind].model_validate_json(config), torch.device("cpu"), getattr(torch, dtype))
    x = torch.rand(1, 3, int(side), int(side))
    net(x[..., :WARM_UP, :WARM_UP])
    try:
        RESET.write_text("5")
    except OSError:  # a container may not allow it
        print(-1)
        return
    before = _resident("VmRSS")
    net(x)
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    """A size of this process in bytes."""
    found: Any = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) << 10


if __name__ == "__main__":
    _report_peak(*sys.argv[1:])
