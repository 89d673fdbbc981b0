"""`dacesr evaluate table1`, `table3` and `folder`, from the call to the files."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.evaluate.sets import find_sets
from dacesr.image import imresize, read, write
from dacesr.metrics import psnr


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DACESR_DATA", raising=False)


def test_table1_compares_methods_on_sets(photos: Path, bilinear_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--set", photos, "--space", "bicubic", "--space", "level1", "-o", out, "--device", "cpu"]
    result = evaluate("table1", "bicubic", bilinear_file, *options, "--baseline", "bicubic")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-4:] == [str(out / f"table1.{ending}") for ending in ("md", "tex", "csv", "json")]
    assert "left out: lpips needs alexnet-owt-7be5be79.pth and alex.pth" in result.stderr
    means = {(row["method"], row["version"], row["measure"]): row for row in rows(out / "table1.csv")}
    (chosen,) = find_sets(photos, spaces=["bicubic"])
    pairs = [chosen.pair(place)[1:] for place in range(3)]
    expected = [psnr((imresize(small, 4).clamp(0, 1) * 255).round() / 255, sharp) for small, sharp in pairs]
    found = means["bicubic", "bicubic", "psnr_y"]
    assert float(found["mean"]) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)
    assert float(found["low"]) <= float(found["mean"]) <= float(found["high"])
    assert float(means["bilinear", "level1", "seconds_per_megapixel"]["mean"]) > 0
    # every number leads to the scores it is the mean of
    markdown = (out / "table1.md").read_text()
    links = re.findall(r"\[\**(\d+\.\d\d)\**\]\(([^)]+)\)", markdown)
    assert len(links) == 4  # two methods, two spaces; SSIM has more digits
    for shown, file in links:
        values = [float(row["psnr_y"]) for row in rows(out / file)]
        assert f"{sum(values) / len(values):.2f}" == shown
    assert "differences from bicubic" in markdown
    facts = json.loads((out / "table1.json").read_text())
    assert facts["title"] == "Table I: methods on sets"
    assert facts["sets"][0] == {"set": photos.name, "version": "bicubic", "manifest": chosen.manifest}
    assert list(facts["methods"]) == ["bicubic", "bilinear"]


def test_a_picture_that_fails_is_named_and_the_code_is_1(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "good.png", read(photos / "0.png"))
    (folder / "bad.png").write_bytes(b"no picture")
    result = evaluate("table1", "bicubic", "--set", folder, "--space", "bicubic", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "bad.png" in result.stderr
    assert "(1)" in (tmp_path / "out/table1.md").read_text()  # of two pictures one


def test_table3_measures_results_of_any_program(photos: Path, tmp_path: Path) -> None:
    evaluate("prepare", photos, "-o", tmp_path / "set", "--space", "level2")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (chosen,) = find_sets(tmp_path / "set")
    for place, name in enumerate(chosen.names):
        write(theirs / f"{name}_out.png", (chosen.pair(place)[2] + 0.1).clamp(0, 1))
    call = ("table3", f"Other={theirs}", "bicubic", "--set", tmp_path / "set", "-o", tmp_path / "out")
    result = evaluate(*call)
    assert result.exit_code == 0, result.stderr
    means = {(row["method"], row["measure"]): float(row["mean"]) for row in rows(tmp_path / "out/table3.csv")}
    assert 18 < means["Other", "psnr_y"] < 23  # 0.1 is 20 dB, on luma a little more
    (theirs / f"{chosen.names[0]}_out.png").unlink()
    result = evaluate(*call)
    assert result.exit_code == 1
    assert re.search(
        rf"Other on photos0 level2: .*theirs holds no file for the picture {chosen.names[0]}", result.stderr
    )


def test_folder_compares_two_folders(photos: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for path in photos.iterdir():
        write(results / f"{path.stem}_x4.png", (read(path) * 0.9))
    result = evaluate("folder", results, photos, "-o", tmp_path / "out", "--measure", "psnr_rgb")
    assert result.exit_code == 0, result.stderr
    (row,) = rows(tmp_path / "out/folder.csv")
    expected = [psnr((read(path) * 0.9 * 255).round() / 255, read(path), 0, False) for path in sorted(photos.iterdir())]
    assert (row["method"], row["measure"]) == ("results", "psnr_rgb")
    assert float(row["mean"]) == pytest.approx(float(torch.stack(expected).mean()), abs=2e-3)


def test_the_baseline_may_be_named_as_it_was_typed(photos: Path, bilinear_file: Path, tmp_path: Path) -> None:
    call = ("table1", "bicubic", bilinear_file, "--set", photos, "--space", "bicubic", "--limit", 2, "-o", tmp_path)
    result = evaluate(*call, "--baseline", bilinear_file, "--measure", "psnr_y")
    assert result.exit_code == 0, result.stderr
    assert "differences from bilinear" in (tmp_path / "table1.md").read_text()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (["table1", "--set", "nowhere"], "nowhere is not a folder"),
        (["table1", "--set", "PHOTOS", "--space", "level9"], "no degradation space 'level9'"),
        (["table1", "nothing", "--set", "PHOTOS"], "nothing does not exist"),
        (["table1", "bicubic", "--set", "PHOTOS", "--measure", "mse"], "there is no measure mse"),
        (["table1", "bicubic", "--set", "PHOTOS", "--measure", "niqe"], "niqe needs niqe_pris_params.npz"),
        (["table1", "bicubic", "--set", "PHOTOS", "--baseline", "x"], "the baseline x is none of the methods bicubic"),
        (["table1", "bicubic", "--set", "PHOTOS", "--set", "PHOTOS"], "two sets are called"),
        (["table1", "a b=PHOTOS", "a_b=PHOTOS", "--set", "PHOTOS"], "a b and a_b, which are one as names of files"),
        (
            ["table1", "bicubic", "--set", "PHOTOS", "--measure", "psnr_y", "--plot"],
            "the plot needs the measures psnr_y",
        ),
        (["table1", "bicubic", "--set", "PHOTOS", "--device", "abacus"], "abacus"),
        (["folder", "nowhere"], "nowhere is not a folder"),
        (["folder", "PHOTOS"], "nothing could be measured: psnr_y, ssim_y need references or larger"),
    ],
)
def test_a_wrong_call_is_one_sentence(call: list[str], sentence: str, photos: Path, tmp_path: Path) -> None:
    result = evaluate(*(part.replace("PHOTOS", str(photos)) for part in call), "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
