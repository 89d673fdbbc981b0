"""Formats of picture files: what each can hold, how its content is recognised, and the two that libvips lacks.

The binary wheel of libvips reads and writes PNG, JPEG, WebP, TIFF, AVIF and GIF. Netpbm (PBM, PGM, PPM) is read and
written here, as the Netpbm manual defines it; BMP is read by Pillow and written here (BITMAPINFOHEADER).
"""

import atexit
import logging
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
from PIL import BmpImagePlugin

ROWS_AT_ONCE = 256  # rows that the writers of this module convert at a time


class ImageError(ValueError):
    """A picture cannot be read or written; the message is one sentence that names the file and the reason."""


class TooManyPixels(ImageError):
    """A picture is larger than whoever opens it allows."""


@dataclass(frozen=True)
class Format:
    """What a file format can hold: longest side in pixels, alpha, more than 8 bits, a colour profile."""

    extensions: tuple[str, ...]
    max_side: int
    alpha: bool
    deep: bool
    profile: bool
    quality: int | None = None  # default of the lossy ones, 1 to 100


FORMATS = {
    "png": Format((".png",), 2**31 - 1, alpha=True, deep=True, profile=True),
    "jpeg": Format((".jpg", ".jpeg", ".jpe", ".jfif"), 65_500, alpha=False, deep=False, profile=True, quality=95),
    "webp": Format((".webp",), 16_383, alpha=True, deep=False, profile=True, quality=92),
    "tiff": Format((".tif", ".tiff"), 2**31 - 1, alpha=True, deep=True, profile=True),
    "avif": Format((".avif",), 16_384, alpha=True, deep=True, profile=True, quality=80),
    "bmp": Format((".bmp", ".dib"), 2**31 - 1, alpha=False, deep=False, profile=False),
    "ppm": Format((".ppm", ".pgm", ".pbm", ".pnm"), 2**31 - 1, alpha=False, deep=True, profile=False),
    "gif": Format((".gif",), 65_535, alpha=True, deep=False, profile=False),
}

_DIB_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "tiff": re.compile(rb"(?:II[*+]\0|MM\0[*+])"),
    "avif": re.compile(rb"....ftypavi[fs]", re.DOTALL),
    "bmp": re.compile(rb"BM.{12}(?:" + b"|".join(re.escape(struct.pack("<I", n)) for n in _DIB_HEADERS) + rb")", re.S),
    "ppm": re.compile(rb"P[1-6][\s#]"),
    "gif": re.compile(rb"GIF8[79]a"),
}
_FOREIGN = {
    "a Canon raw photograph": re.compile(rb"II\*\0.{4}CR", re.DOTALL),
    "a HEIC photograph": re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL),
    "a video or another file of the MP4 family": re.compile(rb"....ftyp", re.DOTALL),
    "a JPEG XL picture": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ", re.DOTALL),
    "a JPEG 2000 picture": re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  "),
    "a Photoshop document": re.compile(rb"8BPS"),
    "an OpenEXR picture": re.compile(rb"v/1\x01"),
    "an icon": re.compile(rb"\0\0[\x01\x02]\0"),
    "a PDF document": re.compile(rb"%PDF"),
    "an SVG drawing": re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<svg", re.DOTALL),
    "a web page": re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE),
    "a zip archive": re.compile(rb"PK\x03\x04"),
    "a gzip archive": re.compile(rb"\x1f\x8b"),
}

_STEPS = {  # what to do with some of these
    "a Canon raw photograph": "develop it to TIFF first, as darktable and RawTherapee do",
    "a HEIC photograph": "export it as JPEG first",
    "a video or another file of the MP4 family": "take its frames first, as ffmpeg does",
    "a PDF document": "make pictures of its pages first, as pdftoppm -png does",
    "an SVG drawing": "a browser or Inkscape draws it at any size",
    "a web page": "download the picture itself",
    "a zip archive": "unpack it first",
    "a gzip archive": "unpack it first",
}


