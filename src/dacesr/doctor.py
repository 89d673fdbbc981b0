"""What `dacesr doctor` prints: facts about this machine for a bug report, and a test that upscales a drawn picture.

Whatever is broken is a fact too, so everything is imported and asked for where it is reported.
"""

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BROKEN = "broken: "  # what the facts that tell of something broken begin with

_PACKAGES = ("numpy", "pillow", "pydantic", "typer", "safetensors", "huggingface_hub")
_EXTRAS = {  # what `pip install "dacesr[NAME]"` brings, as far as it matters
    "train": ("accelerate", "tensorboard", "h5py", "peft"),
    "analysis": ("matplotlib",),
    "web": ("gradio",),
    "ray": ("ray", "fsspec"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
}
_VARIABLES = re.compile(r"(OMP_|GOMP_|KMP_|MKL_NUM|CUDA_VISIBLE|PYTORCH_|TORCH_|TRITON_|HF_HUB_|VIPS_|DACESR_).*")
_HARMLESS = re.compile(r"[A-Za-z]{0,12}|[\d.,:-]{1,40}")  # values that tell nothing about the user
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:~|\.{1,2})?[\\/](?:[^\\/:;,'\"()\n]+[\\/])*")
_CGROUP = Path("/sys/fs/cgroup")
_LEAST_PSNR = 28.0  # dB of the drawn picture, on which the bundled weights reach 34


def facts() -> dict[str, str]:
    """Facts for a bug report, in the order to print them; no paths, no names of the user or the machine.

    What can't be found out begins with `BROKEN` and says why.
    """
    tellers: dict[str, Callable[[], str]] = {
        "dacesr": lambda: metadata.version("dacesr"),
        "python": lambda: f"{platform.python_version()} ({platform.python_implementation()})",
        "system": _system,
        "processor": _processor,
        "cores": _cores,
        "memory": _memory,
        "temporary folder": _temporary_folder,
        "torch": _torch,
        "GPUs": _gpus,
        "libvips": _libvips,
        "packages": lambda: ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "extras": _extras,
        "scan backends": _backends,
        "instruction sets": _instruction_sets,
        "bundled weights": _bundled_weights,
        "environment": _environment,
        "an upscale uses": _upscale_uses,
    }
    return {name: _told(teller) for name, teller in tellers.items()}


def check() -> str:
    """Upscale a small drawn picture with the default model, from PNG to PNG, and measure what comes out.

    Returns:
        One line that begins with `OK: `, or with `BROKEN` and says what is wrong.
    """
    return _told(_check)


# --- machine


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        name = f"{platform.system()} {platform.mac_ver()[0]}".strip()
    libc = " ".join(platform.libc_ver())
    return f"{name}, kernel {platform.release()}, {platform.machine()}" + (f", {libc}" if libc.strip() else "")


def _processor() -> str:
    """The processor's model, and those of its instruction sets that matter for speed."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    known = dict(re.findall(r"^([^\t\n:]+?)\s*: *(.*)$", text, re.MULTILINE))
    model = known.get("model name") or known.get("Model") or platform.machine()
    listed = set((known.get("flags") or known.get("Features") or "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
    return " ".join([model, *(flag for flag in wanted if flag in listed)])


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = _cpu_limit()
    return f"{os.cpu_count()}, {usable} usable" + (f", limited to the time of {limit:g}" if limit else "")


def _cpu_limit() -> float | None:
    """How many cores' time a container may use, under either version of cgroups; None without a limit."""
    try:
        if (_CGROUP / "cpu.max").exists():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> str:
    import torch

    from dacesr.memory import free_bytes

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return f"{_gigabytes(free_bytes(torch.device('cpu')))} free" + (f" of {_gigabytes(total)}" if total else "")


def _temporary_folder() -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"0")
    return f"writable, {_gigabytes(shutil.disk_usage(tempfile.gettempdir()).free)} free"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GB"


# --- software


def _torch() -> str:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    if torch.version.hip:
        build = f"ROCm {torch.version.hip}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__} ({build}), {torch.get_num_threads()} threads, {capability}"


def _gpus() -> str:
    import torch

    from dacesr.device import choose_device

    if not torch.cuda.is_available():
        return "none" if choose_device().type == "cpu" else choose_device().type
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    named = [f"{gpu.name} ({_gigabytes(gpu.total_memory)}, compute {gpu.major}.{gpu.minor})" for gpu in found]
    return ", ".join(named) + f"; driver {_driver()}"


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "unknown"
    numbers = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return numbers[0] if numbers else "unknown"


def _libvips() -> str:
    import pyvips

    return f"{'.'.join(str(pyvips.version(i)) for i in range(3))}, pyvips {metadata.version('pyvips')}"


def _extras() -> str:
    """Versions of optional packages, and what to install for those that are missing."""
    told = []
    for extra, packages in _EXTRAS.items():
        versions = [_version(package) for package in packages]
        there = [f"{name} {version}" for name, version in zip(packages, versions, strict=True) if version]
        told.append(
            f"{extra}: " + (", ".join(there) or "not installed") + ("" if all(versions) or not there else ", not all")
        )
    return "; ".join(told)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _backends() -> str:
    from dacesr.nets.scan import available_backends

    return ", ".join(available_backends())


def _instruction_sets() -> str:
    from dacesr.nets.scan import scan_native

    return ", ".join(scan_native.instruction_sets()) if scan_native else "none: no compiled extension"


def _bundled_weights() -> str:
    """Names of the bundled files, after their sums have been compared with those the package was made with."""
    from dacesr.tensorfile import sha256_of
    from dacesr.weightfiles import WEIGHTS, bundled_names, recognition_names

    lines = (WEIGHTS / "SHA256SUMS").read_text("ascii").splitlines()
    sums = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    if missing := [name for name in sums if not (WEIGHTS / name).is_file()]:
        raise ValueError(f"{', '.join(missing)} missing: install dacesr again")
    if damaged := [name for name, digest in sums.items() if sha256_of(WEIGHTS / name) != digest]:
        raise ValueError(f"{', '.join(damaged)} damaged: install dacesr again")
    return f"{', '.join([*bundled_names(), *recognition_names()])} (checksums right)"


def _environment() -> str:
    """Variables that matter, with values that give nothing away; of others only that they are set."""
    found = {name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)}
    secret = {name for name, value in found.items() if name.startswith("DACESR_") or not _HARMLESS.fullmatch(value)}
    return ", ".join(f"{name}={'(set)' if name in secret else value}" for name, value in found.items()) or "nothing set"


