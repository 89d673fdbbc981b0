"""ONNX files: read without trust, written whole, and run by onnxruntime.

Those that dacesr writes hold in their metadata what our files of weights hold in their header (`dacesr.ownfile`), and

    scale             output pixels per input pixel along each side
    tile              sides of the input in pixels, or "dynamic"
    strength          of a network with two sets of weights
    dacesr_version    that wrote the file

The weights stay inside the file: one that points to others is refused, so nothing outside it is ever opened.
"""

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dacesr.tensorfile import CheckpointError

ENDING = ".onnx"
LARGEST = (1 << 31) - 1  # bytes of a protocol buffer
EXTERNAL = 1  # TensorProto.DataLocation: the values lie in another file


@dataclass(frozen=True)
class OnnxFile:
    """A network in an ONNX file, checked and free of references to other files.

    Attributes:
        path: Where it was read.
        content: The network, for onnxruntime.
        header: The text in its metadata.
        parameters: Numbers in its tensors of float32 and float16.
        dtypes: Of these tensors.
    """

    path: Path
    content: bytes
    header: Mapping[str, str]
    parameters: int
    dtypes: tuple[str, ...]


def is_onnx(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() == ENDING


def needed(package: str) -> Any:
    """A package of the extra `onnx`, imported.

    Raises:
        CheckpointError: It is missing.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise CheckpointError(f'ONNX files need the package {package}: pip install "dacesr[onnx]"') from error


def read_onnx(path: Path) -> OnnxFile:
    """Read a file and check it.

    Raises:
        CheckpointError: It can't be read; the rest is as for `check_onnx`.
    """
    needed("onnx")
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path} has more than 2 GB, which no ONNX file has")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    return check_onnx(content, path)


def check_onnx(content: bytes, path: Path) -> OnnxFile:
    """A network in the bytes of a file.

    Raises:
        CheckpointError: One sentence that names the file: it is damaged or no ONNX file, refers to other files, or the
            package onnx is missing.
    """
    onnx = needed("onnx")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose errors have no common public base
        raise CheckpointError(f"{path} is damaged or no ONNX file") from error
    model.DiscardUnknownFields()
    tensors = [message for message in _messages(model) if isinstance(message, onnx.TensorProto)]
    if any(tensor.data_location == EXTERNAL or tensor.external_data for tensor in tensors):
        raise CheckpointError(
            f"{path} keeps its weights in other files, which are not opened: save it as one file "
            "(onnx.save_model with save_as_external_data=False)"
        )
    if any(isinstance(node, onnx.NodeProto) and node.op_type == "EPContext" for node in _messages(model)):
        raise CheckpointError(f"{path} is compiled for one device: give the network that it was made from")
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or no ONNX network: {_first_line(error)}") from error
    numbers = [tensor for tensor in tensors if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)]
    return OnnxFile(
        path=path,
        content=model.SerializeToString(),
        header={entry.key: entry.value for entry in model.metadata_props},
        parameters=sum(math.prod(tensor.dims) for tensor in numbers),
        dtypes=tuple(sorted({onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name for tensor in numbers})),
    )


def _messages(message: Any) -> Iterator[Any]:
    """All protocol buffers within one, however deep."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield inner
                yield from _messages(inner)


def with_header(model: Any, header: Mapping[str, str]) -> bytes:
    """The bytes of an `onnx.ModelProto` with the header as its metadata, and none that its exporter left in its parts.

    The exporter's is of no use to anyone else: it tells the lines of code and the folders that nodes come from.
    """
    for message in (model, *_messages(model)):
        for field in ("metadata_props", "doc_string"):
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    for key, value in header.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def session(file: OnnxFile, device: torch.device) -> Any:
    """What runs a network, an `onnxruntime.InferenceSession`: on a CUDA device where onnxruntime can, else on the CPU.

    Raises:
        CheckpointError: onnxruntime is missing or can't run the network.
    """
    ort = needed("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    try:
        return ort.InferenceSession(file.content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no public base
        raise CheckpointError(f"{file.path} cannot be run by onnxruntime: {_first_line(error)}") from error


def run(started: Any, inputs: Mapping[str, np.ndarray], path: Path) -> list[np.ndarray]:
    """The outputs of a network.

    Raises:
        MemoryError: Memory ran out.
        CheckpointError: It can't take these inputs.
    """
    try:
        return started.run(None, dict(inputs))
    except Exception as error:  # as above
        said = _first_line(error)
        if "alloc" in str(error).lower():
            raise MemoryError(said) from error
        shapes = ", ".join(str(value.shape) for value in inputs.values())
        raise CheckpointError(f"{path} cannot take inputs of the shapes {shapes}: {said}") from error


def _first_line(error: Exception) -> str:
    """What an error of another library says first, cut short."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
