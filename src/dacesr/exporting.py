"""Networks for other runtimes: an ONNX file or a program of `torch.export`, checked against PyTorch before it is kept.

Exported are networks that upscale, with `image`, and `condition` and `window` where they take a condition, to
`upscaled`; and extractors, `image` to `tokens` and `logits`. What a file holds beside is said in `dacesr.onnxfile`; a
program has the same text as JSON in its extra file `dacesr.json`.
"""

import errno
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.adapterfile import is_adapter
from dacesr.checkpoint import describe, load_extractor, load_restorer
from dacesr.conditioning import EXTRACTOR_FIELDS, extractor_fields, find_extractor, kind_of
from dacesr.config import RestorerConfig, TaggerConfig
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.nets.portable import PortableExtractor, portable
from dacesr.onnxfile import OnnxFile, check_onnx, is_onnx, needed, run, session, with_header
from dacesr.onnxnetwork import INPUTS, LARGEST_SIDE
from dacesr.onnxscan import DOMAIN, NAME, scan_function
from dacesr.ownfile import FORMAT, RESERVED
from dacesr.pairing import FIELDS, at_strength
from dacesr.tensorfile import CheckpointError, read_header, sha256_of, write_whole
from dacesr.weightfiles import resolve

__all__ = ["Exported", "export_model"]

Format = Literal["onnx", "torch"]

OPSET = 18
TILE = 128  # pixels a side, where a program needs some and none are asked for
TRIED = ((40, 56), (57, 33))  # sizes at which a file for any size is checked
TOLERANCE = 1e-3  # times the largest output, or 1


class Exported(NamedTuple):
    """What was written.

    Attributes:
        tile: Sides of the input in pixels; None for any.
        difference: The largest from PyTorch that was seen, in the output's unit.
        inputs: Names of the inputs and their shapes, `?` for what is dynamic.
    """

    tile: int | None
    difference: float
    inputs: dict[str, tuple[int | str, ...]]


class _Source(NamedTuple):
    """What is exported: as it is, as it is traced, what it is given beside the picture, and the text about it."""

    exact: nn.Module
    traced: nn.Module
    others: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    header: dict[str, str]
    least: int = 1


class _Conditioned(nn.Module):
    """A restorer whose inputs have the names of an exported network's."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, condition: Tensor, window: Tensor) -> Tensor:
        return self.net(image, condition, window)


class _Recognising(nn.Module):
    """An extractor that gives tokens and logits."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens, logits = self.extractor.recognise(image)
        return tokens, logits


def export_model(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    format: Format = "onnx",
    tile: int | None = None,
    strength: float | None = None,
    extractor: str | os.PathLike[str] | None = None,
) -> Exported:
    """Export a network, run what came out, and write it if it agrees with PyTorch.

    The file appears whole or not at all.

    Args:
        source: As for `load_restorer` or `load_extractor`; not an ONNX file.
        destination: The file to write; ONNX files end in .onnx, programs in .pt2 by custom.
        format: `onnx`, or `torch` for a program of `torch.export`, which needs nothing but PyTorch.
        tile: Sides of the input in pixels; None for any size with `onnx` and for 128 with `torch`.
        strength: Of a network with two sets of weights: 0 faithful to 1 crisp; its own unless given.
        extractor: As for `Upscaler.load`.

    Raises:
        CheckpointError: The source can't be loaded or exported, or a package is missing.
        ValueError: An impossible size or strength, or an output that differs from PyTorch's.
        OSError: The file can't be written.
    """
    path = resolve(source)
    if is_onnx(path):
        raise CheckpointError(f"{path} is an ONNX file already: export the weights that it was made from")
    if format == "onnx" and not is_onnx(Path(destination)):
        raise ValueError(f"the name of an ONNX file ends in .onnx, and that of {os.fspath(destination)} doesn't")
    if format == "torch" and is_onnx(Path(destination)):
        raise ValueError(f"{os.fspath(destination)} would be a program of torch.export, and no ONNX file: take .pt2")
    if not Path(destination).absolute().parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", os.fspath(destination))
    if is_adapter(path) or isinstance(describe(source).config, TaggerConfig):
        if strength is not None or extractor is not None:
            raise ValueError(f"{os.fspath(source)} is an extractor: it has no strength, and needs no other extractor")
        found = _extractor(source, path)
    else:
        found = _network(source, path, strength, extractor, format)
    if format == "torch" and tile is None:
        tile = TILE
    if tile is not None and not found.least <= tile <= LARGEST_SIDE:
        raise ValueError(f"a tile has {found.least} to {LARGEST_SIDE} pixels a side; got {tile}")
    found.header.update({"tile": "dynamic" if tile is None else str(tile), "dacesr_version": version("dacesr")})
    with torch.no_grad():
        write = {"onnx": _write_onnx, "torch": _write_program}[format]
        return write(found, Path(destination), tile, os.fspath(source))


