"""Files of tensors: safetensors and PyTorch's own, read without ever running code from them.

Anything else is refused by its first bytes with one sentence that says what the file seems to be.
"""

import hashlib
import json
import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dacesr.encoding import replacing

LONGEST_SENTENCE = 1500  # characters of an error


class CheckpointError(ValueError):
    """A file (or state dict) that can't be used, in one sentence that names it."""

    def __init__(self, sentence: str) -> None:
        """Take the sentence; what a file calls its tensors may not break the line, steer a terminal or fill it."""
        start = sentence[:LONGEST_SENTENCE] + ("..." if len(sentence) > LONGEST_SENTENCE else "")
        super().__init__("".join(character if character.isprintable() else "?" for character in start))


@dataclass(frozen=True)
class TensorFile:
    """What a file holds: tensors by name, on the CPU, in their stored dtype."""

    tensors: dict[str, Tensor]
    container: str  # "safetensors", "PyTorch" or "ncnn"
    key: str | None = None  # the entry the tensors were under, such as "params_ema"
    metadata: Mapping[str, str] | None = None  # of a safetensors header


# Entries that checkpoints wrap their tensors in; averaged weights come before the raw ones.
WRAPPERS = (
    *("params_ema", "model_ema", "ema", "params", "state_dict", "model_state_dict"),
    *("model", "net", "network", "net_g", "netG", "generator", "weights"),
)
PREFIXES = ("module.", "model.", "net.", "net_g.", "netG.", "generator.")
DEEPEST = 8  # wrapping entries within one another
MOST_CLAIMED = 4  # times the bytes that tensors hold may they claim, as those do that share memory
MOST_UNPACKED = 8  # times its size may an archive become; weights hardly pack
SLACK = 2**24  # bytes that any file may claim or unpack to
PLAIN_TYPES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # beside floating point
MAPPED_FROM = 2**30  # bytes of a file from which its tensors are mapped: RAM's holds much that is never looked at
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of files from before PyTorch 1.6
FOREIGN = (  # what the first bytes match, and what such a file is
    (rb"\x89PNG\r\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"GIF8", "a GIF image"),
    (rb"RIFF....WEBP", "a WebP image"),
    (rb"BM....\0\0\0\0", "a BMP image"),
    (rb"II\*\0|MM\0\*", "a TIFF image"),
    (rb"....ftyp", "an AVIF, HEIF or MP4 file"),
    (rb"%PDF", "a PDF document"),
    (rb"version https://git-lfs", "a git-lfs pointer; the file itself was not downloaded (git lfs pull fetches it)"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page, perhaps an error page saved instead of the download"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "a compressed archive; unpack it first"),
    (rb"Rar!|7z\xbc\xaf", "an archive; unpack it first"),
    (rb"GGUF", "a GGUF language model"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x08[\x01-\x1f][\x12\x1a\x32\x3a].", "an ONNX network (its name should end in .onnx)"),
    (rb"\x80[\x02-\x05]|c[\w.]+\n[\w.]+\n", "a Python pickle, which could run code when loaded"),
)


def read_tensors(path: Path) -> TensorFile:
    """Read the tensors of a safetensors file or of a PyTorch checkpoint (zip or old style, from any device).

    Wrapping entries (`params_ema` first) and prefixes such as `module.` are taken off.

    Raises:
        CheckpointError: the file is missing, unreadable, truncated, of another kind, holds no tensors, or holds objects
            that only code could bring back; the message is one sentence that names the file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder, not a checkpoint file") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    if start.startswith(b"PK\x03\x04"):
        stored = _check_zip(path)
        return _read_pickle(path, mapped=stored and path.stat().st_size >= MAPPED_FROM)
    if start.startswith(LEGACY_MAGIC):
        if tarfile.is_tarfile(path):  # PyTorch < 2.6 runs code from tar files (CVE-2025-32434)
            raise CheckpointError(f"{path} is a tar archive, which is not loaded")
        return _read_pickle(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**30:
        return _read_safetensors(path)
    raise CheckpointError(f"{path} is {_kind(path, start)}, not a checkpoint")


def _kind(path: Path, start: bytes) -> str:
    """What a file that isn't a checkpoint seems to be."""
    if not start:
        return "empty"
    for pattern, kind in FOREIGN:
        if re.match(pattern, start, re.DOTALL):
            return kind
    if tarfile.is_tarfile(path):
        return "a tar archive"
    try:
        text = start.decode("utf-8", errors="strict" if len(start) < 512 else "ignore")
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    return "a text file" if all(c.isprintable() or c.isspace() for c in text) else "a file of an unknown kind"


def _check_zip(path: Path) -> bool:
    """Let pass only the zip archives that `torch.save` writes; whether its entries are uncompressed, as there."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or damaged: it starts like a checkpoint and has no end") from error
    if unpacked > MOST_UNPACKED * path.stat().st_size + SLACK:
        raise CheckpointError(f"{path} is not loaded, since its {path.stat().st_size} bytes unpack to {unpacked}")
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise CheckpointError(f"{path} is a TorchScript archive, a program; the checkpoint it was made from is needed")
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path} is a NumPy archive, not a checkpoint")
    if "archive_format" in names and any(name.startswith("models/") for name in names):
        raise CheckpointError(
            f"{path} is a program of torch.export, not a checkpoint: the weights that it was made from are needed"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path} is a zip archive of other files, not a checkpoint; if one is inside, unpack it")
    return stored


def _read_pickle(path: Path, *, mapped: bool = False) -> TensorFile:
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a hostile or damaged pickle can raise anything
        culprit = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
        if culprit:
            name = culprit.group(1) or culprit.group(2)
            raise CheckpointError(
                f"{path} holds pickled Python code or objects ({name}), which are not loaded since they could do harm"
            ) from error
        raise CheckpointError(f"{path} is truncated or damaged: PyTorch cannot read it to the end") from error
    tensors, key = unwrap(content, str(path))
    return TensorFile(tensors, "PyTorch", key)


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise CheckpointError(f"{path} starts like a safetensors file and is truncated or damaged ({error})") from error
    tensors, _ = unwrap(tensors, str(path))
    return TensorFile(tensors, "safetensors", metadata=metadata)


def unwrap(content: Any, name: str) -> tuple[dict[str, Tensor], str | None]:
    """The tensors inside a checkpoint's content, prefixes off, and the entry they were under (None at the top).

    Args:
        content: what `torch.load` returns: tensors by name, perhaps inside wrapping entries.
        name: of the file, for the error.

    Raises:
        CheckpointError: there are no tensors.
    """
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < DEEPEST:  # a hostile one may hold itself
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        keys.append(wrapper)
        content = content[wrapper]
    entries = content if isinstance(content, Mapping) else {}
    tensors = {str(key): value.detach() for key, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        found = f"the entries {', '.join(map(str, entries))[:200]}" if entries else f"a {type(content).__name__}"
        raise CheckpointError(f"{name} holds no tensors by name, only {found}")
    _check_plain(tensors, name)
    return _strip_prefixes(tensors), ".".join(keys) or None


def _check_plain(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse what is no plain array of real numbers, and views that claim many more numbers than there are."""
    claimed, held = 0, {}
    for key, tensor in tensors.items():
        real = tensor.dtype.is_floating_point or tensor.dtype in PLAIN_TYPES
        if not real or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
            raise CheckpointError(f"{name} holds {key} as something else than a plain array of real numbers")
        claimed += tensor.nbytes
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
    if claimed > MOST_CLAIMED * sum(held.values()) + SLACK:
        raise CheckpointError(f"{name} is damaged: it claims {claimed} bytes of weights and holds {sum(held.values())}")


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DataParallel, `torch.compile` and trainers put before the names."""
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def read_header(path: Path) -> dict[str, str]:
    """The text in the header of a safetensors file; empty for files of another kind.

    Raises:
        CheckpointError: the file can't be read, or its header is damaged.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:9] != b"{":
            return {}
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} starts like a safetensors file and is truncated or damaged ({error})") from error


def replace_header(path: Path, header: Mapping[str, str]) -> None:
    """Give a safetensors file other text in its header; the tensors stay as they are, byte for byte.

    Raises:
        OSError: the file can't be read or written.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = {**json.loads(content[8:start]), "__metadata__": dict(header)}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors stay aligned
    write_whole(path, len(text).to_bytes(8, "little") + text + content[start:])


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name when it is whole: a crash leaves the old one or the new one."""
    with replacing(path) as file:
        file.write(content)
