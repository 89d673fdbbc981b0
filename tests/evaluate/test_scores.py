"""Scores of pictures against the metrics themselves, and the files that keep them."""

from pathlib import Path

import pytest
import torch

from dacesr.dataset import ValidationSet
from dacesr.evaluate.scores import Judge, Score, read_scores, set_name, write_scores
from dacesr.image import imresize
from dacesr.metrics import psnr, ssim


def judge(photos: Path) -> Judge:
    return Judge(sets=[str(photos)], spaces=["bicubic", "level2"], scale=4, device=torch.device("cpu"))


def test_scores_are_those_of_the_metrics(photos: Path) -> None:
    steps: list[int] = []
    name = set_name(str(photos))
    scores = judge(photos).measure(lambda x: imresize(x, 4), (name, "level2"), lambda: steps.append(1))
    assert len(scores) == len(steps) == 3
    for (picture, lr, gt), score in zip(ValidationSet(photos, space="level2", seed=0), scores, strict=True):
        output = imresize(lr, 4).clamp(0, 1)
        assert score == Score(
            name, "level2", picture, {"psnr_y": float(psnr(output, gt)), "ssim_y": float(ssim(output, gt))}
        )


def test_blocks_and_their_pictures(photos: Path) -> None:
    name = set_name(str(photos))
    assert judge(photos).blocks == {(name, "bicubic"): 3, (name, "level2"): 3}


def test_sets_are_called_as_below_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    assert set_name("/data/benchmarks/Set14/HR") == "benchmarks/Set14/HR"
    assert set_name("/other/photos") == "/other/photos"
    monkeypatch.delenv("DACESR_DATA")
    assert set_name("photos/val") == "photos/val"


def test_files_bring_scores_back(tmp_path: Path) -> None:
    scores = [
        Score("s", "level1", "a,b", {"psnr_y": 25.1234567, "ssim_y": 0.75}),
        Score("s", "level1", "c", {"psnr_y": 30.0, "ssim_y": 0.5, "lpips": 0.125}),
    ]
    path = tmp_path / "scores.csv"
    write_scores(path, (({"arm": "re", "seed": 0}, score) for score in scores))
    assert path.read_text().splitlines()[0] == "arm,seed,set,space,picture,psnr_y,ssim_y,lpips"
    rounded = [scores[0]._replace(values={"psnr_y": 25.123457, "ssim_y": 0.75}), scores[1]]
    assert read_scores(path) == [({"arm": "re", "seed": "0"}, score) for score in rounded]
    assert read_scores(tmp_path / "none.csv") == []


@pytest.mark.parametrize("text", ["set,space\na,b\n", "set,space,picture,psnr_y\na,b,c,high\n", "arm\nx\n", "\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text + "\nx\n", "latin-1")
    with pytest.raises(ValueError, match=r"scores\.csv is no table of scores"):
        read_scores(path)
