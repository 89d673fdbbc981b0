"""Files to tensors and back: `read`, `write`, and `PictureWriter`, which streams an enlarged picture to disk."""

import contextlib
import mmap
from pathlib import Path
from types import TracebackType

import pyvips
import torch
from torch import Tensor

from dacesr import encoding, formats
from dacesr.formats import FORMATS, ROWS_AT_ONCE, ImageError
from dacesr.imresize import imresize
from dacesr.metadata import Metadata
from dacesr.picture import MAX_PIXELS, Picture, open_picture

__all__ = ["ImageError", "Picture", "PictureWriter", "imresize", "open_picture", "read", "resize", "rgb_to_y", "write"]

_BT601 = (65.481, 128.553, 24.966)  # MATLAB's rgb2ycbcr: Y of 8-bit values, for R, G, B in [0, 1], from 16 on


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture, upright; transparency is dropped.

    Args:
        path: Picture file; its content decides the format.
        max_pixels: Larger pictures are refused before anything is decoded.

    Returns:
        (1, 3, h, w) float32 in [0, 1], RGB in the file's own colour space; gray is repeated.

    Raises:
        ImageError: The file cannot be read; the sentence names it.
    """
    picture = open_picture(Path(path), max_pixels=max_pixels)
    return picture.region(0, 0, picture.width, picture.height)


def write(path: str | Path, image: Tensor, *, bits: int = 8, quality: int | None = None) -> None:
    """Write a picture; a file of that name is replaced once the new one is whole.

    Args:
        path: Its ending decides the format.
        image: (1, 3, h, w) RGB or (1, 1, h, w) gray, in [0, 1]; clamped, rounded to the nearest value.
        bits: 8, or 16 where the format has that (PNG, TIFF, PPM; AVIF keeps 10), else 8 are written.
        quality: 1 to 100 for JPEG, WebP and AVIF.

    Raises:
        ImageError: The file cannot be written; the sentence names it.
        ValueError: The tensor, `bits` or `quality` is of another kind.
    """
    if image.ndim != 4 or image.shape[0] != 1 or image.shape[1] not in (1, 3):
        raise ValueError(f"image should be (1, 1 or 3, h, w), not {tuple(image.shape)}")
    target = Path(path)
    height, width = image.shape[2:]
    format = formats.format_of(target)
    size = (width, height)
    with _RowFile(
        target, format=format, size=size, final=size, bands=image.shape[1], bits=bits, quality=quality
    ) as rows:
        rows.append(image)
        rows.encode(rows.image(), Metadata())


def rgb_to_y(x: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in studio range, as MATLAB's `rgb2ycbcr` has it.

    Args:
        x: (b, 3, h, w) RGB in [0, 1].

    Returns:
        (b, 1, h, w) in [16, 235] / 255.
    """
    weights = x.new_tensor(_BT601).reshape(1, 3, 1, 1)
    return ((x * weights).sum(1, keepdim=True) + 16) / 255


