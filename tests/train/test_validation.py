"""Scores, grids, and what the restorer is compared with."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dacesr.checkpoint import load_restorer, save_restorer
from dacesr.dataset import ValidationSet
from dacesr.image import read
from dacesr.metrics import psnr, ssim
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.train.config import ConfigError, ValidationConfig
from dacesr.train.restorer import autocast
from dacesr.train.validation import GAP, Bicubic, Validation

CPU = torch.device("cpu")


def validation(folder: Path, precision: str = "fp32", **fields: object) -> Validation:
    options = {"folder": str(folder), "spaces": ["bicubic", "level2"], "limit": 2, "crop": 40, "images": 2, **fields}
    config = ValidationConfig.model_validate(options)
    return Validation(config, 4, CPU, autocast(precision, CPU), lambda sentence: pytest.fail(sentence))


def test_a_row_for_each_space(photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    rows = validation(photos).run(bilinear.train(), 7, tmp_path)
    assert bilinear.training
    assert [(row["iteration"], row["model"], row["space"]) for row in rows] == [
        *((7, "restorer", "bicubic"), (7, "restorer", "level2")),
    ]
    for row in rows:
        pairs = list(ValidationSet(photos, space=row["space"], limit=2, crop=40))
        with torch.no_grad():
            outputs = [bilinear(lr).clamp(0, 1) for _, lr, _ in pairs]
        for name, metric in (("psnr_y", psnr), ("ssim_y", ssim)):
            scores = [float(metric(out, gt)) for out, (_, _, gt) in zip(outputs, pairs, strict=True)]
            assert row[name] == pytest.approx(sum(scores) / 2)
        assert "lpips" not in row


def test_grids_show_input_output_and_truth(photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    validation(photos).run(bilinear, 7, tmp_path)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [
        *("bicubic-00000007.png", "level2-00000007.png"),
    ]
    grid = read(tmp_path / "images" / "level2-00000007.png")
    pairs = list(ValidationSet(photos, space="level2", limit=2, crop=40))
    assert grid.shape == (1, 3, 2 * (40 + GAP), 3 * (40 + GAP))
    for number, (_, _, gt) in enumerate(pairs):
        top = number * (40 + GAP)
        shown = grid[..., top : top + 40, 2 * (40 + GAP) : 2 * (40 + GAP) + 40]
        torch.testing.assert_close(shown, gt, atol=0.6 / 255, rtol=0)
    assert (grid[..., 40 : 40 + GAP, :] == 1).all()
    (tmp_path / "none").mkdir()
    validation(photos, images=0).run(bilinear, 7, tmp_path / "none")
    assert not list((tmp_path / "none").iterdir())


def test_pictures_of_unequal_size_share_a_grid(photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    validation(photos, crop=None, limit=None, images=3, spaces=["bicubic"]).run(bilinear, 1, tmp_path)
    grid = read(tmp_path / "images" / "bicubic-00000001.png")
    assert grid.shape == (1, 3, 64 + 48 + 68 + 3 * GAP, 3 * (80 + GAP))


def test_models_are_compared_once(photos: Path, bilinear_file: Path, tmp_path: Path) -> None:
    measuring = validation(photos, compare=[str(bilinear_file)])
    rows = measuring.compare()
    assert [(row["model"], row["space"]) for row in rows] == [
        *(("bicubic", "bicubic"), ("bilinear", "bicubic"), ("bicubic", "level2"), ("bilinear", "level2")),
    ]
    assert {row["iteration"] for row in rows} == {0}
    assert measuring.compare() == []
    own = validation(photos).run(load_restorer(bilinear_file), 3, tmp_path)
    assert [row["psnr_y"] for row in own] == [row["psnr_y"] for row in rows if row["model"] == "bilinear"]
    known = {("bicubic", "bicubic"), ("bicubic", "level2"), ("bilinear", "level2")}
    left = validation(photos, compare=[str(bilinear_file)]).compare(known)
    assert [(row["model"], row["space"]) for row in left] == [("bilinear", "bicubic")]


def test_models_of_one_name_are_told_apart(photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    paths = [tmp_path / name / "restorer.safetensors" for name in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        save_restorer(path, bilinear)
    rows = validation(photos, compare=[str(path) for path in paths], spaces=["bicubic"]).compare()
    assert [row["model"] for row in rows] == ["bicubic", *(str(path) for path in paths)]


def test_a_model_of_another_scale_or_a_missing_one_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    save_restorer(path, Restorer(RestorerConfig(embed_dim=8, depths=(1,), scale=2)))
    with pytest.raises(ConfigError, match=r"validation.compare: .*twice.safetensors enlarges x2, the restorer x4"):
        validation(photos, compare=[str(path)])
    with pytest.raises(ValueError, match=r"gone\.safetensors"):
        validation(photos, compare=[str(tmp_path / "gone.safetensors")])
    with pytest.raises(ValueError, match="gone is not a folder"):
        validation(tmp_path / "gone")


def test_bicubic_is_as_exact_under_autocast(photos: Path) -> None:
    exact, fast = validation(photos).compare(), validation(photos, precision="bf16").compare()
    assert exact == fast
    assert Bicubic(scale=4)(torch.rand(2, 3, 5, 6)).shape == (2, 3, 20, 24)


def test_the_network_computes_in_the_precision_of_training(photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    seen = []

    class Watched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            assert not torch.is_grad_enabled()
            return bilinear(x)

    for precision in ("fp32", "bf16"):
        validation(photos, precision=precision, limit=1, spaces=["bicubic"]).run(Watched(), 1, tmp_path)
    assert seen == [False, True]


def test_lpips_where_its_files_are_given(data: Path, photos: Path, bilinear: Restorer, tmp_path: Path) -> None:
    files = {
        "features": str(data / "metrics" / "squeezenet_v1.1_keras.h5"),
        "lpips": str(data / "metrics" / "lpips_v0.1" / "squeeze.pth"),
    }
    measuring = validation(photos, spaces=["bicubic", "level3"], **files)
    rows = [*measuring.compare(), *measuring.run(bilinear, 1, tmp_path)]
    assert all(0 < row["lpips"] < 1 for row in rows)
    by_space = {row["space"]: row["lpips"] for row in rows if row["model"] == "restorer"}
    assert by_space["bicubic"] < by_space["level3"]
