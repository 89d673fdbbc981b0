"""Upscaler with a network that takes a condition: one look at the whole picture, and each tile its place in it."""

import threading

import numpy as np
import pytest
import torch
from conditioned import conditioned, write_conditioned
from PIL import Image
from tiny_tagger import write_tagger

from dacesr import Upscaler
from dacesr.checkpoint import CheckpointError, load_extractor, load_restorer, save_restorer
from dacesr.conditioning import extractor_fields, load_guided
from dacesr.config import RestorerConfig
from dacesr.image import open_picture, write
from dacesr.inference import UpscaleError
from dacesr.nets.extractor import Extractor
from dacesr.nets.restorer import Restorer
from dacesr.pairing import pair_restorers


@pytest.fixture
def file(tmp_path):
    return write_conditioned(tmp_path)


@pytest.fixture
def extractor(tmp_path):
    path = tmp_path / "eye.safetensors"  # that of `file`, if it is there: the same again would have other bytes
    return load_extractor(path if path.exists() else write_tagger(path))


@pytest.fixture
def looks(monkeypatch):
    """Shapes of what extractors are shown."""
    shapes, condition = [], Extractor.condition

    def watched(self, x, kind="re"):
        shapes.append(tuple(x.shape))
        return condition(self, x, kind)

    monkeypatch.setattr(Extractor, "condition", watched)
    return shapes


@pytest.fixture
def parts(monkeypatch):
    """What networks are given: pixels, condition, window."""
    given, forward = [], Restorer.forward

    def watched(self, x, condition=None, window=None):
        given.append((x, condition, window))
        return forward(self, x, condition, window)

    monkeypatch.setattr(Restorer, "forward", watched)
    return given


def picture(height=20, width=30, batch=1, seed=0):
    """8-bit values, smooth, so that tiles agree with the whole."""
    small = torch.rand(batch, 3, 4, 5, generator=torch.Generator().manual_seed(seed))
    x = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (x * 255).round() / 255


def check_places(parts, x):
    """Every part is what its window shows of the picture."""
    height, width = x.shape[2:]
    for pixels, _, window in parts:
        top, left, bottom, right = (
            round(place * side) for place, side in zip(window, (height, width) * 2, strict=True)
        )
        assert torch.equal(pixels, x[:, :, top:bottom, left:right])


def psnr(a, b):
    return -10 * (a - b).square().mean().log10().item()


def test_the_whole_picture_is_what_the_guided_network_makes(file):
    up, x = Upscaler.load(file, precision="fp32"), picture(batch=2)
    with torch.no_grad():
        torch.testing.assert_close(up(x), load_guided(file)(x).clamp(0, 1))


@pytest.mark.parametrize("tile", [0, 32, "auto"])
def test_there_is_one_look_at_each_picture(file, looks, parts, tile):
    up, x = Upscaler.load(file, precision="fp32"), picture(70, 90, batch=2)
    up(x, tile=tile, overlap=8)
    assert looks == [(2, 3, 70, 90)]
    assert len(parts) == (12 if tile == 32 else 1)
    assert all(condition is parts[0][1] for _, condition, _ in parts)
    check_places(parts, x)


def test_halved_tiles_keep_their_places(file, looks, parts, monkeypatch):
    up, x = Upscaler.load(file, precision="fp32", warn=lambda sentence: None), picture(90, 150)
    expected = up(x, tile=36, overlap=9)
    parts.clear()
    looks.clear()
    watched = Restorer.forward

    def limited(self, x, *args):
        if max(x.shape[2:]) > 40:
            raise torch.OutOfMemoryError("out of memory")
        return watched(self, x, *args)

    monkeypatch.setattr(Restorer, "forward", limited)
    y = up(x, tile=80, overlap=9)
    assert len(parts) > 12
    check_places(parts, x)
    assert looks == [(1, 3, 90, 150)]
    assert psnr(y, expected) > 40


