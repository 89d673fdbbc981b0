"""The script that judges weights: scores that go on where they ended, tables, and sheets."""

import csv
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from dacesr import Upscaler
from dacesr.checkpoint import save_restorer
from dacesr.dataset import ValidationSet
from dacesr.image import imresize, write
from dacesr.metrics import psnr
from dacesr.nets.restorer import Restorer
from dacesr.pairing import pair_restorers

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "weights.py"


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def weights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("weights", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of 42x50 smooth pixels in a folder below $DACESR_DATA."""
    monkeypatch.setenv("DACESR_DATA", str(tmp_path))
    folder = tmp_path / "made"
    folder.mkdir()
    for name in ("a", "b"):
        small = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(ord(name)))
        write(folder / f"{name}.png", imresize(small, 6)[..., :42, :50].clamp(0, 1))
    return folder


@pytest.fixture
def other_file(bilinear: Restorer, bilinear_file: Path) -> Path:
    """A network that is brighter than `bilinear`."""
    with torch.no_grad():
        for name, parameter in bilinear.named_parameters():
            if name.startswith("upsample.") and name.endswith("bias"):
                parameter.fill_(0.1)
    save_restorer(bilinear_file.with_name("brighter.safetensors"), bilinear)
    return bilinear_file.with_name("brighter.safetensors")


@pytest.fixture
def judge(weights: ModuleType, tmp_path: Path, pictures: Path) -> Callable[..., list[dict[str, str]]]:
    """Runs the script without LPIPS and NIQE, and returns the rows of its CSV."""

    def run(*arguments: object) -> list[dict[str, str]]:
        path = tmp_path / "out" / "scores.csv"
        common = ("--sets", "made", "--spaces", "bicubic", "level2", "--quick", "--csv", path)
        weights.main([str(argument) for argument in (*arguments, *common)])
        return read(path)

    return run


def test_scores_are_those_of_the_pictures(judge, pictures, bilinear_file, other_file) -> None:
    rows = judge(bilinear_file, other_file)
    assert len(rows) == 3 * 2 * 2
    assert all(row["set"] == "made" and row["lpips_s"] == "" and 0 < float(row["ssim_y"]) < 1 for row in rows)
    found = {(row["model"], row["space"], row["picture"]): float(row["psnr_y"]) for row in rows}
    up = Upscaler.load(other_file, precision="fp32")
    for space in ("bicubic", "level2"):
        for name, lr, gt in ValidationSet(pictures, space=space, seed=0):
            assert gt.shape == (1, 3, 40, 48)
            assert found["bicubic", space, name] == pytest.approx(float(psnr(imresize(lr, 4), gt)), abs=1e-3)
            assert found["brighter", space, name] == pytest.approx(float(psnr(up(lr, tile=0), gt)), abs=1e-3)


def test_what_was_measured_is_not_measured_again(judge, weights, monkeypatch, bilinear_file, other_file) -> None:
    before = judge(bilinear_file, "--limit", 1)
    assert {row["picture"] for row in before} == {"a"}
    calls = []
    monkeypatch.setattr(weights, "psnr", lambda a, b: calls.append(a) or psnr(a, b))
    bilinear_file = bilinear_file.rename(bilinear_file.with_name("renamed.safetensors"))
    after = judge(bilinear_file, other_file, "--baseline", bilinear_file)
    assert len(calls) == len(after) - len(before) == 8
    assert after[:4] == before
    assert judge(bilinear_file, other_file) == after
    assert len(calls) == 8


def test_tables_have_means_and_differences(judge, tmp_path, bilinear_file, other_file, capsys) -> None:
    path = tmp_path / "out" / "scores.md"
    rows = judge(other_file, "--baseline", bilinear_file, "--markdown", path)
    scores = [float(row["psnr_y"]) for row in rows if (row["model"], row["space"]) == ("brighter", "level2")]
    text = path.read_text()
    assert "not comparable\nwith published LPIPS" in text
    assert "| set | model | PSNR-Y | SSIM-Y | GMSD | PSNR-Y - bicubic | PSNR-Y - bilinear |" in text
    table = text[text.index("## level2, seed 0") :]
    assert "| made (2) | bicubic |" in table
    assert f"| brighter | {sum(scores) / 2:.2f} |" in table
    assert "brighter" in capsys.readouterr().out


@pytest.mark.parametrize(("shift", "marked"), [(0.0, False), (1.0, True), (-1.0, True)])
def test_only_clear_differences_are_marked(weights, shift: float, marked: bool) -> None:
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0))
    noise = (noise - noise.mean()) / noise.std()
    text = weights.difference(noise + shift, 2)
    mean, low, high = (float(part.strip("[],")) for part in text.removesuffix(" *").split())
    assert mean == pytest.approx(shift, abs=0.01)
    assert (low, high) == (pytest.approx(shift - 0.196, abs=0.03), pytest.approx(shift + 0.196, abs=0.03))
    assert text.endswith("*") == marked


def test_a_single_picture_says_nothing_about_others(weights) -> None:
    assert weights.difference(torch.tensor([0.5]), 2) == "+0.50"


def test_a_sheet_has_a_column_for_each_model_and_the_truth(judge, tmp_path, bilinear_file, other_file) -> None:
    path = tmp_path / "out" / "sheet.png"
    judge(bilinear_file, other_file)
    judge(bilinear_file, other_file, "--sheet", path, "--pictures", 1)
    assert size_of(path) == (4 * (48 + 6) + 6, 2 * (40 + 28 + 6) + 6)


def test_a_sheet_of_real_pictures(weights, pictures, tmp_path, bilinear_file) -> None:
    write(pictures / "c.png", torch.zeros(1, 3, 130, 140))
    weights.main([str(bilinear_file), "--real", "made", "--sheet", str(tmp_path / "real.png")])
    assert size_of(tmp_path / "real.png") == (2 * (512 + 6) + 6, 2 * (4 * 42 + 34) + 512 + 34 + 6)


def test_a_pair_is_judged_at_each_strength(judge, bilinear_file, other_file) -> None:
    pair_restorers(bilinear_file, other_file)
    rows = judge(bilinear_file, other_file, "--strength", 0, 1)
    scores = {name: [row["psnr_y"] for row in rows if row["model"] == name] for name in {row["model"] for row in rows}}
    assert set(scores) == {"bicubic", "bilinear", "brighter@0", "brighter@1"}
    assert scores["brighter@0"] == scores["bilinear"]
    assert scores["brighter@0"] != scores["brighter@1"]
    assert {row["model"] for row in judge(bilinear_file, other_file)} == set(scores)  # 1 is what the file says


def test_what_can_not_be_judged(judge, weights, pictures, bilinear_file) -> None:
    with pytest.raises(SystemExit, match="--strength is for pairs of weights"):
        judge(bilinear_file, "--strength", 0.5)
    with pytest.raises(SystemExit, match="nowhere is not a folder"):
        weights.main([str(bilinear_file), "--quick", "--sets", "nowhere"])
    with pytest.raises(SystemExit, match=r"squeezenet_v1\.1_keras\.h5 does not exist"):
        weights.main([str(bilinear_file), "--sets", "made"])


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ([], []),
        (["out/a.pth", "b.safetensors"], ["a", "b"]),
        (["out/one/model.safetensors", "out/two/model.safetensors"], ["one", "two"]),
        (["x/one/best.pth", "x/two/best.pth", "x/b.pth"], ["one/best", "two/best", "x/b"]),
        (["a.pth", "a.bin"], ["a.pth", "a.bin"]),
    ],
)
def test_models_are_told_apart_by_short_names(weights, models: list[str], names: list[str]) -> None:
    assert weights.short_names(models) == names


def test_all_measures(weights, data, tmp_path, bilinear_file) -> None:
    path = tmp_path / "scores.csv"
    options = ["--sets", "benchmarks/Set5/HR", "--spaces", "bicubic", "--limit", "1", "--csv", str(path)]
    weights.main([str(bilinear_file), *options])
    bicubic, bilinear = read(path)
    assert [float(row["psnr_y"]) for row in (bicubic, bilinear)] == pytest.approx([31.8, 30.4], abs=1.5)
    assert all(0 < float(row["lpips_s"]) < 0.5 and 3 < float(row["niqe"]) < 15 for row in (bicubic, bilinear))