@cache
def hush() -> None:
    """Keep what libraries say about damaged pictures off standard error, once for the process.

    They say it to Python's loggers `PIL` and `pyvips`, for whoever listens, and GLib's object system, which libvips
    builds on, to the terminal; that is led to `pyvips` too. What matters comes as an error.
    """
    for name in ("PIL", "pyvips"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    domain, library = b"GLib-GObject", pyvips.glib_lib
    levels = pyvips.GLogLevelFlags.LEVEL_WARNING | pyvips.GLogLevelFlags.LEVEL_CRITICAL
    if listener := getattr(pyvips, "_log_handler_cb", None):
        handler = library.g_log_set_handler(domain, levels, listener, pyvips.ffi.NULL)
        atexit.register(library.g_log_remove_handler, domain, handler)


def identify(head: bytes, name: str) -> str:
    """Tell a picture's format from its first bytes (4 KiB or so).

    Args:
        head: Beginning of the file.
        name: What messages call the file.

    Returns:
        A key of `FORMATS`.

    Raises:
        ImageError: The file is empty or holds something else; the message says what it seems to be.
    """
    if not head:
        raise ImageError(f"{name} is empty; copy or download it again")
    for seeming, pattern in _FOREIGN.items():
        if pattern.match(head) and not _is_avif(head):
            step = _STEPS.get(seeming, "save it as one of them first")
            raise ImageError(
                f"{name} cannot be read: it seems to be {seeming}, not one of {', '.join(FORMATS)}; {step}"
            )
    for kind, pattern in _SIGNATURES.items():
        if pattern.match(head) or (kind == "avif" and _is_avif(head)):
            return kind
    raise ImageError(
        f"{name} is not a picture: it seems to be {'text' if _is_text(head) else 'data of an unknown kind'}"
    )


def format_of(path: Path) -> str:
    """Format (a key of `FORMATS`) that an output path's ending asks for.

    Raises:
        ImageError: No format has that ending.
    """
    ending = path.suffix.lower()
    for kind, format in FORMATS.items():
        if ending in format.extensions:
            return kind
    known = " ".join(format.extensions[0] for format in FORMATS.values())
    raise ImageError(f"{path} cannot be written: its ending should be one of {known}")


def check_size(kind: str, width: int, height: int, name: str) -> None:
    """Refuse a picture larger than its format can hold, before any work is done.

    Raises:
        ImageError: A side is longer than the format's limit, or a BMP would pass 4 GiB.
    """
    limit = FORMATS[kind].max_side
    if max(width, height) > limit:
        raise ImageError(
            f"{name} cannot be written: {width} x {height} pixels, but {kind.upper()} holds {limit} a side at most"
        )
    if kind == "bmp" and 4 * width * height >= 2**32:
        raise ImageError(f"{name} cannot be written: {width} x {height} pixels are too many for BMP (4 GiB a file)")


def _is_avif(head: bytes) -> bool:
    """Whether the brands of an ISO base media file (its `ftyp` box) include AVIF, in the major place or another."""
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return any(brands[i : i + 4] in (b"avif", b"avis") for i in range(0, len(brands), 4))


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", errors="ignore")
    return len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text)


@dataclass(frozen=True)
class Raster:
    """Header of a BMP or Netpbm file, and the function that decodes its pixels to (h, w, c) uint8 or uint16."""

    width: int
    height: int
    bands: int
    bits: int
    resolution: float | None  # pixels per millimetre
    decode: Callable[[], np.ndarray]


def open_bmp(file: BinaryIO) -> Raster:
    """Read the header of a BMP file.

    Raises:
        OSError, SyntaxError, ValueError: Pillow finds it damaged.
    """
    bmp = BmpImagePlugin.BmpImageFile(file)  # not Image.open: our own limit on pixels applies
    mode = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(bmp.mode, "RGB")
    dpi = bmp.info.get("dpi", (0, 0))[0]

    def decode() -> np.ndarray:
        return np.asarray(bmp.convert(mode)).reshape(bmp.height, bmp.width, -1)

    return Raster(bmp.width, bmp.height, {"L": 1, "RGB": 3, "RGBA": 4}[mode], 8, dpi / 25.4 if dpi else None, decode)


_GAP = rb"(?:\s|#[^\n]*\n)+"
_NETPBM = re.compile(
    rb"P(?:([14])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)|([2356])" + 3 * (_GAP + rb"(\d+)") + rb")(?:\s|#[^\n]*\n)"
)


