import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dacesr.featurefile import load_lpips, load_niqe
from dacesr.image import read
from dacesr.metrics import (
    LPIPS,
    NiqeParameters,
    average_precision,
    gmsd,
    lpips,
    mean_average_precision,
    niqe,
    psnr,
    ssim,
)
from dacesr.metrics.naturalness import _block_features, _fit
from dacesr.metrics.planes import gray_of
from dacesr.nets.features import Features

FIXTURES = Path(__file__).parent / "fixtures"
OFFICIAL = ("I03", "I04", "I06", "I08", "I19")  # pairs that the authors' own programs have judged
PARAMETERS = NiqeParameters(torch.zeros(36, dtype=torch.float64), torch.eye(36, dtype=torch.float64))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def network() -> LPIPS:
    features = Features(name="squeezenet")
    return LPIPS(features=features, weights={tap: torch.rand(c) for tap, c in features.channels.items()})


def official(folder: Path, metric: str) -> dict[str, float]:
    with (folder / "metrics/iqa_calibration/results_official.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["Method"] == metric)
    return {name: float(row[f"{name}.bmp"]) for name in OFFICIAL}


def pair(folder: Path, name: str) -> tuple[Tensor, Tensor]:
    return tuple(read(folder / f"metrics/iqa_calibration/{kind}_dir/{name}.png") for kind in ("dist", "ref"))


# --- numbers of others


def test_psnr_and_ssim_of_luma_equal_the_recorded_ones():
    recorded = np.load(FIXTURES / "psnr_ssim.npz")
    noisy, clean = (torch.from_numpy(recorded[key]).permute(2, 0, 1)[None] / 255 for key in ("noisy", "clean"))
    assert psnr(noisy, clean).item() == pytest.approx(recorded["psnr_y"].item(), abs=1e-4)
    assert ssim(noisy, clean).item() == pytest.approx(recorded["ssim_y"].item(), abs=1e-6)


@pytest.mark.parametrize("name", OFFICIAL)
def test_psnr_ssim_and_gmsd_equal_the_official_scores(data, name):
    distorted, reference = pair(data, name)
    assert psnr(distorted, reference, 0, False).item() == pytest.approx(official(data, "psnr")[name], abs=0.005)
    grays = [(gray_of(x) / 255).expand(-1, 3, -1, -1) for x in (distorted, reference)]  # as the official ones
    assert ssim(*grays, 0, False).item() == pytest.approx(official(data, "ssim")[name], abs=5e-5)
    assert gmsd(distorted, reference).item() == pytest.approx(official(data, "gmsd")[name], abs=1e-7)


@pytest.mark.parametrize("name", OFFICIAL)
def test_niqe_equals_the_authors_score(data, name):
    parameters = load_niqe(data / "metrics/niqe_pris_params.npz")
    score = niqe(pair(data, name)[0], parameters).item()
    exact = name == "I04"  # the other pictures have flat areas, in which the authors' program measures rounding
    assert score == pytest.approx(official(data, "niqe")[name], rel=1e-6 if exact else 6e-3)


def test_lpips_ranks_the_example_of_its_authors(data):
    network = load_lpips(data / "metrics/squeezenet_v1.1_keras.h5", data / "metrics/lpips_v0.1/squeeze.pth")
    reference, far, near = (read(data / f"metrics/ex_{name}.png") for name in ("ref", "p0", "p1"))
    scores = lpips(torch.cat([far, near]), torch.cat([reference] * 2), network)
    torch.testing.assert_close(scores, torch.tensor([0.3955, 0.2023]), atol=5e-5, rtol=0)
    assert psnr(far, reference) > psnr(near, reference)  # the example is one that PSNR gets wrong


# --- definitions


def test_psnr_counts_in_levels_of_8_bit():
    a = torch.full((1, 3, 12, 12), 100.3 / 255)
    b = torch.full((1, 3, 12, 12), 102.4 / 255)
    assert psnr(a, b, y_channel=False).item() == pytest.approx(20 * math.log10(255 / 2), rel=1e-6)
    luma_step = 2 * (65.481 + 128.553 + 24.966) / 255
    assert psnr(a, b).item() == pytest.approx(20 * math.log10(255 / luma_step), rel=1e-6)
    assert psnr(a, a + 0.1 / 255).isinf().all()


def test_the_border_is_left_out():
    a = torch.rand(1, 3, 24, 20)
    b = a.clone()
    b[..., :4] = 1 - b[..., :4]
    assert psnr(a, b).isinf().all()
    assert ssim(a, b).item() == pytest.approx(1)
    assert psnr(a, b, crop_border=3).item() < 40
    assert ssim(a, b, crop_border=3).item() < 1


def test_ssim_of_rgb_is_the_mean_over_channels_by_the_formula():
    a = torch.rand(1, 3, 14, 13)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    x, y = ((255 * p[0]).round().double().numpy() for p in (a, b))
    line = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for channel in range(3):
        for i in range(14 - 10):
            for j in range(13 - 10):
                p, q = x[channel, i : i + 11, j : j + 11], y[channel, i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                values.append(
                    (2 * mp * mq + 6.5025) * (2 * cov + 58.5225) / (mp**2 + mq**2 + 6.5025) / (vp + vq + 58.5225)
                )
    assert ssim(a, b, crop_border=0, y_channel=False).item() == pytest.approx(np.mean(values), abs=1e-6)


def test_gmsd_knows_the_size_of_gradients_and_not_brightness():
    a = torch.rand(1, 3, 31, 40) / 2
    assert gmsd(a, a).item() == 0
    assert gmsd(a, (a + 0.02 * torch.randn_like(a)).clamp(0, 1)) < gmsd(a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1))


def test_niqe_fits_the_shapes_of_known_distributions():
    generator = np.random.default_rng(0)
    laplace, normal = generator.laplace(scale=2, size=(400, 500)), generator.normal(size=(400, 500))
    left_side = generator.random((400, 500)) < 2 / 3  # a side has as much of the mass as of the two scales
    samples = np.stack([laplace, abs(normal) * np.where(left_side, -6, 3)])
    shape, left, right = _fit(torch.from_numpy(samples))
    torch.testing.assert_close(shape, torch.tensor([1.0, 2.0]).double(), atol=0.05, rtol=0)
    # scale of exp(-|x / scale|^shape): 2 for the Laplacian, sqrt(2) * deviation for the Gaussian
    torch.testing.assert_close(left, torch.tensor([2, 6 * 2**0.5]).double(), atol=0, rtol=0.05)
    torch.testing.assert_close(right, torch.tensor([2, 3 * 2**0.5]).double(), atol=0, rtol=0.05)


def test_niqe_leaves_out_flat_blocks():
    textured = torch.rand(1, 3, 192, 192)
    wide = torch.cat([textured, torch.full((1, 3, 192, 288), 0.5)], dim=3)
    features = _block_features(gray_of(wide), 96)
    assert features.isfinite().all(2).sum() < features.shape[1]
    assert niqe(wide, PARAMETERS).isfinite().all()
    assert niqe(torch.ones(1, 3, 96, 96), PARAMETERS).isnan().all()


def test_niqe_crops_and_drops_what_fills_no_block():
    x = torch.rand(1, 3, 205, 230)
    assert torch.equal(niqe(x, PARAMETERS, crop_border=4), niqe(x[..., 4:196, 4:196], PARAMETERS))


def test_lpips_by_the_formula(network):
    a, b = torch.rand(1, 3, 33, 40), torch.rand(1, 3, 33, 40)
    total = 0.0
    maps_a, maps_b = network.features(a), network.features(b)
    for tap, weight in network.weights.items():
        one, two = (m[0].double() / m[0].double().square().sum(0).sqrt() for m in (maps_a[tap], maps_b[tap]))
        total += ((one - two).square() * weight[:, None, None]).sum(0).mean().item()
    assert lpips(a, b, network).item() == pytest.approx(total, rel=1e-5)
    assert lpips(a, a, network).item() == 0


def test_lpips_has_gradients_in_both_pictures_and_none_in_itself(network):
    a, b = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32, requires_grad=True)
    network(a, b).sum().backward()
    for x in (a, b):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())
    assert not lpips(a, b, network).requires_grad


