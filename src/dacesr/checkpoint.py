"""Checkpoints of the restorer: found by name, recognised, loaded strictly, saved and described.

Our own files are safetensors whose header holds, beside free text such as `name` and `licence`:

    dacesr_format  "1"
    kind           "restorer"
    config         the RestorerConfig as JSON

Everything else is recognised by its tensors (`dacesr.architectures`).
"""

import copy
import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from dacesr.architectures import detect
from dacesr.config import RestorerConfig, explain
from dacesr.nets.restorer import Restorer
from dacesr.tensorfile import CheckpointError, TensorFile, read_tensors, unwrap

FORMAT = 1
RESERVED = ("dacesr_format", "kind", "config")  # header fields that free text may not use
HUB_ID = r"[\w-][\w.-]*/(?!.*\.(safetensors|pth|pt|ckpt|bin)$)[\w-][\w.-]*"  # owner/name, and no file name
WEIGHTS = Path(__file__).with_name("weights")
DEFAULT_WEIGHTS: str | None = None  # the bundled file that the name "default" stands for


# --- names -> files


def bundled_names() -> list[str]:
    """Names of the weights that come with the package, for use wherever a file is."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def resolve(source: str | os.PathLike[str]) -> Path:
    """The file that a bundled name, a path or a hub id (`owner/name`) stands for; a hub id is downloaded once.

    Raises:
        CheckpointError: there is no such file, name or hub repository, or the hub can't be reached.
    """
    text = os.fspath(source)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    name = DEFAULT_WEIGHTS if text == "default" else text
    if name in bundled_names():
        return WEIGHTS / f"{name}.safetensors"
    if text == "default":
        raise CheckpointError("no weights are bundled with this version: give a checkpoint file, as in -n FILE")
    if path.exists():
        return path
    if isinstance(source, str) and re.fullmatch(HUB_ID, text) and not path.parent.is_dir():
        return _from_hub(text)
    known = f" (bundled: {', '.join(bundled_names())})" if bundled_names() and "/" not in text else ""
    raise CheckpointError(f"{text} does not exist{known}")


def _from_hub(hub_id: str) -> Path:
    """The weights file of a hub repository, downloaded or from the cache of earlier downloads."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        files = [file.rfilename for file in huggingface_hub.model_info(hub_id, timeout=10).siblings or []]
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{hub_id} is neither a file nor a public repository of the Hugging Face hub") from error
    except Exception as error:  # no network; the hub's client lets errors of its network library through
        return _from_hub_cache(hub_id, type(error).__name__)
    name = _weights_file(hub_id, files)
    try:
        return Path(huggingface_hub.hf_hub_download(hub_id, name))
    except Exception as error:
        raise CheckpointError(f"{name} of {hub_id} can't be downloaded from the Hugging Face hub: {error}") from error


def _from_hub_cache(hub_id: str, why: str) -> Path:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(hub_id, local_files_only=True))
    except Exception as error:
        raise CheckpointError(f"{hub_id} is not a file, and the Hugging Face hub can't be reached ({why})") from error
    return folder / _weights_file(hub_id, [str(path.relative_to(folder)) for path in folder.rglob("*.*")])


def _weights_file(hub_id: str, files: list[str]) -> str:
    """`model.safetensors`, or the only weights file of another name."""
    weights = [file for file in files if file.endswith((".safetensors", ".pth"))]
    if "model.safetensors" in weights:
        return "model.safetensors"
    if len(weights) != 1:
        raise CheckpointError(
            f"{hub_id} on the Hugging Face hub has {len(weights)} files of weights, none of them model.safetensors"
        )
    return weights[0]


# --- loading