def open_netpbm(file: BinaryIO) -> Raster:
    """Read the header of a Netpbm file, P1 to P6.

    Raises:
        ValueError: The header, or on decoding the pixels, do not follow the format.
    """
    data = file.read()
    header = _NETPBM.match(data)
    if header is None:
        raise ValueError("its header is not that of a Netpbm picture")
    words = [int(word) for word in header.groups("1")]  # bitmaps state no maximum; it is 1
    kind, width, height, maximum = [*words[:3], 1] if header[1] else words[3:]
    if not (width and height and 0 < maximum < 65536):
        raise ValueError(f"its header says {width} x {height} pixels with values up to {maximum}")
    bands = 3 if kind in (3, 6) else 1
    shape = (height, width, bands)

    def decode() -> np.ndarray:
        return _netpbm_pixels(data, header.end(), kind, shape, maximum)

    return Raster(width, height, bands, 16 if maximum > 255 else 8, None, decode)


def _netpbm_pixels(data: bytes, start: int, kind: int, shape: tuple[int, int, int], maximum: int) -> np.ndarray:
    height, width, bands = shape
    count = height * width * bands
    if kind == 4:
        packed = np.frombuffer(data, np.uint8, offset=start)[: height * ((width + 7) // 8)]
        values = np.unpackbits(packed.reshape(height, -1), axis=1)[:, :width]
    elif kind in (5, 6):
        values = np.frombuffer(data, ">u2" if maximum > 255 else np.uint8, count, start)
    elif kind == 1:
        digits = re.sub(rb"#[^\n]*|\s", b"", data[start:])
        values = np.frombuffer(digits, np.uint8, count) - ord("0")
    else:
        words = re.sub(rb"#[^\n]*", b"", data[start:]).split()[:count]
        values = np.array(words, "S5").astype(np.int64)
    if values.size != count or values.min() < 0 or values.max() > maximum:
        raise ValueError(f"it should hold {count} values from 0 to {maximum}")
    full = 65535 if maximum > 255 else 255
    if kind in (1, 4):
        values = 1 - values  # a one is black in PBM
    if maximum != full:
        values = np.rint(values.astype(np.float32) * (full / maximum))
    return values.astype(np.uint16 if full > 255 else np.uint8).reshape(shape)


def save_netpbm(image: pyvips.Image, file: BinaryIO) -> None:
    """Write a one-band image as P5, a three-band one as P6; 8 or 16 bits."""
    deep = image.format == "ushort"
    file.write(b"P%d\n%d %d\n%d\n" % (5 if image.bands == 1 else 6, image.width, image.height, 65535 if deep else 255))
    for _, rows in _strips(image):
        file.write(rows.astype(">u2").tobytes() if deep else rows.tobytes())


def save_bmp(image: pyvips.Image, file: BinaryIO) -> None:
    """Write an 8-bit image as a BMP: one band with a gray palette, three bands as 24-bit BGR; rows from the bottom."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256)) if image.bands == 1 else b""
    start = 14 + 40 + len(palette)
    stride = (image.width * image.bands + 3) // 4 * 4
    total = start + stride * image.height
    density = (round(image.xres * 1000), round(image.yres * 1000))  # pixels per metre
    file.write(struct.pack("<2sIHHI", b"BM", total, 0, 0, start))
    depth = 8 * image.bands
    file.write(struct.pack("<IiiHHIIiiII", 40, image.width, image.height, 1, depth, 0, total - start, *density, 0, 0))
    file.write(palette)
    for top, rows in _strips(image):
        packed = np.zeros((len(rows), stride), np.uint8)
        packed[:, : image.width * image.bands] = rows[::-1, :, ::-1].reshape(len(rows), -1)
        file.seek(start + stride * (image.height - top - len(rows)))
        file.write(packed.tobytes())
    file.seek(0, 2)


def _strips(image: pyvips.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(row number, rows as (k, w, c)) from top to bottom."""
    for top in range(0, image.height, ROWS_AT_ONCE):
        count = min(ROWS_AT_ONCE, image.height - top)
        yield top, image.crop(0, top, image.width, count).numpy().reshape(count, image.width, image.bands)


def open_raster(kind: str, data: bytes | BinaryIO) -> Raster:
    """Read the header of a `bmp` or `ppm` file from its bytes or an open file (which stays in use)."""
    file = BytesIO(data) if isinstance(data, bytes) else data
    return open_bmp(file) if kind == "bmp" else open_netpbm(file)


def save_raster(kind: str, image: pyvips.Image, file: BinaryIO) -> None:
    """Write an image without alpha as `bmp` or `ppm` into an empty file."""
    save_bmp(image, file) if kind == "bmp" else save_netpbm(image, file)
