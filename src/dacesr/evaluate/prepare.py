"""Benchmark sets made from sharp pictures, with a manifest of every file's hash.

OUT/HR/NAME.png             sharp, cropped to a multiple of the scale
OUT/LR_{space}_x4/NAME.png  degraded, as NAME and the seed decide
OUT/manifest.json           scale, seed, and for each picture its files' SHA-256 and what was drawn
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dacesr import __version__
from dacesr.degrading import Failed, Made, check_spaces, cropped, degraded, described, make_folder
from dacesr.evaluate.layouts import Found, Pair, sharp_pictures
from dacesr.image import read, write
from dacesr.tensorfile import sha256_of, write_whole

LEVELS = ("bicubic", "level1", "level2", "level3")
MANIFEST = "manifest.json"
FORMAT = 1


def prepare_set(
    folder: Path,
    output: Path,
    *,
    spaces: Sequence[str] = LEVELS,
    seed: int = 0,
    scale: int = 4,
    limit: int | None = None,
) -> Iterator[Made | Failed]:
    """Make a set, picture by picture; one that fails does not stop the others, and what is there already stays.

    Args:
        folder: Of sharp pictures, or a set in a layout that has them in a folder of their own.
        output: Folder of the set.
        spaces: Degradation spaces.
        seed: Of the degradations.
        scale: How many times smaller the low-resolution pictures are.
        limit: The first pictures only.

    Yields:
        For each picture and space what was made, or for a picture why it was not.

    Raises:
        ValueError: A name or a number is impossible, there are no pictures, or the output holds another set.
        OSError: The manifest can't be written.
    """
    check_spaces(spaces, scale)
    name, files = sharp_pictures(folder, limit)
    if next(iter(files.values())).parent.resolve() == (output / "HR").resolve():
        raise ValueError(f"{output} would write over the pictures that the set is made of: choose another output")
    manifest = _begun(output, name, seed, scale)
    for picture, source in files.items():
        record = manifest["pictures"].setdefault(picture, {"LR": {}})
        try:
            made = list(_made(picture, source, output, record, spaces, seed, scale))
        except (ValueError, OSError) as error:
            if not record["LR"]:
                del manifest["pictures"][picture]
            yield Failed(str(error))
            continue
        if made or not (output / MANIFEST).exists():
            write_whole(output / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        yield from made


def _begun(output: Path, name: str, seed: int, scale: int) -> dict[str, Any]:
    """The manifest so far.

    Raises:
        ValueError: It is of another set, or damaged.
    """
    new = {"format": FORMAT, "version": __version__, "name": name, "seed": seed, "scale": scale, "pictures": {}}
    if not (output / MANIFEST).exists():
        return new
    old = read_manifest(output)
    for field in ("name", "seed", "scale"):
        if old[field] != new[field]:
            raise ValueError(f"{output} holds a set of {field} {old[field]}, not {new[field]}: choose another output")
    return old


def _made(
    picture: str, source: Path, output: Path, record: dict[str, Any], spaces: Sequence[str], seed: int, scale: int
) -> Iterator[Made]:
    """Write what is missing of one picture, and note it."""
    original = sha256_of(source)
    if record.get("source_sha256") != original:
        record |= {"source": source.name, "source_sha256": original, "HR": None, "LR": {}}
    sharp_file = output / "HR" / f"{picture}.png"
    missing = [space for space in spaces if not _is(_low(output, space, scale, picture), record["LR"].get(space))]
    if not missing and _is(sharp_file, {"sha256": record["HR"]}):
        return
    sharp = cropped(read(source), scale, str(source))
    make_folder(sharp_file.parent)
    write(sharp_file, sharp)
    record["HR"] = sha256_of(sharp_file)
    for space in missing:
        small, drawn = degraded(sharp, picture, space=space, seed=seed, scale=scale)
        target = _low(output, space, scale, picture)
        make_folder(target.parent)
        write(target, small)
        record["LR"][space] = {"sha256": sha256_of(target), **described(drawn)}
        yield Made(picture, target, (sharp.shape[-1], sharp.shape[-2]), (small.shape[-1], small.shape[-2]), drawn)


def _low(output: Path, space: str, scale: int, picture: str) -> Path:
    return output / f"LR_{space}_x{scale}" / f"{picture}.png"


def _is(path: Path, recorded: dict[str, Any] | None) -> bool:
    """Whether a file is there, with the hash that was recorded."""
    return recorded is not None and path.is_file() and sha256_of(path) == recorded["sha256"]


# --- reading


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared set.

    Raises:
        ValueError: It is damaged, or of a later format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        fields = [type(manifest[name]) for name in ("name", "seed", "scale", "pictures")]
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of a benchmark set") from error
    if version != FORMAT or fields != [str, int, int, dict]:
        raise ValueError(f"{path} is of format {version}, and this version of dacesr reads format {FORMAT}")
    return manifest


def prepared(folder: Path, spaces: Sequence[str] | None, scale: int) -> list[Found]:
    """The pairs of a prepared set, a group for each space, after comparing every file with the manifest.

    Raises:
        ValueError: A file is missing or another, a space is not there, or the scale is another.
    """
    manifest = read_manifest(folder)
    if manifest["scale"] != scale:
        raise ValueError(f"{folder} is a set of scale {manifest['scale']}, not {scale}")
    pictures: dict[str, Any] = manifest["pictures"]
    there = list(dict.fromkeys(space for record in pictures.values() for space in record["LR"]))
    if lacking := [space for space in spaces or () if space not in there]:
        raise ValueError(f"{folder} has no {lacking[0]}, only {', '.join(there)}: prepare it with that space too")
    groups = []
    for space in spaces or there:
        pairs = []
        for name, record in pictures.items():
            sharp, low = folder / "HR" / f"{name}.png", _low(folder, space, scale, name)
            for path, recorded in ((sharp, {"sha256": record["HR"]}), (low, record["LR"].get(space))):
                if not _is(path, recorded):
                    raise ValueError(f"{path} is missing, or not the one of {folder / MANIFEST}: prepare the set again")
            pairs.append(Pair(name, sharp, low))
        groups.append(Found(manifest["name"], space, pairs))
    return groups
