"""Checkpoints of networks that upscale: recognised, loaded strictly, saved and described.

Our own files say in their header what they are (`dacesr.ownfile`): kind "restorer", or one of `dacesr.nets.baselines`.
Everything else is recognised by its tensors (`dacesr.architectures`). Taggers are read by `dacesr.taggerfile`; what
inspects and converts files here does so for them too.
"""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dacesr.adapterfile import adapter_weights, is_adapter
from dacesr.adaptivefile import with_dasr_predictor
from dacesr.architectures import detect, released_config, renamed
from dacesr.config import NetworkConfig, RestorerConfig, TaggerConfig
from dacesr.ncnnfile import is_ncnn, read_ncnn, weights_file
from dacesr.nets.baselines import BASELINES, Baseline
from dacesr.nets.restorer import Restorer
from dacesr.onnxfile import is_onnx, read_onnx
from dacesr.onnxnetwork import OnnxNetwork, load_onnx
from dacesr.ownfile import RESERVED, article, check_fit, check_storage, own_config, own_kind, write_own
from dacesr.taggerfile import (
    TAGGER_FIELDS,
    check_tagger,
    holds_tagger,
    load_extractor,
    load_tagger,
    save_tagger,
)
from dacesr.tensorfile import CheckpointError, TensorFile, read_tensors, sha256_of, unwrap
from dacesr.weightfiles import bundled_names, resolve

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "Network",
    "bundled_names",
    "convert",
    "describe",
    "load_extractor",
    "load_restorer",
    "load_tagger",
    "resolve",
    "save_restorer",
    "save_tagger",
]

Network = Restorer | Baseline | OnnxNetwork
"""A network that upscales: it has a `config`, takes RGB (b, 3, h, w) in [0, 1] in fp32 whatever its own precision, has
the dtype of the input in its output, and under `.to(dtype)` keeps in fp32 what must stay so. Those of ONNX files have
no weights to move, and no gradients."""


class Kind(NamedTuple):
    """What a kind of network is made from."""

    config: type[NetworkConfig]
    network: Callable[[Any], Network]


KINDS = {
    "restorer": Kind(RestorerConfig, Restorer),
    **{kind: Kind(*parts) for kind, parts in BASELINES.items()},
}

_CONFIGS = {kind: entry.config for kind, entry in KINDS.items()}

# --- loading


def load_restorer(source: str | os.PathLike[str] | Mapping[str, Any]) -> Network:
    """Load a network that upscales: ours, the authors' DACESR and DVMSR, Real-ESRGAN's compact ones, or look-alikes.

    Args:
        source: file (safetensors, .pth, ONNX, ncnn's .param or .bin), bundled name, hub id `owner/name`, or a state
            dict.

    Returns:
        The network on the CPU, in fp32 and eval mode. A file of the release gets modulation `release`.

    Raises:
        CheckpointError: a ValueError of one sentence that names the file and what is wrong: what it seems to be, or
            which tensors are missing, unexpected or of another shape.
    """
    if isinstance(source, Mapping):
        tensors, key = unwrap(source, "the state dict")
        return _build(renamed(TensorFile(tensors, "state dict", key)), "the state dict")
    path = resolve(source)
    if is_onnx(path):
        return load_onnx(path, _CONFIGS).eval()
    return _build(_read(path), str(path))


def _read(path: Path) -> TensorFile:
    if is_ncnn(path):
        return read_ncnn(path)
    return renamed(with_dasr_predictor(read_tensors(adapter_weights(path)), path))


def _build(file: TensorFile, name: str) -> Network:
    config = _config(file, name)
    _check_fit(config, file, name)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = KINDS[config.kind].network(config)
    net.load_state_dict(file.tensors)
    return net.eval()


def _config(file: TensorFile, name: str) -> NetworkConfig:
    """The config in the header of our own files, else the one that the tensors speak for."""
    if own_kind(file.metadata, name):
        return own_config(file.metadata or {}, name, _CONFIGS, wanted="restorer")
    architecture = detect(file.tensors)
    if architecture is None:
        first = ", ".join(list(file.tensors)[:3])
        raise CheckpointError(f"{name} holds a network of an unknown kind (its tensors: {first}, ...), not a restorer")
    if holds_tagger(file, name):
        what = f"{article(architecture.name)}, which recognises what is in a picture"
        raise CheckpointError(f"{name} holds {what}, not a restorer")
    if architecture.config is None:
        raise CheckpointError(f"{name} seems to hold {architecture.name} weights, not a restorer that can be loaded")
    config = released_config(architecture, file.tensors, name)
    assert not isinstance(config, TaggerConfig)
    return config


