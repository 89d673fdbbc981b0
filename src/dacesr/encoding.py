"""Encoders for every format, and files that appear under their name only when they are whole."""

import contextlib
import itertools
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import pyvips

from dacesr import formats, metadata
from dacesr.formats import FORMATS, ImageError
from dacesr.metadata import Metadata

NAME_LIMIT = 255  # bytes of a file name, on the usual file systems
STALE_AFTER = 600  # seconds since the last change after which a dead process's leavings are removed

CLASSIC_TIFF_LIMIT = 4_000_000_000  # bytes of pixels; the offsets of larger files need BigTIFF
FINE_CHROMA_LIMIT = 2**25  # pixels up to which WebP and AVIF, which hold all of a picture, spend memory on chroma

_SAVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("pngsave_target", {"compression": 6, "filter": "paeth"}),
    "jpeg": ("jpegsave_target", {"subsample_mode": "off"}),
    "webp": ("webpsave_target", {}),
    "tiff": ("tiffsave_target", {"compression": "deflate", "predictor": "horizontal", "resunit": "inch"}),
    "avif": ("heifsave_target", {"compression": "av1", "effort": 3}),
    "gif": ("gifsave_target", {"effort": 3}),
}
_RESOLUTION_IN_EXIF = ("webp", "avif")
_numbers = itertools.count()
_UNNAMED = getattr(os, "O_TMPFILE", 0)


def check_target(target: Path) -> Path:
    """Find out before any work whether a file can be written at a path.

    Returns:
        The path with symbolic links followed, so that a link's file is replaced rather than the link.

    Raises:
        ImageError: It is a directory or a device, its folder is missing or not writable, its name is too long.
    """
    place = Path(os.path.realpath(target))
    try:
        try:
            mode = place.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            raise ImageError(f"{target} cannot be written: it is a directory")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{target} cannot be written: it is not a regular file")
        if place.exists() and not os.access(place, os.W_OK):
            raise ImageError(f"{target} cannot be written: it is write-protected; choose another name")
        with scratch_file(place.parent):
            pass
    except OSError as error:
        raise unwritable(target, error) from error
    return place


def unwritable(target: object, error: Exception) -> ImageError:
    """The sentence for a file that could not be written."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "space" in line or "large" in line), lines[-1] if lines else "")
    step = "; make room, or choose another place" if "space" in reason else ""
    return ImageError(f"{target} cannot be written: {reason}{step}")


def scratch_file(folder: Path | None = None) -> BinaryIO:
    """A temporary file without a name, so that nothing is left of it whatever happens to the process."""
    return tempfile.TemporaryFile(dir=folder, prefix=".dacesr-", suffix=".part")


def encode(
    image: pyvips.Image,
    file: BinaryIO,
    *,
    format: str,
    said: Metadata,
    quality: int | None = None,
) -> None:
    """Encode an image into an open file, from its beginning.

    Runs in a thread of its own, so that Ctrl-C is heard and ends it.

    Args:
        image: 1 or 3 bands and, where the format holds it, alpha; 8 or 16 bits.
        file: Empty, open for reading and writing.
        format: Key of `FORMATS`.
        said: Metadata to write.
        quality: 1 to 100 for JPEG, WebP and AVIF; the format's default unless given.

    Raises:
        pyvips.Error, OSError: Writing failed, as with a full disk.
    """
    image = said.attach(image)
    image.set_progress(True)  # lets set_kill end the evaluation
    raised: list[BaseException] = []

    def run() -> None:
        try:
            if format in _SAVERS:
                _save_vips(image, file, format, said, quality)
            else:
                formats.save_raster(format, image, file)
            file.flush()
        except BaseException as error:
            raised.append(error)

    thread = Thread(target=run, name="encode")
    thread.start()
    try:
        thread.join()
    except BaseException:
        image.set_kill(True)
        thread.join()
        raise
    if raised:
        raise raised[0]


@contextlib.contextmanager
def replacing(place: Path) -> Iterator[BinaryIO]:
    """An empty file, open for reading and writing, that takes a path over when the block ends well.

    It has no name until then where the system has such files (Linux); elsewhere, and for an instant where a file is
    replaced, a hidden one beside the path, which is removed when the block fails, and left only by a process that is
    killed. Such leavings go with the next write.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    _remove_stale(place)
    part = place.with_name(f"{_part_prefix(place)}{os.getpid()}-{next(_numbers)}.part")
    try:
        with _open_new(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not part.exists():
                if _linked(file, place):
                    return
                _give_name(file, part)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _open_new(part: Path) -> BinaryIO:
    if _UNNAMED:
        with contextlib.suppress(OSError):
            return os.fdopen(os.open(part.parent, _UNNAMED | os.O_RDWR, 0o666), "w+b")
    return open(part, "x+b")


def _give_name(file: BinaryIO, part: Path) -> None:
    """Link an unnamed file into its folder; where /proc is missing, copy it."""
    if _linked(file, part):
        return
    file.seek(0)
    with open(part, "xb") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())


def _linked(file: BinaryIO, path: Path) -> bool:
    """Link an unnamed file to a path (open(2), O_TMPFILE); whether that went well, as it does where nothing is."""
    folder = os.open(path.parent, os.O_RDONLY)  # ignored by linkat, but makes Python call it, which follows the link
    try:
        os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=folder, follow_symlinks=True)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _part_prefix(place: Path) -> str:
    room = NAME_LIMIT - len("..-.part") - 2 * 10  # two numbers
    return f".{place.name.encode(errors='replace')[:room].decode(errors='ignore')}."


def _remove_stale(place: Path) -> None:
    """Remove parts of this target whose process is gone and that have not changed for a while."""
    if os.name != "posix":
        return
    pattern = re.compile(re.escape(_part_prefix(place)) + r"(\d+)-\d+\.part")
    for entry in os.scandir(place.parent):
        found = pattern.fullmatch(entry.name)
        if found and time.time() - entry.stat().st_mtime > STALE_AFTER and not _is_running(int(found[1])):
            Path(entry.path).unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _save_vips(image: pyvips.Image, file: BinaryIO, format: str, said: Metadata, quality: int | None) -> None:
    keep = pyvips.ForeignKeep.ALL
    if not said.exif and not (format in _RESOLUTION_IN_EXIF and said.resolution):
        keep &= ~pyvips.ForeignKeep.EXIF  # libvips would make one up
    operation, fixed = _SAVERS[format]
    options = {"keep": keep, **fixed}
    if FORMATS[format].quality is not None:
        options["Q"] = quality or FORMATS[format].quality
    fine = image.width * image.height <= FINE_CHROMA_LIMIT
    if format == "webp":
        options["smart_subsample"] = fine
    if format == "avif":
        options |= {"bitdepth": 10 if image.format == "ushort" else 8, "subsample_mode": "off" if fine else "on"}
    if format == "tiff":
        values = image.width * image.height * image.bands
        options |= {"xres": image.xres, "yres": image.yres}
        options["bigtiff"] = values * (2 if image.format == "ushort" else 1) > CLASSIC_TIFF_LIMIT
    pyvips.Operation.call(operation, image, pyvips.Target.new_to_descriptor(file.fileno()), **options)
    if format == "tiff" and said.exif:
        metadata.append_tiff_exif(file, said.exif)