def _upscale_uses() -> str:
    from dacesr.device import choose_device, choose_precision
    from dacesr.nets.scan import available_backends

    device = choose_device()
    elsewhere = "triton" if device.type == "cpu" else "native"
    backends = [name for name in available_backends() if name != elsewhere]
    return f"device {device}, precision {choose_precision(device)}, scan {backends[0]}"


# --- the test


def _check() -> str:
    from dacesr.image import imresize, open_picture, read, write
    from dacesr.inference import Upscaler
    from dacesr.metrics import psnr

    start, said = time.perf_counter(), []
    sharp = _drawing()
    upscaler = Upscaler.load("default", device="auto", warn=said.append)
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.png"), Path(folder, "after.png")
        write(before, imresize(sharp, 1 / upscaler.scale).clamp(0, 1))
        upscaler.upscale(open_picture(before), after, format="png")
        made = read(after)
    seconds = time.perf_counter() - start
    if made.shape != sharp.shape:
        raise ValueError(
            f"the result has {made.shape[3]} x {made.shape[2]} pixels, not {sharp.shape[3]} x {sharp.shape[2]}"
        )
    found = float(psnr(made, sharp))
    if not found >= _LEAST_PSNR:
        raise ValueError(f"the result has {found:.1f} dB, below {_LEAST_PSNR:g}: the network computes wrongly here")
    used = f"{upscaler.device}, {upscaler.precision}"
    return "; ".join([f"OK: a drawn picture was upscaled in {seconds:.1f} s, {found:.1f} dB ({used})", *said])


def _drawing(side: int = 256) -> "Tensor":
    """A picture (1, 3, side, side) in [0, 1]: shades, discs with smooth edges, and stripes that get narrower."""
    import torch

    line = torch.linspace(0, 1, side)
    y, x = line[:, None], line[None]
    picture = torch.stack([0.2 + 0.6 * x + 0 * y, 0.3 + 0.4 * y + 0 * x, 0.7 - 0.3 * x * y])
    for colour, top, left, radius in (((0.9, 0.2, 0.1), 0.3, 0.3, 0.2), ((0.1, 0.4, 0.9), 0.4, 0.7, 0.15)):
        inside = torch.sigmoid((radius - torch.hypot(y - top, x - left)) * side)
        picture = picture + inside * (torch.tensor(colour)[:, None, None] - picture)
    stripes = 0.5 + 0.4 * torch.sin(25 * x * (1 + x)) + 0 * y
    return torch.where(y > 0.75, stripes, picture)[None]


def _told(teller: Callable[[], str]) -> str:
    """What it tells, or in one line why it can't."""
    try:
        return teller()
    except Exception as error:  # whatever is broken is to be reported
        reason = " ".join(str(error).split()) or "no reason given"
        return f"{BROKEN}{type(error).__name__}: {_PATH.sub('', reason)}"
