"""JPEG against libjpeg, on the recorded picture, on examples and on photographs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dacesr.degradation.jpeg import jpeg
from dacesr.image import read

FIXTURE = Path(__file__).parents[1] / "fixtures" / "primitives.npz"
EXAMPLES = Path(__file__).parents[2] / "examples"
QUALITIES = (10, 30, 60, 75, 90, 95, 100)


def libjpeg(x, quality):
    """Pillow's, 4:2:0."""
    file = io.BytesIO()
    pixels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    with Image.open(file) as image:
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255


def error(x, quality):
    return (jpeg(x, quality) - libjpeg(x, quality)).abs().mean().item()


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_the_recorded_picture(quality):
    """A drawn one, full of edges and noise, where a few roundings that fall otherwise show most."""
    with np.load(FIXTURE) as recorded:
        x, expected = (torch.from_numpy(recorded[key]) / 255 for key in ("im", f"jpeg_{quality}"))
    x = x[:112, :112].permute(2, 0, 1)[None]
    assert (jpeg(x, quality) - expected).abs().mean() < 6e-3


@pytest.mark.parametrize("name", ["house.jpg", "lake.jpg", "portrait.jpg", "still_life.jpg"])
def test_examples(name):
    x = read(EXAMPLES / name)
    assert max(error(x, quality) for quality in QUALITIES) < 4e-3


def test_odd_sizes():
    x = read(EXAMPLES / "portrait.jpg")
    for height, width in ((17, 33), (31, 16), (8, 9), (1, 1), (40, 47)):
        part = x[..., :height, :width]
        assert jpeg(part, 60).shape == part.shape
        assert error(part, 60) < 8e-3


def test_photographs(data):
    paths = sorted((data / "benchmarks/BSD100/HR").iterdir())[:12] + sorted((data / "photos/val").iterdir())[:4]
    for path in paths:
        x = read(path)[..., :320, :320]
        for quality in QUALITIES:
            assert error(x, quality) < 4e-3, (path.name, quality)


def test_the_transposed_table_and_repeated_chroma_would_be_told_apart():
    """Photographs are horizontal and vertical unlike: a turned picture is not the turned result."""
    x = read(EXAMPLES / "house.jpg")
    turned = jpeg(x.mT, 30).mT
    assert (turned - libjpeg(x, 30)).abs().mean() > 2 * error(x, 30)


def test_a_quality_for_each_picture():
    x = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    together = jpeg(x, torch.tensor([10.0, 50, 95]))
    for i, quality in enumerate((10, 50, 95)):
        torch.testing.assert_close(together[i : i + 1], jpeg(x[i : i + 1], quality), rtol=0, atol=1e-6)
    assert torch.equal((together * 255).round() / 255, together)


def test_pictures_of_sizes_of_their_own():
    """Those that end at a whole block too, where chroma is not to be mixed with the filling's."""
    x, sizes = read(EXAMPLES / "lake.jpg")[..., :48, :70].repeat(4, 1, 1, 1), [(48, 70), (32, 48), (17, 33), (16, 5)]
    qualities = torch.tensor([20.0, 30, 60, 10])
    together = jpeg(x, qualities, sizes)
    for i, (height, width) in enumerate(sizes):
        alone = jpeg(x[i : i + 1, :, :height, :width], qualities[i].item())
        torch.testing.assert_close(together[i : i + 1, :, :height, :width], alone, rtol=0, atol=1e-6)


def test_lower_qualities_lose_more():
    with np.load(FIXTURE) as recorded:
        x = torch.from_numpy(recorded["im"]).permute(2, 0, 1)[None] / 255
    errors = [(jpeg(x, quality) - x).square().mean().item() for quality in (5, 20, 50, 80, 95)]
    assert errors == sorted(errors, reverse=True)


def test_gradients_follow_a_step_in_brightness():
    x = read(EXAMPLES / "lake.jpg")[..., :64, :64].mul(0.8).add(0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(jpeg(x, 80).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.mean().item() == pytest.approx(1, abs=0.05)  # all pixels brighter by 1: each result by 1
    assert torch.equal(jpeg(x, 80).detach(), jpeg(x.detach(), 80))


@pytest.mark.parametrize(
    ("shape", "quality", "words"),
    [
        ((3, 8, 8), 50, r"JPEG takes \(b, 3, h, w\), not \(3, 8, 8\)"),
        ((1, 1, 8, 8), 50, r"not \(1, 1, 8, 8\)"),
        ((1, 3, 8, 8), 0, "from 1 to 100; got 0"),
        ((1, 3, 8, 8), 101, "from 1 to 100; got 101"),
        ((1, 3, 8, 8), float("nan"), "from 1 to 100; got nan"),
        ((2, 3, 8, 8), torch.tensor([50.0, 50, 50]), r"one for each of 2 pictures; got \(3,\)"),
    ],
)
def test_impossible_calls_are_told(shape, quality, words):
    with pytest.raises(ValueError, match=words):
        jpeg(torch.zeros(shape), quality)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    """But for roundings that fall otherwise now and then."""
    x, qualities = read(EXAMPLES / "house.jpg")[..., :150, :133].repeat(3, 1, 1, 1), torch.tensor([10.0, 60, 95])
    sizes = [(150, 133), (64, 80), (33, 17)]
    found, expected = jpeg(x.cuda(), qualities, sizes).cpu(), jpeg(x, qualities, sizes)
    for i, (height, width) in enumerate(sizes):
        errors = (255 * (found - expected))[i, :, :height, :width].abs()
        assert (errors > 0.5).float().mean() < 0.01
    assert torch.equal(jpeg(x.cuda(), qualities.cuda(), sizes), jpeg(x.cuda(), qualities, sizes))
