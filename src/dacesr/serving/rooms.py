"""Private folders for what strangers send: nobody else's to read, and gone when their process is."""

import contextlib
import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path

from dacesr.formats import FORMATS

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME_BYTES = 120  # of a file name that is given back, in UTF-8
_PREFIX = "dacesr-serve-"
_ENDINGS = {ending for format in FORMATS.values() for ending in format.extensions}


class Room:
    """A folder of one picture's files.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        """Take an existing folder over."""
        self.path = path

    def __enter__(self) -> "Room":
        """The room itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self.discard()

    def discard(self) -> None:
        """Remove it with all that is in it; once is enough, twice does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)


class Rooms:
    """Makes rooms in a private folder of its own, which `close` removes.

    Attributes:
        path: The folder, mode 0700.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Make the folder, and remove those that killed processes of this user left.

        Args:
            parent: Where it lies; the system's folder for temporary files unless given.
        """
        where = Path(parent or tempfile.gettempdir())
        _remove_stale(where)
        new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=where))
        self._lock = _lock(new)  # held as long as this process lives
        self.path = new.rename(new.with_name(new.name[1:]))

    def make(self) -> Room:
        """A new, empty room."""
        return Room(Path(tempfile.mkdtemp(dir=self.path)))

    def close(self) -> None:
        """Remove the folder with all rooms; once is enough, twice does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def safe_name(name: str) -> str:
    """A stranger's file name as one that can be shown and given back: no folders, controls, or leading dots.

    Args:
        name: Anything; of a path, only what follows the last slash or backslash counts.

    Returns:
        At most `NAME_BYTES` bytes of UTF-8, its picture's ending kept; `picture` where nothing is left.
    """
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in last)
    kept = re.sub(r'[<>:"|?*\s]+', " ", kept).strip(" .")
    stem, ending = os.path.splitext(kept)
    if ending.lower() not in _ENDINGS:
        stem, ending = kept, ""
    room = NAME_BYTES - len(ending.encode())
    stem = stem.encode()[:room].decode(errors="ignore").strip(" .")
    return f"{stem or 'picture'}{ending}"


def result_name(name: str, ending: str, suffix: str = "_x4") -> str:
    """What the enlargement of a picture of that name is called.

    Args:
        name: From `safe_name`.
        ending: Of the result, such as `.png`.
        suffix: Added to the stem.
    """
    stem, own = os.path.splitext(name)
    return f"{stem if own.lower() in _ENDINGS else name}{suffix}{ending}"


def _lock(folder: Path) -> int | None:
    """Lock a folder until its file descriptor, which is returned, is closed; None where another process has it."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove_stale(where: Path) -> None:
    for entry in where.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, a link, or gone by now
            held = _lock(entry)
            if held is not None:
                if os.fstat(held).st_uid == os.getuid():
                    shutil.rmtree(entry, ignore_errors=True)
                os.close(held)
