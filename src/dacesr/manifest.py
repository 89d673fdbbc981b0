"""What a folder of results records about each of them, so that a run which is started again skips what is done.

One small JSON file a picture, below `.dacesr` in the folder: written after its picture and whole or not at all, also on
object stores, which cannot append to a file, and without anybody waiting for anybody else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dacesr.adapterfile import adapter_weights
from dacesr.making import Result, Settings
from dacesr.ncnnfile import is_ncnn, weights_file
from dacesr.places import Place, PlaceError, read_bytes, size, write_bytes
from dacesr.tensorfile import sha256_of
from dacesr.weightfiles import resolve

FOLDER = ".dacesr"


class Manifest:
    """The records of one folder of results."""

    def __init__(self, folder: Place, choices: Mapping[str, Any]) -> None:
        """Take the folder, and what `choices` gives."""
        self._folder = folder
        self._choices = dict(choices)

    def begin(self) -> None:
        """Note by which choices the folder is filled from now on, which also shows whether it can be.

        Raises:
            PlaceError: It cannot be written.
        """
        write_bytes(self._folder / FOLDER / "choices.json", json.dumps(self._choices, indent=2).encode() + b"\n")

    def find(self, source: str, version: str, target: Place) -> Result | None:
        """The result of a picture that was made from this version of its file by the same choices, and is still there.

        Args:
            source: Where the picture is.
            version: Of its file, from `dacesr.places.version`.
            target: Where it goes, as planned.

        Raises:
            PlaceError: Nobody can tell.
        """
        record = self._place(target)
        if size(record) is None:
            return None
        try:
            said = json.loads(read_bytes(record))
            result, same = Result(**said["result"]), said["made_from"] == self._made_from(source, version)
            made, length = target.with_name(said["name"]), said["bytes"]
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, PlaceError):
                raise
            return None  # damaged, or of another version: the picture is made again
        return result if same and size(made) == length else None

    def add(self, source: str, version: str, target: Place, made: Place, result: Result) -> None:
        """Record a picture that is whole at `made`.

        Raises:
            PlaceError: The record cannot be written.
        """
        made_from = self._made_from(source, version)
        record = {"name": made.name, "bytes": size(made), "made_from": made_from, "result": asdict(result)}
        write_bytes(self._place(target), json.dumps(record).encode() + b"\n")

    def _made_from(self, source: str, version: str) -> dict[str, Any]:
        return {"input": source, "version": version, "choices": self._choices}

    def _place(self, target: Place) -> Place:
        way = str(target).removeprefix(str(self._folder)).lstrip("/")  # so the folder may be moved as a whole
        digest = hashlib.sha256(way.encode(errors="surrogateescape")).hexdigest()
        return self._folder / FOLDER / digest[:2] / f"{digest[2:40]}.json"


def choices(settings: Settings) -> dict[str, Any]:
    """All that decides what becomes of a picture, besides its target, as plain values of JSON.

    Raises:
        CheckpointError: There is no such model or extractor.
    """
    decisive = asdict(settings.options)
    for name in ("skip_existing", "max_pixels"):
        del decisive[name]
    seeing = fingerprint(settings.extractor) if settings.extractor else None
    weights = {"model": fingerprint(settings.model), "extractor": seeing}
    return {**weights, "precision": settings.precision, "strength": settings.strength, **decisive}


def fingerprint(model: str) -> list[str]:
    """SHA-256 of the files of a model, or of an extractor, given as for `Upscaler.load`.

    Raises:
        CheckpointError: There are none.
    """
    path = adapter_weights(resolve(model))
    files = {path.with_suffix(".param"), weights_file(path)} if is_ncnn(path) else {path}
    return [sha256_of(file) for file in sorted(files)]
