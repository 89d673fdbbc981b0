"""What is compared: classical enlargement, networks, and folders of results that anything may have made."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from dacesr import Upscaler
from dacesr.checkpoint import bundled_names, resolve
from dacesr.crops import list_pictures
from dacesr.engine import Precision
from dacesr.imresize import Kernel, imresize
from dacesr.tensorfile import sha256_of

CLASSICAL: dict[str, Kernel] = {"bicubic": "cubic", "lanczos": "lanczos3"}
DEFAULT = (*CLASSICAL, "all")
ALL = "all"  # stands for all bundled models
WITH_STRENGTH = re.compile(r"(?P<model>.+)@(?P<strength>\d*\.?\d+)")
NAMED = re.compile(r"(?P<name>[^=/]+)=(?P<source>.+)")
ADDED = re.compile(r"|x\d|([^\w]|_|x\d).*")  # to a picture's name in the name of its result


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: What it is called.
        key: Of what decides its pictures: the weights' SHA-256, strength, precision, tiles.
        enlarge: (b, 3, h, w) in [0, 1] -> the same, `scale` times as large; None for a folder of results.
        folder: Of results; None for what enlarges.
        given: As it was named on the command line.
    """

    name: str
    key: str
    enlarge: Callable[[Tensor], Tensor] | None = None
    folder: Path | None = None
    given: str = ""


def find_results(folder: Path, names: Sequence[str], chosen: str = "", version: str = "") -> dict[str, Path | str]:
    """Pictures' results: files with their names, or with their names and what a program added (`_x4`, `_out`, `x4`).

    A file that could be of several pictures is that of the longest name.

    Args:
        folder: Of results.
        names: Of all pictures.
        chosen: Of the set; a subfolder of that name is looked into first, if there is one.
        version: Of its low-resolution pictures, such as `level1`, likewise.

    Returns:
        For each picture its file, or a sentence on why there is none.
    """
    candidates = (folder / chosen / version, folder / version, folder / chosen, folder)
    place = next(path for path in candidates if path.is_dir() or path == folder)
    files: dict[str, list[Path]] = {name: [] for name in names}
    for path in list_pictures(place):
        stem = path.relative_to(place).with_suffix("").as_posix()
        fitting = [name for name in names if stem.startswith(name) and ADDED.fullmatch(stem[len(name) :])]
        if fitting:
            files[max(fitting, key=len)].append(path)
    return {name: _only(name, found, place) for name, found in files.items()}


def _only(name: str, files: Sequence[Path], place: Path) -> Path | str:
    """The one with just the picture's name, or the only one."""
    found = [path for path in files if path.stem == Path(name).name] or list(files)
    if len(found) == 1:
        return found[0]
    listed = f"{len(found)} files ({', '.join(path.name for path in found[:3])}, ...)" if found else "no file"
    return f"{place} holds {listed} for the picture {name}"


def results_of(folder: Path, name: str | None = None) -> Method:
    """A folder of results as a method, called as the folder unless a name is given.

    Raises:
        ValueError: There is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of pictures")
    return Method(name or folder.resolve().name, f"results in {folder.resolve()}", folder=folder)


def find_methods(
    names: Sequence[str], *, scale: int, device: str, precision: Precision, tile: int | str
) -> list[Method]:
    """Methods as they are named on the command line.

    Args:
        names: `bicubic`, `lanczos`, a bundled name, file or hub id of weights, `MODEL@0.5` for a strength, NAME=FOLDER
            for results, NAME=MODEL for another name; `all` stands for all bundled models.
        scale: That all must have.
        device: Of networks.
        precision: Of networks.
        tile: As for `Upscaler`.

    Raises:
        ValueError: A model can't be loaded or has another scale, a folder is missing, or two methods have one name.
    """
    wanted = [part for name in names for part in (bundled_names() if name == ALL else [name])]
    found = [replace(_method(name, scale, device, precision, tile), given=name) for name in dict.fromkeys(wanted)]
    methods = list({(method.name, method.key): method for method in found}.values())
    taken = [method.name for method in methods]
    if twice := next((name for name in taken if taken.count(name) > 1), None):
        raise ValueError(f"two methods are called {twice}: give one another name, as in NAME={twice}")
    return methods


def _method(text: str, scale: int, device: str, precision: Precision, tile: int | str) -> Method:
    if text in CLASSICAL:
        return Method(text, text, partial(_resized, scale=scale, kernel=CLASSICAL[text]))
    name, source = named(text)
    folder = Path(source).expanduser()
    if folder.is_dir():
        if name is None:
            raise ValueError(f"{text} is a folder: say what made its pictures, as in NAME={text}")
        return results_of(folder, name)
    return _network(name, source, scale, device, precision, tile)


def _network(name: str | None, source: str, scale: int, device: str, precision: Precision, tile: int | str) -> Method:
    model, strength = with_strength(source)
    up = Upscaler.load(model, device=device, precision=precision, strength=strength)
    if up.scale != scale:
        raise ValueError(f"{model} enlarges {up.scale} times, and the pictures are to be enlarged {scale} times")
    up.prepare()
    path = resolve(model)
    weights = path.with_suffix(".bin") if path.suffix == ".param" else path
    facts = (sha256_of(weights), up.strength, up.precision, up.device.type, tile)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    return Method(name or short_name(source), key, partial(up, tile=tile))


def named(text: str) -> tuple[str | None, str]:
    """NAME and SOURCE of "NAME=SOURCE"; no name for anything else, such as a file with such a name."""
    found = None if Path(text).exists() else NAMED.fullmatch(text)
    return (found["name"], found["source"]) if found else (None, text)


def with_strength(source: str) -> tuple[str, float | None]:
    """MODEL and 0.5 of "MODEL@0.5"; no strength for anything else, such as a file with such a name."""
    parts = None if Path(source).exists() else WITH_STRENGTH.fullmatch(source)
    return (parts["model"], float(parts["strength"])) if parts else (source, None)


def short_name(source: str) -> str:
    """A bundled name or hub id as it is; of a file its stem, or that of its folder where it is `model.safetensors`.

    The strength, if there is one, stands behind it.
    """
    model, strength = with_strength(source)
    path = Path(model).expanduser()
    if not path.is_file():
        name = resolve(model).stem if model == "default" else model
    else:
        name = path.parent.name if path.stem == "model" and path.parent.name else path.stem
    return name if strength is None else f"{name}@{strength:g}"


def _resized(x: Tensor, *, scale: int, kernel: Kernel) -> Tensor:
    return imresize(x, scale, kernel=kernel).clamp(0, 1)
