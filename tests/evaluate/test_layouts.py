"""Benchmark sets as their users unpack them: names, pairs, versions."""

from pathlib import Path

import pytest

from dacesr.evaluate.layouts import Found, find_pairs, find_sharp, set_name


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(found: list[Found], folder: Path) -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    return {
        (one.name, one.version): [
            (pair.name, pair.sharp.relative_to(folder).as_posix(), pair.low.relative_to(folder).as_posix())
            for pair in one.pairs
        ]
        for one in found
    }


def test_div2k_has_a_version_for_each_track(tmp_path: Path) -> None:
    folder = tree(
        tmp_path / "DIV2K",
        *("DIV2K_valid_HR/0801.png", "DIV2K_valid_HR/0802.png"),
        *("DIV2K_valid_LR_bicubic/X4/0801x4.png", "DIV2K_valid_LR_bicubic/X4/0802x4.png"),
        *("DIV2K_valid_LR_bicubic/X2/0801x2.png", "DIV2K_valid_LR_bicubic/X2/0802x2.png"),
        *("DIV2K_valid_LR_mild/0801x4m.png", "DIV2K_valid_LR_mild/0802x4m.png"),
        *("DIV2K_valid_LR_difficult/0801x4d.png", "DIV2K_valid_LR_difficult/0802x4d.png"),
        *("DIV2K_valid_LR_wild/0801x4w1.png", "DIV2K_valid_LR_wild/0802x4w1.png"),
        *("DIV2K_valid_LR_wild/0801x4w2.png", "DIV2K_valid_LR_wild/0802x4w2.png"),
    )
    found = listed(find_pairs(folder), folder)
    assert [version for _, version in found] == ["bicubic", "mild", "difficult", "wild1", "wild2"]
    assert found["DIV2K_valid", "bicubic"] == [
        ("0801", "DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801x4.png"),
        ("0802", "DIV2K_valid_HR/0802.png", "DIV2K_valid_LR_bicubic/X4/0802x4.png"),
    ]
    assert found["DIV2K_valid", "wild2"][1] == (
        *("0802", "DIV2K_valid_HR/0802.png", "DIV2K_valid_LR_wild/0802x4w2.png"),
    )
    assert list(listed(find_pairs(folder, 2), folder)) == [("DIV2K_valid", "bicubic")]
    assert find_sharp(folder) == ("DIV2K_valid", folder / "DIV2K_valid_HR")


def test_training_and_validation_pictures_are_two_sets(tmp_path: Path) -> None:
    parts = {"train": "0001", "valid": "0801"}
    names = [f"DIV2K_{part}_{end}" for part, n in parts.items() for end in (f"HR/{n}.png", f"LR_bicubic/X4/{n}x4.png")]
    folder = tree(tmp_path / "DIV2K", *names, "DIV2K_valid_LR_mild/0801x4m.png")
    found = {key: [pair[0] for pair in pairs] for key, pairs in listed(find_pairs(folder), folder).items()}
    assert found == {
        ("DIV2K_train", "bicubic"): ["0001"],
        ("DIV2K_valid", "bicubic"): ["0801"],
        ("DIV2K_valid", "mild"): ["0801"],
    }
    with pytest.raises(ValueError, match="DIV2K has pictures in DIV2K_train_HR and DIV2K_valid_HR: name one of them"):
        find_sharp(folder)
    assert find_sharp(folder / "DIV2K_valid_HR") == ("DIV2K_valid", folder / "DIV2K_valid_HR")


def test_realsr_has_two_cameras(tmp_path: Path) -> None:
    names = [
        f"{camera}/Test/4/{camera}_00{number}_{kind}.png"
        for camera in ("Canon", "Nikon")
        for number in (1, 2)
        for kind in ("HR", "LR4")
    ]
    folder = tree(tmp_path / "RealSR(V3)", *names, "Canon/Test/2/Canon_001_HR.png", "Canon/Test/2/Canon_001_LR2.png")
    both = listed(find_pairs(folder), folder)
    assert list(both) == [("RealSR-Canon", "given"), ("RealSR-Nikon", "given")]
    assert both["RealSR-Nikon", "given"][0] == (
        *("Nikon_001", "Nikon/Test/4/Nikon_001_HR.png", "Nikon/Test/4/Nikon_001_LR4.png"),
    )
    for inner in ("Canon", "Canon/Test/4"):
        one = find_pairs(folder / inner)
        assert [(each.name, len(each.pairs)) for each in one] == [("RealSR-Canon", 2)]


