"""Where weights are: bundled with the package, in a file, or on the Hugging Face hub."""

import os
import re
from pathlib import Path

from dacesr.failing import did_you_mean
from dacesr.tensorfile import CheckpointError, read_header

HUB_ID = r"[\w-][\w.-]*/(?!.*\.(safetensors|pth|pt|ckpt|bin|param|onnx)$)[\w-][\w.-]*"  # owner/name, and no file name
WEIGHTS = Path(__file__).with_name("weights")
DEFAULT_WEIGHTS: str | None = "dacesr-light"  # the bundled file that the name "default" stands for
RECOGNITION = "recognition"  # the folder in WEIGHTS of what isn't for upscaling: taggers and their adapters
RECOGNITION_ALIASES = {"lite": "lite-ree"}  # the extractor to use unless another is wanted


def bundled_names() -> list[str]:
    """Names of the weights for upscaling that come with the package, for use wherever a file is."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def recognition_names() -> list[str]:
    """Names of the taggers, and of the adapters on them, that come with the package."""
    return sorted(path.stem for path in (WEIGHTS / RECOGNITION).glob("*.safetensors"))


def bundled_descriptions() -> dict[str, str]:
    """For each of `bundled_names` the `description` in its file's header, or nothing.

    Raises:
        CheckpointError: a file is damaged.
    """
    return {path.stem: read_header(path).get("description", "") for path in sorted(WEIGHTS.glob("*.safetensors"))}


def recognition_descriptions() -> dict[str, str]:
    """The same for `recognition_names`."""
    found = sorted((WEIGHTS / RECOGNITION).glob("*.safetensors"))
    return {path.stem: read_header(path).get("description", "") for path in found}


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
    recognition = RECOGNITION_ALIASES.get(text, text)
    if recognition in recognition_names():
        return WEIGHTS / RECOGNITION / f"{recognition}.safetensors"
    if text == "default":
        raise CheckpointError("no weights are bundled with this version: give a checkpoint file, as in -n FILE")
    if path.exists():
        return path
    if isinstance(source, str) and re.fullmatch(HUB_ID, text) and not path.parent.is_dir():
        return _from_hub(text)
    bundled = [*bundled_names(), *recognition_names()]
    known = f" (bundled: {', '.join(bundled)})" if bundled and "/" not in text else ""
    near = did_you_mean(text, ["default", *RECOGNITION_ALIASES, *bundled])
    raise CheckpointError(f"{text} does not exist{near}{known}")


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
        raise CheckpointError(
            f"{hub_id} is not a file, and the Hugging Face hub can't be reached ({why}); connect to the network, "
            "unset HF_HUB_OFFLINE if that is set, or name a file"
        ) from error
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


def beside(source: str | os.PathLike[str], path: Path, name: str) -> Path:
    """A file in the folder of another; where `source` is a hub id that `path` came from, it is downloaded when missing.

    Whether the file is there remains to be seen.
    """
    found = path.with_name(name)
    if found.is_file() or Path(os.fspath(source)).exists() or not re.fullmatch(HUB_ID, os.fspath(source)):
        return found
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(os.fspath(source), name))
    except Exception:  # no such file, no network; the hub's client lets errors of its network library through
        return found
