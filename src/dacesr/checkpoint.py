"""Checkpoints of networks that upscale: recognised, loaded strictly, saved and described.

Our own files are safetensors whose header holds, beside free text such as `name` and `licence`:

    dacesr_format  "1"
    kind           "restorer", or "srvgg" for SRVGGNetCompact
    config         the config of that kind as JSON

Everything else is recognised by its tensors (`dacesr.architectures`).
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from dacesr.architectures import detect
from dacesr.config import NetworkConfig, RestorerConfig, SRVGGConfig, explain
from dacesr.ncnnfile import is_ncnn, read_ncnn, weights_file
from dacesr.nets.baselines import SRVGGNetCompact
from dacesr.nets.restorer import Restorer
from dacesr.tensorfile import CheckpointError, TensorFile, read_tensors, sha256_of, unwrap, write_whole
from dacesr.weightfiles import bundled_names, resolve

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "Network",
    "bundled_names",
    "convert",
    "describe",
    "load_restorer",
    "resolve",
    "save_restorer",
]

FORMAT = 1
RESERVED = ("dacesr_format", "kind", "config")  # header fields that free text may not use

Network = Restorer | SRVGGNetCompact
"""A network that upscales: it has a `config`, takes RGB (b, 3, h, w) in [0, 1] in fp32 whatever its own precision, has
the dtype of the input in its output, and under `.to(dtype)` keeps in fp32 what must stay so."""


class Kind(NamedTuple):
    """What a kind of network is made from."""

    config: type[NetworkConfig]
    network: Callable[[Any], Network]


KINDS = {
    "restorer": Kind(RestorerConfig, Restorer),
    "srvgg": Kind(SRVGGConfig, SRVGGNetCompact),
}


# --- loading


def load_restorer(source: str | os.PathLike[str] | Mapping[str, Any]) -> Network:
    """Load a network that upscales: ours, the authors' DACESR and DVMSR, Real-ESRGAN's compact ones, or look-alikes.

    Args:
        source: file (safetensors, .pth, ncnn's .param or .bin), bundled name, hub id `owner/name`, or a state dict.

    Returns:
        The network on the CPU, in fp32 and eval mode. A file of the release gets modulation `release`.

    Raises:
        CheckpointError: a ValueError of one sentence that names the file and what is wrong: what it seems to be, or
            which tensors are missing, unexpected or of another shape.
    """
    if isinstance(source, Mapping):
        tensors, key = unwrap(source, "the state dict")
        return _build(TensorFile(tensors, "state dict", key), "the state dict")
    path = resolve(source)
    return _build(_read(path), str(path))


def _read(path: Path) -> TensorFile:
    return read_ncnn(path) if is_ncnn(path) else read_tensors(path)


def _build(file: TensorFile, name: str) -> Network:
    config = _config(file, name)
    _check_fit(config, file.tensors, name)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = KINDS[config.kind].network(config)
    net.load_state_dict(file.tensors)
    return net.eval()


def _config(file: TensorFile, name: str) -> NetworkConfig:
    """The config in the header of our own files, else the one that the tensors speak for."""
    metadata = file.metadata or {}
    if "dacesr_format" in metadata:
        return _own_config(metadata, name)
    architecture = detect(file.tensors)
    if architecture is None:
        first = ", ".join(list(file.tensors)[:3])
        raise CheckpointError(f"{name} holds a network of an unknown kind (its tensors: {first}, ...), not a restorer")
    if architecture.config is None:
        raise CheckpointError(f"{name} seems to hold {architecture.name} weights, not a restorer that can be loaded")
    try:
        return architecture.config({key: tuple(tensor.shape) for key, tensor in file.tensors.items()})
    except ValidationError as error:
        raise CheckpointError(f"{name} seems to hold a {architecture.name}, but with {explain(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{name} seems to hold a {architecture.name}, but {error}") from error


def _own_config(metadata: Mapping[str, str], name: str) -> NetworkConfig:
    version, kind = metadata["dacesr_format"], metadata.get("kind", "network of no stated kind")
    if version != str(FORMAT):
        raise CheckpointError(f"{name} is of format {version}, and this version of dacesr reads format {FORMAT}")
    if kind not in KINDS:
        raise CheckpointError(f"{name} holds a {kind}, not a restorer")
    try:
        return KINDS[kind].config.model_validate_json(metadata.get("config", ""))
    except ValidationError as error:
        raise CheckpointError(f"{name} has a config that can't be used: {explain(error)}") from error


def _check_fit(config: NetworkConfig, tensors: Mapping[str, Tensor], name: str) -> None:
    """Compare names and shapes with a network that takes no memory, whatever sizes the config claims."""
    if config.block_count > len(tensors):
        raise CheckpointError(f"{name} holds {len(tensors)} tensors, too few for {config.block_count} blocks")
    with torch.device("meta"):
        net = KINDS[config.kind].network(config)
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    differ = [f"{key} {found[key]} for {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]]
    problems = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "of another shape": differ,
    }
    listed = [f"{problem}: {_some(keys)}" for problem, keys in problems.items() if keys]
    if listed:
        raise CheckpointError(f"{name} does not fit the {config.kind} it seems to be ({'; '.join(listed)})")


def _some(keys: list[str], most: int = 6) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


# --- saving


def save_restorer(
    path: str | os.PathLike[str],
    net: Network,
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write a network in our own format; the file appears whole or not at all.

    Args:
        path: the file to write, ending in .safetensors by custom.
        net: the network.
        dtype: float32 or float16; what the network keeps in fp32 at half precision stays fp32 in the file too.
        info: text for the header, such as name, description, licence, source; `dacesr.pairing` says which fields
            make a pair of two files.

    Raises:
        ValueError: another dtype, or `info` uses a name of the format.
        OSError: the file can't be written.
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"weights are stored as float32 or float16, not {dtype}")
    taken = [key for key in info or {} if key in RESERVED]
    if taken:
        raise ValueError(f"the header fields {', '.join(RESERVED)} are the format's own; info has {', '.join(taken)}")
    own = {"dacesr_format": str(FORMAT), "kind": net.config.kind, "config": net.config.model_dump_json()}
    stored = copy.deepcopy(net).to(device="cpu", dtype=dtype)
    tensors = {key: value.contiguous() for key, value in stored.state_dict().items()}
    write_whole(Path(path), safetensors.torch.save(tensors, metadata={**(info or {}), **own}))


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
) -> None:
    """Turn any file that `load_restorer` takes into our own format, keeping the free text of its header.

    Args:
        source: as for `load_restorer`.
        destination: the file to write.
        dtype: float32 or float16, the type that the weights are stored in.
        info: header text that is added to, or replaces, that of the source.

    Raises:
        CheckpointError: the source can't be loaded.
        ValueError, OSError: as for `save_restorer`.
    """
    path = resolve(source)
    file = _read(path)
    net = _build(file, str(path))
    kept = {key: value for key, value in (file.metadata or {}).items() if key not in RESERVED}
    save_restorer(destination, net, dtype=dtype, info={"source": path.name, **kept, **(info or {})})


# --- describing


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a file of weights, of whatever architecture."""

    path: Path
    architecture: str | None  # None: unknown
    config: NetworkConfig | None  # None unless it can be loaded
    parameters: int
    dtype: str  # as stored, such as "float32" or "float16, float32"
    container: str  # safetensors, PyTorch, ncnn
    key: str | None  # the entry the tensors were under
    metadata: Mapping[str, str]  # free text of the header
    sha256: str  # of the file; of an ncnn network, of its .bin file

    @property
    def scale(self) -> int | None:
        """Output pixels per input pixel along each side, if known."""
        return self.config.scale if self.config else None


def describe(source: str | os.PathLike[str]) -> CheckpointInfo:
    """Facts about a checkpoint, also of one whose architecture this version can't run.

    Raises:
        CheckpointError: it isn't a file of tensors, or it is a network that doesn't fit its own config.
    """
    path = resolve(source)
    file = _read(path)
    metadata = file.metadata or {}
    architecture = detect(file.tensors)
    config = None
    if "dacesr_format" in metadata or (architecture and architecture.config):
        config = _config(file, str(path))
        _check_fit(config, file.tensors, str(path))
    return CheckpointInfo(
        path=path,
        architecture=architecture.name if architecture else None,
        config=config,
        parameters=sum(tensor.numel() for tensor in file.tensors.values()),
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()})),
        container=file.container,
        key=file.key,
        metadata={key: value for key, value in metadata.items() if key not in RESERVED},
        sha256=sha256_of(weights_file(path) if file.container == "ncnn" else path),
    )