# --- what is exported


def _network(
    source: str | os.PathLike[str], path: Path, strength: float | None, extractor: Any, format: Format
) -> _Source:
    """A network that upscales, at one strength."""
    net = load_restorer(path)
    seeing, named = find_extractor(source, path, net, extractor)
    net, strength = at_strength(source, path, net, strength)
    config = net.config
    if isinstance(config, RestorerConfig) and seeing is None:
        config = config.model_copy(update={"modulation": "none"})  # which is what a released one without is
    fields = {"kind": config.kind, "config": config.model_dump_json(), "scale": str(config.scale)}
    if strength is not None:
        fields["strength"] = repr(strength)
    if named is not None:
        fields |= extractor_fields(named) if extractor is not None else _kept(path, EXTRACTOR_FIELDS)
    traced = portable(net, _as_node) if format == "onnx" else portable(net)
    header = _about(path, fields)
    if seeing is None:
        return _Source(net, traced, (), ("upscaled",), header)
    condition = seeing.condition(_picture(64, 64), kind_of(net.config))
    others = (condition, torch.tensor([[0.125, 0.25, 0.625, 0.875]]))
    return _Source(_Conditioned(net), _Conditioned(traced), others, ("upscaled",), header)


def _extractor(source: str | os.PathLike[str], path: Path) -> _Source:
    """What turns pictures into tokens and logits."""
    found = load_extractor(source)
    config = found.tagger.config
    fields = {"kind": config.kind, "config": config.model_dump_json(), "extractor_sha256": sha256_of(path)}
    fields |= {"tags": json.dumps(found.tag_names), "thresholds": json.dumps(found.tagger.thresholds.tolist())}
    header = _about(path, fields)
    return _Source(_Recognising(found), PortableExtractor(found), (), ("tokens", "logits"), header, SMALLEST)


def _about(path: Path, fields: Mapping[str, str]) -> dict[str, str]:
    """The text of a file: what the source says of itself, and what is true of the export."""
    dropped = (*RESERVED, *FIELDS, *EXTRACTOR_FIELDS, "base", "base_sha256")
    said = {key: value for key, value in read_header(path).items() if key not in dropped} if path.is_file() else {}
    return {"name": path.stem, **said, "dacesr_format": str(FORMAT), **fields}


def _kept(path: Path, keys: tuple[str, ...]) -> dict[str, str]:
    header = read_header(path)
    return {key: header[key] for key in keys if key in header}


