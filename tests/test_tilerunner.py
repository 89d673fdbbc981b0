"""Tiles in batches, forced on the CPU: what one by one gives, whatever runs out, breaks or is stopped on the way."""

import threading
import time

import pytest
import torch
from conditioned import conditioned, write_conditioned
from PIL import Image

from dacesr import Upscaler, engine, tilerunner
from dacesr.checkpoint import load_extractor
from dacesr.conditioning import View, region_of
from dacesr.image import ImageError, PictureWriter, open_picture, read, write
from dacesr.inference import UpscaleError
from dacesr.nets.restorer import Restorer
from dacesr.picture import Picture
from dacesr.tilerunner import Work
from dacesr.tiling import TilePlan
from dacesr.transfer import Copies

TILE = {"tile": 36, "overlap": 8}
SIDE = 32  # of each of the 4 x 5 equal tiles that this makes of `picture`


@pytest.fixture
def plain():
    return conditioned(modulation="none")


@pytest.fixture
def eye(tmp_path):
    write_conditioned(tmp_path)
    return load_extractor(tmp_path / "eye.safetensors")


@pytest.fixture(autouse=True)
def _no_thread_stays():
    before = threading.active_count()
    yield
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.fixture
def shapes(monkeypatch):
    """Shapes of what networks are given."""
    given, forward = [], Restorer.forward

    def watched(self, x, *others):
        given.append(tuple(x.shape))
        return forward(self, x, *others)

    monkeypatch.setattr(Restorer, "forward", watched)
    return given


def batched(net, most=7 * SIDE**2, **options):
    """An upscaler that works on the CPU as one on a GPU does, in batches of up to so many pixels."""
    up = Upscaler(net, **{"precision": "fp32", **options})
    up._runner.batched = True
    up._runner._most = most
    return up


def picture(height=104, width=128, pictures=1):
    small = torch.rand(pictures, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (x * 255).round() / 255


def limited(monkeypatch, most, error=torch.OutOfMemoryError):
    """Networks run out of memory above so many pixels; what was tried is listed."""
    tried, forward = [], Restorer.forward

    def starving(self, x, *others):
        tried.append((x.shape[0], x.shape[2]))
        if x.numel() > 3 * most:
            raise error("out of memory")
        return forward(self, x, *others)

    monkeypatch.setattr(Restorer, "forward", starving)
    return tried


# --- batches


@pytest.mark.parametrize("modulation", ["none", "spatial", "global", "release"])
@pytest.mark.parametrize("pictures", [1, 2])
def test_batches_give_what_tiles_one_by_one_give(eye, shapes, modulation, pictures):
    net, extractor = conditioned(modulation=modulation), eye if modulation != "none" else None
    x = picture(pictures=pictures)
    expected = Upscaler(net, precision="fp32", extractor=extractor)(x, **TILE)
    shapes.clear()
    y = batched(net, extractor=extractor)(x, **TILE)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    assert sum(shape[0] for shape in shapes) == 20 * pictures
    assert {shape[2:] for shape in shapes} == {(SIDE, SIDE)}
    assert [shape[0] for shape in shapes] == ([7, 7, 6] if pictures == 1 else [6, 6, 6, 6, 6, 6, 4])


def test_a_file_is_what_it_is_one_by_one(plain, tmp_path):
    for name, mode in (("rgb", "RGB"), ("gray", "L"), ("alpha", "RGBA"), ("deep", "I;16")):
        place = tmp_path / f"{name}.png"
        write(place, picture(60, 70))
        if mode == "I;16":
            write(place, picture(60, 70)[:, :1] * 0.9 + 0.05, bits=16)
        else:
            Image.open(place).convert(mode).save(place)
        files = []
        for up in (Upscaler(plain, precision="fp32"), batched(plain)):
            up.upscale(open_picture(place), tmp_path / "out.png", **TILE)
            files.append(read(tmp_path / "out.png"))
        assert (files[0] - files[1]).abs().max() <= (1.01 / 255 if mode != "I;16" else 1.01 / 65535)
        assert (files[0] != files[1]).float().mean() < 1e-3  # rounding of a last bit at most


def test_other_types_come_back_as_they_went(plain):
    x = picture(40, 50).double()
    y = batched(plain)(x, **TILE)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, Upscaler(plain, precision="fp32")(x, **TILE), rtol=0, atol=1e-6)