def _check_fit(config: NetworkConfig, file: TensorFile, name: str) -> None:
    make = KINDS[config.kind].network
    check_fit(lambda: make(config), file.tensors, name, kind=config.kind, blocks=config.block_count)


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
    check_storage(dtype)
    stored = copy.deepcopy(net).to(device="cpu", dtype=dtype)
    write_own(path, stored.state_dict(), kind=net.config.kind, config=net.config, info=info)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
    lora: str | os.PathLike[str] | None = None,
    tags: str | os.PathLike[str] | None = None,
    thresholds: str | os.PathLike[str] | None = None,
) -> None:
    """Turn any file that `load_restorer` or `load_tagger` takes into our own format, keeping its header's free text.

    Args:
        source: as for `load_restorer` and `load_tagger`.
        destination: the file to write.
        dtype: float32 or float16, the type that the weights are stored in.
        info: header text that is added to, or replaces, that of the source.
        lora: an adapter to merge into a tagger.
        tags: a text file with the names of a tagger's tags.
        thresholds: a text file with their thresholds.

    Raises:
        CheckpointError: the source can't be loaded.
        ValueError: another dtype, a header field of the format's own, or something for taggers where there is none.
        OSError: the file can't be written.
    """
    path = resolve(source)
    if is_onnx(path):
        raise CheckpointError(f"{path} is an ONNX file: convert the weights that it was made from")
    file = _read(path)
    kept = {key: value for key, value in (file.metadata or {}).items() if key not in (*RESERVED, *TAGGER_FIELDS)}
    text = {"source": path.name, **kept, **(info or {})}
    if is_adapter(path) or holds_tagger(file, str(path)):
        tagger = load_tagger(source, lora=lora, tags=tags, thresholds=thresholds)
        save_tagger(destination, tagger, dtype=dtype, info=text | ({"lora": Path(lora).name} if lora else {}))
        return
    net = _build(file, str(path))
    if lora or tags or thresholds:
        raise ValueError(f"{path} holds a {net.config.kind}, and adapters, tags and thresholds are for taggers")
    save_restorer(destination, net, dtype=dtype, info=text)


# --- describing


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a file of weights, of whatever architecture."""

    path: Path
    architecture: str | None  # None: unknown
    config: NetworkConfig | TaggerConfig | None  # None unless it can be loaded
    parameters: int
    dtype: str  # as stored, such as "float32" or "float16, float32"
    container: str  # safetensors, PyTorch, ncnn, ONNX
    key: str | None  # the entry the tensors were under
    metadata: Mapping[str, str]  # free text of the header
    sha256: str  # of the file; of an ncnn network, of its .bin file

    @property
    def scale(self) -> int | None:
        """Output pixels per input pixel along each side, of a network that upscales."""
        return None if self.config is None or isinstance(self.config, TaggerConfig) else self.config.scale


def describe(source: str | os.PathLike[str]) -> CheckpointInfo:
    """Facts about a checkpoint, also of one whose architecture this version can't run.

    Raises:
        CheckpointError: it isn't a file of tensors, or it is a network that doesn't fit its own config.
    """
    path = resolve(source)
    if is_onnx(path):
        return _describe_onnx(path)
    file = _read(path)
    metadata = file.metadata or {}
    architecture = detect(file.tensors)
    config = None
    if holds_tagger(file, str(path)):
        config = check_tagger(file, str(path))
    elif not is_adapter(path) and (own_kind(metadata, str(path)) or (architecture and architecture.config)):
        config = _config(file, str(path))
        _check_fit(config, file, str(path))
    return CheckpointInfo(
        path=path,
        architecture=architecture.name if architecture else None,
        config=config,
        parameters=sum(tensor.numel() for tensor in file.tensors.values()),
        dtype=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()})),
        container=file.container,
        key=file.key,
        metadata={key: value for key, value in metadata.items() if key not in (*RESERVED, *TAGGER_FIELDS)},
        sha256=sha256_of(weights_file(path) if file.container == "ncnn" else adapter_weights(path)),
    )


def _describe_onnx(path: Path) -> CheckpointInfo:
    """The same for a network in an ONNX file: of an upscaler it is started, of an extractor only its text is read."""
    file = read_onnx(path)
    kind = own_kind(file.header, str(path))
    if kind == TaggerConfig.kind:
        config = own_config(file.header, str(path), {TaggerConfig.kind: TaggerConfig}, wanted="tagger")
    else:
        config = load_onnx(path, _CONFIGS).config
    return CheckpointInfo(
        path=path,
        architecture=kind,
        config=config,
        parameters=file.parameters,
        dtype=", ".join(file.dtypes),
        container="ONNX",
        key=None,
        metadata={key: value for key, value in file.header.items() if key not in (*RESERVED, *TAGGER_FIELDS)},
        sha256=sha256_of(path),
    )
