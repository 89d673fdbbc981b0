"""ncnn networks, as Upscayl and Real-ESRGAN-ncnn carry them: a description (.param) and its weights (.bin).

Only SRVGGNetCompact is read: a chain of 3x3 convolutions and PReLUs, a pixel shuffle, plus the enlarged input. Its
tensors get the names of Real-ESRGAN's own files (`body.0.weight`, ...), from which the config is read as usual.

A .param file is text: 7767517, then the numbers of layers and blobs, then a line for each layer: type, name, numbers
of inputs and outputs, their blobs, and key=value parameters. A .bin file holds the weights in the order of the lines:
those of a convolution behind a flag of 4 bytes (their type), biases and slopes always fp32 without one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dacesr.tensorfile import CheckpointError, TensorFile

MAGIC = "7767517"
FLOAT16 = 0x01306B47
FLOAT32 = (0, 0x0002C056)
STARTS = tuple(flag.to_bytes(4, "little") for flag in (FLOAT16, *FLOAT32))

Parameters = dict[int, float]
NEAREST, ADD = 1, 0  # types of Interp and BinaryOp
PRELU = {0: None}  # number of slopes
CONVOLUTION = {0: None, 1: 3, 4: 1, 5: 1, 6: None}  # outputs, kernel, padding, bias, number of weights
CONVOLUTION_MAY_SAY: Parameters = {
    **{2: 1, 12: 1, 3: 1, 13: 1, 11: 3},  # dilation and stride, across and down; height of the kernel
    **{14: 1, 15: 1, 16: 1, 9: 0},  # padding of the other sides; no activation of its own
}


@dataclass(frozen=True)
class Layer:
    """A line of a .param file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: Parameters


def is_ncnn(path: Path) -> bool:
    """Whether a file is half of an ncnn network, by its first bytes and, for weights, its suffix."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError:
        return False
    if start == MAGIC.encode():
        return True
    return path.suffix == ".bin" and (start[:4] in STARTS or _is_described(path, start))


def _is_described(path: Path, start: bytes) -> bool:
    return path.with_suffix(".param").is_file() and not start.startswith((b"PK", b"\x80"))


def weights_file(path: Path) -> Path:
    """The .bin file of a network that is named by either of its files."""
    return path.with_suffix(".bin")


def read_ncnn(path: Path) -> TensorFile:
    """Read an SRVGGNetCompact from its .param and .bin files, given either.

    Returns:
        Tensors by Real-ESRGAN's names, fp16 where they are stored so.

    Raises:
        CheckpointError: the other file is missing, one of them is damaged, or the network is of another structure; the
            message is one sentence that names the file.
    """
    description, weights = path.with_suffix(".param"), weights_file(path)
    for wanted in (description, weights):
        if not wanted.is_file():
            raise CheckpointError(f"{path} is half of an ncnn network, and {wanted.name} is missing beside it")
    try:
        text, content = description.read_text("utf-8", errors="replace"), weights.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror or error}") from error
    try:
        body = compact_body(parse(text))
    except ValueError as error:
        raise CheckpointError(f"{description} {error}") from error
    try:
        tensors = _stored_tensors(body, content)
    except ValueError as error:
        raise CheckpointError(f"{weights} {error}") from error
    return TensorFile(tensors, "ncnn")


def parse(text: str) -> list[Layer]:
    """The layers of a .param file's text.

    Raises:
        ValueError: what is wrong, to go behind the file's name.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < 3 or lines[0] != [MAGIC]:
        raise ValueError("is not the description of an ncnn network")
    layers = [_layer(words) for words in lines[2:]]
    if lines[1][0] != str(len(layers)):
        raise ValueError(f"is truncated or damaged: it has {len(layers)} layers and announces {lines[1][0]}")
    return layers


def _layer(words: list[str]) -> Layer:
    try:
        kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
        blobs, pairs = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
        parameters = {int(key): float(value) for key, value in (pair.split("=") for pair in pairs)}
        if (
            min(inputs, outputs) < 0
            or len(blobs) != inputs + outputs
            or not all(map(math.isfinite, parameters.values()))
        ):
            raise ValueError("impossible numbers")
    except (ValueError, IndexError) as error:
        raise ValueError(f"has a line that can't be read ({' '.join(words)[:80]})") from error
    return Layer(kind, name, tuple(blobs[:inputs]), tuple(blobs[inputs:]), parameters)


