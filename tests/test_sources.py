"""Sources of samples: determinism, lists as BasicSR users have them, pairs, mixtures, and files that cannot be used."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from dacesr.image import write
from dacesr.sources import Mixture, Pairs, Photographs, Sample, sample_generator


def picture(path: Path, height: int = 40, width: int = 48, seed: int = 0) -> torch.Tensor:
    """Write a noise picture; its 8-bit values."""
    values = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, values[None] / 255)
    return values


def pair(gt: Path, lr: Path, seed: int = 0, height: int = 10, width: int = 12) -> None:
    """Write a small noise picture and its enlargement by repetition."""
    small = picture(lr, height, width, seed)
    gt.parent.mkdir(parents=True, exist_ok=True)
    write(gt, small.repeat_interleave(4, 1).repeat_interleave(4, 2)[None] / 255)


def draws(source: Photographs | Pairs | Mixture, count: int = 20, size: int = 16) -> list[Sample]:
    return [source.sample(size, sample_generator(0, i)) for i in range(count)]


def same(a: list[Sample], b: list[Sample]) -> bool:
    return all(torch.equal(x.gt, y.gt) for x, y in zip(a, b, strict=True))


class Flat:
    """A source of one colour."""

    paired = False

    def __init__(self, value: int) -> None:
        self.value = value

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        return Sample(torch.full((3, size, size), self.value, dtype=torch.uint8), None)


def test_generators_of_neighbours_are_unrelated() -> None:
    first = [torch.rand((), generator=sample_generator(seed, i)).item() for seed in range(30) for i in range(100)]
    assert len(set(first)) == len(first)
    values = torch.tensor(first)
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(torch.corrcoef(torch.stack((values[:-1], values[1:])))[0, 1]) < 0.06
    assert sample_generator(-1, 5).initial_seed() != sample_generator(1, 5).initial_seed()
    assert sample_generator(3, 4).initial_seed() == sample_generator(3, 4).initial_seed()
    assert sample_generator(3, 4).initial_seed() != sample_generator(4, 3).initial_seed()


def test_a_sample_depends_on_its_generator_alone(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"{i}.png", 40 + i, 48, i)
    kept, unkept, partly = (Photographs([tmp_path], cache_bytes=n) for n in (2**30, 0, 12_000))
    expected = draws(kept)
    assert same(expected, draws(unkept))
    assert same(expected, draws(partly))
    assert same(expected[::-1], [kept.sample(16, sample_generator(0, i)) for i in reversed(range(20))])
    assert all(sample.gt.shape == (3, 16, 16) and sample.lr is None for sample in expected)


def test_pictures_and_positions_are_drawn_evenly(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", torch.full((1, 3, 16, 16 + 30 * i), i / 255))
    source = Photographs([tmp_path])
    counts = Counter(int(sample.gt[0, 0, 0]) for sample in draws(source, 600))
    assert all(150 < counts[i] < 250 for i in range(3))
    ramp = torch.arange(20, dtype=torch.float32).expand(1, 3, 20, 20) / 255
    (tmp_path / "ramp").mkdir()
    write(tmp_path / "ramp/x.png", ramp)
    lefts = Counter(int(sample.gt[0, 0, 0]) for sample in draws(Photographs([tmp_path / "ramp"]), 500))
    assert sorted(lefts) == [0, 1, 2, 3, 4]
    assert min(lefts.values()) > 60


def test_several_folders_and_their_subfolders(tmp_path: Path) -> None:
    picture(tmp_path / "a/x/1.png")
    picture(tmp_path / "b/2.png")
    assert len(Photographs([tmp_path / "a", tmp_path / "b"])) == 2


@pytest.mark.parametrize(
    "text", ["x/1.png (40,48,3)\n\n2.png (40, 48, 3)\n", "x/1.png\n2.png", "\ufeffx/1.png\r\n2.png\r\n"]
)
def test_lists_of_basicsr(tmp_path: Path, text: str) -> None:
    values = [picture(tmp_path / "a/x/1.png", seed=1), picture(tmp_path / "b/2.png", seed=2)]
    picture(tmp_path / "a/unlisted.png")
    (tmp_path / "list.txt").write_text(text, "utf-8")
    source = Photographs([tmp_path / "a", tmp_path / "b"], meta_info=tmp_path / "list.txt")
    assert len(source) == 2
    crops = [sample.gt for sample in draws(source, 10, 40)]
    assert all(any(torch.equal(crop, part) for v in values for part in v.unfold(2, 40, 1).unbind(2)) for crop in crops)


def test_damaged_files_are_named_counted_and_replaced(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 3])
    said: list[str] = []
    source = Photographs([tmp_path], warn=said.append)
    first = draws(source)
    assert source.skipped == 3
    assert len(said) == 3
    for name in ("text.png", "empty.jpg", "cut.png"):
        assert len([sentence for sentence in said if name in sentence and "skipped" in sentence]) == 1
    assert same(first, draws(source))
    assert same(
        first[10:],
        [Photographs([tmp_path], warn=said.append).sample(16, sample_generator(0, i)) for i in range(10, 20)],
    )


def test_warnings_are_those_of_python_unless_taken(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.warns(UserWarning, match=r"text\.png is not a picture: .*; it is skipped"):
        draws(Photographs([tmp_path]))


def test_small_pictures_are_counted_and_one_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    for i in range(3):
        picture(tmp_path / f"small{i}.png", 15, 90)
    said: list[str] = []
    source = Photographs([tmp_path], warn=said.append)
    draws(source, 40)
    assert (source.too_small, source.skipped, len(said)) == (3, 0, 1)
    assert "90 x 15 pixels, less than a crop of 16" in said[0]


def test_folders_without_a_usable_picture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="missing is not a folder"):
        Photographs([tmp_path / "missing"])
    with pytest.raises(ValueError, match="empty holds no picture"):
        Photographs([tmp_path / "empty"])
    with pytest.raises(ValueError, match="at least one folder"):
        Photographs([])
    (tmp_path / "empty/a.png").write_text("text")
    picture(tmp_path / "empty/b.png", 8, 8)
    source = Photographs([tmp_path / "empty"], warn=lambda sentence: None)
    with pytest.raises(ValueError, match=r"empty holds no picture to train on: .*a\.png is not a picture"):
        draws(source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gone.png", "list.txt lists gone.png, which is not in"),
        ("\n", "list.txt holds no picture"),
        (None, "list.txt cannot"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        Photographs([tmp_path], meta_info=tmp_path / "list.txt")


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize("suffix", [".png", ".tif", "x4.png"])
def test_pairs_are_cut_at_the_same_place(tmp_path: Path, suffix: str, cache_bytes: int) -> None:
    for i in range(3):
        pair(tmp_path / f"gt/s/{i}.png", tmp_path / f"lr/s/{i}{suffix}", i)
    source = Pairs(tmp_path / "gt", tmp_path / "lr", cache_bytes=cache_bytes)
    for gt, lr in draws(source):
        assert lr is not None
        assert lr.shape == (3, 4, 4)
        assert torch.equal(gt, lr.repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_lists_of_pairs(tmp_path: Path) -> None:
    pair(tmp_path / "gt/1.png", tmp_path / "lr/one.png", 1)
    pair(tmp_path / "gt/2.png", tmp_path / "lr/two.png", 2)
    (tmp_path / "list.txt").write_text("1.png, one.png\n2.png (40,48,3),two.png (10,12,3)\n")
    source = Pairs(tmp_path / "gt", tmp_path / "lr", meta_info=tmp_path / "list.txt")
    assert len(source) == 2
    for gt, lr in draws(source):
        assert lr is not None
        assert torch.equal(gt[:, ::4, ::4], lr)
    (tmp_path / "list.txt").write_text("1.png\n")
    with pytest.raises(ValueError, match=r"list\.txt: '1\.png' should be two paths"):
        Pairs(tmp_path / "gt", tmp_path / "lr", meta_info=tmp_path / "list.txt")


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    pair(tmp_path / "gt/1.png", tmp_path / "lr/1.png")
    pair(tmp_path / "gt/2.png", tmp_path / "lr/2.png")
    picture(tmp_path / "lr/2.png", 11, 12)
    said: list[str] = []
    source = Pairs(tmp_path / "gt", tmp_path / "lr", warn=said.append)
    draws(source)
    assert source.skipped == 1
    assert "2.png is 12 x 11 pixels, which is not 1/4 of the 48 x 40 of" in said[0]
    with pytest.raises(ValueError, match="18 pixels are not a multiple of the scale 4"):
        source.sample(18, sample_generator(0, 0))
    with pytest.raises(ValueError, match="less than a crop of 48"):
        source.sample(48, sample_generator(0, 0))
    picture(tmp_path / "gt/3.png")
    with pytest.raises(ValueError, match=r"3\.png has no partner of that name in .*lr"):
        Pairs(tmp_path / "gt", tmp_path / "lr")


def test_rows_of_gt_beyond_the_scale_are_left_out(tmp_path: Path) -> None:
    pair(tmp_path / "gt/1.png", tmp_path / "lr/1.png")
    picture(tmp_path / "gt/1.png", 43, 49)
    draws(Pairs(tmp_path / "gt", tmp_path / "lr"), size=40)


def test_a_mixture_draws_by_weight() -> None:
    mixture = Mixture([(Flat(0), 3), (Flat(1), 1), (Mixture([(Flat(2), 5)]), 4)])
    counts = Counter(int(sample.gt[0, 0, 0]) for sample in draws(mixture, 1600, 1))
    assert abs(counts[0] - 600) < 60
    assert abs(counts[1] - 200) < 45
    assert abs(counts[2] - 800) < 60


def test_mixtures_that_cannot_be_meant(tmp_path: Path) -> None:
    pair(tmp_path / "gt/1.png", tmp_path / "lr/1.png")
    with pytest.raises(ValueError, match="cannot hold pairs beside"):
        Mixture([(Flat(0), 1), (Pairs(tmp_path / "gt", tmp_path / "lr"), 1)])
    assert Mixture([(Pairs(tmp_path / "gt", tmp_path / "lr"), 1)]).paired
    for parts in ([], [(Flat(0), 0)], [(Flat(0), float("nan"))], [(Flat(0), 1), (Flat(1), -1)]):
        with pytest.raises(ValueError, match="positive weights"):
            Mixture(parts)


def test_shared_photographs_are_all_usable(data: Path) -> None:
    source = Photographs([data / "photos" / "train"], cache_bytes=0)
    assert len(source) == 169
    assert {sample.gt.shape for sample in draws(source, 30, 256)} == {(3, 256, 256)}
    assert source.skipped == source.too_small == 0
