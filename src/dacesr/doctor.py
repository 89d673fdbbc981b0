"""What `dacesr doctor` prints: versions, scan backends, memory, and what an upscale would use here."""

import platform
from importlib import metadata

import pyvips
import torch

from dacesr import __version__
from dacesr.checkpoint import bundled_names
from dacesr.device import choose_device, choose_precision
from dacesr.memory import free_bytes
from dacesr.nets.scan import available_backends, scan_native

_PACKAGES = ("numpy", "pillow", "pydantic", "safetensors", "huggingface_hub")


def facts() -> dict[str, str]:
    """Facts for a bug report, in the order to print them; no paths and no names of the user."""
    device = choose_device()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    libvips = ".".join(str(pyvips.version(i)) for i in range(3))
    elsewhere = "triton" if device.type == "cpu" else "native"
    backends = [name for name in available_backends() if name != elsewhere]
    return {
        "dacesr": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "libvips": f"{libvips}, pyvips {metadata.version('pyvips')}",
        **{name: metadata.version(name) for name in _PACKAGES},
        "scan backends": ", ".join(available_backends()),
        "instruction sets": ", ".join(scan_native.instruction_sets()) if scan_native else "none: no compiled extension",
        "GPUs": ", ".join(gpus) or "none",
        "free memory": f"{free_bytes(torch.device('cpu')) / 2**30:.1f} GB",
        "bundled weights": ", ".join(bundled_names()) or "none yet: give a file with -n",
        "an upscale uses": f"device {device}, precision {choose_precision(device)}, scan {backends[0]}",
    }