def compact_body(layers: list[Layer]) -> list[Layer]:
    """The convolutions and PReLUs of an SRVGGNetCompact in the order of computation; anything else is refused.

    Raises:
        ValueError: where the structure differs, to go behind the file's name.
    """
    source, *rest = layers
    if source.kind != "Input" or len(source.outputs) != 1:
        raise _otherwise("it does not start with one input")
    image = source.outputs[0]
    copies = {image, *(blob for layer in rest if layer.kind == "Split" for blob in layer.outputs)}
    if any(layer.inputs != (image,) for layer in rest if layer.kind == "Split"):
        raise _otherwise("it splits more than the input")
    body = [layer for layer in rest if layer.kind in ("Convolution", "PReLU")]
    ends = {layer.kind: layer for layer in rest if layer not in body and layer.kind != "Split"}
    if sorted(ends) != ["BinaryOp", "Interp", "PixelShuffle"] or sum(x.kind != "Split" for x in rest) != len(body) + 3:
        raise _otherwise("it needs, besides convolutions and PReLUs, one each of PixelShuffle, Interp and BinaryOp")
    blobs = copies
    for index, layer in enumerate(body):
        blobs = _follow(layer, "PReLU" if index % 2 else "Convolution", blobs)
        _check(layer, *((PRELU, {}) if index % 2 else (CONVOLUTION, CONVOLUTION_MAY_SAY)))
    scale = ends["PixelShuffle"].parameters.get(0)
    shuffled = _follow(ends["PixelShuffle"], "PixelShuffle", blobs)
    enlarged = _follow(ends["Interp"], "Interp", copies)
    _check(ends["PixelShuffle"], {0: scale}, {1: 0})
    _check(ends["Interp"], {0: NEAREST, 1: scale, 2: scale}, {3: 0, 4: 0, 5: 0, 6: 0})
    _check(ends["BinaryOp"], {}, {0: ADD, 1: 0, 2: 0})
    if len(ends["BinaryOp"].inputs) != 2 or set(ends["BinaryOp"].inputs) != shuffled | enlarged:
        raise _otherwise(f"its layer {ends['BinaryOp'].name} does not add the enlarged input to the shuffled pixels")
    if len(body) < 5 or len(body) % 2 == 0 or not scale or body[-1].parameters[0] != 3 * scale**2:
        raise _otherwise("its convolutions don't end with three channels for each output pixel")
    return body


def _follow(layer: Layer, kind: str, blobs: set[str]) -> set[str]:
    """The output of a layer that must be of a kind and take one of some blobs."""
    if layer.kind != kind or len(layer.inputs) != 1 or layer.inputs[0] not in blobs or len(layer.outputs) != 1:
        raise _otherwise(f"its layer {layer.name} ({layer.kind}) stands where one {kind} should follow")
    return {layer.outputs[0]}


def _check(layer: Layer, needed: Mapping[int, float | None], usual: Parameters) -> None:
    """Parameters must be as needed (None: any); those with a usual value may be left out, others must be."""
    for key in needed.keys() | layer.parameters.keys():
        value = layer.parameters.get(key)
        wanted = needed[key] if key in needed else usual.get(key, math.nan)
        if value is None or wanted not in (None, value):
            raise _otherwise(
                f"its layer {layer.name} ({layer.kind}) has an unexpected value of parameter {key}: {value}"
            )


def _otherwise(why: str) -> ValueError:
    return ValueError(f"describes another network than SRVGGNetCompact, the only one read from ncnn: {why}")


def _stored_tensors(body: list[Layer], content: bytes) -> dict[str, Tensor]:
    """Tensors by name; the order of computation is that of the lines."""
    reader, tensors, width = _Reader(content), {}, 3
    for number, layer in enumerate(body):
        if layer.kind == "PReLU":
            if layer.parameters[0] != width:
                raise ValueError(f"does not fit its description, where {layer.name} has not {width} slopes")
            tensors[f"body.{number}.weight"] = reader.plain(layer, width)
            continue
        outputs, size = int(layer.parameters[0]), int(layer.parameters[6])
        if outputs < 1 or size != 9 * outputs * width:
            raise ValueError(f"does not fit its description, where {layer.name} has {size} weights and {width} inputs")
        tensors[f"body.{number}.weight"] = reader.flagged(layer, size).view(outputs, width, 3, 3)
        tensors[f"body.{number}.bias"] = reader.plain(layer, outputs)
        width = outputs
    if reader.place != len(content):
        raise ValueError(f"has {len(content)} bytes, and its description speaks of {reader.place}")
    return tensors


class _Reader:
    """Takes numbers from a .bin file, one array after the other."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.place = 0

    def flagged(self, layer: Layer, count: int) -> Tensor:
        """An array behind a flag that tells its type; fp16 ends at a multiple of four bytes."""
        flag = int(self._take(layer, 1, "<u4")[0])
        if flag in FLOAT32:
            return self.plain(layer, count)
        if flag != FLOAT16:
            raise ValueError(f"stores {layer.name} as neither fp16 nor fp32 (flag {flag:#010x})")
        values = self._take(layer, count + count % 2, "<f2")
        return torch.from_numpy(values[:count].copy())

    def plain(self, layer: Layer, count: int) -> Tensor:
        """An fp32 array."""
        return torch.from_numpy(self._take(layer, count, "<f4").copy())

    def _take(self, layer: Layer, count: int, dtype: str) -> np.ndarray:
        end = self.place + count * np.dtype(dtype).itemsize
        if end > len(self.content):
            raise ValueError(f"is truncated: it ends inside the weights of {layer.name}")
        values = np.frombuffer(self.content, dtype, count, self.place)
        self.place = end
        return values
