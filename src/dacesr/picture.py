"""Pictures: files opened from their header, decoded once, read region by region in their own colour space.

Whatever the file holds becomes one or three bands of 8 or 16 bits, upright, with or without an alpha band. RGB and gray
stay in the space their profile describes; CMYK and Lab become sRGB.
"""

import os
import stat
import struct
from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyvips
import torch
from torch import Tensor

from dacesr import formats, metadata
from dacesr.formats import ImageError, TooManyPixels
from dacesr.metadata import Metadata

MAX_PIXELS = 2**28  # 268 million, as many as 16384 x 16384
IN_MEMORY = 2**28  # decoded pictures of more bytes are kept in an unnamed temporary file

_LOADERS = {
    "png": "pngload_source",
    "jpeg": "jpegload_source",
    "webp": "webpload_source",
    "tiff": "tiffload_source",
    "avif": "heifload_source",
    "gif": "gifload_source",
}
_HAVE_UNLIMITED = ("png", "jpeg", "tiff", "avif")  # loaders with a limit of their own
_SPACES = {1: ("b-w", "grey16"), 3: ("srgb", "rgb16")}  # interpretations of libvips for bands and 8, 16 bits
_TO_SRGB = ("cmyk", "lab", "labs", "labq")
# what loaders raise for damage; pyvips and Pillow let errors of arithmetic through where numbers are absurd
_DAMAGE = (pyvips.Error, OSError, ValueError, SyntaxError, ArithmeticError, LookupError, struct.error)
_SDR_TRANSFER = (1, 2, 6, 13, 14, 15)  # ITU-T H.273, table 3


class Picture:
    """A picture file whose header has been read; pixels are decoded at the first need.

    Attributes:
        name: What messages call it.
        format: Key of `formats.FORMATS`.
        width, height: Size in pixels, upright (after the orientation tag).
        bits: 8 or 16.
        is_gray: One colour band, no three.
        has_alpha: Whether it has transparency.
        warnings: Sentences on what is left out, such as further pages.
        metadata: What the file says besides its pixels, as true of an enlargement.
    """

    def __init__(self, *, name: str, format: str, header: pyvips.Image, decode: Callable[[], pyvips.Image]) -> None:
        """Use `open_picture`.

        Args:
            name: What messages call it.
            format: Key of `formats.FORMATS`.
            header: Image as its loader gives it; its pixels are not touched.
            decode: Gives the same image with pixels, once, in rows from the top.
        """
        self.name = name
        self.format = format
        self._decode = decode
        self._orientation = metadata.field(header, "orientation", 1)
        turned = self._orientation in (5, 6, 7, 8)
        self.width, self.height = (header.height, header.width) if turned else (header.width, header.height)
        self._converted = header.interpretation in _TO_SRGB
        colours = _colour_bands(name, header)
        self.is_gray = colours == 1
        self.has_alpha = header.bands > (4 if header.interpretation == "cmyk" else colours)
        self.bits = 16 if _bits_per_sample(header) > 8 else 8
        self.warnings: tuple[str, ...] = ()
        self.metadata = metadata.collect(header, turned)
        self._settle_profile(header)

    @property
    def max_value(self) -> int:
        """The stored value of white: 255 or 65535."""
        return 2**self.bits - 1

    @property
    def colour(self) -> pyvips.Image:
        """All colour bands, decoded; the colour of wholly transparent pixels is filled in from what is around them."""
        return self._pixels[0]

    @property
    def alpha(self) -> pyvips.Image | None:
        """The alpha band, decoded, 0 to `max_value`."""
        return self._pixels[1]

    def region(self, left: int, top: int, width: int, height: int) -> Tensor:
        """Pixels of a rectangle.

        Args:
            left: Its first column, in pixels of the upright picture.
            top: Its first row.
            width: Its columns; all of it lies within the picture.
            height: Its rows.

        Returns:
            (1, 3, height, width) float32 in [0, 1], RGB in the picture's own space; gray is repeated. Colour under
            wholly transparent pixels continues that of visible ones, so that it cannot bleed.

        Raises:
            ImageError: The file is damaged or cut short.
            ValueError: The rectangle is empty or reaches outside.
        """
        inside = 0 <= left < left + width <= self.width and 0 <= top < top + height <= self.height
        if not inside:
            raise ValueError(f"region {(left, top, width, height)} is not within {self.width} x {self.height}")
        try:
            array = self.colour.crop(left, top, width, height).numpy().reshape(height, width, -1)
        except pyvips.Error as error:
            raise damaged(self.name, self.format, error) from error
        values = torch.from_numpy(array.astype(np.float32)).div_(self.max_value)
        return values.permute(2, 0, 1)[None].expand(1, 3, height, width).contiguous()

    def warn(self, sentence: str) -> None:
        """Add to the warnings."""
        self.warnings += (sentence,)

    def _settle_profile(self, header: pyvips.Image) -> None:
        profile = self.metadata.profile
        if self._converted:
            self.metadata = self.metadata.with_profile(pyvips.Operation.call("profile_load", "srgb"))
        elif profile and not metadata.profile_fits(profile, 1 if self.is_gray else 3):
            self.metadata = self.metadata.with_profile(None)
            self.warn(f"{self.name}: its colour profile is damaged or not one for such pixels, and is left out")
        base = 4 if header.interpretation == "cmyk" else 1 if self.is_gray else 3
        if header.bands > base + 1:
            self.warn(f"{self.name}: channels beyond colour and one alpha are left out")

    @cached_property
    def _pixels(self) -> tuple[pyvips.Image, pyvips.Image | None]:
        try:
            image = self._standard(self._decode())
            if not self.has_alpha:
                return image, None
            alpha = image[image.bands - 1]
            return _fill_transparent(image[: image.bands - 1], alpha), alpha
        except _DAMAGE as error:
            raise damaged(self.name, self.format, error) from error

    def _standard(self, image: pyvips.Image) -> pyvips.Image:
        """Decode to 1 or 3 bands and alpha, 8 or 16 bits, upright, in random access."""
        if image.interpretation == "cmyk":
            image = image.icc_transform(
                "srgb", embedded=True, input_profile="cmyk", black_point_compensation=True, depth=self.bits
            )
        elif self._converted:
            image = image.colourspace("srgb" if self.bits == 8 else "rgb16")
        depth = _bits_per_sample(image) if self.format == "avif" else 16
        if self.bits == 16 and depth < 16:  # libvips shifts 10 and 12 bits up, which leaves white short of 65535
            image = (image * (65535 / ((2**depth - 1) << (16 - depth)))).rint()
        colours = 1 if self.is_gray else 3
        image = image[: colours + self.has_alpha].cast("uchar" if self.bits == 8 else "ushort")
        image = _settle(image.copy(interpretation=_SPACES[colours][self.bits == 16]))
        return image.autorot() if self._orientation != 1 else image


