"""Upscaler: every kind of input, tiles, precision, and what happens when memory or numbers run out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dacesr import Upscaler
from dacesr.checkpoint import CheckpointError
from dacesr.config import RestorerConfig
from dacesr.image import open_picture, read, rgb_to_y
from dacesr.inference import UpscaleError
from dacesr.nets.baselines import SRVGGConfig, SRVGGNetCompact
from dacesr.nets.restorer import Restorer


@pytest.fixture
def random_net():
    torch.manual_seed(0)
    return Restorer(RestorerConfig(embed_dim=8, depths=(1, 1), head="pixelshuffledirect", scale=2)).eval()


def enlarge(x, scale=4):
    return F.interpolate(x, scale_factor=scale, mode="bilinear")


def picture(height=20, width=30, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_a_tensor_keeps_shape_dtype_and_range(bilinear):
    up = Upscaler(bilinear)
    x = picture()
    torch.testing.assert_close(up(x), enlarge(x))
    batch = torch.cat([x, x.flip(3)])
    torch.testing.assert_close(up(batch), enlarge(batch))
    assert up(x.double()).dtype == torch.float64
    assert up(2 * x).max() == 1


def test_tiles_give_what_the_whole_gives(bilinear):
    x = picture(97, 131)
    up = Upscaler(bilinear)
    whole = up(x, tile=0)
    tiled = up(x, tile=48, overlap=8)
    torch.testing.assert_close(whole, enlarge(x))
    torch.testing.assert_close(tiled[:, :, 60:-60, 60:-60], whole[:, :, 60:-60, 60:-60], rtol=0, atol=0.2)
    inner = (tiled - whole).abs().amax(1)
    assert inner.mean() < 0.01  # bilinear differs at tile borders only, and the ramp is near 0 there


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 200)])
def test_any_size(bilinear, shape):
    assert Upscaler(bilinear)(picture(*shape), tile=64).shape == (1, 3, 4 * shape[0], 4 * shape[1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("tail", [(), (1,), (3,)])
def test_arrays_come_back_as_they_went_in(bilinear, dtype, tail):
    full = np.iinfo(dtype).max
    x = np.random.default_rng(0).integers(0, full, (12, 9, *tail), dtype=dtype, endpoint=True)
    y = Upscaler(bilinear)(x)
    assert (y.dtype, y.shape) == (x.dtype, (48, 36, *tail))
    planes = torch.from_numpy(x.reshape(12, 9, -1).astype(np.float32)).permute(2, 0, 1)[None]
    expected = enlarge(planes)[0].permute(1, 2, 0).numpy().reshape(y.shape)
    assert np.abs(y - expected).max() <= (0.51 if dtype == "uint8" else 0.6)


@pytest.mark.parametrize(
    ("mode", "result"),
    [
        ("RGB", "RGB"),
        ("L", "L"),
        ("LA", "LA"),
        ("RGBA", "RGBA"),
        ("P", "RGB"),
        ("1", "L"),
        ("CMYK", "RGB"),
        ("I;16", "I;16"),
    ],
)
def test_pil_images(bilinear, mode, result):
    y = Upscaler(bilinear)(Image.new(mode, (7, 5)))
    assert (y.mode, y.size) == (result, (28, 20))


def test_bad_calls_are_told(bilinear):
    up = Upscaler(bilinear)
    for x, words in [
        (torch.rand(3, 4, 4), "a float tensor"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "a float tensor"),
        (torch.full((1, 3, 4, 4), torch.nan), "not numbers"),
        (np.zeros((4, 4, 3)), "uint8 or uint16"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"\(4, 4, 2\)"),
        ("photo.jpg", "not str"),
    ]:
        with pytest.raises(ValueError, match=words):
            up(x)
    for options, words in [
        ({"tile": -1}, "got -1"),
        ({"tile": "large"}, "got 'large'"),
        ({"overlap": -2}, "not be negative"),
        ({"strength": 0.5}, "one set of weights"),
    ]:
        with pytest.raises(ValueError, match=words):
            up(picture(), **options)
    with pytest.raises(ValueError, match="device 'cuda:99' is not available"):
        Upscaler(bilinear, device="cuda:99")
    with pytest.raises(ValueError, match="precision must be auto"):
        Upscaler(bilinear, precision="int8")
    with pytest.raises(CheckpointError, match=r"nothing\.pth"):
        Upscaler.load("nothing.pth")


def test_out_of_memory_halves_the_tile_and_goes_on(random_net, monkeypatch):
    sentences = []
    up = Upscaler(random_net, warn=sentences.append)
    x = picture(150, 150)
    expected = up(x, tile=36, overlap=9)
    forward, sizes = Restorer.forward, []

    def limited(self, tile, *args):
        sizes.append(max(tile.shape[-2:]))
        if sizes[-1] > 40:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return forward(self, tile, *args)

    monkeypatch.setattr(Restorer, "forward", limited)
    y = up(x, tile=0, overlap=9)
    assert y.shape == expected.shape
    assert (y - expected).abs().mean() < 0.02
    assert [s for s in sizes if s > 40] == [150, 56]  # one try of each size, then never again
    assert len(sentences) == 2
    assert "going on with 32" in sentences[1]


def test_memory_that_never_suffices_is_told(bilinear, monkeypatch):
    def starving(self, *args):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Restorer, "forward", starving)
    with pytest.raises(UpscaleError, match="too little memory on cpu even for 20 x 20"):
        Upscaler(bilinear, warn=lambda sentence: None)(picture(20, 20))


def test_other_runtime_errors_are_not_taken_for_memory(bilinear, monkeypatch):
    def wrong(self, *args):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Restorer, "forward", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Upscaler(bilinear)(picture())


@pytest.mark.parametrize("damage", [float("nan"), -10.0])
def test_a_broken_half_precision_tile_is_done_again_in_fp32(bilinear, monkeypatch, damage):
    forward = Restorer.forward

    def fragile(self, tile, *args):
        y = forward(self, tile, *args)
        return y if self.conv_first.weight.dtype == torch.float32 else y * 0 + damage

    monkeypatch.setattr(Restorer, "forward", fragile)
    sentences = []
    up = Upscaler(bilinear, precision="bf16", warn=sentences.append)
    x = picture()
    torch.testing.assert_close(up(x), enlarge(x))
    up(x)
    assert up.precision == "fp32"
    assert len(sentences) == 1
    assert "fp32" in sentences[0]


def test_black_pictures_stay_black_without_a_warning(bilinear):
    sentences = []
    up = Upscaler(bilinear, precision="bf16", warn=sentences.append)
    assert up(torch.zeros(1, 3, 8, 8)).max() < 1 / 255
    assert not sentences
    assert up.precision == "bf16"


def test_weights_that_give_no_numbers_are_told(bilinear):
    with torch.no_grad():
        bilinear.conv_first.weight.fill_(torch.inf)
        bilinear.upsample[0].weight.fill_(1)
    with pytest.raises(UpscaleError, match=r"bad\.pth gives values that are not numbers"):
        Upscaler(bilinear, precision="fp32", name="bad.pth")(picture())


def test_the_estimate_of_memory_grows_with_the_network():
    light, base = (RestorerConfig.preset(name).bytes_per_pixel(4) for name in ("light", "base"))
    assert 800 < light < 3_000  # 733 bytes were measured at 448 x 448 pixels
    assert 2_240 < base < 5_000  # as were 2,240 at 256 x 256
    assert RestorerConfig.preset("base").bytes_per_pixel(2) <= base / 2 + 1
    narrow, wide = (SRVGGConfig(num_feat=width).bytes_per_pixel(4) for width in (64, 128))
    assert 1_221 < narrow < 1_800 < wide < 3_600  # 1,221 of the narrow one at 256 x 256


def test_auto_tiles_follow_free_memory(bilinear, monkeypatch):
    import dacesr.inference as inference

    up = Upscaler(bilinear)
    sides = []
    for free in (1 << 20, 64 << 20, 1 << 40):
        monkeypatch.setattr(inference, "free_bytes", lambda device, free=free: free)
        sides.append(up.tile_size("auto", 8))
    assert inference.SMALLEST_TILE == sides[0] < sides[1] < sides[2] <= inference.LARGEST_TILE


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_architecture_upscales_in_tiles_too(precision):
    torch.manual_seed(0)
    net = SRVGGNetCompact(SRVGGConfig(num_feat=4, num_conv=1, scale=2))
    x = picture(50, 70)
    with torch.no_grad():
        expected = net(x).clamp(0, 1)
    y = Upscaler(net, precision=precision)(x, tile=32, overlap=8)  # it sees 3 pixels far, and the ramp spans 16
    torch.testing.assert_close(y, expected, rtol=0, atol=0.08 if precision == "bf16" else 0.05)
    assert (y - expected).abs().mean() < 0.01


def test_dvmsr_gives_the_published_psnr_on_set5(data):
    up = Upscaler.load(data / "checkpoints" / "DVMSR.pth", precision="fp32")
    scores = []
    for path in sorted((data / "benchmarks" / "Set5" / "LR_bicubic_x4").iterdir()):
        name = path.stem.removesuffix("x4").removesuffix("_LRBI_")
        truth = next(p for p in (data / "benchmarks" / "Set5" / "HR").iterdir() if p.stem.startswith(name[:4]))
        a, b = (rgb_to_y((x * 255).round() / 255)[:, :, 4:-4, 4:-4] for x in (up(read(path)), _cropped(truth)))
        scores.append(-10 * torch.log10((a - b).square().mean()).item())
    assert len(scores) == 5
    assert np.mean(scores) == pytest.approx(32.21, abs=0.005)


def _cropped(path: Path) -> torch.Tensor:
    x = read(path)
    return x[:, :, : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4]


def test_natural_pictures_in_tiles_are_as_good_as_whole(data):
    up = Upscaler.load(data / "checkpoints" / "DVMSR.pth", precision="fp32")
    path = sorted((data / "photos" / "val").glob("*.jpg"))[2]  # the worst of the set, when measured
    source = open_picture(path)
    x = source.region(0, 0, min(source.width, 480), min(source.height, 300))
    difference = (up(x, tile=256, overlap=32) - up(x, tile=0)).square().mean()
    assert -10 * torch.log10(difference) > 42
