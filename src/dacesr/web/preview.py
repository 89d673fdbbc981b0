"""What a screen shows of a picture: its enlargement as it grows tile by tile, then before and after side by side.

Screens get sRGB of 8 bits; what is transparent lies over white.
"""

import sys
import threading
from pathlib import Path

import pyvips
from torch import Tensor
from torch.nn import functional as F

from dacesr.image import Picture, open_picture, resize
from dacesr.metadata import Metadata
from dacesr.tiling import Span, Tile

GROWING = 1024  # pixels along the longer side of a picture that grows
COMPARED = 3072  # and of before and after: large enough to see detail, small enough for a phone to hold
_WHITE = [255.0, 255.0, 255.0]


def fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The largest size in these proportions with no side above `longest` pixels, and not above the size itself."""
    share = min(1, longest / max(size))
    width, height = (max(1, round(side * share)) for side in size)
    return width, height


class Preview:
    """A picture as it sharpens: at first the input enlarged, then what tiles have become.

    Attributes:
        width, height: In pixels.
        changes: How many tiles it has taken.
    """

    def __init__(self, picture: Picture, size: tuple[int, int], *, longest: int = GROWING) -> None:
        """Begin with the input.

        Args:
            picture: The input, which is decoded here.
            size: (width, height) of the result.
            longest: Pixels along the longer side, at most.

        Raises:
            ImageError: The picture cannot be decoded.
        """
        self.width, self.height = fitted(size, longest)
        self.changes = 0
        self._size, self._gray = (picture.width, picture.height), picture.is_gray
        self._profile = picture.metadata.only_profile() if picture.metadata.profile else None
        self._alpha = _alpha(picture, self.width, self.height)
        self._lock = threading.Lock()
        colour = resize(_eight_bits(picture.colour, picture), self.width, self.height)
        self._canvas = colour.numpy().reshape(self.height, self.width, -1).copy()

    def take(self, tile: Tile, output: Tensor) -> None:
        """Draw a tile; a `dacesr.inference.Watch`.

        Args:
            tile: Its place in the input.
            output: What it has become, (1, 3, s * h, s * w) in [0, 1]; left as it is.
        """
        across = _Place(tile.columns, self._size[0], self.width)
        down = _Place(tile.rows, self._size[1], self.height)
        if across.pixels < 1 or down.pixels < 1:
            return
        seen = output[:, :, down.seen(output.shape[2]), across.seen(output.shape[3])].float()
        drawn = F.interpolate(
            seen, (down.pixels, across.pixels), mode="bilinear", align_corners=False, antialias=True
        ).clamp(0, 1)
        if self._gray:
            drawn = drawn.mean(1, keepdim=True)
        values = drawn[0].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        with self._lock:
            self._canvas[down.first : down.last, across.first : across.last] = values
            self.changes += 1

    def jpeg(self) -> bytes:
        """What it shows now, as a JPEG file."""
        with self._lock:
            pixels = self._canvas.copy()
        image = _to_screen(pyvips.Image.new_from_array(pixels), self._profile)
        return _over_white(image, self._alpha).jpegsave_buffer(Q=85, keep=0)


class _Place:
    """Where a tile lies along one axis of the canvas; half of what it shares with a neighbour is left to that."""

    def __init__(self, span: Span, length: int, canvas: int) -> None:
        self._span = span
        self._start, self._end = span.start + span.before // 2, span.end - span.after // 2
        self.first, self.last = (round(edge * canvas / length) for edge in (self._start, self._end))

    @property
    def pixels(self) -> int:
        return self.last - self.first

    def seen(self, length: int) -> slice:
        """That part of the tile's output, which is so long."""
        scale = length // self._span.size
        return slice((self._start - self._span.start) * scale, (self._end - self._span.start) * scale)


def compare(picture: Picture, result: Path, folder: Path, *, longest: int = COMPARED) -> tuple[Path, Path]:
    """Write the input enlarged bicubically, and the result, in one size to be laid over one another.

    Args:
        picture: The input.
        result: File of the result.
        folder: Where `before.jpg` and `after.jpg` are written.
        longest: Pixels along the longer side, at most; a result that is larger is reduced.

    Returns:
        The two files.

    Raises:
        ImageError: The input or the result cannot be decoded.
        OSError: The files cannot be read or written.
    """
    before, after = folder / "before.jpg", folder / "after.jpg"
    try:
        made = open_picture(result, max_pixels=sys.maxsize)
        width, height = fitted((made.width, made.height), longest)
        decoded = made.format in ("bmp", "ppm")  # which libvips does not read
        _save(_resized(made, width, height) if decoded else _reduced(result, width, height), after)
        _save(_resized(picture, width, height), before)
    except pyvips.Error as error:
        raise OSError(f"{result.name} cannot be shown: {error}") from error
    return before, after


def _resized(picture: Picture, width: int, height: int) -> pyvips.Image:
    said = picture.metadata.only_profile() if picture.metadata.profile else None
    colour = _to_screen(_eight_bits(picture.colour, picture), said)
    return _over_white(resize(colour, width, height), _alpha(picture, width, height))


def _reduced(result: Path, width: int, height: int) -> pyvips.Image:
    """The result on the screen, decoded no larger than it has to be."""
    source = pyvips.Source.new_from_file(str(result))
    image = pyvips.Image.thumbnail_source(source, width, height=height, size="force", output_profile="srgb")
    image = image.colourspace("srgb")
    return image.flatten(background=_WHITE) if image.hasalpha() else image


def _save(image: pyvips.Image, path: Path) -> None:
    image.jpegsave(str(path), Q=92, subsample_mode="off", keep=0)


def _eight_bits(image: pyvips.Image, picture: Picture) -> pyvips.Image:
    if picture.bits == 8:
        return image
    return (image / 257).rint().cast("uchar").copy(interpretation="b-w" if image.bands == 1 else "srgb")


def _alpha(picture: Picture, width: int, height: int) -> pyvips.Image | None:
    """Its alpha with 8 bits in another size, in memory."""
    if picture.alpha is None:
        return None
    return resize(_eight_bits(picture.alpha, picture), width, height).copy_memory()


def _to_screen(image: pyvips.Image, profile: Metadata | None) -> pyvips.Image:
    """8-bit colour of a picture's own space in sRGB, three bands."""
    image = image.copy(interpretation="b-w" if image.bands == 1 else "srgb")
    if profile:
        image = profile.attach(image).icc_transform("srgb", embedded=True, depth=8)
    return image.colourspace("srgb")


def _over_white(image: pyvips.Image, alpha: pyvips.Image | None) -> pyvips.Image:
    if alpha is None:
        return image
    return image.bandjoin(alpha).copy(interpretation="srgb").flatten(background=_WHITE)