def test_lpips_gradient_is_finite_where_a_map_is_zero():
    features = Features(name="squeezenet")
    for parameter in features.parameters():
        parameter.zero_()
    network = LPIPS(features=features, weights={tap: torch.ones(c) for tap, c in features.channels.items()})
    a = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(a, torch.rand(1, 3, 32, 32)).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


# --- contract


def test_a_batch_is_its_pictures_one_by_one(network):
    a, b = torch.rand(3, 3, 100, 120), torch.rand(3, 3, 100, 120)
    for metric in (psnr, ssim, gmsd, lambda a, b: lpips(a, b, network), lambda a, b: niqe(a, PARAMETERS)):
        together = metric(a, b)
        assert together.shape == (3,)
        assert together.dtype == torch.float32
        torch.testing.assert_close(together, torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(3)]))


def test_pictures_of_other_sizes_are_refused_with_both_sizes(network):
    a, b = torch.rand(1, 3, 32, 40), torch.rand(1, 3, 32, 41)
    for metric in (psnr, ssim, gmsd, lambda a, b: lpips(a, b, network), network):
        with pytest.raises(ValueError, match="different sizes can't be compared: 40x32 and 41x32"):
            metric(a, b)
        with pytest.raises(ValueError, match=r"\(2, 3, 32, 40\) and \(1, 3, 32, 40\)"):
            metric(torch.cat([a, a]), a)


