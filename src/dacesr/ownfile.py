"""Our own files of weights: safetensors whose header holds, beside free text such as `name` and `licence`:

    dacesr_format  "1"
    kind           "restorer", "srvgg", "tagger" or "adapter"
    config         the config of that kind as JSON

They are loaded strictly: a tensor too many, too few or of another shape is an error.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dacesr.config import Config, explain
from dacesr.tensorfile import CheckpointError, write_whole

C = TypeVar("C", bound=Config)

FORMAT = 1
RESERVED = ("dacesr_format", "kind", "config")  # header fields that free text may not use
SAID = {  # how errors call a kind
    "tagger": "tagger, which recognises what is in a picture",
    "adapter": "adapter, which goes onto a tagger",
}


def own_kind(metadata: Mapping[str, str] | None, name: str) -> str | None:
    """The kind that a header speaks of; None where the file isn't ours.

    Raises:
        CheckpointError: the file is of a later format.
    """
    if not metadata or "dacesr_format" not in metadata:
        return None
    version = metadata["dacesr_format"]
    if version != str(FORMAT):
        raise CheckpointError(f"{name} is of format {version}, and this version of dacesr reads format {FORMAT}")
    return metadata.get("kind", "network of no stated kind")


def own_config(metadata: Mapping[str, str], name: str, kinds: Mapping[str, type[C]], *, wanted: str) -> C:
    """The config in the header of one of our own files.

    Args:
        metadata: the header's text.
        name: of the file, for errors.
        kinds: the configs of the kinds that will do.
        wanted: how to call these kinds in errors.

    Raises:
        CheckpointError: another kind or format, or a config that can't be used.
    """
    kind = own_kind(metadata, name)
    if kind is None or kind not in kinds:
        said = article(SAID.get(kind, kind)) if kind else "a file of another kind"
        raise CheckpointError(f"{name} holds {said}, not {article(wanted)}")
    try:
        return kinds[kind].model_validate_json(metadata.get("config", ""))
    except ValidationError as error:
        raise CheckpointError(f"{name} has a config that can't be used: {explain(error)}") from error


def article(noun: str) -> str:
    """`a restorer`, `an adapter`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def check_fit(
    make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], name: str, *, kind: str, blocks: int
) -> None:
    """Compare names and shapes with a network that takes no memory, whatever sizes the config claims.

    Args:
        make: builds the network.
        tensors: what should go into it.
        name: of the file, for the error.
        kind: of network, for the error.
        blocks: how many the network has, each with tensors of its own: too many are not even tried.

    Raises:
        CheckpointError: they don't fit; tensors that are missing, unexpected or of another shape are named.
    """
    if blocks > len(tensors):
        raise CheckpointError(f"{name} holds {len(tensors)} tensors, too few for {blocks} blocks")
    with torch.device("meta"):
        net = make()
    wanted = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    differ = [f"{key} {found[key]} for {wanted[key]}" for key in wanted if key in found and found[key] != wanted[key]]
    problems = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "of another shape": differ,
    }
    listed = [f"{problem}: {some(keys)}" for problem, keys in problems.items() if keys]
    if listed:
        raise CheckpointError(f"{name} does not fit the {kind} it seems to be ({'; '.join(listed)})")


def some(names: list[str], most: int = 6) -> str:
    """The first of many names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_storage(dtype: torch.dtype) -> None:
    """ValueError for a type that weights are not stored in."""
    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"weights are stored as float32 or float16, not {dtype}")


def write_own(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    config: Config,
    fields: Mapping[str, str] | None = None,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write a file of our own; it appears whole or not at all.

    Args:
        path: the file to write.
        tensors: the weights, of the types they are stored in.
        kind: of network.
        config: its config.
        fields: header fields that this kind has of its own.
        info: free text for the header.

    Raises:
        ValueError: `info` uses a name of the format or of this kind.
        OSError: the file can't be written.
    """
    own = {"dacesr_format": str(FORMAT), "kind": kind, "config": config.model_dump_json(), **(fields or {})}
    taken = [key for key in info or {} if key in own]
    if taken:
        raise ValueError(f"the header fields {', '.join(own)} are the format's own; info has {', '.join(taken)}")
    content = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_whole(Path(path), safetensors.torch.save(content, metadata={**(info or {}), **own}))
