"""Measures by name: equal to the metrics, with the files that some of them need."""

from pathlib import Path

import pytest
import torch

from dacesr.evaluate.measures import DEFAULT, NAMES, apply, load_measures, metrics_folder
from dacesr.metrics import gmsd, psnr, ssim

CPU = torch.device("cpu")
PLAIN = ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "gmsd"]


def pair(side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(0)).unbind())


def test_numbers_are_those_of_the_metrics() -> None:
    measures, missing = load_measures(PLAIN, None, scale=2, device=CPU)
    one, two = pair()
    assert apply(measures, one, two) == {
        "psnr_y": float(psnr(one, two, 2)),
        "ssim_y": float(ssim(one, two, 2)),
        "psnr_rgb": float(psnr(one, two, 0, y_channel=False)),
        "ssim_rgb": float(ssim(one, two, 0, y_channel=False)),
        "gmsd": float(gmsd(one, two)),
    }
    assert missing == []


def test_the_usual_ones_are_those_whose_files_are_there(tmp_path: Path) -> None:
    measures, missing = load_measures(None, tmp_path, scale=4, device=CPU)
    assert list(measures) == ["psnr_y", "ssim_y"]
    assert [sentence.split(" needs ")[0] for sentence in missing] == ["left out: lpips", "left out: niqe"]
    assert "alexnet-owt-7be5be79.pth and alex.pth" in missing[0]


def test_what_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dists needs vgg16-397923af.pth and weights.pt in .*github.com"):
        load_measures(["dists"], tmp_path, scale=4, device=CPU)
    with pytest.raises(ValueError, match="there is no measure mse; there are psnr_y"):
        load_measures(["mse"], None, scale=4, device=CPU)


def test_pictures_that_are_too_small_or_have_no_reference_have_no_number(data: Path) -> None:
    measures, _ = load_measures(["psnr_y", "ssim_y", "niqe"], data / "metrics", scale=4, device=CPU)
    one, two = pair(96)
    assert list(apply(measures, one, None)) == ["niqe"]
    assert list(apply(measures, one, two)) == ["psnr_y", "ssim_y", "niqe"]
    assert list(apply(measures, one[..., :18, :], two[..., :18, :])) == ["psnr_y"]
    assert apply(measures, torch.full_like(one, 0.5), None) == {}  # without structure NIQE has no value


@pytest.mark.parametrize(("scale", "smallest"), [(2, 15), (4, 19), (8, 27)])
def test_the_border_counts_in_the_smallest_size(scale: int, smallest: int) -> None:
    measures, _ = load_measures(["psnr_y", "ssim_y"], None, scale=scale, device=CPU)
    one, two = pair(smallest)
    assert list(apply(measures, one, two)) == ["psnr_y", "ssim_y"]
    assert list(apply(measures, one[..., 1:], two[..., 1:])) == ["psnr_y"]
    assert apply(measures, one[..., : 2 * scale], two[..., : 2 * scale]) == {}


def test_sizes_that_differ_are_an_error_with_both() -> None:
    measures, _ = load_measures(["psnr_y"], None, scale=4, device=CPU)
    with pytest.raises(ValueError, match=r"32.*20"):
        apply(measures, torch.rand(1, 3, 32, 32), torch.rand(1, 3, 20, 20))


def test_lpips_is_the_one_that_is_there(data: Path) -> None:
    measures, missing = load_measures(None, data / "metrics", scale=4, device=CPU)
    assert list(measures) == ["psnr_y", "ssim_y", "lpips_s", "niqe"]
    assert measures["lpips_s"].title == "LPIPS-S"
    assert measures["lpips_s"].key
    assert missing == []


def test_the_folder_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    assert metrics_folder(None) == Path("/data/metrics")
    assert metrics_folder("mine") == Path("mine")
    monkeypatch.delenv("DACESR_DATA")
    assert metrics_folder(None) is None


def test_default_measures_exist() -> None:
    assert set(DEFAULT) <= set(NAMES)
