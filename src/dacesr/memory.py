"""How much memory may be used, and whether an error means that there was too little."""

import ctypes
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_CGROUP = Path("/sys/fs/cgroup")

T = TypeVar("T")


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; for the CPU, without swapping and within a container's limit.

    On CUDA, what PyTorch keeps of freed tensors is free.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    known = [value for value in (_available_to_system(), _left_in_container()) if value is not None]
    return min(known, default=2 << 30)  # where nothing can be known, what any machine of today has


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors instead of asking the system again (glibc; elsewhere nothing).

    Large blocks otherwise come zeroed, page by page, from the kernel every time: a tenth of an upscale and more.
    Meant for programs that do little else, hence no part of `Upscaler`.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 64 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch or Python tells of too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    signs = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation", "std::bad_alloc")
    signs += ("ALLOC_FAILED",)  # of cuBLAS and cuDNN
    signs += ("could not create a primitive", "can't start new thread")  # of oneDNN; of Python, which lacks a stack
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def made_or_none(make: Callable[[], T]) -> T | None:
    """What a function makes; None where memory runs out, and then nothing holds what it had made so far.

    Raises:
        Exception: Any other of the function's errors.
    """
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _available_to_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _left_in_container() -> int | None:
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None
