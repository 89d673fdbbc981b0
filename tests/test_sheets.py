"""The sheets under examples/: before and after, and what several networks make of a folder of pictures."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pyvips
import torch

from dacesr.checkpoint import save_restorer
from dacesr.image import imresize, read, resize, write
from dacesr.nets.restorer import Restorer
from dacesr.pairing import pair_restorers

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BLUE, RED = [20, 40, 220], [220, 40, 20]


@pytest.fixture(scope="module")
def sheets() -> Iterator[ModuleType]:
    """The program that draws contact sheets."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("sheets")
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def layout(sheets: ModuleType) -> ModuleType:
    """What both programs draw with."""
    return sheets.layout


class Nearest:
    """Enlarges by repeating pixels, and remembers what it was given."""

    def __init__(self, *, conditioned: bool = False) -> None:
        self.scale = 4
        self.extractor = object() if conditioned else None
        self.seen: list[np.ndarray] = []

    def __call__(self, x: np.ndarray, strength: float | None = None) -> np.ndarray:
        self.seen.append(x)
        return x.repeat(4, 0).repeat(4, 1)


def flat(colour: list[int], width: int, height: int) -> pyvips.Image:
    return (pyvips.Image.black(width, height, bands=3) + colour).cast("uchar").copy(interpretation="srgb")


def noisy(width: int, height: int, box: tuple[int, int, int, int]) -> pyvips.Image:
    """A gray image with noise in a box."""
    values = np.full((height, width, 3), 128, np.uint8)
    left, top, wide, high = box
    values[top : top + high, left : left + wide] = np.random.default_rng(1).integers(0, 256, (high, wide, 3))
    return pyvips.Image.new_from_array(values).copy(interpretation="srgb")


def cells(sheets: ModuleType, row: pyvips.Image, count: int) -> list[np.ndarray]:
    """The pictures in a row that has a heading and labels, without its thumbnail."""
    (wide, high), gap = sheets.layout.CELL, sheets.layout.GAP
    lefts = [sheets.WHOLE[0] + gap + place * (wide + gap) for place in range(count)]
    return [row.crop(left, row.height - high, wide, high).numpy() for left in lefts]