@pytest.mark.parametrize("changes", [{}, {"modulation": "global"}, {"modulation": "release"}])
def test_tiles_agree_with_the_whole_as_without_a_condition(extractor, changes):
    x, scores = picture(96, 128), []
    for net in (conditioned(modulation="none"), conditioned(**changes)):
        up = Upscaler(net, precision="fp32", extractor=None if net.config.modulation == "none" else extractor)
        whole = up(x, tile=0)
        scores.append(psnr(up(x, tile=48, overlap=16), whole))
    assert scores[1] > scores[0] - 2


def test_a_tile_taken_for_a_picture_of_its_own_would_be_another(extractor):
    up, x = Upscaler(conditioned(), precision="fp32", extractor=extractor), picture(96, 128)
    whole = up(x, tile=0)
    alone = up(x[:, :, :48, :48], tile=0)[:, :, :64, :64]
    assert (
        psnr(up(x, tile=48, overlap=16)[:, :, :64, :64], whole[:, :, :64, :64])
        > psnr(alone, whole[:, :, :64, :64]) + 10
    )


@pytest.mark.parametrize("size", [(40, 60), (5, 3), (1, 1), (7, 200)])
def test_files_arrays_and_images_give_what_tensors_give(file, tmp_path, size):
    up, x = Upscaler.load(file, precision="fp32"), picture(*size)
    expected = up(x, tile=32, overlap=8)
    write(tmp_path / "in.png", x)
    up.upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", tile=32, overlap=8)
    array = (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    with Image.open(tmp_path / "out.png") as image:
        results = [np.asarray(image), up(array, tile=32, overlap=8), np.asarray(up(Image.fromarray(array), 32, 8))]
    for result in results:
        assert np.abs(result / 255 - expected[0].permute(1, 2, 0).numpy()).max() < 0.51 / 255


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_gray_and_transparent_pictures(file, mode):
    up = Upscaler.load(file, precision="fp32")
    image = Image.new(mode, (21, 13), 200 if mode in ("L", "I;16") else (200,) * len(mode))
    assert (up(image).mode, up(image).size) == (mode, (42, 26))


def test_a_condition_that_is_known_is_not_computed_again(file, tmp_path, looks):
    up = Upscaler.load(file, precision="fp32")
    write(tmp_path / "in.png", picture(40, 60))
    opened = open_picture(tmp_path / "in.png")
    condition = up.condition(opened)
    known = up.upscale(opened, None, condition=condition)
    assert len(looks) == 1
    assert known == up.upscale(open_picture(tmp_path / "in.png"), None)
    other = up.upscale(opened, None, condition=condition.flip(1))
    assert known != other


def test_tags_are_the_extractors(file, tmp_path, extractor):
    up, x = Upscaler.load(file), picture()
    write(tmp_path / "in.png", x)
    condition = up.condition(open_picture(tmp_path / "in.png"))
    assert up.tags(condition) == extractor.tags(x)
    with pytest.raises(ValueError, match="a network has no extractor"):
        Upscaler(conditioned(modulation="none")).tags(condition)
    assert Upscaler(conditioned(modulation="none")).condition(open_picture(tmp_path / "in.png")) is None


def test_the_extractor_sees_in_fp32_at_any_precision(file, parts):
    x = picture(40, 60)
    exact, rough = (Upscaler.load(file, precision=precision)(x) for precision in ("fp32", "bf16"))
    assert torch.equal(parts[0][1], parts[1][1])
    assert parts[1][1].dtype == torch.float32
    assert psnr(rough, exact) > 40


def test_threads_share_an_upscaler(file):
    up = Upscaler.load(file, precision="fp32")
    pictures = [picture(60, 80, seed=seed) for seed in range(4)]
    expected, found = [up(x, tile=32) for x in pictures], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: up(pictures[i], tile=32)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, y in enumerate(expected):
        torch.testing.assert_close(found[i], y)


def test_strength_is_between_two_conditioned_networks(file, tmp_path, extractor):
    soft, x = write_conditioned(tmp_path, "soft.safetensors", seed=1), picture()
    pair_restorers(soft, file)
    up = Upscaler.load(file, precision="fp32")
    nets = [conditioned(1), conditioned(0)]
    half = conditioned(0)
    one, two = (net.state_dict() for net in nets)
    half.load_state_dict({name: (one[name] + two[name]) / 2 for name in one})
    for strength, net in ((0, nets[0]), (0.5, half), (1, nets[1])):
        expected = Upscaler(net, extractor=extractor, precision="fp32")(x)
        torch.testing.assert_close(up(x, strength=strength), expected)


def test_a_pair_names_one_extractor(file, tmp_path):
    soft, other = tmp_path / "soft.safetensors", write_tagger(tmp_path / "other.safetensors", seed=1)
    for fields in (extractor_fields(other), {}):
        save_restorer(soft, conditioned(1), info=fields)
        with pytest.raises(CheckpointError, match=r"soft\.safetensors was trained with another extractor than .*net"):
            pair_restorers(soft, file)


def test_what_does_not_fit_is_told_at_once(extractor):
    with pytest.raises(ValueError, match="a network was trained with a condition, so it needs its extractor"):
        Upscaler(conditioned())
    with pytest.raises(ValueError, match="takes no condition"):
        Upscaler(conditioned(modulation="none"), extractor=extractor)
    with pytest.raises(ValueError, match="conditions of 9 channels"):
        Upscaler(conditioned(condition_dim=9), extractor=extractor)


def test_too_little_memory_for_the_extractor_is_told(file, monkeypatch):
    def starving(self, x, kind):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Extractor, "condition", starving)
    with pytest.raises(UpscaleError, match="too little memory on cpu for the extractor"):
        Upscaler.load(file)(picture())


