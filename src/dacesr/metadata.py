"""What a picture file says besides its pixels: colour profile, EXIF, XMP, IPTC, comments, resolution.

libvips keeps these as named fields of an image. Statements that become false when a picture is turned upright and
enlarged are dropped or corrected: orientation, dimensions, embedded thumbnails. EXIF in TIFF files, which libvips
neither reads nor writes, goes through Pillow.
"""

import contextlib
import re
import warnings
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

import pyvips
from PIL import Image, TiffImagePlugin

PROFILE = "icc-profile-data"
EXIF = "exif-data"
XMP = "xmp-data"

MM_PER_INCH = 25.4
DEFAULT_DPI = 72.0  # written where a format must state a resolution and the source states none

_KEPT = re.compile(rf"{PROFILE}|{EXIF}|{XMP}|iptc-data|image-description|png-comment-(?!.*Raw profile).*")
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))\d""")
_XMP_SIZE_NAME = rb"(?:tiff:ImageWidth|tiff:ImageLength|exif:PixelXDimension|exif:PixelYDimension)"
_XMP_SIZE = re.compile(rb"\s+%b\s*=\s*(?:\"\d+\"|'\d+')|<(%b)>\d+</\1>" % (_XMP_SIZE_NAME, _XMP_SIZE_NAME))
_DESCRIPTIVE = (270, 271, 272, 305, 306, 315, 33432)  # description, make, model, software, date, artist, copyright
_EXIF_IFD, _GPS_IFD, _INTEROPERABILITY_IFD = 0x8769, 0x8825, 0xA005
# what a new file states itself: sizes, samples, compression, orientation, strips, resolution, thumbnail
_STRUCTURAL = frozenset(
    (254, 255, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 282, 283, 284, 296, 322, 323, 324, 325, 330, 513, 514)
)
_SIZES = (0xA002, 0xA003)
_SPACE_OF_BANDS = {1: b"GRAY", 3: b"RGB "}


@dataclass(frozen=True)
class Metadata:
    """Fields of libvips as (name, type, value), and the resolution in pixels per millimetre if the file states one."""

    fields: tuple[tuple[str, int, Any], ...] = ()
    resolution: tuple[float, float] | None = None

    @property
    def profile(self) -> bytes | None:
        """The colour profile."""
        return next((value for name, _, value in self.fields if name == PROFILE), None)

    @property
    def exif(self) -> bytes | None:
        """The EXIF block."""
        return next((value for name, _, value in self.fields if name == EXIF), None)

    def only_profile(self) -> "Metadata":
        """The same without anything but the colour profile."""
        return Metadata(tuple(field for field in self.fields if field[0] == PROFILE))

    def with_profile(self, profile: bytes | None) -> "Metadata":
        """The same with another colour profile, or none."""
        others = tuple(field for field in self.fields if field[0] != PROFILE)
        new = ((PROFILE, pyvips.GValue.blob_type, profile),) if profile else ()
        return replace(self, fields=others + new)

    def attach(self, image: pyvips.Image) -> pyvips.Image:
        """An image with these fields and this resolution, and no other metadata."""
        default = DEFAULT_DPI / MM_PER_INCH
        xres, yres = self.resolution or (default, default)

        result = image.copy(xres=xres, yres=yres)
        for name in result.get_fields():
            if _KEPT.fullmatch(name) or name.startswith("exif-"):
                result.remove(name)
        for name, kind, value in self.fields:
            result.set_type(kind, name, value)
        result.set_type(pyvips.GValue.gint_type, "orientation", 1)  # said aloud, or EXIF keeps the old one
        result.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
        return result


def collect(header: pyvips.Image, turned: bool) -> Metadata:
    """Gather the metadata of an opened image that stays true of its enlargement.

    Args:
        header: Image as its loader gives it.
        turned: Whether making the picture upright swaps width and height.
    """
    fields = []
    for name in header.get_fields():
        if _KEPT.fullmatch(name):
            correct = {EXIF: _correct_exif, XMP: _correct_xmp}.get(name)
            value = correct(field(header, name)) if correct else field(header, name)
            if value:
                fields.append((name, header.get_typeof(name), value))
    resolution = _resolution(header)
    if resolution and turned:
        resolution = (resolution[1], resolution[0])
    return Metadata(tuple(fields), resolution)


def field(header: pyvips.Image, name: str, default: Any = None) -> Any:
    """Value of a field, or what to take where the image has none of that name."""
    return header.get(name) if header.get_typeof(name) else default


def profile_fits(profile: bytes, bands: int) -> bool:
    """Whether an ICC profile describes pixels of 1 (gray) or 3 (RGB) bands and converts one: a damaged one does not.

    ICC.1 7.2: the colour space stands at byte 16.
    """
    if len(profile) <= 128 or profile[16:20] != _SPACE_OF_BANDS[bands]:
        return False
    pixel = pyvips.Image.black(1, 1, bands=bands).copy(interpretation="srgb" if bands == 3 else "b-w")
    try:
        Metadata().with_profile(profile).attach(pixel).icc_transform("srgb", embedded=True).copy_memory()
    except pyvips.Error:
        return False
    return True


def collect_tiff_exif(file: BinaryIO) -> Metadata:
    """EXIF of a TIFF file, as the block that other formats hold; none where it is absent or damaged."""
    block = b""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = _exif_block(TiffImagePlugin.TiffImageFile(file).getexif(), only=_DESCRIPTIVE)
    return Metadata(((EXIF, pyvips.GValue.blob_type, block),) if block else ())


def append_tiff_exif(file: BinaryIO, block: bytes) -> None:
    """Add an EXIF block to a finished TIFF file: a new directory at its end takes the place of the old one.

    BigTIFF files (beyond 4 GB) are left as they are.
    """
    file.seek(0)
    head = file.read(8)
    if head[:4] != b"II*\0" and head[:4] != b"MM\0*":
        return
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    file.seek(int.from_bytes(head[4:], order))
    entries = {}
    for _ in range(int.from_bytes(file.read(2), order)):
        entry = file.read(12)
        entries[int.from_bytes(entry[:2], order)] = entry
    place = file.seek(0, 2)
    place += file.write(b"\0" * (place % 2))
    said = _exif_directory(block, head)
    written = said.tobytes(place)  # a directory of the new entries alone; those point into what follows it
    for start in range(2, 2 + 12 * len(said), 12):
        entry = written[start : start + 12]
        entries[int.from_bytes(entry[:2], order)] = entry
    file.write(written)
    file.write(len(entries).to_bytes(2, order) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))
    file.seek(4)
    file.write((place + len(written)).to_bytes(4, order))


def _exif_directory(block: bytes, head: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """An EXIF block as TIFF tags, in the byte order that the first 8 bytes of a TIFF file tell."""
    exif = Image.Exif()
    exif.load(block)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    for tag in _DESCRIPTIVE:
        if tag in exif:
            directory[tag] = exif[tag]
    for ifd in (_EXIF_IFD, _GPS_IFD):
        if tags := {tag: value for tag, value in exif.get_ifd(ifd).items() if tag != _INTEROPERABILITY_IFD}:
            directory[ifd] = tags
    return directory


def _exif_block(tags: Image.Exif, only: tuple[int, ...] = ()) -> bytes:
    """The tags that stay true of an enlargement, as a block of their own; empty where there are none."""
    kept = Image.Exif()
    kept.update({tag: tags[tag] for tag in only or tags if tag in tags and tag not in _STRUCTURAL})
    for ifd in (_EXIF_IFD, _GPS_IFD):
        kept.pop(ifd, None)
        values = {tag: value for tag, value in tags.get_ifd(ifd).items() if tag not in _SIZES}
        if values:
            kept.get_ifd(ifd).update(values)
            kept[ifd] = values
    return kept.tobytes() if len(kept) else b""


def _correct_exif(block: bytes) -> bytes:
    """Take out sizes, structure, orientation and thumbnail; a damaged block comes out empty."""
    tags = Image.Exif()
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags.load(block)
        return _exif_block(tags)
    return b""


def _correct_xmp(xmp: bytes) -> bytes:
    """Set the orientation to upright, and take the dimensions out, in both notations: attributes and elements."""
    return _XMP_SIZE.sub(b"", _XMP_ORIENTATION.sub(rb"\g<1>1", xmp))


def _resolution(header: pyvips.Image) -> tuple[float, float] | None:
    """Pixels per millimetre, which libvips leaves in EXIF for WebP and AVIF; None where a file states none.

    Such files show as 1 per millimetre, or as 72 dpi, which is also what is written in place of None.
    """
    across, down = header.xres, header.yres
    if (across, down) == (1.0, 1.0):
        millimetres = 10.0 if field(header, "exif-ifd0-ResolutionUnit", "2").startswith("3") else MM_PER_INCH
        across, down = (_rational(field(header, f"exif-ifd0-{axis}Resolution", "")) / millimetres for axis in "XY")
    for unstated in (0.0, 1.0, DEFAULT_DPI / MM_PER_INCH):
        if abs(across - unstated) < 0.002 and abs(down - unstated) < 0.002:
            return None
    return (across, down) if min(across, down) > 0 else None


def _rational(text: str) -> float:
    """Value of a field such as "300/1 (300, Rational, 1 components, 8 bytes)"; 0 where it is none."""
    found = re.match(r"(\d+)/(\d+)", text)
    return int(found[1]) / int(found[2]) if found and int(found[2]) else 0.0
