"""Pictures in and out: every format and kind of pixel, against Pillow where that can tell."""

import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torch.nn.functional import interpolate

from dacesr.formats import FORMATS
from dacesr.image import Picture, PictureWriter, open_picture, read, rgb_to_y, write

LOSSLESS = ("png", "tiff", "bmp", "ppm")
LOSSY = {"jpeg": 38.0, "webp": 34.0, "avif": 34.0, "gif": 28.0}  # least PSNR on a smooth picture, dB


def smooth(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture, (h, w, c) in [0, 1]."""
    coarse = torch.rand(1, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def whole(picture: Picture) -> torch.Tensor:
    return picture.region(0, 0, picture.width, picture.height)


def enlarge(picture: Picture, format: str, scale: int = 1, **options: object) -> Picture:
    """The picture enlarged by repetition, through a writer, opened again."""
    width, height = picture.width * scale, picture.height * scale
    with PictureWriter(picture, None, format=format, width=width, height=height, **options) as writer:
        for rows in interpolate(whole(picture), scale_factor=scale).split(7, dim=2):
            writer.write_rows(rows)
        data = writer.finish()
    assert data is not None
    return open_picture(data)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean().clamp_min(1e-12)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(LOSSLESS),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from((1, 3)),
    bits=st.sampled_from((8, 16)),
    seed=st.integers(0, 2**31),
)
def test_lossless_formats_return_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, kind: str, height: int, width: int, channels: int, bits: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("image") / ("picture" + FORMATS[kind].extensions[0])
    full = 2**bits - 1 if FORMATS[kind].deep else 255
    values = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    write(path, values, bits=bits)
    picture = open_picture(path)
    assert (picture.format, picture.width, picture.height) == (kind, width, height)
    assert (picture.is_gray, picture.has_alpha) == (channels == 1, False)
    assert picture.bits == (16 if full == 65535 else 8)
    expected = (values * full).round().expand(1, 3, height, width) / full
    torch.testing.assert_close(read(path), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_formats_stay_close(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("picture" + FORMATS[kind].extensions[0])
    values = torch.from_numpy(smooth(64, 80, 3)).permute(2, 0, 1)[None]
    write(path, values)
    assert psnr(read(path), values) > LOSSY[kind]
    assert open_picture(path).format == kind


def test_values_outside_the_range_are_clamped(tmp_path: Path) -> None:
    write(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 1, 1, 3))
    assert (read(tmp_path / "a.png")[0, 0, 0] * 255).tolist() == pytest.approx([0, 128, 255])


@pytest.mark.parametrize("quality", [10, 95])
def test_quality_decides_the_size(tmp_path: Path, quality: int) -> None:
    values = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for ending in (".jpg", ".webp", ".avif"):
        write(tmp_path / f"a{ending}", values, quality=quality)
        write(tmp_path / f"b{ending}", values, quality=50)
        sizes = [(tmp_path / f"{name}{ending}").stat().st_size for name in "ab"]
        assert (sizes[0] < sizes[1]) == (quality < 50)


def test_jpeg_keeps_full_chroma_by_default(tmp_path: Path) -> None:
    red_blue = torch.zeros(1, 3, 16, 16)
    red_blue[:, 0, :, ::2] = red_blue[:, 2, :, 1::2] = 1
    write(tmp_path / "a.jpg", red_blue)
    with Image.open(tmp_path / "a.jpg") as jpeg:
        assert jpeg.layer[0][1:3] == (1, 1)
    assert (read(tmp_path / "a.jpg") - red_blue).abs().max() < 0.1


GRAY, GRAY_ALPHA, RGB, RGBA = (smooth(20, 30, n, seed=n) for n in (1, 2, 3, 4))
AS_8_BIT = {
    "L": np.round(GRAY[..., 0] * 255).astype(np.uint8),
    "LA": np.round((GRAY_ALPHA * 0.9 + 0.1) * 255).astype(np.uint8),
    "RGB": np.round(RGB * 255).astype(np.uint8),
    "RGBA": np.round((RGBA * 0.9 + 0.1) * 255).astype(np.uint8),
}


@pytest.mark.parametrize("mode", AS_8_BIT)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "avif"])
def test_kinds_of_pixels_survive(mode: str, kind: str) -> None:
    pixels = AS_8_BIT[mode]
    picture = open_picture(encoded(Image.fromarray(pixels, mode), "PNG"))
    assert (picture.is_gray, picture.has_alpha, picture.bits) == (mode[0] == "L", mode[-1] == "A", 8)
    result = enlarge(picture, kind)
    assert result.has_alpha == picture.has_alpha
    colour = pixels[..., None][..., :1] if mode == "L" else pixels[..., : 1 if mode == "LA" else 3]
    expected = torch.from_numpy(colour / np.float32(255)).permute(2, 0, 1).expand(1, 3, 20, 30)
    if kind in LOSSLESS:
        assert result.is_gray == picture.is_gray
        torch.testing.assert_close(whole(result), expected, rtol=0, atol=1e-6)
    else:
        assert psnr(whole(result), expected) > 34
    if result.alpha is not None:
        difference = np.abs(result.alpha.numpy().astype(int) - pixels[..., -1])
        assert difference.max() <= (0 if kind in LOSSLESS or kind == "webp" else 8)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("source", ["png", "tiff"])
@pytest.mark.parametrize("target", ["png", "tiff"])
def test_16_bits_survive(bands: int, source: str, target: str) -> None:
    values = np.round((smooth(9, 13, bands) * 0.9 + 0.1) * 65535).astype(np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="grey16" if bands < 3 else "rgb16")
    picture = open_picture(getattr(image, f"{source}save_buffer")())
    assert (picture.bits, picture.is_gray, picture.has_alpha) == (16, bands < 3, bands in (2, 4))
    result = enlarge(picture, target)
    assert (result.bits, result.is_gray, result.has_alpha) == (16, bands < 3, bands in (2, 4))
    assert np.array_equal(result.colour.numpy().reshape(9, 13, -1), values[..., : 1 if bands < 3 else 3])
    if result.alpha is not None:
        assert np.array_equal(result.alpha.numpy(), values[..., -1])


@pytest.mark.parametrize("kind", ["jpeg", "webp", "bmp", "gif"])
def test_16_bits_become_8_where_the_format_has_no_more(kind: str) -> None:
    values = np.round(smooth(16, 16, 3) * 65535).astype(np.uint16)
    picture = open_picture(pyvips.Image.new_from_array(values).copy(interpretation="rgb16").pngsave_buffer())
    result = enlarge(picture, kind)
    assert result.bits == 8
    assert psnr(whole(result), whole(picture)) > LOSSY.get(kind, 55)


def test_16_bit_ppm_and_10_bit_avif_span_black_to_white() -> None:
    ramp = np.repeat(np.linspace(0, 65535, 64).round().astype(np.uint16)[None, :, None], 3, axis=2)
    picture = open_picture(pyvips.Image.new_from_array(ramp).copy(interpretation="rgb16").pngsave_buffer())
    assert np.array_equal(enlarge(picture, "ppm").colour.numpy(), ramp)
    avif = enlarge(picture, "avif", quality=100)
    assert avif.bits == 16
    assert (whole(avif) - whole(picture)).abs().max() < 0.01
    assert whole(avif).max() > 0.999


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_becomes_colour(format: str, transparent: bool) -> None:
    pixels = np.arange(8, dtype=np.uint8).repeat(8).reshape(8, 8)
    image = Image.fromarray(pixels, "P")
    colours = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    image.putpalette(colours.tobytes())
    picture = open_picture(encoded(image, format, **({"transparency": 3} if transparent else {})))
    assert (picture.is_gray, picture.has_alpha) == (False, transparent)
    shown = np.moveaxis(whole(picture)[0].numpy() * 255, 0, -1)
    visible = pixels != 3 if transparent else np.full((8, 8), True)
    assert np.array_equal(shown[visible].round().astype(np.uint8), colours[pixels][visible])
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha.numpy(), np.where(visible, 255, 0))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_becomes_gray(format: str) -> None:
    bits = np.random.default_rng(0).random((9, 11)) > 0.5
    picture = open_picture(encoded(Image.fromarray(bits), format))
    assert (picture.is_gray, picture.bits) == (True, 8)
    assert np.array_equal(whole(picture)[0, 1].numpy(), bits)


def test_netpbm_in_all_its_notations() -> None:
    expected = torch.tensor([[0, 0.2, 0.4], [0.6, 0.8, 1]])
    for data in (
        b"P2 # gray\n3 2 5 0 1 2\n3 4 # more\n5",
        b"P5\n3 2\n5\n\0\1\2\3\4\5",
        b"P5 3 2 65535\n" + (np.arange(6) * 13107).astype(">u2").tobytes(),
        b"P3\n3 2\n10 " + b" ".join(b"%d %d %d" % (i, i, i) for i in range(0, 12, 2)),
        b"P6\n3 2\n255\n" + bytes(i * 51 for i in range(6) for _ in range(3)),
    ):
        picture = open_picture(data)
        assert picture.is_gray == (data[1:2] in b"25")
        torch.testing.assert_close(whole(picture)[0, 0], expected, rtol=0, atol=0.003)
    for data in (b"P1\n# b\n3 2\n101\n0 1 0", b"P4\n3 2\n\xa0\x40"):
        assert whole(open_picture(data))[0, 0].tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("gray", [False, True])
def test_bmp_is_read_by_pillow_as_it_was_meant(tmp_path: Path, gray: bool) -> None:
    values = torch.rand(1, 1 if gray else 3, 300, 5, generator=torch.Generator().manual_seed(0))
    write(tmp_path / "a.bmp", values)
    with Image.open(tmp_path / "a.bmp") as bmp:
        assert bmp.mode == ("L" if gray else "RGB")
        array = np.asarray(bmp).reshape(300, 5, -1)
    assert np.array_equal(array, (values[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8))


def cmyk_profile() -> bytes:
    return pyvips.Operation.call("profile_load", "cmyk")


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("embedded", [False, True])
def test_cmyk_becomes_srgb(format: str, embedded: bool) -> None:
    inks = np.zeros((8, 24, 4), np.uint8)
    inks[:, 8:16, 0] = inks[:, 16:, 1:3] = 255  # paper, cyan, magenta and yellow
    options = {"icc_profile": cmyk_profile()} if embedded else {}
    picture = open_picture(encoded(Image.fromarray(inks, "CMYK"), format, **options))
    assert (picture.is_gray, picture.has_alpha, picture.bits) == (False, False, 8)
    paper, cyan, red = (whole(picture)[0, :, 4, x] for x in (4, 12, 20))
    assert paper.min() > 0.97
    assert cyan[0] < 0.3 < 0.5 < cyan[1] < cyan[2]
    assert red[0] > 0.8 > 0.3 > red[1:].max()
    profile = enlarge(picture, "png").metadata.profile
    assert profile is not None
    assert profile[16:20] == b"RGB "


@pytest.mark.parametrize("space", ["lab", "labs"])
def test_lab_becomes_srgb(space: str) -> None:
    expected = np.round(RGB * 255).astype(np.uint8)
    data = pyvips.Image.new_from_array(expected).copy(interpretation="srgb").colourspace(space).tiffsave_buffer()
    picture = open_picture(data)
    assert not picture.is_gray
    assert np.abs(whole(picture)[0].permute(1, 2, 0).numpy() * 255 - expected).max() < 1.5
    profile = picture.metadata.profile
    assert profile is not None
    assert profile[16:20] == b"RGB "


def wide_profile() -> bytes:
    """Display P3."""
    return pyvips.Operation.call("profile_load", "p3")


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg", "webp", "avif"])
def test_colours_stay_in_their_own_space(kind: str) -> None:
    image = Image.fromarray(AS_8_BIT["RGB"])
    picture = open_picture(encoded(image, "PNG", icc_profile=wide_profile()))
    assert np.array_equal(whole(picture)[0].permute(1, 2, 0).mul(255).round().numpy(), AS_8_BIT["RGB"])
    result = enlarge(picture, kind, strip_metadata=True)
    assert result.metadata.profile == wide_profile()
    assert psnr(whole(result), whole(picture)) > LOSSY.get(kind, 60)


@pytest.mark.parametrize("kind", ["ppm", "bmp"])
def test_formats_without_profiles_get_srgb(kind: str) -> None:
    flat = Image.new("RGB", (8, 8), (200, 60, 40))
    result = whole(enlarge(open_picture(encoded(flat, "PNG", icc_profile=wide_profile())), kind))
    source = ImageCms.ImageCmsProfile(io.BytesIO(wide_profile()))
    expected = ImageCms.profileToProfile(flat, source, ImageCms.createProfile("sRGB"))
    assert expected is not None
    assert np.abs(result[0, :, 0, 0].numpy() * 255 - np.asarray(expected)[0, 0]).max() <= 2
    assert np.abs(result[0, 0, 0, 0].numpy() * 255 - 200) > 5  # it did change


def disc(size: int = 48, garbage: tuple[int, int, int] = (0, 255, 0)) -> np.ndarray:
    """An opaque red disc with an antialiased rim over transparent pixels painted with something else."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = np.clip(size / 3 - np.hypot(rows, columns), 0, 1)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = np.where(alpha[..., None] > 0, (255, 0, 0), garbage)
    pixels[..., 3] = np.round(alpha * 255)
    return pixels


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("final", [None, (77, 101), (300, 20)])
def test_colour_under_transparent_pixels_does_not_bleed(kind: str, final: tuple[int, int] | None) -> None:
    picture = open_picture(encoded(Image.fromarray(disc(), "RGBA"), "PNG"))
    assert whole(picture)[:, 1].max() == 0
    width = height = 4 * 48
    with PictureWriter(picture, None, format=kind, width=width, height=height, final_size=final) as writer:
        writer.write_rows(interpolate(whole(picture), scale_factor=4, mode="bicubic"))
        data = writer.finish()
    assert data is not None
    image = pyvips.Image.new_from_buffer(data, "").numpy()
    assert image.shape[:2] == ((final or (width, height))[1], (final or (width, height))[0])
    assert image[..., 1].max() <= 1
    assert image[image[..., 3] > 0][:, 0].min() >= 254


def test_faint_rims_take_the_colour_they_surround() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[..., 1] = 255
    pixels[8:24, 8:24] = (255, 0, 0, 255)
    pixels[7, 8:24] = (255, 255, 255, 3)
    colours = whole(open_picture(encoded(Image.fromarray(pixels, "RGBA"), "PNG")))[0]
    assert (colours[1:, 7, 10:22] < 0.1).all()
    assert colours[:, 10, 10].tolist() == [1, 0, 0]


@pytest.mark.parametrize("level", [1, 4, 255])
def test_visible_pixels_keep_their_colour_however_faint(level: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    pixels[..., 3] = level
    picture = open_picture(encoded(Image.fromarray(pixels, "RGBA"), "PNG"))
    assert np.array_equal(picture.colour.numpy(), pixels[..., :3])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_alpha_is_exact_where_flat_and_centred(bits: int, scale: int) -> None:
    full = 2**bits - 1
    pixels = np.zeros((16, 24, 2), np.uint8 if bits == 8 else np.uint16)
    pixels[:, 12:, 1] = full
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="b-w" if bits == 8 else "grey16")
    result = enlarge(open_picture(image.pngsave_buffer()), "png", scale)
    assert result.alpha is not None
    alpha = result.alpha.numpy().astype(int)
    edge = 12 * scale
    assert (alpha[:, : edge - 2 * scale] == 0).all()
    assert (alpha[:, edge + 2 * scale :] == full).all()
    row = alpha[5]
    assert (np.diff(row) >= 0).all()
    assert np.abs(row + row[::-1] - full).max() <= full / 100  # symmetrical about the edge: no shift


def test_transparency_goes_over_white_where_the_format_has_none() -> None:
    picture = open_picture(encoded(Image.fromarray(disc(garbage=(0, 0, 0)), "RGBA"), "PNG"))
    for kind in ("jpeg", "bmp", "ppm"):
        with PictureWriter(picture, None, format=kind, width=48, height=48) as writer:
            writer.write_rows(whole(picture))
            data = writer.finish()
        assert data is not None
        assert len(writer.warnings) == 1
        assert "white" in writer.warnings[0]
        result = whole(open_picture(data))
        assert result[..., 0, 0].min() > 0.98
        assert result[0, :, 24, 24].tolist() == pytest.approx([1, 0, 0], abs=0.02)


def test_gif_transparency_is_on_or_off() -> None:
    result = enlarge(open_picture(encoded(Image.fromarray(disc(), "RGBA"), "PNG")), "gif")
    assert result.alpha is not None
    assert set(np.unique(result.alpha.numpy())) == {0, 255}
    assert result.alpha.numpy()[24, 24] == 255


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (41, 1), (1, 20_000)])
@pytest.mark.parametrize("kind", FORMATS)
def test_extreme_shapes(size: tuple[int, int], kind: str) -> None:
    width, height = min(size[0], FORMATS[kind].max_side), min(size[1], FORMATS[kind].max_side)
    gray = np.arange(width * height, dtype=np.uint8).reshape(height, width, 1).repeat(2, axis=2) // 2
    gray[..., 1] = np.where(gray[..., 0] % 5 == 0, 0, 255)
    picture = open_picture(encoded(Image.fromarray(gray, "LA"), "PNG"))
    result = enlarge(picture, kind)
    assert (result.width, result.height) == (width, height)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 7), (64, 48)])
