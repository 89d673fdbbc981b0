"""The state of a run on disk: folders that appear whole, of files small enough to travel.

    state-00012000/   state.json: iteration, counts, where each tensor lies
                      0.safetensors, 1.safetensors, ...: at most 15 MiB each, larger tensors alone

A state is written under another name, flushed, and renamed; then older ones go. Whatever interrupts that, one whole
state is there.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from dacesr.tensorfile import write_whole

SHARD = 15 << 20  # bytes


class StateError(ValueError):
    """A saved state that can't be used, in one sentence that names it."""


def save_state(folder: Path, iteration: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write the state after an iteration and remove older ones.

    Args:
        folder: Of the run.
        iteration: Steps done.
        tensors: By name.
        facts: Anything that JSON holds.

    Returns:
        The folder of the state.

    Raises:
        OSError: It can't be written; earlier states stay.
    """
    target = folder / f"state-{iteration:08d}"
    part = folder / f".{target.name}.part"
    _remove_interrupted(folder)
    part.mkdir(parents=True)
    shards = _shards(tensors)
    for number, names in enumerate(shards):
        stored = {name: tensors[name].detach().cpu().contiguous() for name in names}
        write_whole(part / f"{number}.safetensors", safetensors.torch.save(stored))
    content = {"iteration": iteration, "facts": facts, "shards": len(shards)}
    write_whole(part / "state.json", json.dumps(content, indent=1).encode())
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    _flush(folder)
    remove_older(folder)
    return target


def remove_older(folder: Path) -> None:
    """Remove the states before the newest, and those whose writing was interrupted: what a kill leaves."""
    _remove_interrupted(folder)
    for older in saved_states(folder)[:-1]:
        shutil.rmtree(older, ignore_errors=True)


def _remove_interrupted(folder: Path) -> None:
    for interrupted in folder.glob(".state-*.part"):
        shutil.rmtree(interrupted, ignore_errors=True)


def saved_states(folder: Path) -> list[Path]:
    """Folders of whole states, the oldest first."""
    return sorted(path for path in folder.glob("state-*") if re.fullmatch(r"state-\d{8,}", path.name))


def load_state(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Iteration, tensors and facts of the newest state of a run; None if there is none.

    Raises:
        StateError: It is damaged.
    """
    states = saved_states(folder)
    if not states:
        return None
    newest = states[-1]
    try:
        content = json.loads((newest / "state.json").read_text())
        tensors: dict[str, Tensor] = {}
        for number in range(content["shards"]):
            tensors |= safetensors.torch.load_file(newest / f"{number}.safetensors")
        return content["iteration"], tensors, content["facts"]
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise StateError(f"{newest} is damaged ({error}): remove it to start the run again") from error


def pack(prefix: str, state: Any, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors of a nested state dict into `tensors`, names put in their place; the rest is for JSON.

    `unpack` is the way back. Keys of any kind become text, except whole numbers, which are kept as such.
    """
    if isinstance(state, Tensor):
        tensors[prefix] = state
        return {"tensor": prefix}
    if isinstance(state, Mapping):
        return {"map": [[key, pack(f"{prefix}.{key}", value, tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return {"list": [pack(f"{prefix}.{i}", value, tensors) for i, value in enumerate(state)]}
    return {"value": state}


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given; tuples come back as lists."""
    (kind, content), *_ = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "map":
        return {key: unpack(value, tensors) for key, value in content}
    if kind == "list":
        return [unpack(value, tensors) for value in content]
    return content


def _shards(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names for each file, in order, up to SHARD bytes."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


def _flush(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets folders be flushed."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
