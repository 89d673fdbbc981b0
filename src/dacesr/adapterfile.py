"""LoRA adapters of taggers (Hu et al. 2021): read in two formats, merged into the weights, written in peft's.

An adapter adds `scaling * B @ A` to the weight of a linear layer; A is (r, in), B (out, r).

    the release   DAPE and REE as loralib names them; a layer `qkv` has A (2 r, in) and B (2 out, r), for q and for v
    ours          peft's names, in a file of our own (`dacesr.ownfile`, kind "adapter") or in a folder that peft reads
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from dacesr.config import Config
from dacesr.ownfile import check_storage, own_config, own_kind, some, write_own
from dacesr.ramfile import our_names
from dacesr.tensorfile import CheckpointError, read_header, read_tensors, unwrap, write_whole

FOLDER_CONFIG, FOLDER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as peft names them
PEFT = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
LORALIB = re.compile(r"(.+)\.lora_([AB])")
LORALIB_ALPHA = 1  # that the release was trained with; its files don't say it
PLAIN = {  # settings of peft that change what an adapter does, and their values in one that does what is said above
    "peft_type": ("LORA",),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
}


class AdapterConfig(Config):
    """What an adapter is for."""

    kind: ClassVar[str] = "adapter"

    base: str = Field(min_length=1, description="the tagger that it goes onto: a bundled name, or a file beside it")
    base_fingerprint: str = Field("", description="of that tagger's weights; empty: of any that fits")
    r: PositiveInt = Field(8, le=4096, description="rank")
    alpha: Annotated[float, Field(gt=0, strict=False)] = Field(1.0, description="scaling times rank")
    targets: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        ("q", "v", "query", "key"), description="last names of the layers that it changes"
    )


class Pair(NamedTuple):
    """What is added to a layer's weight: scaling * B @ A."""

    a: Tensor  # (r, in)
    b: Tensor  # (out, r)
    scaling: float


class Adapter(NamedTuple):
    """A pair for each layer that an adapter changes."""

    name: str  # of the file
    pairs: dict[str, Pair]
    base: str | None = None  # of the tagger, as far as the file tells
    fingerprint: str | None = None


# --- reading


def is_adapter(path: Path) -> bool:
    """Whether a file or folder is an adapter that knows its base, so that it can stand for the two together."""
    if path.is_dir():
        return (path / FOLDER_CONFIG).is_file()
    return path.is_file() and own_kind(read_header(path), str(path)) == AdapterConfig.kind


def adapter_weights(path: Path) -> Path:
    """The file of tensors in a folder of peft's; any other path as it is."""
    return path / FOLDER_WEIGHTS if path.is_dir() and is_adapter(path) else path


def read_adapter(source: Path | Mapping[str, Any]) -> Adapter:
    """Read a LoRA: a file of the release, a file of ours, a folder of peft's, or a state dict with the release's names.

    Raises:
        CheckpointError: it holds something else, or half a pair.
    """
    if isinstance(source, Mapping):
        return _adapter("the LoRA", unwrap(source, "the LoRA")[0], None)
    path = adapter_weights(source)
    if source.is_dir() and not path.is_file():
        raise CheckpointError(f"{source} is a folder without {FOLDER_CONFIG} and {FOLDER_WEIGHTS}, so not an adapter")
    file = read_tensors(path)
    name = str(source)
    if own_kind(file.metadata, name):
        config = own_config(file.metadata or {}, name, {AdapterConfig.kind: AdapterConfig}, wanted="adapter")
        return _adapter(name, file.tensors, config.alpha / config.r)._replace(
            base=config.base, fingerprint=config.base_fingerprint or None
        )
    settings = _read_settings(path.with_name(FOLDER_CONFIG))
    scaling = settings["lora_alpha"] / settings["r"] if settings else None
    base = settings.get("base_model_name_or_path") if settings else None
    return _adapter(name, file.tensors, scaling)._replace(base=base if isinstance(base, str) and base else None)


def _read_settings(path: Path) -> dict[str, Any] | None:
    """The config of an adapter that peft wrote; None if there isn't one."""
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text("utf-8"))
        rank, alpha = settings["r"], settings["lora_alpha"]
        if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not the config of a LoRA adapter, with r and lora_alpha") from error
    for key, plain in PLAIN.items():
        if settings.get(key, plain[0]) not in plain:
            raise CheckpointError(f"{path} has {key} {settings[key]}, which is not a plain LoRA")
    if settings.get("bias", "none") != "none":
        raise CheckpointError(f"{path} has bias {settings['bias']}, which is not a plain LoRA")
    return settings


