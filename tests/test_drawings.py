"""Drawings: a function of the generator and the fonts, with edges and contrast, and fonts that are missing."""

import random
import shutil
import string
from pathlib import Path

import pytest
import torch

from dacesr.drawings import Drawings
from dacesr.lettering import SCRIPTS, find_fonts, random_words
from dacesr.sheet import Sheet
from dacesr.sources import Mixture, Sample, sample_generator


@pytest.fixture(scope="module")
def drawings() -> Drawings:
    try:
        return Drawings()
    except ValueError as error:
        pytest.skip(str(error))


def draws(source: Drawings, count: int, size: int = 64) -> list[Sample]:
    return [source.sample(size, sample_generator(0, i)) for i in range(count)]


def test_a_drawing_depends_on_its_generator_alone(drawings: Drawings) -> None:
    first = draws(drawings, 40)
    again = [Drawings().sample(64, sample_generator(0, i)) for i in (39, 0, 7)]
    for i, sample in zip((39, 0, 7), again, strict=True):
        assert torch.equal(sample.gt, first[i].gt)
    assert len({sample.gt.numpy().tobytes() for sample in first}) == 40


@pytest.mark.parametrize("size", [1, 17, 96, 256])
def test_sizes(drawings: Drawings, size: int) -> None:
    for gt, lr in draws(drawings, 30, size):
        assert gt.shape == (3, size, size)
        assert gt.dtype == torch.uint8
        assert lr is None


def test_nearly_all_have_edges_and_contrast(drawings: Drawings) -> None:
    flat = 0
    for gt, _ in draws(drawings, 200, 128):
        luma = gt.float().mean(0)
        strong = (luma.diff(dim=1).abs() > 30).float().mean()
        flat += bool(luma.amax() - luma.amin() < 50 or strong < 0.002)
    assert flat < 10


def test_drawings_mix_with_other_sources(drawings: Drawings) -> None:
    assert not Mixture([(drawings, 0.2), (drawings, 1)]).paired


def test_edges_are_smooth() -> None:
    sheet = Sheet(random.Random(0), 32, 4, script="latin", fonts=[])
    sheet.image.paste((0, 0, 0), (0, 0, 128, 128))
    sheet.ellipse((4, 4, 28, 28), fill=(255, 255, 255))
    values = torch.tensor(list(sheet.image.reduce(4).convert("L").tobytes())).reshape(32, 32)
    assert values[16, 16] == 255
    assert values[0, 0] == 0
    assert len(values.unique()) > 8
    assert torch.equal(values, values.flip(0))
    assert values.sum() / 255 == pytest.approx(3.1416 * 12**2, rel=0.02)


def test_ink_stands_out_from_any_paper() -> None:
    for seed in range(300):
        sheet = Sheet(random.Random(seed), 4, 1, script="latin", fonts=[])
        luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (sheet.paper, sheet.ink)]
        assert abs(luma[0] - luma[1]) > 60


def test_words_are_made_of_their_script() -> None:
    rng = random.Random(0)
    for script, letters in SCRIPTS.items():
        text = "".join(random_words(rng, script, 5) for _ in range(50))
        known = "".join(letters) + string.ascii_lowercase if script == "latin" else "".join(letters)
        allowed = set(known + known.upper() + string.digits + string.punctuation + " km")
        assert set(text) <= allowed
        assert len(set(text) & set(known)) > 15


def test_fonts_may_be_named(drawings: Drawings, tmp_path: Path) -> None:
    font = find_fonts(None, ["latin"])["latin"][0]
    shutil.copy(font, tmp_path / "one.ttf")
    (tmp_path / "broken.otf").write_text("no font")
    assert find_fonts([tmp_path], ["latin"]) == {"latin": [str(tmp_path / "one.ttf")]}
    by_folder, by_file = Drawings([tmp_path], ["latin"]), Drawings([tmp_path / "one.ttf"], ["latin"])
    assert torch.equal(draws(by_folder, 1)[0].gt, draws(by_file, 1)[0].gt)


def test_missing_fonts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no TrueType or OpenType font for latin in {tmp_path}: install one"):
        Drawings([tmp_path], ["latin"])
    with pytest.raises(ValueError, match=r"gone\.ttf is no font file and no folder"):
        Drawings([tmp_path / "gone.ttf"])
    with pytest.raises(ValueError, match=r"scripts are latin, .*, not runes"):
        Drawings([tmp_path], ["runes"])
    with pytest.raises(ValueError, match="at least one script"):
        Drawings([tmp_path], [])
