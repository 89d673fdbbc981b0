"""Whole pictures of every format, drawn here: the ones that mutants are made of."""

from io import BytesIO

import numpy as np
import pyvips
from PIL import Image, ImageCms

from dacesr.formats import open_raster, save_raster

WIDTH, HEIGHT = 37, 26
EXIF_ORIENTATION, EXIF_ARTIST = 274, 315


def pictures() -> dict[str, bytes]:
    """File name -> content."""
    rgb, gray, alpha = _pixels(3), _pixels(1), _pixels(4)
    deep = rgb.cast("ushort") * 257
    found = {
        "plain.png": rgb.pngsave_buffer(),
        "interlaced.png": rgb.pngsave_buffer(interlace=True),
        "alpha.png": alpha.pngsave_buffer(),
        "deep.png": deep.cast("ushort").copy(interpretation="rgb16").pngsave_buffer(),
        "palette.png": rgb.pngsave_buffer(palette=True, bitdepth=4),
        "bits.png": _pil(Image.new("1", (WIDTH, HEIGHT), 1), "PNG"),
        "said.png": _said(rgb).pngsave_buffer(),
        "plain.jpg": rgb.jpegsave_buffer(Q=90),
        "gray.jpg": gray.jpegsave_buffer(),
        "progressive.jpg": rgb.jpegsave_buffer(interlace=True, optimize_coding=True),
        "cmyk.jpg": _pil(_image().convert("CMYK"), "JPEG"),
        "said.jpg": _said(rgb).jpegsave_buffer(),
        "plain.webp": rgb.webpsave_buffer(Q=80),
        "lossless.webp": alpha.webpsave_buffer(lossless=True),
        "said.webp": _said(rgb).webpsave_buffer(),
        "moving.webp": _pil(_image(), "WEBP", save_all=True, append_images=[_image(5)], duration=40),
        "plain.tif": rgb.tiffsave_buffer(),
        "deflate.tif": alpha.tiffsave_buffer(compression="deflate", predictor="horizontal"),
        "tiled.tif": rgb.tiffsave_buffer(tile=True, tile_width=16, tile_height=16, compression="lzw"),
        "deep.tif": deep.cast("ushort").copy(interpretation="rgb16").tiffsave_buffer(),
        "big.tif": rgb.tiffsave_buffer(bigtiff=True),
        "lab.tif": rgb.colourspace("lab").tiffsave_buffer(),
        "said.tif": _pil(_image(), "TIFF", exif=_exif().tobytes(), dpi=(300, 300)),
        "pages.tif": _pil(_image(), "TIFF", save_all=True, append_images=[_image(3), _image(7)]),
        "plain.avif": rgb.heifsave_buffer(compression="av1", effort=0),
        "alpha.avif": alpha.heifsave_buffer(compression="av1", effort=0),
        "deep.avif": deep.cast("ushort").copy(interpretation="rgb16").heifsave_buffer(compression="av1", bitdepth=10),
        "plain.gif": rgb.gifsave_buffer(),
        "moving.gif": _pil(_image(), "GIF", save_all=True, append_images=[_image(5), _image(9)], duration=40),
        "plain.bmp": _raster("bmp", rgb),
        "gray.bmp": _raster("bmp", gray),
        "palette.bmp": _pil(_image().convert("P"), "BMP"),
        "plain.ppm": _raster("ppm", rgb),
        "deep.ppm": b"P6\n%d %d\n1023\n" % (WIDTH, HEIGHT) + _numbers(">u2", 1024).tobytes(),
        "words.ppm": b"P3 # words\n%d %d 255\n" % (WIDTH, HEIGHT) + _words(_numbers("u1", 256)),
        "gray.pgm": _raster("ppm", gray),
        "bits.pbm": b"P4\n%d %d\n" % (WIDTH, HEIGHT) + bytes(range(26 * 5)),
        "digits.pbm": b"P1 %d %d\n" % (WIDTH, HEIGHT) + _words(_numbers("u1", 2)[:, :, 0]),
    }
    return found


def _numbers(kind: str, below: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, below, (HEIGHT, WIDTH, 3)).astype(kind)


def _words(values: np.ndarray) -> bytes:
    return b"\n".join(b" ".join(b"%d" % value for value in row.ravel()) for row in values)


def _array(shift: int = 0) -> np.ndarray:
    """(HEIGHT, WIDTH, 4) uint8: slopes, noise, and transparency in a corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(shift).integers(0, 40, (HEIGHT, WIDTH))
    alpha = np.where(x + y < 20, 0, np.minimum(255, 12 * x))
    return np.stack([5 * x + shift, 7 * y, noise + 3 * x, alpha], axis=-1).astype(np.uint8)


def _pixels(bands: int) -> pyvips.Image:
    image = pyvips.Image.new_from_array(np.ascontiguousarray(_array()[:, :, :bands]))
    return image.copy(interpretation="b-w" if bands == 1 else "srgb")


def _image(shift: int = 0) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(_array(shift)[:, :, :3]))


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[EXIF_ARTIST] = 6, "Ann"
    exif.get_ifd(0x8769)[0xA002] = WIDTH
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def _said(image: pyvips.Image) -> pyvips.Image:
    """With profile, EXIF, XMP and a comment."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><a tiff:Orientation='6' exif:PixelXDimension='37'/></x:xmpmeta>"
    image = image.copy(xres=11.8, yres=11.8)
    for name, value in (("icc-profile-data", profile), ("xmp-data", xmp), ("exif-data", _exif().tobytes())):
        image.set_type(pyvips.GValue.blob_type, name, value)
    image.set_type(pyvips.GValue.gstr_type, "png-comment-0-Comment", "drawn")
    return image


def _pil(image: Image.Image, format: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _raster(kind: str, image: pyvips.Image) -> bytes:
    file = BytesIO()
    save_raster(kind, image, file)
    assert open_raster(kind, file.getvalue()).width == WIDTH
    return file.getvalue()
