"""What a benchmark ran on."""

import platform
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import torch

try:
    from dacesr.nets.scan_native import instruction_sets
except ImportError:  # installed without the compiled extension
    instruction_sets = None


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
        "instruction_set": instruction_sets()[0] if instruction_sets else "none: no compiled extension",
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    facts["summary"] = ", ".join(f"{k} {v}" for k, v in facts.items())
    return facts


def describe_card(device: torch.device) -> dict[str, str | int]:
    """Facts about a CUDA device and what drives it; nothing for other devices."""
    if device.type != "cuda":
        return {}
    card = torch.cuda.get_device_properties(device)
    return {
        "card": card.name,
        "multiprocessors": card.multi_processor_count,
        "memory_bytes": card.total_memory,
        "cache_bytes": getattr(card, "L2_cache_size", 0),
        "cuda": str(torch.version.cuda),
        "driver": _driver(),
        "triton": _triton(),
    }


def _driver() -> str:
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return asked.stdout.strip().splitlines()[0] if asked.stdout.strip() else "unknown"


def _triton() -> str:
    if find_spec("triton") is None:
        return "missing"
    import triton

    return triton.__version__