def test_pictures_that_are_too_small_or_not_rgb_are_refused():
    x = torch.rand(1, 3, 18, 40)
    with pytest.raises(ValueError, match="40x18 pixels are too few: 11x11 must be left inside a border of 4"):
        ssim(x, x)
    with pytest.raises(ValueError, match="96x96"):
        niqe(torch.rand(1, 3, 100, 100), PARAMETERS, crop_border=4)
    with pytest.raises(ValueError, match="border of 9"):
        psnr(x, x, crop_border=9)
    with pytest.raises(ValueError, match="border of -1"):
        psnr(x, x, crop_border=-1)
    with pytest.raises(ValueError, match=r"not \(1, 1, 40, 40\)"):
        psnr(torch.rand(1, 1, 40, 40), torch.rand(1, 1, 40, 40))


def test_lpips_weights_must_fit_the_maps():
    features = Features(name="squeezenet")
    with pytest.raises(ValueError, match="squeezenet has channels"):
        LPIPS(features=features, weights={"relu1": torch.ones(64)})


def plain_average_precision(scores: list[float], labels: list[int]) -> float:
    """Threshold by threshold, from the highest score down."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        new = sum(taken) / sum(labels)
        total += (new - recall) * sum(taken) / len(taken)
        recall = new
    return total


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 1),
        ([0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1], (1 / 3 + 2 / 4) / 2),
        ([0.6, 0.9, 0.7, 0.8], [1, 1, 0, 0], (1 + 2 / 4) / 2),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 0], 1 / 4),
        ([0.9, 0.5, 0.5, 0.1], [0, 1, 0, 1], (1 / 3 + 2 / 4) / 2),
        ([float("inf"), 0.0, -0.0, -float("inf")], [0, 1, 1, 0], 2 / 3),
        ([0.3], [1], 1),
    ],
)
def test_average_precision_by_hand(scores: list[float], labels: list[int], expected: float) -> None:
    found = average_precision(torch.tensor(scores)[:, None], torch.tensor(labels)[:, None])
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_average_precision_against_plain_python(levels: int) -> None:
    scores = torch.randint(levels, (60, 9)) / levels
    labels = torch.rand(60, 9) < torch.linspace(0.05, 0.95, 9)
    columns = zip(scores.T.tolist(), labels.T.int().tolist(), strict=True)
    expected = [plain_average_precision(*column) for column in columns]
    found = average_precision(scores, labels)
    assert found.tolist() == pytest.approx(expected)
    order = torch.randperm(60)
    assert torch.equal(average_precision(scores[order], labels[order].float()), found)


def test_tags_that_no_picture_has_do_not_count() -> None:
    scores, labels = torch.rand(8, 3), torch.tensor([[1, 0, 0], [0, 0, 1]] * 4)
    found = average_precision(scores, labels)
    assert found.isnan().tolist() == [False, True, False]
    assert mean_average_precision(scores, labels).item() == pytest.approx((found[0] + found[2]).item() / 2)
    assert mean_average_precision(scores, torch.zeros(8, 3)).isnan()


def test_average_precision_refuses_what_it_cannot_rank() -> None:
    with pytest.raises(ValueError, match=r"\(n, tags\) alike, not \(2, 3\) and \(3, 2\)"):
        average_precision(torch.rand(2, 3), torch.ones(3, 2))
    with pytest.raises(ValueError, match="alike"):
        average_precision(torch.rand(0, 3), torch.ones(0, 3))
    with pytest.raises(ValueError, match="NaN"):
        average_precision(torch.tensor([[math.nan]]), torch.ones(1, 1))