def load_restorer(source: str | os.PathLike[str] | Mapping[str, Any]) -> Restorer:
    """Load a restorer: ours, the authors' released DACESR and DVMSR, or anything with their tensor names.

    Args:
        source: file (safetensors, .pth), bundled name, hub id `owner/name`, or a state dict.

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
    return _build(read_tensors(path), str(path))


def _build(file: TensorFile, name: str) -> Restorer:
    config = _config(file, name)
    _check_fit(config, file.tensors, name)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = Restorer(config)
    net.load_state_dict(file.tensors)
    return net.eval()


def _config(file: TensorFile, name: str) -> RestorerConfig:
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


def _own_config(metadata: Mapping[str, str], name: str) -> RestorerConfig:
    version, kind = metadata["dacesr_format"], metadata.get("kind")
    if version != str(FORMAT):
        raise CheckpointError(f"{name} is of format {version}, and this version of dacesr reads format {FORMAT}")
    if kind != "restorer":
        raise CheckpointError(f"{name} holds a {kind}, not a restorer")
    try:
        return RestorerConfig.model_validate_json(metadata.get("config", ""))
    except ValidationError as error:
        raise CheckpointError(f"{name} has a config that can't be used: {explain(error)}") from error


def _check_fit(config: RestorerConfig, tensors: Mapping[str, Tensor], name: str) -> None:
    """Compare names and shapes with a network that takes no memory, whatever sizes the config claims."""
    if sum(config.depths) > len(tensors):
        raise CheckpointError(f"{name} holds {len(tensors)} tensors, too few for {sum(config.depths)} blocks")
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in Restorer(config).state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    differ = [f"{key} {found[key]} for {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]]
    problems = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "of another shape": differ,
    }
    listed = [f"{problem}: {_some(keys)}" for problem, keys in problems.items() if keys]
    if listed:
        raise CheckpointError(f"{name} does not fit the restorer it seems to be ({'; '.join(listed)})")


def _some(keys: list[str], most: int = 6) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


# --- saving


def save_restorer(
    path: str | os.PathLike[str],
    net: Restorer,
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write a network in our own format; the file appears whole or not at all.

    Args:
        path: the file to write, ending in .safetensors by custom.
        net: the network.
        dtype: float32 or float16; what the network keeps in fp32 at half precision stays fp32 in the file too.
        info: free text for the header, such as name, licence, source.

    Raises:
        ValueError: another dtype, or `info` uses a name of the format.
        OSError: the file can't be written.
    """
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"weights are stored as float32 or float16, not {dtype}")
    taken = [key for key in info or {} if key in RESERVED]
    if taken:
        raise ValueError(f"the header fields {', '.join(RESERVED)} are the format's own; info has {', '.join(taken)}")
    own = {"dacesr_format": str(FORMAT), "kind": "restorer", "config": net.config.model_dump_json()}
    stored = copy.deepcopy(net).to(device="cpu", dtype=dtype)
    tensors = {key: value.contiguous() for key, value in stored.state_dict().items()}
    _write_whole(Path(path), safetensors.torch.save(tensors, metadata={**(info or {}), **own}))


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the target, then rename, so that a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    file = read_tensors(path)
    net = _build(file, str(path))
    kept = {key: value for key, value in (file.metadata or {}).items() if key not in RESERVED}
    save_restorer(destination, net, dtype=dtype, info={"source": path.name, **kept, **(info or {})})


# --- describing


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a file of weights, of whatever architecture."""

    path: Path
    architecture: str | None  # None: unknown
    config: RestorerConfig | None  # None unless it's a restorer that can be loaded
    parameters: int
    dtype: str  # as stored, such as "float32" or "float16, float32"
    container: str
    key: str | None  # the entry the tensors were under
    metadata: Mapping[str, str]  # free text of the header
    sha256: str

    @property
    def scale(self) -> int | None:
        """Output pixels per input pixel along each side, if known."""
        return self.config.scale if self.config else None


def describe(source: str | os.PathLike[str]) -> CheckpointInfo:
    """Facts about a checkpoint, also of one whose architecture this version can't run.

    Raises:
        CheckpointError: it isn't a file of tensors, or it is a restorer that doesn't fit its own config.
    """
    path = resolve(source)
    file = read_tensors(path)
    metadata = file.metadata or {}
    own = "dacesr_format" in metadata
    architecture = None if own else detect(file.tensors)
    config = None
    if own or (architecture and architecture.config):
        config = _config(file, str(path))
        _check_fit(config, file.tensors, str(path))
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return CheckpointInfo(
        path=path,
        architecture="restorer" if own else architecture.name if architecture else None,
        config=config,
        parameters=sum(tensor.numel() for tensor in file.tensors.values()),
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()})),
        container=file.container,
        key=file.key,
        metadata={key: value for key, value in metadata.items() if key not in RESERVED},
        sha256=sha256,
    )