def test_progress_counts_every_tile(plain, tmp_path):
    write(tmp_path / "in.png", picture())
    for up in (batched(plain), Upscaler(plain, precision="fp32")):
        told = []
        up.upscale(
            open_picture(tmp_path / "in.png"), None, **TILE, progress=lambda *given, told=told: told.append(given)
        )
        assert told == [(number, 20) for number in range(21)]


def test_auto_does_not_cut_what_fits(plain, shapes, monkeypatch):
    up = batched(plain, most=tilerunner.BATCH_PIXELS)
    up(picture(40, 200))
    assert shapes == [(1, 3, 40, 200)]
    shapes.clear()
    for module in ("inference", "tilerunner"):
        monkeypatch.setattr(f"dacesr.{module}.free_bytes", lambda device: 2 * 64**2 * up._runner.bytes_per_pixel())
    up(picture(20, 200), overlap=16)
    up(picture(40, 200), overlap=16)
    assert shapes[0] == (1, 3, 20, 200)
    assert len(shapes) > 2
    assert all(b * height * width <= 64**2 for b, _, height, width in shapes)


def test_a_gpu_is_reckoned_to_hold_whole_blocks(plain):
    up = Upscaler(plain, precision="fp32")
    up._engine.device = torch.device("mps")  # blocks are done at once on every GPU
    assert up._runner.bytes_per_pixel() == plain.config.bytes_per_pixel(4, whole=True)
    assert Upscaler(plain, precision="bf16")._runner.bytes_per_pixel() == plain.config.bytes_per_pixel(2)


def test_where_rows_of_tiles_are_large_they_are_blended_in_memory(plain, monkeypatch):
    expected = batched(plain)(picture(), **TILE)
    monkeypatch.setattr(tilerunner, "free_bytes", lambda device: 1 << 16)
    moved, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(self) or cpu(self))
    torch.testing.assert_close(batched(plain)(picture(), **TILE), expected, rtol=0, atol=1e-6)
    assert len(moved) == 20


def test_the_next_batch_is_started_before_one_is_waited_for(plain, monkeypatch):
    events = []
    for name in ("start", "finish"):
        method = getattr(engine.Engine, name)
        monkeypatch.setattr(
            engine.Engine,
            name,
            lambda self, *given, name=name, method=method: events.append(name) or method(self, *given),
        )
    batched(plain)(picture(), **TILE)
    assert events == ["start", "start", "finish", "start", "finish", "finish"]


# --- memory


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_out_of_memory_halves_the_batch_once_and_for_all(plain, monkeypatch, error):
    sentences = []
    up, x = batched(plain, warn=sentences.append), picture()
    expected = up(x, **TILE)
    tried = limited(monkeypatch, 3 * SIDE**2, error)
    torch.testing.assert_close(up(x, **TILE), expected, rtol=0, atol=1e-6)
    assert tried[:4] == [(7, SIDE), (3, SIDE), (3, SIDE), (1, SIDE)]
    assert max(b for b, _ in tried[1:]) == 3
    assert sentences == ["too little memory for 7 tiles at a time: going on with 3"]
    tried.clear()
    torch.testing.assert_close(up(x, **TILE), expected, rtol=0, atol=1e-6)
    assert max(b for b, _ in tried) <= 3