def test_released_weights_take_an_extractor_or_none(tmp_path, parts):
    path = tmp_path / "release.pth"
    torch.manual_seed(0)
    torch.save(Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect")).state_dict(), path)
    plain, seeing = Upscaler.load(path, precision="fp32"), Upscaler.load(path, precision="fp32", extractor="lite")
    assert plain.extractor is None
    plain(picture())
    seeing(picture())
    assert [condition is None for _, condition, _ in parts] == [True, False]


def test_natural_pictures_in_tiles_are_as_good_as_whole(data):
    plain = load_restorer(data / "checkpoints" / "DVMSR.pth")
    net = Restorer(RestorerConfig.preset("light", modulation="spatial")).eval()
    net.load_state_dict(plain.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(0)
    for projection in net.modulation.projections:
        torch.nn.init.normal_(projection.weight, std=0.1, generator=generator)
    source = open_picture(sorted((data / "photos" / "val").glob("*.jpg"))[2])  # the worst of the set, when measured
    x = source.region(0, 0, min(source.width, 240), min(source.height, 160))
    scores, wholes = [], []
    for up in (Upscaler(plain, precision="fp32"), Upscaler(net, extractor=load_extractor("lite"), precision="fp32")):
        wholes.append(up(x, tile=0))
        scores.append(psnr(up(x, tile=128, overlap=32), wholes[-1]))
    assert psnr(*wholes) < 45  # the condition does something
    assert min(scores) > 48  # 55.1 and 55.6 when measured


def test_a_condition_for_a_network_that_takes_none_is_an_error(bilinear, tmp_path):
    write(tmp_path / "a.png", torch.rand(1, 3, 12, 12))
    with pytest.raises(ValueError, match="has no extractor, so it takes no condition"):
        Upscaler(bilinear).upscale(
            open_picture(tmp_path / "a.png"), tmp_path / "b.png", condition=torch.zeros(1, 10, 512)
        )
    assert not (tmp_path / "b.png").exists()