def open_picture(source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open a picture by its content, whatever its name ends in, and read its header.

    Args:
        source: Path, or the bytes of a file.
        name: What messages call it; the path unless given.
        max_pixels: Larger pictures are refused before anything is decoded.

    Raises:
        ImageError: The file is missing, unreadable, empty, no picture, damaged, of an unsupported kind or too large.
    """
    formats.hush()
    pyvips.cache_set_max(0)  # libvips would remember operations, and with them keep files open and pixels in memory
    name = name or ("the input" if isinstance(source, bytes) else str(source))
    if isinstance(source, bytes):
        return _open(BytesIO(source), name, max_pixels)
    try:
        with open(source, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _open(BytesIO(file.read()), name, max_pixels)
            return _open(file, name, max_pixels)
    except OSError as error:
        step = "; check its name and folder" if isinstance(error, FileNotFoundError) else ""
        raise ImageError(f"{name} cannot be read: {error.strerror or error}{step}") from error


def damaged(name: str, format: str, error: Exception) -> ImageError:
    """The sentence for a file that starts as a picture and cannot be decoded."""
    if "out of memory" in str(error) or "creating thread" in str(error):  # each needs memory for its stack
        return ImageError(f"{name} cannot be read: there is too little memory for it")
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("unable to call", "("))]
    reason = f" ({telling[-1]})" if telling else ""
    return ImageError(
        f"{name} is damaged or cut short: it begins as {format.upper()} and cannot be decoded{reason}; "
        "copy or download it again"
    )


def _open(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    head = file.read(4096)
    format = formats.identify(head, name)
    file.seek(0)
    try:
        if format in _LOADERS:
            header, decode = _open_vips(file, format, max_pixels)
        else:
            header, decode = _open_raster(file, format)
    except _DAMAGE as error:
        raise damaged(name, format, error) from error
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise TooManyPixels(
            f"{name} is {header.width} x {header.height} pixels ({pixels / 1e6:.0f} million), more than the limit of "
            f"{max_pixels / 1e6:.0f} million, which --max-pixels raises"
        )
    picture = Picture(name=name, format=format, header=header, decode=decode)
    pages = metadata.field(header, "n-pages", 1)
    if pages > 1:
        picture.warn(f"{name}: only the first of its {pages} pages or frames is used")
    if picture.metadata.profile is None and _is_beyond_srgb(head):
        picture.warn(f"{name}: its colours are HDR or of a wide gamut without a profile, and will look different")
    if format == "tiff":
        file.seek(0)
        exif = metadata.collect_tiff_exif(file)
        picture.metadata = Metadata(picture.metadata.fields + exif.fields, picture.metadata.resolution)
    return picture


def _open_vips(file: BinaryIO, format: str, max_pixels: int) -> tuple[pyvips.Image, Callable[[], pyvips.Image]]:
    # a source of its own for every file: libvips caches what it opens by name, and reads [options] out of names
    if isinstance(file, BytesIO):
        source = pyvips.Source.new_from_memory(file.getvalue())
    else:
        source = pyvips.Source.new_from_descriptor(file.fileno())
    options: dict[str, object] = {"access": "sequential", "fail_on": "error"}
    if format in _HAVE_UNLIMITED:
        options["unlimited"] = max_pixels > MAX_PIXELS
    header = pyvips.Operation.call(_LOADERS[format], source, **options)

    def decode(_keep_alive: pyvips.Source = source) -> pyvips.Image:
        return header

    return header, decode


def _open_raster(file: BinaryIO, format: str) -> tuple[pyvips.Image, Callable[[], pyvips.Image]]:
    raster = formats.open_raster(format, file.read())
    deep = raster.bits == 16
    interpretation = _SPACES[1 if raster.bands == 1 else 3][deep]
    resolution = raster.resolution or 1.0
    header = pyvips.Image.black(raster.width, raster.height, bands=raster.bands).cast("ushort" if deep else "uchar")

    def decode() -> pyvips.Image:
        return pyvips.Image.new_from_array(raster.decode()).copy(interpretation=interpretation)

    return header.copy(interpretation=interpretation, xres=resolution, yres=resolution), decode


def _colour_bands(name: str, header: pyvips.Image) -> int:
    """1 or 3, the bands that the picture's colour has once decoded; refuse what cannot become that."""
    if header.interpretation in _TO_SRGB:
        return 3
    if header.format not in ("uchar", "ushort"):
        raise ImageError(f"{name} cannot be read: it holds {header.format} samples; save it with 8 or 16 bits first")
    if header.interpretation in _SPACES[1] or header.bands < 3:
        return 1
    if header.interpretation in _SPACES[3]:
        return 3
    raise ImageError(f"{name} cannot be read: it holds {header.bands} channels of an unknown meaning")


def _bits_per_sample(header: pyvips.Image) -> int:
    return metadata.field(header, "bits-per-sample", 8 if header.format == "uchar" else 16)


def _is_beyond_srgb(head: bytes) -> bool:
    """Whether code points (ITU-T H.273) in an AVIF `nclx` box or a PNG `cICP` chunk tell of a wide gamut or of HDR."""
    if (place := head.find(b"colrnclx")) >= 0:
        primaries, transfer = (int.from_bytes(head[place + i : place + i + 2], "big") for i in (8, 10))
    elif (place := head.find(b"cICP")) >= 0:
        primaries, transfer = head[place + 4], head[place + 5]
    else:
        return False
    return primaries not in (1, 2, 5, 6) or transfer not in _SDR_TRANSFER


def _settle(image: pyvips.Image) -> pyvips.Image:
    """Evaluate an image once: into memory, or where it is large into a temporary file that has no name."""
    size = {"uchar": 1, "ushort": 2, "float": 4}[str(image.format)]
    if image.width * image.height * image.bands * size <= IN_MEMORY:
        return image.copy_memory()
    scratch = pyvips.Image.new_temp_file("%s.v")
    image.write(scratch)
    return scratch


def _fill_transparent(colour: pyvips.Image, alpha: pyvips.Image) -> pyvips.Image:
    """Replace the colour where alpha is 0 by that of the visible pixels around (a pyramid of alpha-weighted means).

    Going down, weighted colours and weights are averaged by twos until no weight is 0. Going up, what weighs less than
    half of its surroundings gives way to the enlarged colour of the level below, wholly so at weight 0: the paint that
    editors leave at the faint rim of cut-outs bleeds as well. All other pixels keep their colour to the bit.
    """
    if (alpha > 0).avg() in (0, 255):  # all visible or none
        return colour
    weight = alpha.cast("float") / 65535
    levels = [(colour * weight).bandjoin(weight)]
    while (levels[-1][colour.bands] > 0).avg() < 255:
        last = levels[-1]
        halved = last.shrink(min(2, last.width), min(2, last.height), ceil=True)
        levels.append(_settle(halved.cast("float")))
    lowest = levels.pop()
    below = (lowest / lowest[colour.bands])[: colour.bands].bandjoin(lowest[colour.bands])
    for level in levels[:0:-1]:
        share = level[colour.bands]
        mean = level[: colour.bands] / (share + (share == 0) / 255)
        below = _settle(_give_way(mean, share, below).bandjoin(share).cast("float"))
    filled = _give_way(colour, weight, below).rint().cast(colour.format)
    return _settle(filled.copy(interpretation=colour.interpretation))


def _give_way(colour: pyvips.Image, share: pyvips.Image, below: pyvips.Image) -> pyvips.Image:
    """Mix a level's colour with the level below (its colour and, as last band, its share) where its share is small."""
    around = _double(below, colour)
    share_around = around[colour.bands]
    own = share * 2 / (share_around + (share_around == 0) / 255)
    own = (own > 1).ifthenelse(1, own) ** 2
    return colour * own + around[: colour.bands] * (1 - own)


def _double(image: pyvips.Image, like: pyvips.Image) -> pyvips.Image:
    """Enlarge bilinearly to the size of the level above, whose sides are twice as long or one less."""
    x, y = min(2, like.width), min(2, like.height)
    return image.affine(
        [x, 0, 0, y],
        interpolate=pyvips.Interpolate.new("bilinear"),
        oarea=[0, 0, like.width, like.height],
        odx=(x - 1) / 2,
        ody=(y - 1) / 2,
        extend="copy",
        premultiplied=True,  # the last band is no alpha to weigh by
    )