def _as_node(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan as a call of the function in `dacesr.onnxscan`; only for tracing."""
    return torch.onnx.ops.symbolic(f"{DOMAIN}::{NAME}", (x, dt, A, B, C), dtype=x.dtype, shape=x.shape, version=1)


def _picture(height: int, width: int) -> Tensor:
    """Soft shapes with texture, (1, 3, h, w) in [0, 1], the same on every call."""
    generator = torch.Generator().manual_seed(0)
    soft, fine = (torch.rand(1, 3, *sides, generator=generator) for sides in ((5, 6), (height, width)))
    return (F.interpolate(soft, (height, width), mode="bilinear") * 0.9 + fine * 0.1).clamp(0, 1)


# --- how


def _write_onnx(found: _Source, path: Path, tile: int | None, name: str) -> Exported:
    needed("onnxscript")
    sizes = TRIED if tile is None else ((tile, tile),)
    inputs = (_picture(*sizes[0]), *found.others)
    dynamic = None
    if tile is None:
        sides = {
            number + 2: torch.export.Dim(side, min=found.least + 1, max=LARGEST_SIDE)
            for number, side in enumerate(("height", "width"))
        }
        dynamic = (sides, *[None] * len(found.others))
    try:
        with _quiet():
            program = torch.onnx.export(
                found.traced.eval(),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=dynamic,
                input_names=list(INPUTS[: len(inputs)]),
                output_names=list(found.outputs),
                verbose=False,
                external_data=False,
            )
    except Exception as error:  # whatever the exporter meets
        advice = "" if tile else "; --tile N exports it for one size, which more networks allow"
        raise CheckpointError(f"{name} cannot be exported to ONNX: {type(error).__name__}{advice}") from error
    assert program is not None
    model = program.model_proto
    if any(node.domain == DOMAIN for node in model.graph.node):
        model.functions.append(scan_function())
    content = with_header(model, found.header)
    difference = _difference_of_file(found, check_onnx(content, path), sizes)
    _check(difference, name)
    write_whole(path, content)
    return Exported(tile, difference, _shapes(inputs, tile))


def _difference_of_file(found: _Source, file: OnnxFile, sizes: tuple[tuple[int, int], ...]) -> float:
    started = session(file, torch.device("cpu"))
    differences = []
    for size in sizes:
        inputs = (_picture(*size), *found.others)
        feed = {key: value.numpy() for key, value in zip(INPUTS, inputs, strict=False)}
        outputs = [torch.from_numpy(output) for output in run(started, feed, file.path)]
        differences.append(_difference(found, inputs, tuple(outputs)))
    return torch.tensor(differences).max().item()  # of which one that is no number is the largest


def _write_program(found: _Source, path: Path, tile: int | None, name: str) -> Exported:
    assert tile is not None  # a program is of one size
    inputs = (_picture(tile, tile), *found.others)
    try:
        with _quiet():
            program = torch.export.export(found.traced.eval(), inputs, strict=False)
            outputs = program.module()(*inputs)
            _forget_origins(program)
            content = io.BytesIO()
            torch.export.save(program, content, extra_files={"dacesr.json": json.dumps(found.header)})
    except Exception as error:  # as above
        raise CheckpointError(f"{name} cannot be exported with torch.export: {type(error).__name__}") from error
    difference = _difference(found, inputs, outputs if isinstance(outputs, tuple) else (outputs,))
    _check(difference, name)
    write_whole(path, content.getvalue())
    return Exported(tile, difference, _shapes(inputs, tile))


def _forget_origins(program: torch.export.ExportedProgram) -> None:
    """Take out the lines of code and the folders that nodes come from: most of a file, and of no use to anyone else."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)


def _difference(found: _Source, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> float:
    """The largest difference from PyTorch; of outputs beyond 1, as a part of the largest."""
    wanted = found.exact(*inputs)
    pairs = zip(wanted if isinstance(wanted, tuple) else (wanted,), outputs, strict=True)
    return torch.stack([(a - b).abs().max() / a.abs().max().clamp(min=1) for a, b in pairs]).max().item()


def _check(difference: float, name: str) -> None:
    if not difference <= TOLERANCE:
        raise ValueError(f"{name} exported gives something else than in PyTorch ({difference:.2g}): nothing is written")


def _shapes(inputs: tuple[Tensor, ...], tile: int | None) -> dict[str, tuple[int | str, ...]]:
    shapes: list[tuple[int | str, ...]] = [tuple(x.shape) for x in inputs]
    if tile is None:
        shapes[0] = (1, 3, "?", "?")
    return dict(zip(INPUTS, shapes, strict=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: packages that it looks for, and its own deprecated calls."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
