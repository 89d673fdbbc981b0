"""What a picture says besides its pixels survives enlarging, as far as it stays true."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin
from torch.nn.functional import interpolate

from dacesr.image import Picture, PictureWriter, open_picture

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
WIDTH, HEIGHT, SCALE = 24, 16, 2
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" tiff:Orientation="6" '
    b'exif:PixelXDimension="24" tiff:Make="Maker"><exif:PixelYDimension>16</exif:PixelYDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
SOURCES = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
TARGETS = ("jpeg", "png", "webp", "tiff", "avif")


def profile() -> bytes:
    return pyvips.Operation.call("profile_load", "p3")


def pattern() -> np.ndarray:
    """A picture whose eight orientations all differ: a ramp to the right in red, downwards in green."""
    across, down = np.linspace(20, 230, WIDTH), np.linspace(20, 230, HEIGHT)
    return np.stack(np.broadcast_arrays(across, down[:, None], np.float64(128)), -1).round().astype(np.uint8)


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E], tags[0x010F], tags[0x8298] = "a description", "Maker", "somebody"
    tags[0x0100], tags[0x0101] = WIDTH, HEIGHT
    details = tags.get_ifd(EXIF_IFD)
    details.update({0xA002: WIDTH, 0xA003: HEIGHT, 0x9003: "2020:01:01 00:00:00", 0x829A: (1, 200), 0x927C: b"note"})
    tags.get_ifd(GPS_IFD).update({1: "N", 2: (50.0, 30.0, 10.5)})
    return tags


def source(format: str, orientation: int = 1) -> bytes:
    """A picture with all metadata that Pillow can write in a format."""
    tags = exif(orientation)
    options: dict[str, Any] = {"icc_profile": profile(), "dpi": (300, 150)}
    if format == "TIFF":
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        for tag in (0x0112, 0x010E, 0x010F, 0x8298):
            directory[tag] = tags[tag]
        directory[700] = XMP
        directory[EXIF_IFD], directory[GPS_IFD] = dict(tags.get_ifd(EXIF_IFD)), dict(tags.get_ifd(GPS_IFD))
        options["tiffinfo"] = directory
    else:
        if format in ("WEBP", "AVIF"):
            tags[0x011A], tags[0x011B], tags[0x0128] = 300.0, 150.0, 2
        options["exif"] = tags
    if format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif format != "TIFF":
        options["xmp"] = XMP
    file = io.BytesIO()
    Image.fromarray(pattern()).save(file, format, **options)
    return file.getvalue()


def enlarged(picture: Picture, format: str, **options: Any) -> bytes:
    width, height = picture.width * SCALE, picture.height * SCALE
    with PictureWriter(picture, None, format=format, width=width, height=height, **options) as writer:
        writer.write_rows(interpolate(picture.region(0, 0, picture.width, picture.height), scale_factor=SCALE))
        data = writer.finish()
    assert data is not None
    return data


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("format", SOURCES)
def test_metadata_is_kept_and_true(format: str, target: str) -> None:
    picture = open_picture(source(format))
    assert picture.warnings == ()
    with Image.open(io.BytesIO(enlarged(picture, target))) as result:
        tags, size = result.getexif(), result.size
        details = tags.get_ifd(EXIF_IFD)
        assert size == (WIDTH * SCALE, HEIGHT * SCALE)
        assert (tags[0x010E], tags[0x010F], tags[0x8298]) == ("a description", "Maker", "somebody")
        assert (details[0x9003], details[0x927C]) == ("2020:01:01 00:00:00", b"note")
        assert float(details[0x829A] if not isinstance(details[0x829A], tuple) else 0.005) == pytest.approx(0.005)
        assert tags.get_ifd(GPS_IFD)[1] == "N"
        assert [float(x) for x in tags.get_ifd(GPS_IFD)[2]] == [50, 30, 10.5]
        assert tags.get(0x0112, 1) == 1
        assert tags.get(0x0100, size[0]) == size[0]
        assert (details.get(0xA002, size[0]), details.get(0xA003, size[1])) == size
        assert result.info["icc_profile"] == profile()
        dpi = result.info["dpi"] if target in ("png", "tiff") else (tags[0x011A], tags[0x011B])
        assert [float(x) for x in dpi] == pytest.approx([300, 150], abs=0.02)
        xmp = result.info.get("xmp") or result.info["XML:com.adobe.xmp"].encode()
        assert b'tiff:Make="Maker"' in xmp
        assert b'tiff:Orientation="1"' in xmp
        assert b"Dimension" not in xmp.replace(b"exif:PixelXDimension=", b"exif:PixelXDimension")
        result.load()


@pytest.mark.parametrize("target", TARGETS)
def test_stripping_leaves_the_profile_alone(target: str) -> None:
    data = enlarged(open_picture(source("JPEG")), target, strip_metadata=True)
    with Image.open(io.BytesIO(data)) as result:
        assert result.info["icc_profile"] == profile()
        assert not result.info.get("xmp")
        assert "XML:com.adobe.xmp" not in result.info
        assert 0x010F not in result.getexif()
        assert not result.getexif().get_ifd(EXIF_IFD)
    for secret in (b"Maker", b"somebody", b"2020:01"):
        assert secret not in data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", SOURCES)
def test_orientation_is_applied_once(format: str, orientation: int) -> None:
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    upright = turns[orientation](pattern())
    picture = open_picture(source(format, orientation))
    assert (picture.height, picture.width) == upright.shape[:2]
    pixels = picture.region(0, 0, picture.width, picture.height)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(pixels - upright).max() < 25
    again = open_picture(enlarged(picture, "png"))
    assert (again.height, again.width) == (upright.shape[0] * SCALE, upright.shape[1] * SCALE)
    dpi = [300, 150] if orientation < 5 or format == "AVIF" else [150, 300]
    if format != "AVIF":  # Pillow turns an AVIF's orientation into a box of its own
        assert [x * 25.4 for x in again.metadata.resolution or ()] == pytest.approx(dpi, abs=0.02)
    with Image.open(io.BytesIO(enlarged(picture, "jpeg"))) as jpeg:
        assert jpeg.getexif()[0x0112] == 1


def test_thumbnails_do_not_lie() -> None:
    small = io.BytesIO()
    Image.new("RGB", (160, 107), "blue").save(small, "JPEG")
    carrier: Any = pyvips.Image.new_from_buffer(source("JPEG"), "").copy()
    carrier.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", small.getvalue())
    with_thumbnail = carrier.jpegsave_buffer()
    assert with_thumbnail.count(b"\xff\xd8\xff") == 2
    result = enlarged(open_picture(with_thumbnail), "jpeg")
    assert result.count(b"\xff\xd8\xff") == 1
    assert b"Maker" in result


def test_a_bare_picture_stays_bare() -> None:
    file = io.BytesIO()
    Image.fromarray(pattern()).save(file, "PNG")
    for target in TARGETS:
        with Image.open(io.BytesIO(enlarged(open_picture(file.getvalue()), target))) as result:
            assert "exif" not in result.info
            assert "xmp" not in result.info
            assert "icc_profile" not in result.info


def test_comments_of_png_are_kept() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a camera")
    file = io.BytesIO()
    Image.fromarray(pattern()).save(file, "PNG", pnginfo=info)
    with Image.open(io.BytesIO(enlarged(open_picture(file.getvalue()), "png"))) as result:
        assert result.info["Software"] == "a camera"


def test_resolution_of_bmp_is_kept() -> None:
    file = io.BytesIO()
    Image.fromarray(pattern()).save(file, "BMP", dpi=(300, 300))
    for target in ("bmp", "png"):
        with Image.open(io.BytesIO(enlarged(open_picture(file.getvalue()), target))) as result:
            assert result.info["dpi"][0] == pytest.approx(300, abs=0.02)


def test_a_profile_of_the_wrong_kind_is_left_out() -> None:
    file = io.BytesIO()
    Image.fromarray(pattern()[..., 0]).save(file, "JPEG", icc_profile=profile())  # gray pixels, an RGB profile
    picture = open_picture(file.getvalue())
    assert picture.metadata.profile is None
    assert len(picture.warnings) == 1
    assert "profile" in picture.warnings[0]
    assert open_picture(enlarged(picture, "png")).is_gray


def test_hdr_is_said() -> None:
    file = io.BytesIO()
    Image.fromarray(pattern()).save(file, "AVIF")
    data = bytearray(file.getvalue())
    place = data.find(b"colrnclx")
    assert open_picture(bytes(data)).warnings == ()
    assert place > 0
    data[place + 8 : place + 12] = (9).to_bytes(2, "big") + (16).to_bytes(2, "big")  # BT.2020, PQ
    assert any("HDR" in warning for warning in open_picture(bytes(data)).warnings)


def test_tiff_directories_of_other_programs_are_understood(tmp_path: Path) -> None:
    """The file with EXIF appended is read by libvips and by Pillow alike, and its pixels are untouched."""
    picture = open_picture(source("JPEG"))
    data = enlarged(picture, "tiff")
    shown = interpolate(picture.region(0, 0, picture.width, picture.height), scale_factor=SCALE)
    expected = shown[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    with Image.open(io.BytesIO(data)) as by_pillow:
        assert np.array_equal(np.asarray(by_pillow), expected)
    assert np.array_equal(pyvips.Image.new_from_buffer(data, "").numpy(), expected)