@pytest.mark.parametrize("modulation", ["none", "spatial"])
def test_then_the_tile(eye, monkeypatch, modulation):
    net, extractor, sentences = conditioned(modulation=modulation), eye if modulation != "none" else None, []
    up, x = batched(net, 1 << 20, extractor=extractor, warn=sentences.append), picture(120, 120)
    expected = Upscaler(net, precision="fp32", extractor=extractor)(x, tile=36, overlap=9)
    tried = limited(monkeypatch, 40**2)
    y = up(x, tile=72, overlap=9)
    assert -10 * (y - expected).square().mean().log10() > 40
    large = [(b, side) for b, side in tried if side > 32]
    assert large == [(4, 65), (2, 65), (1, 65), (1, 65)]  # the last with nothing beside it
    assert [sentence.split(":")[0] for sentence in sentences] == [
        "too little memory for 4 tiles at a time",
        "too little memory for 2 tiles at a time",
        "too little memory for tiles of 65 pixels",
    ]
    tried.clear()
    up(x, tile=72, overlap=9)
    assert max(side for _, side in tried) <= 32


def test_memory_that_never_suffices_is_told(plain, monkeypatch):
    limited(monkeypatch, 10)
    with pytest.raises(UpscaleError, match="too little memory on cpu even for 32 x 32"):
        batched(plain, warn=lambda sentence: None)(picture(), **TILE)


def runs_out_once(monkeypatch, owner, name):
    """The first call of a function finds no memory."""
    made, calls = getattr(owner, name), []

    def once(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made(*args, **options)

    monkeypatch.setattr(owner, name, once)
    return calls


PLACES = [(Copies, "send"), (Copies, "fetch"), (torch, "stack"), (engine, "given_together"), (PictureWriter, "values")]


@pytest.mark.parametrize(("owner", "name"), PLACES)
def test_memory_that_runs_out_beside_the_network_loses_nothing(plain, monkeypatch, tmp_path, owner, name):
    expected = batched(plain)(picture(), **TILE)
    write(tmp_path / "in.png", picture())
    up = batched(plain, warn=lambda sentence: None)
    calls = runs_out_once(monkeypatch, owner, name)
    up.upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE)
    assert len(calls) > 1
    assert (read(tmp_path / "out.png") - expected).abs().max() < 0.51 / 255


def test_blending_without_memory_is_told(plain, monkeypatch):
    def starving(self, rows, outputs):
        next(outputs)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TilePlan, "_band", starving)
    with pytest.raises(UpscaleError, match="too little memory on cpu to blend tiles"):
        batched(plain)(picture(), **TILE)


def test_other_errors_are_not_taken_for_memory(plain, monkeypatch):
    def wrong(self, *args):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Restorer, "forward", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        batched(plain)(picture(), **TILE)


# --- numbers


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), -10.0])
def test_a_broken_batch_is_done_again_in_fp32_and_so_is_the_rest(plain, monkeypatch, damage):
    forward, kinds, sentences = Restorer.forward, [], []

    def fragile(self, x, *others):
        kinds.append(self.conv_first.weight.dtype)
        y = forward(self, x, *others)
        return y if kinds[-1] == torch.float32 or len(kinds) == 1 else y * 0 + damage

    up, x = batched(plain, precision="bf16", warn=sentences.append), picture()
    expected = Upscaler(plain, precision="fp32")(x, **TILE)
    monkeypatch.setattr(Restorer, "forward", fragile)
    y = up(x, **TILE)
    torch.testing.assert_close(y[:, :, 112:], expected[:, :, 112:], rtol=0, atol=1e-6)  # below the first batch
    torch.testing.assert_close(y, expected, rtol=0, atol=0.05)
    assert kinds == [torch.bfloat16] * 3 + [torch.float32] * 2
    assert (up.precision, len(sentences)) == ("fp32", 1)


def test_out_of_memory_while_done_again_loses_nothing(plain, monkeypatch):
    forward, tried = Restorer.forward, []

    def fragile(self, x, *others):
        exact = self.conv_first.weight.dtype == torch.float32
        tried.append((exact, x.shape[0]))
        if exact and x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *others) * (1 if exact else torch.nan)

    expected = Upscaler(plain, precision="fp32")(picture(), **TILE)
    monkeypatch.setattr(Restorer, "forward", fragile)
    y = batched(plain, precision="bf16", warn=lambda sentence: None)(picture(), **TILE)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    assert (True, 7) in tried