@pytest.mark.parametrize(
    ("files", "name", "version", "pair"),
    [
        (["Test_x4/test_HR/p_x4.png", "Test_x4/test_LR/p_x1.png"], "Set", "given", "p"),
        (["test_HR/c_0.png", "test_LR/c_0.png"], "Set", "given", "c_0"),
        (["valid-gt-clean/0900.png", "valid-input-noisy/0900.png"], "Set", "given", "0900"),
        (["HR/baby.png", "LR_bicubic/X4/babyx4.png"], "Set", "bicubic", "baby"),
        (["HR/baby.png", "LR_bicubic_x4/babyx4.png"], "Set", "bicubic", "baby"),
        (["HR/baby.png", "LR_level3_x4/baby.png"], "Set", "level3", "baby"),
        (["GTmod12/baby.png", "LRbicx4/baby.png", "original/baby.bmp"], "Set", "bicubic", "baby"),
        (["image_SRF_4/i_SRF_4_HR.png", "image_SRF_4/i_SRF_4_LR.png", "image_SRF_2/x.png"], "Set", "bicubic", "i"),
        (["X_HR/0001.png", "X_LR_unknown_X4/0001x4.png"], "X", "unknown", "0001"),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, files: list[str], name: str, version: str, pair: str) -> None:
    (found,) = find_pairs(tree(tmp_path / "Set", *files))
    assert (found.name, found.version, [one.name for one in found.pairs]) == (name, version, [pair])
    assert found.pairs[0].sharp != found.pairs[0].low


@pytest.mark.parametrize(
    ("files", "inside"),
    [(["a.png"], "."), (["HR/a.png"], "HR"), (["original/a.png"], "original"), (["GTmod12/a.png", "x.txt"], "GTmod12")],
)
def test_sharp_pictures_alone(tmp_path: Path, files: list[str], inside: str) -> None:
    folder = tree(tmp_path / "Manga109", *files)
    assert find_pairs(folder) == []
    assert find_sharp(folder) == ("Manga109", folder / inside)


def test_a_picture_without_partner_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path, "HR/a.png", "HR/b.png", "LR_bicubic/X4/ax4.png", "LR_bicubic/X4/cx4.png")
    with pytest.raises(ValueError, match=r"HR/b.png has no partner in .*X4"):
        find_pairs(folder)


def test_names_that_differ_in_their_ending_alone_are_refused(tmp_path: Path) -> None:
    folder = tree(tmp_path, "a.jpg", "a.png", ".a.png")
    with pytest.raises(ValueError, match=r"a.png and a.jpg have the same name but for their endings"):
        find_sharp(folder)


@pytest.mark.parametrize("missing", ["HR/b.png", "LR_bicubic/X4/bx4.png"])
def test_also_one_that_is_missing_alone(tmp_path: Path, missing: str) -> None:
    folder = tree(tmp_path, "HR/a.png", "HR/b.png", "LR_bicubic/X4/ax4.png", "LR_bicubic/X4/bx4.png")
    (folder / missing).unlink()
    with pytest.raises(ValueError, match="has no partner in"):
        find_pairs(folder)


def test_other_files_do_not_count(tmp_path: Path) -> None:
    folder = tree(
        tmp_path / "S", "HR/a.png", "HR/.b.png", "HR/notes.txt", "LR_bicubic/X4/ax4.png", "LR_bicubic/X4/Thumbs.db"
    )
    assert [len(one.pairs) for one in find_pairs(folder)] == [1]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Set14/HR", "Set14"),
        ("DIV2K_valid_HR", "DIV2K_valid"),
        ("photos/val", "val"),
        ("DRealSR/Test_x4", "DRealSR"),
        ("Urban100/image_SRF_4", "Urban100"),
        ("RealSR(V3)/Canon/Test/4", "RealSR-Canon"),
    ],
)
def test_names_of_sets(tmp_path: Path, path: str, name: str) -> None:
    assert set_name(tmp_path / path) == name
