"""Labelled sets: what is read from folders and from a CSV, which tags are kept, and what is refused."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dacesr.image import read, write
from dacesr.labelled import LabelledSet

ROWS = {  # file: split, tags
    "a.png": ("train", "sea|sky"),
    "b.png": ("train", "sky|sea, open"),
    "c.png": ("train", "tree"),
    "d.png": ("test", "boat|sky"),
    "e.png": ("test", "boat"),
    "f.png": ("train", ""),
}


def picture(path: Path, height: int = 6, width: int = 8, seed: int = 0, bands: int = 3, bits: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = torch.rand(1, bands, height, width, generator=torch.Generator().manual_seed(seed))
    write(path, values, bits=bits)
    return path


def table(path: Path, rows: Mapping[str, tuple[str, str]], columns: str = "file,split,tags") -> Path:
    path.write_text("\n".join([columns, *(f'{file},{split},"{tags}"' for file, (split, tags) in rows.items())]))
    return path


def pack(folder: Path, tar: Path) -> Path:
    """Put a folder's files into a tar, the last name first."""
    with tarfile.open(tar, "w") as file:
        for path in sorted(folder.iterdir(), reverse=True):
            file.add(path, path.name)
    return tar


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A CSV beside a folder of its files."""
    for i, name in enumerate(ROWS):
        picture(tmp_path / "set" / name, seed=i)
    return table(tmp_path / "set.csv", ROWS)


def classes(folder: Path, counts: Mapping[str, int]) -> Path:
    for place, count in counts.items():
        for i in range(count):
            picture(folder / place / f"{i}.png", seed=i)
    return folder


def test_a_csv_gives_pictures_names_and_multi_hot_labels(source: Path) -> None:
    found = LabelledSet.open(source, split="train")
    assert found.tags == ("sky", "sea", "sea, open", "tree")  # by frequency, then name; a comma does not separate
    assert found.names == ("a.png", "b.png", "c.png")  # f.png has no tag
    assert found.labels.tolist() == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert found.labels.dtype == torch.uint8
    assert len(found) == 3
    for name, pixels in zip(found.names, found.pictures, strict=True):
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels[None] / 255, read(source.parent / "set" / name))


def test_the_tags_of_training_are_those_of_all_splits(source: Path) -> None:
    found = LabelledSet.open(source, split="test")
    assert found.tags == LabelledSet.open(source, split="train").tags
    assert found.names == ("d.png", "e.png")
    assert found.labels.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]  # boat is of no training picture; e.png stays


def test_rare_tags_can_be_left_out_and_tags_given(source: Path) -> None:
    found = LabelledSet.open(source, split="train", minimum=2)
    assert (found.tags, found.names) == (("sky",), ("a.png", "b.png"))
    given = LabelledSet.open(source, split="test", tags=["boat", "sky", "never"])
    assert given.tags == ("boat", "sky", "never")
    assert given.labels.tolist() == [[1, 1, 0], [1, 0, 0]]


def test_a_tar_gives_what_a_folder_gives(source: Path, tmp_path: Path) -> None:
    folder = LabelledSet.open(source, split="train")
    packed = pack(tmp_path / "set", tmp_path / "other.tar")
    (tmp_path / "set").rename(tmp_path / "moved")
    tars = [LabelledSet.open(source, split="train", files=packed)]
    packed.rename(tmp_path / "set.tar")
    tars.append(LabelledSet.open(source, split="train"))
    for tar in tars:
        assert tar.names == folder.names
        assert all(torch.equal(a, b) for a, b in zip(tar.pictures, folder.pictures, strict=True))


def test_other_columns_and_a_mark_of_excel_are_ignored(source: Path) -> None:
    rows = [f'{tags},7,{split},{file},"a, b"' for file, (split, tags) in ROWS.items() if "," not in tags]
    source.write_text("\ufeff" + "\n".join(["tags,more,split,file,note", *rows]), encoding="utf-8")
    assert LabelledSet.open(source, split="train").tags == ("sea", "sky", "tree")


def test_a_file_listed_twice_is_one_picture_with_both_lines_tags(source: Path) -> None:
    source.write_text("file,split,tags\na.png,train,sea\na.png,train,sky\n")
    found = LabelledSet.open(source, split="train")
    assert (found.names, found.labels.tolist()) == (("a.png",), [[1, 1]])


def test_folders_are_classes(tmp_path: Path) -> None:
    found = LabelledSet.open(classes(tmp_path, {"cat": 1, "dog/young": 2, ".hidden": 1}), split="train")
    assert found.tags == ("dog", "cat")
    assert found.names == ("cat/0.png", "dog/young/0.png", "dog/young/1.png")
    assert found.labels.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_folders_of_splits_hold_classes(tmp_path: Path) -> None:
    folder = classes(tmp_path, {"train/cat": 2, "train/dog": 1, "test/dog": 1, "test/fox": 1, "other/fox": 4})
    train, test = (LabelledSet.open(folder, split=split) for split in ("train", "test"))
    assert train.tags == test.tags == ("cat", "dog")
    assert train.labels.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert test.names == ("dog/0.png", "fox/0.png")
    assert test.labels.tolist() == [[0, 1], [0, 0]]


def test_validation_is_a_fixed_share_of_training(tmp_path: Path) -> None:
    rows = {f"{i}.png": ("train", "odd" if i % 2 else "even|four") for i in range(300)} | {"t.png": ("test", "odd")}
    picture(tmp_path / "set" / "t.png")
    for name in rows:
        (tmp_path / "set" / name).write_bytes((tmp_path / "set" / "t.png").read_bytes())
    source = table(tmp_path / "set.csv", rows)
    parts = {s: LabelledSet.open(source, split=s, validation_share=0.2) for s in ("train", "val", "test")}
    names = {split: set(part.names) for split, part in parts.items()}
    assert names["train"] | names["val"] == rows.keys() - {"t.png"}
    assert not names["train"] & names["val"]
    assert 40 <= len(names["val"]) <= 80
    assert names["test"] == {"t.png"}
    assert len({part.tags for part in parts.values()}) == 1
    smaller = LabelledSet.open(source, split="val", validation_share=0.1)
    assert set(smaller.names) < names["val"]
    table(source, dict(reversed(rows.items())))  # the order of the lines decides nothing
    assert set(LabelledSet.open(source, split="val", validation_share=0.2).names) == names["val"]
    with pytest.raises(ValueError, match="no picture of the split 'val'"):
        LabelledSet.open(source, split="val")


def test_a_source_may_have_a_validation_split_of_its_own(source: Path) -> None:
    table(source, ROWS | {"d.png": ("val", "sky|tree")})
    assert LabelledSet.open(source, split="val").names == ("d.png",)


def test_gray_deep_and_large_pictures_become_8_bit_rgb(tmp_path: Path) -> None:
    gray = picture(tmp_path / "set" / "x" / "gray.png", bands=1)
    deep = picture(tmp_path / "set" / "x" / "deep.png", bits=16)
    picture(tmp_path / "set" / "x" / "wide.png", height=40, width=100)
    found = LabelledSet.open(tmp_path / "set", split="train", shorter=20)
    pixels = dict(zip(found.names, found.pictures, strict=True))
    assert torch.equal(pixels["x/gray.png"][None] / 255, read(gray))
    assert torch.equal(pixels["x/deep.png"], (read(deep)[0] * 255).round().to(torch.uint8))
    assert pixels["x/wide.png"].shape == (3, 20, 50)
    assert abs(pixels["x/wide.png"].float().mean() - 127.5) < 3


def test_damaged_pictures_are_named_and_left_out(source: Path) -> None:
    place = source.parent / "set"
    (place / "b.png").write_bytes((place / "b.png").read_bytes()[:60])
    said: list[str] = []
    found = LabelledSet.open(source, split="train", warn=said.append)
    assert found.names == ("a.png", "c.png")
    assert found.labels.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert len(said) == 1
    assert said[0].startswith("b.png is damaged")
    assert said[0].endswith("it is skipped")
    for name in "ac":
        (place / f"{name}.png").write_text("text")
    with pytest.raises(ValueError, match="none of its 3 can be decoded"):
        LabelledSet.open(source, split="train", warn=said.append)


def test_labels_that_name_unknown_files_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "set" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"set.csv names 1 file that .*set does not hold, the first of them b.png"):
        LabelledSet.open(source, split="train")
    assert len(LabelledSet.open(source, split="test")) == 2  # whose files are there
    (tmp_path / "set" / "a.png").unlink()
    packed = pack(tmp_path / "set", tmp_path / "set.tar")
    with pytest.raises(ValueError, match=r"names 2 files that .*set.tar does not hold, the first of them a.png"):
        LabelledSet.open(source, split="train")
    packed.write_bytes(packed.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"set.tar cannot be read as a tar: .*"):
        LabelledSet.open(source, split="train")


def test_files_that_are_missing_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone.csv cannot be read: No such file"):
        LabelledSet.open(tmp_path / "gone.csv", split="train")
    with pytest.raises(ValueError, match=r"gone.tar, which should hold the files of .*set.csv, does not exist"):
        LabelledSet.open(source, split="train", files=tmp_path / "gone.tar")
    (tmp_path / "set").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"set.csv needs its files beside it, in set.tar or a folder set"):
        LabelledSet.open(source, split="train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no sub-folder of pictures"):
        LabelledSet.open(tmp_path / "empty", split="train")
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    source.write_bytes(b"\xff" + buffer.getvalue())
    with pytest.raises(ValueError, match="it is no CSV in UTF-8"):
        LabelledSet.open(source, split="train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split\na.png,train", "lacks the column tags; it should have file, split, tags"),
        ("", "lacks the column file"),
        ("file,split,tags\na.png,train", "line 2: the row has more or fewer fields"),
        ("file,split,tags\na.png,train,sea, open", "line 2: the row has more or fewer fields"),
        ("file,split,tags\n,train,sea", "line 2: .* names no file"),
        ("file,split,tags\na.png,training,sea", "line 2: split should be one of train, val, test, not 'training'"),
        ("file,split,tags\na.png,train,sea\na.png,test,sea", "line 3: a.png is of the split test, and of train in a"),
        ("file,split,tags\na.png,test,sea", "no tag that 1 training pictures or more have"),
    ],
)
def test_a_csv_of_another_kind_is_refused(source: Path, text: str, message: str) -> None:
    source.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        LabelledSet.open(source, split="train")
    assert str(source) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "training"}, "split should be one of train, val, test, not 'training'"),
        ({"validation_share": 1.0}, "validation_share 1.0"),
        ({"validation_share": -0.1}, "validation_share -0.1"),
        ({"minimum": 0}, "minimum 0"),
        ({"shorter": 0}, "shorter 0"),
        ({"minimum": 9}, "set.csv has no tag that 9 training pictures or more have"),
        ({"tags": []}, "at least one"),
        ({"tags": ["sky", "sky"]}, "different words"),
        ({"tags": ["never"]}, "set.csv holds no picture of the split 'train' with these tags"),
    ],
)
def test_impossible_options_are_refused(source: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelledSet.open(source, **{"split": "train", **options})


def test_parts_of_a_set_go_together() -> None:
    pictures = [torch.zeros(3, 2, 2, dtype=torch.uint8)]
    with pytest.raises(ValueError, match=r"1 names, 1 pictures and 1 tags do not go with labels \(1, 2\)"):
        LabelledSet(tags=["a"], names=["b"], pictures=pictures, labels=torch.zeros(1, 2))


def test_the_shared_sets_load(data: Path) -> None:
    corel = LabelledSet.open(data / "labelled/corel5k.csv", split="test", minimum=50)
    assert (len(corel), len(corel.tags)) == (499, 74)  # one of the 500 lines is there twice
    assert {tuple(x.shape) for x in corel.pictures} <= {(3, 128, 192), (3, 192, 128)}
    imagenet = LabelledSet.open(data / "labelled/tiny_imagenet.csv", split="test")
    assert (len(imagenet), len(imagenet.tags)) == (1000, 200)
    assert imagenet.labels.sum(1).tolist() == [1] * 1000
    assert "rocking chair, rocker" in imagenet.tags