def test_weights_that_give_no_numbers_are_told(plain):
    with torch.no_grad():
        plain.conv_first.weight.fill_(torch.inf)
    with pytest.raises(UpscaleError, match="not numbers"):
        batched(plain)(picture(), **TILE)


# --- threads


def test_a_picture_that_breaks_off_is_told(plain, monkeypatch, tmp_path):
    write(tmp_path / "in.png", picture())
    region, count = Picture.region, iter(range(100))

    def cut_short(self, *place):
        if next(count) == 9:
            raise ImageError("in.png is damaged or cut short")
        return region(self, *place)

    monkeypatch.setattr(Picture, "region", cut_short)
    with pytest.raises(ImageError, match="cut short"):
        batched(plain).upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("at", [0, 3])
def test_a_full_disk_is_told(plain, monkeypatch, tmp_path, at):
    write(tmp_path / "in.png", picture())
    method, count = PictureWriter.write_values, iter(range(100))

    def full(self, values):
        if next(count) == at:
            raise ImageError("out.png cannot be written: No space left on device")
        method(self, values)

    monkeypatch.setattr(PictureWriter, "write_values", full)
    with pytest.raises(ImageError, match="No space left"):
        batched(plain).upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_who_is_told_of_progress_may_stop_it(plain, tmp_path, error):
    write(tmp_path / "in.png", picture())

    def stop(done, total):
        if done == 5:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        batched(plain).upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE, progress=stop)
    assert not (tmp_path / "out.png").exists()


def test_strips_that_nobody_wants_any_more_end_the_thread(plain):
    up, x = batched(plain), picture()
    plan = up._runner.cut(104, 128, 36, 8)
    strips = up._runner.strips(Work(up._engine.at(None), plan, region_of(x), View(None, 104, 128), 8))
    next(strips)
    strips.close()


def test_regions_are_read_by_another_thread_unless_they_are_on_the_device(plain, monkeypatch):
    up, x, readers = batched(plain), picture(), set()
    plan = up._runner.cut(104, 128, 36, 8)

    def region(*place):
        readers.add(threading.current_thread() is threading.main_thread())
        return region_of(x)(*place)

    for reading in (True, False):
        readers.clear()
        work = Work(up._engine.at(None), plan, region, View(None, 104, 128), 8, reading=reading)
        assert torch.cat(list(up._runner.strips(work)), dim=2).shape == (1, 3, 208, 256)
        assert readers == {not reading}


def test_pictures_side_by_side_share_an_upscaler(eye):
    net = conditioned()
    up, x = batched(net, extractor=eye), picture(pictures=4)
    expected, found = [Upscaler(net, precision="fp32", extractor=eye)(each[None], **TILE) for each in x], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: up(x[i : i + 1], **TILE)})) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, y in enumerate(expected):
        torch.testing.assert_close(found[number], y, rtol=0, atol=1e-6)


def test_the_cpu_has_no_threads_and_no_batches(plain, shapes, monkeypatch, tmp_path):
    write(tmp_path / "in.png", picture())
    monkeypatch.setattr(tilerunner, "prefetch", None)
    monkeypatch.setattr(Copies, "write", None)
    up = Upscaler(plain, precision="fp32")
    up(picture(), **TILE)
    up.upscale(open_picture(tmp_path / "in.png"), None, **TILE)
    assert shapes == [(1, 3, SIDE, SIDE)] * 40


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_tensor_can_be_enlarged_in_any_mode(plain, mode):
    up, x = batched(plain), picture()
    with mode():
        found = up(x, tile=SIDE)
    torch.testing.assert_close(found, up(x, tile=SIDE))
