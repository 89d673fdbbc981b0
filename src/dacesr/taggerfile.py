"""Files of taggers: the released RAM, our own, and either with a LoRA adapter merged into it.

Beside what every file of ours has (`dacesr.ownfile`), the header of a tagger holds as JSON `thresholds` and, where
they have names, `tags`. For the release these are text files with a line for each tag.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dacesr.adapterfile import fingerprint, is_adapter, merge, read_adapter
from dacesr.architectures import RAM, detect, released_config
from dacesr.config import TaggerConfig
from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Tagger
from dacesr.ownfile import article, check_fit, check_storage, own_config, own_kind, write_own
from dacesr.ramfile import our_tensors
from dacesr.tensorfile import CheckpointError, TensorFile, read_tensors, unwrap
from dacesr.weightfiles import beside, resolve

__all__ = [
    "TAGGER_FIELDS",
    "check_tagger",
    "fingerprint",
    "holds_tagger",
    "load_extractor",
    "load_tagger",
    "save_tagger",
    "tagger_config",
]

Source = str | os.PathLike[str] | Mapping[str, Any]
TAGGER_FIELDS = ("tags", "thresholds")  # header fields that only taggers have
TAG_FILES = ("{}.tags.txt", "ram_tag_list.txt")  # beside a checkpoint, {} for its name
THRESHOLD_FILES = ("{}.thresholds.txt", "ram_tag_list_threshold.txt")


class Labels(NamedTuple):
    """Names and thresholds of tags, where they are known."""

    tags: Sequence[str] | None = None
    thresholds: Sequence[float] | None = None


# --- loading


def load_tagger(
    source: Source,
    *,
    lora: Source | None = None,
    tags: str | os.PathLike[str] | Sequence[str] | None = None,
    thresholds: str | os.PathLike[str] | Sequence[float] | None = None,
) -> Tagger:
    """Load a tagger: the released RAM or one of ours, with or without an adapter.

    Args:
        source: file, bundled name, hub id `owner/name`, or a state dict of the release. An adapter of ours stands for
            its base with the adapter merged into it.
        lora: an adapter to merge: the release's DAPE or REE (file or state dict), a folder of peft's, or one of ours.
        tags: names of the tags, or a text file with a line for each. Unless given they come from the checkpoint or
            from `NAME.tags.txt` or `ram_tag_list.txt` beside it (on the hub too); else tags are named by number.
        thresholds: probabilities from which a tag is given, in the same way; the files are `NAME.thresholds.txt` and
            `ram_tag_list_threshold.txt`, without which all are 0.68.

    Returns:
        The tagger on the CPU, in fp32 and eval mode.

    Raises:
        CheckpointError: a ValueError of one sentence that names the file and what is wrong with it: it holds something
            else, lacks tensors, is for another base or another tag list.
    """
    if isinstance(source, Mapping):
        name = "the state dict"
        tensors, key = unwrap(source, name)
        return _tagger(TensorFile(tensors, "state dict", key), name, lora, Labels(), _given(tags, thresholds))
    path = resolve(source)
    if is_adapter(path):
        if lora is not None:
            raise CheckpointError(f"{path} is an adapter itself, onto which no other goes; give its base as the tagger")
        source, lora = _base(source, path), path
        path = resolve(source)
    file = read_tensors(path)
    return _tagger(file, str(path), lora, _beside(source, path, file), _given(tags, thresholds))


def load_extractor(
    source: Source,
    *,
    lora: Source | None = None,
    tags: str | os.PathLike[str] | Sequence[str] | None = None,
    thresholds: str | os.PathLike[str] | Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Extractor:
    """Load what turns pictures into tokens: a tagger (see `load_tagger`), frozen, that takes pictures of any size.

    Args:
        source: as for `load_tagger`; "lite" is the bundled Real Embedding Extractor.
        lora: as for `load_tagger`.
        tags: as for `load_tagger`.
        thresholds: as for `load_tagger`.
        dtype: of its arithmetic.

    Raises:
        CheckpointError: as for `load_tagger`.
    """
    return Extractor(load_tagger(source, lora=lora, tags=tags, thresholds=thresholds)).to(dtype)


def _tagger(file: TensorFile, name: str, lora: Source | None, known: Labels, given: Labels) -> Tagger:
    config = tagger_config(file, name)
    tensors = _tensors(file, config)
    _check(config, tensors, name)
    if lora is not None:
        tensors = merge(tensors, read_adapter(lora if isinstance(lora, Mapping) else resolve(lora)), name)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = Tagger(config)
    net.load_state_dict(tensors)
    labels = Labels(
        known.tags if given.tags is None else given.tags,
        known.thresholds if given.thresholds is None else given.thresholds,
    )
    for what, values in (("names", labels.tags), ("thresholds", labels.thresholds)):
        if values is not None and len(values) != config.tags:
            raise CheckpointError(
                f"{name} is a checkpoint for another tag list: it knows {config.tags} tags, and there are "
                f"{len(values)} {what}"
            )
    net.name_tags(labels.tags, labels.thresholds)
    return net.eval()


def tagger_config(file: TensorFile, name: str) -> TaggerConfig:
    """The config of the tagger in a file: in the header of ours, else read from the shapes of the release.

    Raises:
        CheckpointError: it holds no tagger.
    """
    if own_kind(file.metadata, name):
        return own_config(file.metadata or {}, name, {TaggerConfig.kind: TaggerConfig}, wanted="tagger")
    found = detect(file.tensors)
    if found is None:
        first = ", ".join(list(file.tensors)[:3])
        raise CheckpointError(f"{name} holds a network of an unknown kind (its tensors: {first}, ...), not a tagger")
    if found.name == "LoRA adapter":
        raise CheckpointError(f"{name} holds a LoRA adapter, which goes onto a tagger: give that one, and this as lora")
    if found.name == "tagger":
        raise CheckpointError(f"{name} holds the tensors of a tagger without its config, so its sizes are unknown")
    if found.name != RAM:
        raise CheckpointError(f"{name} seems to hold {article(found.name)}, not a tagger")
    config = released_config(found, file.tensors, name)
    assert isinstance(config, TaggerConfig)
    return config


def holds_tagger(file: TensorFile, name: str) -> bool:
    """Whether a file is of a tagger: one of ours, or the released RAM."""
    kind = own_kind(file.metadata, name)
    if kind:
        return kind == TaggerConfig.kind
    found = detect(file.tensors)
    return found is not None and found.name == RAM


def check_tagger(file: TensorFile, name: str) -> TaggerConfig:
    """The config of the tagger in a file whose tensors fit it.

    Raises:
        CheckpointError: it holds no tagger, or one that lacks tensors or has foreign ones.
    """
    config = tagger_config(file, name)
    _check(config, _tensors(file, config), name)
    return config


def _tensors(file: TensorFile, config: TaggerConfig) -> dict[str, Tensor]:
    ours = file.metadata and "dacesr_format" in file.metadata
    return file.tensors if ours else our_tensors(file.tensors, config.window)


def _check(config: TaggerConfig, tensors: Mapping[str, Tensor], name: str) -> None:
    check_fit(lambda: Tagger(config), tensors, name, kind="tagger", blocks=config.block_count)


def _base(source: Source, path: Path) -> str | os.PathLike[str]:
    """What an adapter goes onto: a file beside it (on the hub too), a bundled name, or a hub id."""
    base = read_adapter(path).base
    if not base:
        raise CheckpointError(f"{path} doesn't tell its base: give the tagger, and this as lora")
    if not isinstance(source, Mapping):
        for name in (base, f"{base}.safetensors"):
            if Path(name).name == name and (found := beside(source, path, name)).is_file():
                return found
    try:
        return resolve(base)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is an adapter on {base}, which is neither beside it nor bundled") from error


# --- tags and thresholds


def _given(tags: object, thresholds: object) -> Labels:
    """What the caller gave, read where it is a file."""
    names = read_tags(Path(tags)) if isinstance(tags, str | os.PathLike) else tags
    limits = read_thresholds(Path(thresholds)) if isinstance(thresholds, str | os.PathLike) else thresholds
    return Labels(names, limits)  # pyright: ignore[reportArgumentType]


def _beside(source: str | os.PathLike[str], path: Path, file: TensorFile) -> Labels:
    """What the header holds, or the files beside a checkpoint."""
    header = file.metadata or {}
    try:
        tags, thresholds = (json.loads(header[field]) if field in header else None for field in TAGGER_FIELDS)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has tags or thresholds in its header that can't be read: {error}") from error
    if not (_is_list(tags, lambda tag: isinstance(tag, str)) and _is_list(thresholds, _is_probability)):
        raise CheckpointError(f"{path} has tags or thresholds in its header that are no list of names or probabilities")
    if tags is None and (found := _first(source, path, TAG_FILES)):
        tags = read_tags(found)
    if thresholds is None and (found := _first(source, path, THRESHOLD_FILES)):
        thresholds = read_thresholds(found)
    return Labels(tags, thresholds)


def _is_list(values: object, fits: Callable[[Any], bool]) -> bool:
    return values is None or (isinstance(values, list) and all(map(fits, values)))


def _is_probability(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _first(source: str | os.PathLike[str], path: Path, names: Sequence[str]) -> Path | None:
    files = (beside(source, path, name.format(path.stem)) for name in names)
    return next((file for file in files if file.is_file()), None)


def read_tags(path: Path) -> list[str]:
    """The lines of a text file, one for each tag.

    Raises:
        CheckpointError: it can't be read, or a line is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").rstrip().split("\n")]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not a text file") from error
    if "" in lines:
        raise CheckpointError(f"line {lines.index('') + 1} of {path} is empty")
    return lines


