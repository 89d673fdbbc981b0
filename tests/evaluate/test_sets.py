"""Benchmark sets: made once and made in memory alike, checked against their manifest, resumed."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.degrading import Failed, Made
from dacesr.evaluate.prepare import prepare_set
from dacesr.evaluate.sets import find_sets, pictures_of
from dacesr.image import imresize, read, write


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made(folder: Path, output: Path, **options: object) -> list[Made | Failed]:
    return list(prepare_set(folder, output, **options))  # pyright: ignore[reportArgumentType]


def test_a_prepared_set_is_that_made_in_memory(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "set", spaces=["bicubic", "level3"])
    written = find_sets(tmp_path / "set")
    in_memory = find_sets(photos, spaces=["bicubic", "level3"])
    assert [one.version for one in written] == [one.version for one in in_memory] == ["bicubic", "level3"]
    assert [one.names for one in written] == [["0", "1", "2"]] * 2
    for one, two in zip(written, in_memory, strict=True):
        for place in range(3):
            for left, right in zip(one.pair(place)[1:], two.pair(place)[1:], strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_the_sharp_pictures_are_cropped_to_the_scale(photos: Path) -> None:
    (chosen,) = find_sets(photos, spaces=["bicubic"])
    _, small, sharp = chosen.pair(2)  # 70 x 40 pixels
    assert small is not None
    assert sharp is not None
    assert (sharp.shape, small.shape) == ((1, 3, 68, 40), (1, 3, 17, 10))
    torch.testing.assert_close(small, imresize(sharp, 0.25, eight_bit=True), rtol=0, atol=1.01 / 255)


def test_the_same_seed_makes_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        made(photos, tmp_path / name, spaces=["level2"], seed=seed)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    one, other = hashes(tmp_path / "one"), hashes(tmp_path / "other")
    assert one["HR/0.png"] == other["HR/0.png"]
    assert one["LR_level2_x4/0.png"] != other["LR_level2_x4/0.png"]


def test_the_manifest_lists_every_file(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "set", spaces=["level1"])
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    found = hashes(tmp_path / "set")
    assert (manifest["scale"], manifest["seed"], list(manifest["pictures"])) == (4, 0, ["0", "1", "2"])
    for name, record in manifest["pictures"].items():
        assert record["HR"] == found[f"HR/{name}.png"]
        assert record["LR"]["level1"]["sha256"] == found[f"LR_level1_x4/{name}.png"]
        assert record["LR"]["level1"]["steps"][0]["step"] == "blur"
        assert len(record["LR"]["level1"]["vector"]) == 33


def test_what_is_there_stays_and_what_is_missing_is_made(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    made(photos, output, spaces=["bicubic"], limit=2)
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    (output / "LR_bicubic_x4/1.png").unlink()
    done = made(photos, output, spaces=["bicubic", "level1"])
    assert [(each.name, each.target.parent.name) for each in done if isinstance(each, Made)] == [
        *(("0", "LR_level1_x4"), ("1", "LR_bicubic_x4"), ("1", "LR_level1_x4")),
        *(("2", "LR_bicubic_x4"), ("2", "LR_level1_x4")),
    ]
    assert (output / "LR_bicubic_x4/0.png").stat().st_mtime_ns == times[output / "LR_bicubic_x4/0.png"]
    assert made(photos, output, spaces=["bicubic", "level1"]) == []
    assert [len(one) for one in find_sets(output)] == [3, 3]


def test_a_bad_picture_is_named_and_the_others_are_made(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "good.png", read(photos / "0.png"))
    (folder / "bad.png").write_bytes(b"no picture")
    write(folder / "tiny.png", torch.rand(1, 3, 3, 9))
    done = made(folder, tmp_path / "set", spaces=["bicubic"])
    assert [each.name for each in done if isinstance(each, Made)] == ["good"]
    errors = [each.error for each in done if isinstance(each, Failed)]
    assert len(errors) == 2
    assert "bad.png" in errors[0]
    assert "tiny.png has 3 pixels a side, less than the scale 4" in errors[1]
    assert find_sets(tmp_path / "set")[0].names == ["good"]


@pytest.mark.parametrize("harm", ["LR_bicubic_x4/1.png", "HR/0.png"])
def test_a_changed_file_is_named(photos: Path, tmp_path: Path, harm: str) -> None:
    made(photos, tmp_path / "set", spaces=["bicubic"])
    write(tmp_path / "set" / harm, torch.zeros(1, 3, 16, 20))
    with pytest.raises(ValueError, match=rf"{harm} is missing, or not the one of .*manifest.json"):
        find_sets(tmp_path / "set")


def test_the_pictures_it_is_made_of_are_not_written_over(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "set/HR").mkdir(parents=True)
    write(tmp_path / "set/HR/0.png", read(photos / "2.png"))
    before = hashes(tmp_path)
    for folder in ("set", "set/HR"):
        with pytest.raises(ValueError, match="set would write over the pictures that the set is made of"):
            made(tmp_path / folder, tmp_path / "set", spaces=["bicubic"])
    assert hashes(tmp_path) == before


def test_an_output_below_a_file_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["evaluate", "prepare", str(photos), "-o", str(tmp_path / "file"), "--limit", "1"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"dacesr: the folder {tmp_path / 'file' / 'HR'} cannot be made: Not a directory\n"


def test_another_set_is_not_mixed_in(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "set", spaces=["bicubic"])
    with pytest.raises(ValueError, match="holds a set of seed 0, not 1: choose another output"):
        made(photos, tmp_path / "set", spaces=["bicubic"], seed=1)
    with pytest.raises(ValueError, match="is a set of scale 4, not 2"):
        find_sets(tmp_path / "set", scale=2)
    with pytest.raises(ValueError, match="has no level1, only bicubic: prepare it with that space too"):
        find_sets(tmp_path / "set", spaces=["level1"])
    (tmp_path / "set/manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest.json is no manifest of a benchmark set"):
        find_sets(tmp_path / "set")


def test_manifests_tell_pictures_and_degradations_apart(photos: Path, tmp_path: Path) -> None:
    def manifest(**options: object) -> str:
        return find_sets(photos, **{"spaces": ["level1"], **options})[0].manifest  # pyright: ignore[reportArgumentType]

    different = [manifest(), manifest(seed=1), manifest(spaces=["level2"]), manifest(scale=2), manifest(limit=2)]
    assert len(set(different)) == len(different)
    assert manifest() == different[0]


def test_pairs_that_are_none_are_refused_with_both_sizes(tmp_path: Path) -> None:
    for name, side in (("HR/a.png", 40), ("LR_bicubic/X4/ax4.png", 12)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, torch.zeros(1, 3, side, side))
    (chosen,) = find_sets(tmp_path)
    with pytest.raises(
        ValueError, match=r"ax4.png and .*a.png have 12x12 and 40x40 pixels, which are no pair of scale 4"
    ):
        chosen.pair(0)
    write(tmp_path / "HR/a.png", torch.zeros(1, 3, 50, 49))
    assert chosen.pair(0)[2].shape == (1, 3, 48, 48)  # what the scale doesn't divide is left out


def test_pictures_with_and_without_reference(photos: Path) -> None:
    known, unknown = pictures_of(photos, reference=True, limit=2), pictures_of(photos, reference=False)
    assert (known.names, unknown.names) == (["0", "1"], ["0", "1", "2"])
    torch.testing.assert_close(known.pair(0)[2], read(photos / "0.png"))
    assert unknown.pair(0) == ("0", None, None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"spaces": ["level9"]}, "no degradation space 'level9'"), ({"folder": "nowhere"}, "nowhere is not a folder")],
)
def test_wrong_names(photos: Path, tmp_path: Path, options: dict[str, object], sentence: str) -> None:
    folder = Path(str(options.pop("folder", photos)))
    with pytest.raises(ValueError, match=sentence):
        find_sets(folder, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=sentence):
        made(folder, tmp_path / "set", **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture"):
        find_sets(tmp_path / "empty")


# --- the command


def test_the_command(photos: Path, tmp_path: Path) -> None:
    call = ["evaluate", "prepare", str(photos), "-o", str(tmp_path / "set"), "--space", "bicubic", "--limit", "2"]
    result = CliRunner().invoke(app, call)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'set' / 'manifest.json'}\n"), result.stderr
    assert sorted(hashes(tmp_path / "set")) == [
        *("HR/0.png", "HR/1.png", "LR_bicubic_x4/0.png", "LR_bicubic_x4/1.png", "manifest.json"),
    ]
    result = CliRunner().invoke(app, [*call, "--seed", "1"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "choose another output" in result.stderr