def test_final_size_is_met_and_centred(size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)
    picture = open_picture(encoded(Image.fromarray(ramp), "PNG"))
    result = enlarge(picture, "png", final_size=size)
    assert (result.width, result.height) == size
    x = (np.arange(size[0]) + 0.5) * 64 / size[0] - 0.5
    margin = 3 * max(1, 64 / size[0])  # the reach of the kernel
    inner = (x > margin) & (x < 63 - margin)
    assert np.abs(whole(result)[0, 0, 0].numpy()[inner] * 255 - x[inner] * 255 / 63).max(initial=0) < 1.6


def test_only_the_first_page_is_used_and_said() -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue", "lime")]
    for format in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        picture = open_picture(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))
        assert (picture.width, picture.height) == (6, 5)
        assert whole(picture)[0, :, 2, 2].tolist() == [1, 0, 0]
        assert len(picture.warnings) == 1
        assert "3 pages" in picture.warnings[0]


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.new("RGB", (3, 2), "red"), "PNG"))
    assert open_picture(path).format == "png"


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for value in (0.0, 1.0):
        write(tmp_path / "a.png", torch.full((1, 1, 4, 4), value))
        assert read(tmp_path / "a.png").mean() == value


def test_regions_are_parts_of_the_whole_and_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", torch.rand(1, 3, 50, 70))
    picture = open_picture(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()  # the open file is enough
    everything = whole(picture)
    monkeypatch.setattr(picture, "_decode", lambda: pytest.fail("decoded twice"))
    for left, top, width, height in ((0, 0, 1, 1), (69, 49, 1, 1), (3, 40, 60, 10), (10, 0, 7, 50)):
        part = picture.region(left, top, width, height)
        assert torch.equal(part, everything[:, :, top : top + height, left : left + width])
    for outside in ((0, 0, 71, 1), (-1, 0, 2, 2), (0, 0, 0, 1), (0, 50, 1, 1)):
        with pytest.raises(ValueError, match="not within 70 x 50"):
            picture.region(*outside)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_rows_may_be_made_ready_elsewhere(mode: str) -> None:
    picture = open_picture(encoded(Image.new(mode, (7, 5)), "PNG"))
    rows = torch.rand(1, 3, 10, 14)
    files = []
    for parts in ((rows,), rows.split(3, dim=2)):
        with PictureWriter(picture, None, format="png", width=14, height=10) as writer:
            for part in parts:
                if len(parts) == 1:
                    writer.write_rows(part)
                else:
                    values = writer.values(part)
                    assert values.dtype == (torch.int16 if mode == "I;16" else torch.uint8)
                    assert values.shape == (part.shape[2], 14, 3 if mode == "RGB" else 1)
                    writer.write_values(values)
            with pytest.raises(ValueError, match="11 rows are more than the height 10"):
                writer.write_values(writer.values(rows[:, :, :1]))
            with pytest.raises(ValueError, match="rows should be"):
                writer.values(rows[:, :, :, :5])
            files.append(writer.finish())
    assert files[0] == files[1]


def test_large_pictures_are_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(disc(), "RGBA"), "PNG")
    expected = whole(open_picture(data))
    monkeypatch.setattr("dacesr.picture.IN_MEMORY", 100)
    assert torch.equal(whole(open_picture(data)), expected)


def test_luma_is_that_of_matlab() -> None:
    with np.load(Path(__file__).parent / "fixtures" / "luma.npz") as reference:
        image, expected = torch.from_numpy(reference["im"]), torch.from_numpy(reference["y"])
    image, expected = image.permute(2, 0, 1)[None], expected[None, None]
    torch.testing.assert_close(rgb_to_y(image), expected, rtol=0, atol=1e-5)


def test_luma_spans_16_to_235() -> None:
    corners = torch.tensor([[0.0, 1.0]]).expand(3, 2).reshape(1, 3, 1, 2)
    torch.testing.assert_close(rgb_to_y(corners).flatten() * 255, torch.tensor([16.0, 235.0]))
