"""What a benchmark ran on."""

import platform
from pathlib import Path

import torch

from dacesr.nets.scan_native import instruction_sets


def processor() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe() -> dict[str, str | int]:
    """Facts about the machine, with a line of text under `summary`."""
    facts = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instruction_set": instruction_sets()[0],
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    facts["summary"] = ", ".join(f"{k} {v}" for k, v in facts.items())
    return facts