class PictureWriter:
    """Writes an enlargement of a picture: rows from top to bottom, then alpha, metadata and encoding in `finish`.

    Rows wait in an unnamed file beside the target, so memory holds only a few of them. A gray picture gives a gray
    file: the network saw three equal channels and returns three nearly equal ones, whose mean is the least-squares
    gray, and stays so where luma weights would favour the errors of green. Nothing is left in the target's folder
    unless `finish` ends well.

    Attributes:
        warnings: Sentences on what the format cannot hold.
    """

    def __init__(
        self,
        picture: Picture,
        target: Path | None,
        *,
        format: str,
        width: int,
        height: int,
        final_size: tuple[int, int] | None = None,
        quality: int | None = None,
        strip_metadata: bool = False,
    ) -> None:
        """Prepare; whatever can be refused beforehand is refused here.

        Args:
            picture: The source of alpha, metadata, depth and kind.
            target: File to write, or None to get the bytes.
            format: Key of `formats.FORMATS`.
            width: Size of the rows to come, in pixels.
            height: Their number.
            final_size: (width, height) to resize to at the end.
            quality: 1 to 100 for JPEG (95 unless given), WebP (92) and AVIF (80).
            strip_metadata: Keep nothing of the metadata but the colour profile.

        Raises:
            ImageError: The target cannot be written, or the format cannot hold such a size.
            ValueError: A number is impossible.
        """
        self.warnings: tuple[str, ...] = ()
        self._picture = picture
        self._said = picture.metadata.only_profile() if strip_metadata else picture.metadata
        self._rows = _RowFile(
            target,
            format=format,
            size=(width, height),
            final=final_size or (width, height),
            bands=1 if picture.is_gray else 3,
            bits=picture.bits,
            quality=quality,
        )

    def __enter__(self) -> "PictureWriter":
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what waits."""
        self.close()

    def close(self) -> None:
        """Drop the rows that wait; without `finish` nothing has been written."""
        self._rows.close()

    def write_rows(self, rows: Tensor) -> None:
        """Add the next rows.

        Args:
            rows: (1, 3, k, width) in [0, 1]; clamped, rounded to the picture's depth.

        Raises:
            ImageError: The disk is full.
            ValueError: The shape does not fit, rows are too many, or a value is not a number.
        """
        self._rows.append(self._bands(rows))

    def values(self, rows: Tensor) -> Tensor:
        """What is stored of rows, made where they are, for `write_values`.

        Args:
            rows: As for `write_rows`; numbers all.

        Returns:
            (k, width, 1 or 3): uint8, or int16 with the bits of uint16.

        Raises:
            ValueError: The shape does not fit.
        """
        return self._rows.values(self._bands(rows))

    def write_values(self, values: Tensor) -> None:
        """Add the next rows as `values` gives them, now in memory.

        Raises:
            ImageError: The disk is full.
            ValueError: Rows are too many.
        """
        self._rows.append_values(values)

    def _bands(self, rows: Tensor) -> Tensor:
        return rows.mean(1, keepdim=True) if self._picture.is_gray else rows

    def finish(self) -> bytes | None:
        """Add alpha, resize, encode, and put the file in place.

        Alpha is resized once, from the source to the final size. Colour and alpha are resized apart: colour under
        transparent pixels continues that of visible ones, so there is nothing to bleed, and no division by small alpha.

        Returns:
            The encoded bytes where there is no target.

        Raises:
            ImageError: The disk is full, or the folder has become unwritable.
            ValueError: Rows are missing.
        """
        rows = self._rows
        image = resize(rows.image(), *rows.final)
        said = self._said
        if said.profile and not FORMATS[rows.format].profile:
            image, said = _to_srgb(said.attach(image), rows.deep), said.with_profile(None)
        if self._picture.alpha is not None:
            image = self._add_alpha(image, self._picture.alpha)
        result = rows.encode(image, said)
        self.close()
        return result

    def _add_alpha(self, image: pyvips.Image, alpha: pyvips.Image) -> pyvips.Image:
        rows = self._rows
        full = 65535 if rows.deep else 255
        if self._picture.max_value != full:
            alpha = (alpha * (full / self._picture.max_value)).rint().cast("ushort" if rows.deep else "uchar")
        joined = image.bandjoin(resize(alpha, *rows.final)).copy(interpretation=image.interpretation)
        if FORMATS[rows.format].alpha:
            return joined
        if (alpha < full).avg() > 0:
            self.warnings += (f"{rows.name}: {rows.format.upper()} has no transparency, which is laid over white",)
        return joined.flatten(background=[full] * image.bands, max_alpha=full)


def resize(image: pyvips.Image, width: int, height: int) -> pyvips.Image:
    """Resize with pixel centres aligned: Lanczos-3 where a side shrinks, then bicubic (Catmull-Rom) where one grows.

    The bicubic kernel overshoots an edge once, which the value range cuts off: flat 0 and flat full stay exact.
    """
    across, down = width / image.width, height / image.height
    if across < 1 or down < 1:
        image = image.resize(min(across, 1), vscale=min(down, 1), kernel="lanczos3")
    across, down = max(across, 1), max(down, 1)
    if across > 1 or down > 1:
        image = image.affine(
            [across, 0, 0, down],
            interpolate=pyvips.Interpolate.new("bicubic"),
            oarea=[0, 0, width, height],
            odx=(across - 1) / 2,
            ody=(down - 1) / 2,
            extend="copy",
        )
    return image


def _to_srgb(image: pyvips.Image, deep: bool) -> pyvips.Image:
    """Convert by the attached profile, for formats that hold none; gray stays one band."""
    converted = image.icc_transform("srgb", embedded=True, depth=16 if deep else 8)
    if image.bands == 1:
        return converted[1].copy(interpretation=image.interpretation)
    return converted


class _RowFile:
    """Rows on their way to a file: kept raw in an unnamed file beside the target, then encoded."""

    def __init__(
        self,
        target: Path | None,
        *,
        format: str,
        size: tuple[int, int],
        final: tuple[int, int],
        bands: int,
        bits: int,
        quality: int | None,
    ) -> None:
        if bits not in (8, 16) or not (quality is None or 1 <= quality <= 100):
            raise ValueError(f"bits should be 8 or 16 and quality 1 to 100, not {bits} and {quality}")
        if min(size + final) < 1:
            raise ValueError(f"a picture has at least one pixel, not {size} and {final}")
        self.name = str(target) if target else "the output"
        self.width, self.height = size
        self.format, self.final, self.bands, self.quality = format, final, bands, quality
        self.deep = bits == 16 and FORMATS[format].deep
        formats.check_size(format, *final, self.name)
        self._place = encoding.check_target(target) if target else None
        self._file = encoding.scratch_file(self._place.parent if self._place else None)
        self._rows = 0

    def __enter__(self) -> "_RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be flushed to a full disk is not wanted any more
            self._file.close()

    def append(self, rows: Tensor) -> None:
        """Add (1, bands, k, width) in [0, 1], clamped and rounded."""
        for strip in rows.split(ROWS_AT_ONCE, dim=2):
            if not strip.isfinite().all():
                raise ValueError("rows hold values that are no numbers")
            self.append_values(self.values(strip).cpu())

    def values(self, rows: Tensor) -> Tensor:
        """(1, bands, k, width) in [0, 1], clamped and rounded: (k, width, bands), uint8 or the bits of uint16."""
        if rows.shape[:2] != (1, self.bands) or rows.shape[3] != self.width:
            raise ValueError(f"rows should be (1, {self.bands}, k, {self.width}), not {tuple(rows.shape)}")
        values = rows[0].permute(1, 2, 0).float().clamp(0, 1).mul(65535 if self.deep else 255).round()
        stored = values.to(torch.int32).to(torch.int16) if self.deep else values.to(torch.uint8)
        return stored.contiguous()

    def append_values(self, values: Tensor) -> None:
        """Add what `values` gives, in memory."""
        if self._rows + values.shape[0] > self.height:
            raise ValueError(f"{self._rows + values.shape[0]} rows are more than the height {self.height}")
        try:
            self._file.write(values.numpy().data)
        except OSError as error:
            raise encoding.unwritable(self.name, error) from error
        self._rows += values.shape[0]

    def image(self) -> pyvips.Image:
        """The rows as an image that lies in the file, not in memory."""
        if self._rows != self.height:
            raise ValueError(f"{self._rows} rows were written, of {self.height}")
        try:
            self._file.flush()
        except OSError as error:
            raise encoding.unwritable(self.name, error) from error
        pixels = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        kind = "ushort" if self.deep else "uchar"
        image = pyvips.Image.new_from_memory(memoryview(pixels), self.width, self.height, self.bands, kind)
        space = {1: ("b-w", "grey16"), 3: ("srgb", "rgb16")}[self.bands][self.deep]
        return image.copy(interpretation=space)

    def encode(self, image: pyvips.Image, said: Metadata) -> bytes | None:
        """Encode and put in place; the bytes where there is no target."""
        try:
            with encoding.replacing(self._place) if self._place else encoding.scratch_file() as file:
                encoding.encode(image, file, format=self.format, said=said, quality=self.quality)
                if self._place is None:
                    file.seek(0)
                    return file.read()
        except (OSError, pyvips.Error) as error:
            raise encoding.unwritable(self.name, error) from error
        return None