def _adapter(name: str, tensors: Mapping[str, Tensor], scaling: float | None) -> Adapter:
    """Sort the halves of pairs by layer; `scaling` is peft's, None where nothing tells it."""
    halves: dict[str, dict[str, Tensor]] = {}
    foreign, peft = [], False
    loralib = our_names(key for key in tensors if LORALIB.fullmatch(key))
    for key, tensor in tensors.items():
        if place := PEFT.fullmatch(key):
            peft = True
        elif LORALIB.fullmatch(key):
            if key not in loralib:
                continue  # of a part of the release that has no place here
            place = LORALIB.fullmatch(loralib[key])
        if place is None:
            foreign.append(key)
        else:
            halves.setdefault(place[1], {})[place[2]] = tensor
    if not halves:
        raise CheckpointError(f"{name} holds no LoRA (its tensors: {some(foreign, 3)})")
    if foreign:
        raise CheckpointError(f"{name} holds tensors that are not of a LoRA: {some(foreign)}")
    if half := [place for place, parts in halves.items() if len(parts) < 2]:
        raise CheckpointError(f"{name} is incomplete: {some(half)} should have lora_A and lora_B")
    flat = (place for place, parts in halves.items() for part in parts.values() if part.ndim != 2 or not part.numel())
    if odd := list(dict.fromkeys(flat)):
        raise CheckpointError(f"{name} holds a LoRA whose tensors are not matrices: {some(odd)}")
    if not peft:
        return Adapter(name, _release_pairs(halves))
    if scaling is None:
        raise CheckpointError(f"{name} does not tell its lora_alpha: it should lie beside {FOLDER_CONFIG}")
    return Adapter(name, {place: Pair(parts["A"], parts["B"], scaling) for place, parts in halves.items()})


def _release_pairs(halves: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Pair]:
    pairs = {}
    for place, parts in halves.items():
        a, b = parts["A"], parts["B"]
        scaling = LORALIB_ALPHA / b.shape[1]
        if place.endswith(".qkv"):
            for part, rows, columns in zip("qv", a.chunk(2), b.chunk(2), strict=False):
                pairs[place.removesuffix("qkv") + part] = Pair(rows, columns, scaling)
        else:
            pairs[place] = Pair(a, b, scaling)
    return pairs


# --- merging


def fingerprint(tagger: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 over the names and the float16 values of all weights, so that storing them as float16 leaves it equal."""
    tensors = tagger.state_dict() if isinstance(tagger, nn.Module) else tagger
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(tensors[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()


def merge(tensors: Mapping[str, Tensor], adapter: Adapter, name: str) -> dict[str, Tensor]:
    """A tagger's tensors with an adapter added, in float32 where it changes them.

    Args:
        tensors: of the base, under our names.
        adapter: what to add.
        name: of the base, for errors.

    Raises:
        CheckpointError: the adapter is for another base, or lacks some of the layers that it is for.
    """
    if adapter.fingerprint and adapter.fingerprint != fingerprint(tensors):
        raise CheckpointError(f"{adapter.name} is an adapter for another base: {name} has other weights than that one")
    merged = dict(tensors)
    for place, (a, b, scaling) in adapter.pairs.items():
        weight = tensors.get(f"{place}.weight")
        if weight is None:
            raise CheckpointError(f"{adapter.name} is an adapter for another base: {name} has no layer {place}")
        if weight.shape != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
            sizes = f"{tuple(weight.shape)} for {tuple(b.shape)} times {tuple(a.shape)}"
            raise CheckpointError(f"{adapter.name} is an adapter for another base: {name} has {place} {sizes}")
        merged[f"{place}.weight"] = weight.float() + scaling * (b.float() @ a.float())
    kinds = {_kind(place) for place in adapter.pairs}
    layers = [key.removesuffix(".weight") for key, value in tensors.items() if value.ndim == 2]
    if lacking := [layer for layer in layers if _kind(layer) in kinds and layer not in adapter.pairs]:
        raise CheckpointError(f"{adapter.name} is incomplete: it has nothing for {some(lacking)}")
    return merged


def _kind(place: str) -> tuple[str, str]:
    """Encoder or head, and the last name: an adapter is for all of a kind or for none."""
    return place.partition(".")[0], place.rpartition(".")[2]


# --- writing


def save_adapter(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    config: AdapterConfig,
    *,
    dtype: torch.dtype = torch.float32,
    info: Mapping[str, str] | None = None,
) -> None:
    """Write an adapter: `NAME.safetensors`, or a folder that `peft.PeftModel.from_pretrained` reads.

    Both hold the same file; in the folder peft's own config is beside it.

    Args:
        path: the file or the folder to write.
        tensors: by peft's names, `base_model.model.LAYER.lora_A.weight` and `lora_B`, as
            `peft.get_peft_model_state_dict` gives them.
        config: what the adapter is for.
        dtype: float32 or float16, the type that they are stored in.
        info: text for the header, such as name, description, licence.

    Raises:
        ValueError: the tensors are not those of an adapter, or `info` uses a name of the format.
        OSError: the file can't be written.
    """
    foreign = [key for key in tensors if not (key.startswith("base_model.model.") and PEFT.fullmatch(key))]
    if foreign:
        raise ValueError(f"{path} is to hold a LoRA as peft names it, not {some(foreign)}")
    _adapter(str(path), tensors, 1.0)
    check_storage(dtype)
    stored = {key: value.to(dtype) for key, value in tensors.items()}
    target = Path(path)
    if target.suffix != ".safetensors":
        target.mkdir(parents=True, exist_ok=True)
        settings = {
            "peft_type": "LORA",
            "base_model_name_or_path": config.base,
            "r": config.r,
            "lora_alpha": config.alpha,
            "target_modules": list(config.targets),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }
        write_whole(target / FOLDER_CONFIG, json.dumps(settings, indent=2).encode())
        target = target / FOLDER_WEIGHTS
    write_own(target, stored, kind=AdapterConfig.kind, config=config, info=info)
