"""Where a network runs and in what precision: the choices behind `auto`, and whether a device and Triton are there."""

import os
import shutil
import sysconfig
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch


def choose_precision(device: torch.device) -> str:
    """What `auto` stands for: bf16 where the device computes in it faster than in fp32, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu":
        return "bf16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "fp32"
    return "fp32"


def choose_device() -> torch.device:
    """The best device at hand: CUDA, Apple's GPU, Intel's GPU, the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if torch.xpu.is_available():
        return torch.device("xpu")
    return torch.device("cpu")


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name such as `cuda:1`; `auto` stands for the best at hand.

    Raises:
        ValueError: It is not available here.
    """
    if device == "auto":
        return choose_device()
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"the device {str(device)!r} is not available here; auto takes the best that is, `dacesr doctor` lists GPUs"
        ) from error
    return chosen


def has_fp64(device: torch.device) -> bool:
    """Whether a device computes in fp64: Apple's does not, and of Intel's some don't."""
    return device.type not in ("mps", "xpu")


@cache
def has_triton() -> bool:
    """Whether Triton is there (imported on first use) and new enough, and what it builds its launcher with."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    headers = Path(str(sysconfig.get_config_var("INCLUDEPY")), "Python.h").exists()
    return find_spec("triton") is not None and _is_new("triton", 3, 3) and bool(compiler) and headers


def _is_new(package: str, *wanted: int) -> bool:
    """Whether an installed package has the wanted version or a newer one; so has one that says nothing."""
    try:
        found = version(package).split(".")[: len(wanted)]
    except PackageNotFoundError:
        return True
    return not all(part.isdigit() for part in found) or tuple(map(int, found)) >= wanted


def _cpu_flags() -> set[str]:
    """What /proc/cpuinfo lists; empty elsewhere than on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
