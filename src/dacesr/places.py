"""Files and folders on this machine and on object stores: local paths, and URLs as fsspec reads them (s3://, gs://).

An object store shows a file once it is whole. Elsewhere a file is written under a temporary name and renamed.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from dacesr.encoding import replacing

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_PUTS_ARE_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "r2", "memory"}
_VERSIONS = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "updated", "created")


class PlaceError(ValueError):
    """A place cannot be read, written or listed; the sentence names it."""


@dataclass(frozen=True)
class Url:
    """A file or folder on another file system; like `Path`, as far as `dacesr.jobs` needs it.

    Attributes:
        text: The URL, without a slash at its end.
    """

    text: str

    def __str__(self) -> str:
        """The URL."""
        return self.text

    def __truediv__(self, below: str | PurePath) -> "Url":
        """What lies in it."""
        way = PurePath(below).as_posix()
        return self if way == "." else Url(f"{self.text}/{way}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the last part, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Url":
        """Its folder."""
        return Url(self.text.rpartition("/")[0])

    @property
    def protocol(self) -> str:
        """What stands before `://`."""
        return self.text.partition("://")[0]

    def with_name(self, name: str) -> "Url":
        """Another file in its folder."""
        return self.parent / name

    def relative_to(self, folder: "Url") -> PurePosixPath:
        """The way to it from a folder that it lies in."""
        return PurePosixPath(self.text.removeprefix(folder.text).lstrip("/"))

    def resolve(self) -> "Url":
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether anything is there.

        Raises:
            PlaceError: Nobody can tell.
        """
        system, path = _system(self.text)
        with _telling(self, "cannot be reached"):
            return system.exists(path)

    def is_dir(self) -> bool:
        """Whether files lie in it.

        Raises:
            PlaceError: Nobody can tell.
        """
        system, path = _system(self.text)
        with _telling(self, "cannot be reached"):
            return system.isdir(path)


Place = Path | Url


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return _URL.match(text) is not None


def place_of(text: str) -> Place:
    """What a path or URL names; `file://` is a path.

    Raises:
        PlaceError: Nothing installed knows such URLs.
    """
    if not is_url(text):
        return Path(text)
    system, path = _system(text)
    if "file" in _protocols(system):
        return Path(path)
    return Url(system.unstrip_protocol(path).rstrip("/"))


def walk(place: Place) -> Iterator[tuple[Place, list[str], list[str]]]:
    """Folders from the top, each with the names of its subfolders and files; removed subfolders are not visited.

    Raises:
        PlaceError: A folder cannot be listed.
    """
    if isinstance(place, Path):
        for folder, subfolders, names in os.walk(place, onerror=_unlisted):
            yield Path(folder), subfolders, names
        return
    system, path = _system(place.text)
    with _telling(place, "cannot be listed"):
        for folder, subfolders, names in system.walk(path, on_error="raise"):
            yield Url(system.unstrip_protocol(folder).rstrip("/")), subfolders, [name for name in names if name]


def version(place: Place) -> str | None:
    """What changes with a file's content: its size, and its time of change or what its store calls the content.

    Returns:
        None where there is no such file.

    Raises:
        PlaceError: Nobody can tell.
    """
    with _telling(place, "cannot be reached"):
        try:
            if isinstance(place, Path):
                found = place.stat()
                return f"{found.st_size} {found.st_mtime_ns}"
            system, path = _system(place.text)
            info = system.info(path)
            return " ".join([str(info["size"]), *(str(info[key]) for key in _VERSIONS if info.get(key))][:2])
        except FileNotFoundError:
            return None


def size(place: Place) -> int | None:
    """Bytes of a file; None where there is none.

    Raises:
        PlaceError: Nobody can tell.
    """
    found = version(place)
    return None if found is None else int(found.partition(" ")[0])


def read_bytes(place: Place) -> bytes:
    """All of a file.

    Raises:
        PlaceError: It is missing or cannot be read.
    """
    with _telling(place, "cannot be read"):
        if isinstance(place, Path):
            return place.read_bytes()
        system, path = _system(place.text)
        return system.cat_file(path)


def write_bytes(place: Place, content: bytes) -> None:
    """Write a file that appears, or replaces another, once it is whole; its folders are made.

    Raises:
        PlaceError: It cannot be written.
    """
    with _telling(place, "cannot be written"):
        if isinstance(place, Path):
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as file:
                file.write(content)
            return
        system, path = _system(place.text)
        if place.protocol in _PUTS_ARE_WHOLE:
            system.pipe_file(path, content)
            return
        system.makedirs(system._parent(path), exist_ok=True)
        part = f"{system._parent(path)}/.{uuid.uuid4().hex}.part"
        try:
            system.pipe_file(part, content)
            system.mv(part, path)
        except BaseException:
            if system.exists(part):
                system.rm_file(part)
            raise


def _system(text: str) -> tuple[Any, str]:
    """The file system of a URL, and the path on it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise PlaceError(f'{text} is a URL, which needs fsspec: pip install "dacesr[ray]"') from error
    try:
        return url_to_fs(text)
    except (ImportError, ValueError) as error:
        raise PlaceError(f"{text} cannot be reached: {_reason(error)}") from error


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


@contextmanager
def _telling(place: Place, what: str) -> Iterator[None]:
    """Any error as one sentence; the libraries of object stores raise errors of many kinds."""
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:
        if isinstance(place, Path) and isinstance(error, OSError):
            raise PlaceError(f"{place} {what}: {error.strerror or error}") from error
        missing = "it does not exist" if what == "cannot be read" else "there is no such folder or bucket"
        reason = missing if isinstance(error, FileNotFoundError) else _reason(error)
        raise PlaceError(f"{place} {what}: {reason}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _unlisted(error: OSError) -> None:
    raise PlaceError(f"the folder {error.filename} cannot be read: {error.strerror}")