def read_thresholds(path: Path) -> list[float]:
    """The numbers in a text file, one for each tag.

    Raises:
        CheckpointError: it can't be read, or a line is not a probability.
    """
    found = []
    for number, line in enumerate(read_tags(path), start=1):
        try:
            value = float(line)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise CheckpointError(f"line {number} of {path} is {line!r}, not a probability")
        found.append(value)
    return found


# --- saving


def save_tagger(
    path: str | os.PathLike[str],
    tagger: Tagger,
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write a tagger with its tags and thresholds in our own format; the file appears whole or not at all.

    Args:
        path: the file to write, ending in .safetensors by custom.
        tagger: the network.
        dtype: float32 or float16, the type that the weights are stored in.
        info: text for the header, such as name, description, licence, source.

    Raises:
        ValueError: another dtype, or `info` uses a name of the format.
        OSError: the file can't be written.
    """
    check_storage(dtype)
    fields = {"thresholds": json.dumps([round(float(limit), 6) for limit in tagger.thresholds])}
    if tagger.tag_names != tuple(str(number) for number in range(tagger.config.tags)):
        fields["tags"] = json.dumps(tagger.tag_names, ensure_ascii=False)
    tensors = {key: value.to(dtype) for key, value in tagger.state_dict().items()}
    write_own(path, tensors, kind=TaggerConfig.kind, config=tagger.config, fields=fields, info=info)