def call(program: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a program."""
    monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        program.main()
    return int(stopped.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture of 200 x 150 pixels whose detail is in a corner."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noisy(200, 150, (100, 76, 96, 72)).write_to_file(str(folder / "a.png"))
    return folder


def test_sheet_shows_inputs_beside_results(tmp_path: Path) -> None:
    inputs, outputs, target = tmp_path / "in", tmp_path / "out", tmp_path / "sheet.png"
    inputs.mkdir()
    outputs.mkdir()
    flat(BLUE, 30, 20).write_to_file(str(inputs / "a.png"))
    command = [sys.executable, str(EXAMPLES / "sheet.py"), str(inputs), str(outputs), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a_x4.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1

    flat(RED, 120, 80).write_to_file(str(outputs / "a_x4.png"))
    subprocess.run(command, check=True, capture_output=True)
    sheet = pyvips.Image.new_from_file(str(target)).numpy()
    left_of_red = (sheet == BLUE).all(-1).nonzero()[1]
    assert left_of_red.size == 120 * 80
    assert (sheet == RED).all(-1).nonzero()[1].max() > left_of_red.max()


@pytest.mark.parametrize("place", [(0, 0), (104, 76), (52, 40)])
def test_detailed_part_is_where_the_detail_is(layout: ModuleType, place: tuple[int, int]) -> None:
    left, top, *size = layout.detailed_part(noisy(200, 148, (*place, 96, 72)), (96, 72))
    assert size == [96, 72]
    assert abs(left - place[0]) <= 4
    assert abs(top - place[1]) <= 4


def test_detailed_part_stays_within_limits(layout: ModuleType) -> None:
    image, limits = noisy(200, 148, (0, 0, 60, 60)), layout.Box(40, 30, 120, 100)
    left, top, width, height = layout.detailed_part(image, (96, 72), limits)
    assert 40 <= left < left + width <= 160
    assert 30 <= top < top + height <= 130


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (97, 2), (96, 72)])
def test_detailed_part_of_a_small_image_is_within_it(layout: ModuleType, size: tuple[int, int]) -> None:
    left, top, width, height = layout.detailed_part(flat(RED, *size), (96, 72))
    assert 0 <= left < left + width <= size[0]
    assert 0 <= top < top + height <= size[1]


def test_thumbnail_frames_even_a_speck(layout: ModuleType) -> None:
    small = layout.thumbnail(flat(BLUE, 4000, 3000), layout.Box(3960, 2970, 40, 30), (256, 288))
    assert (small.width, small.height) == (256, 192)
    framed = (small.numpy() == layout.FRAME).all(-1).nonzero()
    assert framed[0].min() >= 192 - layout.SMALLEST_FRAME
    assert framed[1].max() == 255


def test_long_label_keeps_its_ends(layout: ModuleType) -> None:
    lines = [layout.line(f"{first}{'x' * 300}{last}", 200).numpy() for first, last in ("AA", "AB", "BA")]
    assert lines[0].shape == (layout.LABEL, 200, 3)
    assert (lines[0] != lines[1])[:, 150:].any()
    assert (lines[0] != lines[2])[:, :50].any()


def test_label_may_hold_markup_and_bytes_that_are_no_text(layout: ModuleType) -> None:
    assert layout.line("<b> & \udcff", 200).width == 200


def test_bicubic_is_that_of_matlab() -> None:
    image = noisy(24, 20, (0, 0, 24, 20))
    x = torch.from_numpy(image.numpy()).permute(2, 0, 1)[None] / 255
    wanted = (imresize(x, 4).clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
    found = resize(image, 96, 80).numpy()
    assert np.abs(found - wanted)[8:-8, 8:-8].max() <= 1.5  # 8 bit after each of two axes


def test_pictures_are_shown_in_8_bits_over_white(layout: ModuleType, tmp_path: Path) -> None:
    half_red = np.full((4, 4, 4), (65535, 0, 0, 32768), np.uint16)
    pyvips.Image.new_from_array(half_red).copy(interpretation="rgb16").write_to_file(str(tmp_path / "a.png"))
    image = layout.load(tmp_path / "a.png")
    assert (image.format, image.bands) == ("uchar", 3)
    assert image(0, 0) == [255, 127, 127]


@pytest.mark.parametrize(("profile", "same"), [("srgb", True), ("p3", False)])
def test_pictures_are_shown_in_srgb(layout: ModuleType, tmp_path: Path, profile: str, same: bool) -> None:
    image = flat(RED, 4, 4)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", pyvips.Operation.call("profile_load", profile))
    image.write_to_file(str(tmp_path / "a.png"))
    assert (layout.load(tmp_path / "a.png")(0, 0) == RED) == same


@pytest.mark.parametrize("conditioned", [False, True])
def test_all_columns_show_the_same_part(sheets: ModuleType, folder: Path, conditioned: bool) -> None:
    columns = [sheets.Column(name, Nearest(conditioned=conditioned)) for name in "ab"]
    given, enlarged, *networks = cells(sheets, sheets.compared(folder / "a.png", columns), 4)
    assert given.std() > 50
    assert all((picture == given).all() for picture in networks)
    middle = [enlarged[1::4, 1::4], enlarged[1::4, 2::4], enlarged[2::4, 1::4], enlarged[2::4, 2::4]]
    assert np.corrcoef(np.mean(middle, 0).ravel(), given[::4, ::4].ravel())[0, 1] > 0.97


def test_conditioned_network_sees_the_whole_picture(sheets: ModuleType, folder: Path) -> None:
    plain, conditioned = Nearest(), Nearest(conditioned=True)
    columns = [sheets.Column("a", plain), sheets.Column("b", conditioned)]
    sheets.compared(folder / "a.png", columns)
    assert [x.shape for x in conditioned.seen] == [(150, 200, 3)]
    assert plain.seen[0].size < conditioned.seen[0].size


def test_conditioned_network_sees_the_middle_of_a_large_picture(
    sheets: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "LARGEST", 200 * 150 // 4)
    column = sheets.Column("a", Nearest(conditioned=True))
    row = sheets.compared(folder / "a.png", [column])
    (seen,) = column.up.seen
    whole = pyvips.Image.new_from_file(str(folder / "a.png")).numpy()
    assert (seen == whole[37:112, 50:150]).all()
    given, _, shown = cells(sheets, row, 3)
    assert (given == shown).all()


def test_model_with_a_pair_has_a_column_for_each_strength(
    sheets: ModuleType, bilinear: Restorer, bilinear_file: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        for name, parameter in bilinear.named_parameters():
            if name.startswith("upsample.") and name.endswith("bias"):
                parameter.fill_(0.2)
    crisp = tmp_path / "crisp.safetensors"
    save_restorer(crisp, bilinear)
    pair_restorers(bilinear_file, crisp)
    columns = sheets.columns_of(str(crisp), [f"soft={bilinear_file}"])
    assert [column.label for column in columns] == ["soft", *(f"crisp, strength {s}" for s in ("0", "0.5", "1"))]
    picture = flat([100, 100, 100], 96, 72)
    box = sheets.Box.all_of(picture)
    brightness = [column.upscale(picture, box, box).avg() for column in columns]
    assert brightness[0] == pytest.approx(100, abs=1)
    assert np.diff(brightness) == pytest.approx([0, 25.5, 25.5], abs=1)


def test_network_gives_the_part_as_of_the_whole_picture(sheets: ModuleType, folder: Path, bilinear_file: Path) -> None:
    (*_, column) = sheets.columns_of(str(bilinear_file), [f"other={bilinear_file}"])
    assert not column.conditioned
    *_, shown = cells(sheets, sheets.compared(folder / "a.png", [column]), 3)
    whole = column.up(pyvips.Image.new_from_file(str(folder / "a.png")).numpy())
    part = sheets.layout.detailed_part(sheets.layout.load(folder / "a.png"), (96, 72)).times(4)
    wanted = whole[part.top :, part.left :][:288, :384]
    assert np.abs(shown.astype(int) - wanted).max() <= 1


def test_large_folders_take_several_sheets(
    sheets: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "ROWS", 2)
    for name in ("b", "c"):
        write(folder / f"{name}.png", torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)))
    assert (
        sheets.write_sheets(sheets.layout.pictures_in(folder), [sheets.Column("a", Nearest())], tmp_path / "out") == 0
    )
    found = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in found] == ["pictures_1.png", "pictures_2.png"]
    assert read(found[0]).shape[2] > read(found[1]).shape[2]


def test_damaged_picture_is_named_and_left_out(
    sheets: ModuleType,
    folder: Path,
    bilinear_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = (folder / "a.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    arguments = [folder, "-n", bilinear_file, "--compare", f"same={bilinear_file}", "-o", tmp_path / "out"]
    assert call(sheets, monkeypatch, *arguments) == 1
    assert (tmp_path / "out" / "pictures_1.png").is_file()
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "b.png is damaged or cut short" in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-n", "nothing.pth"], "nothing.pth does not exist"),
        (["--compare", "light"], "--compare takes NAME=FILE, not light"),
        (["--compare", "other=nothing.pth"], "nothing.pth does not exist"),
    ],
)
def test_wrong_call_is_one_sentence(
    sheets: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    sentence: str,
) -> None:
    monkeypatch.setenv("DACESR_DATA", "")
    assert call(sheets, monkeypatch, folder, *options) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_folder_without_pictures_is_named(
    sheets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(sheets, monkeypatch, tmp_path / "none") == 2
    assert capsys.readouterr().err == f"sheets: {tmp_path / 'none'} holds no pictures\n"


def test_released_network_is_compared_with_unless_another_is(
    sheets: ModuleType,
    data: Path,
    bilinear_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = [column.label for column in sheets.columns_of(str(bilinear_file), [])]
    assert labels == ["SRVGG (upscayl-lite-4x)", "bilinear"]
    monkeypatch.setenv("DACESR_DATA", str(bilinear_file.parent))
    assert [column.label for column in sheets.columns_of(str(bilinear_file), [])] == ["bilinear"]
    assert "the column of SRVGG is left out" in capsys.readouterr().err
