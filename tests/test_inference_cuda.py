"""The upscaler on a GPU: the results of the CPU, graphs, copies beside the work, and memory that runs out."""

import threading
from contextlib import contextmanager

import pytest
import torch
from conditioned import conditioned, write_conditioned
from PIL import Image

from dacesr import Upscaler, graphs
from dacesr.checkpoint import load_extractor
from dacesr.conditioning import View
from dacesr.config import RestorerConfig
from dacesr.graphs import Graphs
from dacesr.image import open_picture, read, write
from dacesr.inference import UpscaleError
from dacesr.nets.baselines import SRVGGConfig, SRVGGNetCompact
from dacesr.nets.restorer import Restorer
from dacesr.transfer import Copies

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TILE = {"tile": 96, "overlap": 16}
GIB = 1 << 30


@pytest.fixture
def random_net():
    """A network of the usual widths that adds something to the enlarged picture."""
    torch.manual_seed(0)
    net = Restorer(RestorerConfig.preset("light", image_skip="bilinear")).eval()
    with torch.no_grad():
        for parameter in net.upsample.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net


@pytest.fixture
def eye(tmp_path):
    write_conditioned(tmp_path)
    return load_extractor(tmp_path / "eye.safetensors")


def picture(height=150, width=200, pictures=1):
    small = torch.rand(pictures, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return (x * 255).round() / 255


def psnr(a, b):
    return -10 * (a.cpu().double() - b.cpu().double()).square().mean().log10().item()


def graphs_of(up):
    return [graph for graph in up._engine.at(None).running.graphs._graphs.values() if graph is not None]


@contextmanager
def memory_limit(more):
    """PyTorch may take so many bytes more than it has now."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + more
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.reset_peak_memory_stats()
    try:
        yield
        assert torch.cuda.max_memory_reserved() <= 1.01 * limit  # of a total that is told in two ways
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


# --- results


def test_a_file_is_that_of_the_cpu(random_net, tmp_path):
    write(tmp_path / "in.png", picture())
    for name, mode in (("rgb", "RGB"), ("gray", "L"), ("alpha", "RGBA")):
        place, files = tmp_path / f"{name}.png", []
        Image.open(tmp_path / "in.png").convert(mode).save(place)
        for up in (Upscaler(random_net, precision="fp32"), Upscaler(random_net, device="cuda")):
            told = []
            up.upscale(
                open_picture(place), tmp_path / "out.png", **TILE, progress=lambda *given, told=told: told.append(given)
            )
            assert told == [(number, 6) for number in range(7)]
            files.append(read(tmp_path / "out.png"))
        assert psnr(*files) >= 45


def test_16_bits_are_those_of_the_cpu(random_net, tmp_path):
    write(tmp_path / "in.png", picture(), bits=16)
    results = []
    for device in ("cpu", "cuda"):
        Upscaler(random_net, device=device, precision="fp32").upscale(
            open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE
        )
        results.append(read(tmp_path / "out.png"))
    assert psnr(*results) >= 55
    assert ((results[1] * 65535).round() % 257 != 0).any()


def test_the_bundled_model_gives_what_it_gives_on_the_cpu(tmp_path):
    write(tmp_path / "in.png", picture())
    files = []
    for options in ({"precision": "fp32"}, {"device": "cuda"}):
        up = Upscaler.load("default", **options)
        up.upscale(open_picture(tmp_path / "in.png"), tmp_path / "out.png", **TILE)
        files.append(read(tmp_path / "out.png"))
    assert psnr(*files) >= 45


@pytest.mark.parametrize("modulation", ["none", "spatial", "global", "release"])
def test_tensors_of_either_device(eye, modulation):
    net, extractor = conditioned(modulation=modulation), eye if modulation != "none" else None
    x = picture(70, 90, pictures=2)
    expected = Upscaler(net, precision="fp32", extractor=extractor)(x, tile=32, overlap=8)
    up = Upscaler(net, precision="fp32", extractor=extractor, device="cuda")
    for given in (x, x.cuda()):
        y = up(given, tile=32, overlap=8)
        assert (y.device, y.dtype) == (given.device, given.dtype)
        assert psnr(y, expected) >= 50


def test_another_architecture_runs_in_batches_too():
    torch.manual_seed(0)
    net, x = SRVGGNetCompact(SRVGGConfig(num_feat=8, num_conv=2, scale=2)), picture(70, 90)
    expected = Upscaler(net, precision="fp32")(x, tile=32, overlap=8)
    up = Upscaler(net, device="cuda", precision="fp32")
    assert psnr(up(x, tile=32, overlap=8), expected) >= 55
    assert up._engine.at(None).running.graphs is None


# --- graphs


@pytest.mark.parametrize("modulation", ["none", "spatial", "global", "release"])
def test_a_graph_replayed_gives_what_the_network_gives(modulation):
    net = conditioned(modulation=modulation).cuda().requires_grad_(False)
    run = Graphs(net)
    for seed in range(4):
        generator = torch.Generator("cuda").manual_seed(seed)
        x = torch.rand(2, 3, 48, 40, device="cuda", generator=generator)
        condition = torch.rand(2, 10, net.config.condition_dim, device="cuda", generator=generator)
        corner = torch.rand(2, 2, device="cuda", generator=generator) / 2
        inputs = (x,) if modulation == "none" else (x, condition, torch.cat((corner, corner + 0.5), 1))
        with torch.no_grad():
            torch.testing.assert_close(run(*inputs), net(*inputs), rtol=0, atol=1e-3)
    assert [graph is not None for graph in run._graphs.values()] == [True]


def test_outputs_outlive_the_next_replay(random_net):
    run, xs = Graphs(random_net.cuda()), [torch.rand(1, 3, 32, 32, device="cuda") for _ in range(5)]
    with torch.no_grad():
        outputs = [run(x) for x in xs]
        for x, y in zip(xs, outputs, strict=True):
            torch.testing.assert_close(y, random_net(x), rtol=0, atol=1e-3)


def test_tiles_that_come_again_are_replayed_and_graphs_go_with_the_weights(random_net, monkeypatch):
    up, x = Upscaler(random_net, device="cuda"), picture()
    up._runner._most = 2 * 96**2
    first = up(x, **TILE)
    assert len(graphs_of(up)) == 1
    assert psnr(up(x, **TILE), first) > 60
    monkeypatch.setattr(graphs, "MOST_PIXELS", 0)
    assert psnr(up(x, **TILE), first) > 60
    up._engine.at(None).running.graphs.clear()
    assert not graphs_of(up)


# --- beside the work


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_work_is_given_without_waiting(eye):
    up = Upscaler(conditioned(), device="cuda", extractor=eye)
    engine, weights = up._engine, up._engine.at(None)
    x = picture(64, 64)
    view = View(up._condition(lambda left, top, w, h: x[:, :, top : top + h, left : left + w], 64, 64), 64, 64)
    for _ in range(3):  # as it is, recorded, replayed
        engine.finish(weights, engine.start(weights, [x.cuda()] * 2, [view] * 2))
    parts = [engine.copies.send(x) for _ in range(2)]
    plan = up._runner.cut(64, 64, 40, 8)
    torch.cuda.set_sync_debug_mode("error")
    try:
        started = engine.start(weights, [part.on_device() for part in parts], [view] * 2)
        outputs = (torch.ones(1, 3, 2 * tile.rows.size, 2 * tile.columns.size, device="cuda") for tile in plan.tiles())
        strips = [engine.copies.fetch(strip) for strip in plan.blend(outputs)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert engine.finish(weights, started).shape == (2, 3, 128, 128)
    torch.testing.assert_close(torch.cat([strip.in_memory() for strip in strips], 2), torch.ones(1, 3, 128, 128))


def test_copies_bring_what_was_there():
    copies = Copies(torch.device("cuda"))
    for seed in range(20):
        x = torch.rand(3, 500, 700, generator=torch.Generator().manual_seed(seed))
        sent = copies.send(x[:, ::2])
        y = sent.on_device() * 2
        fetched = copies.fetch(y[:, :, ::3])
        del y
        torch.rand(3, 250, 700, device="cuda")  # would take the memory over, were it free
        assert torch.equal(fetched.in_memory(), 2 * x[:, ::2, ::3])


def test_pictures_side_by_side_share_an_upscaler(eye, tmp_path):
    net = conditioned()
    up, pictures = Upscaler(net, device="cuda", precision="fp32", extractor=eye), picture(70, 90, pictures=4)
    exact = Upscaler(net, precision="fp32", extractor=eye)
    expected = [exact(x[None], tile=32, overlap=8) for x in pictures]
    errors = []

    def work(number):
        try:
            place = tmp_path / f"{number}.png"
            write(place, pictures[number : number + 1])
            for _ in range(4):
                up.upscale(open_picture(place), place.with_suffix(".out.png"), tile=32, overlap=8)
                assert psnr(read(place.with_suffix(".out.png")), expected[number]) > 45
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# --- memory and numbers


def test_a_broken_batch_is_done_again_in_fp32(random_net, monkeypatch):
    forward = Restorer.forward

    def fragile(self, x, *others):
        y = forward(self, x, *others)
        return y if self.conv_first.weight.dtype == torch.float32 else y * torch.nan

    sentences, x = [], picture()
    expected = Upscaler(random_net, precision="fp32")(x, **TILE)
    monkeypatch.setattr(Restorer, "forward", fragile)
    up = Upscaler(random_net, device="cuda", warn=sentences.append)
    assert psnr(up(x, **TILE), expected) >= 55
    assert (up.precision, len(sentences)) == ("fp32", 1)


def test_out_of_memory_halves_the_batch(random_net, monkeypatch):
    sentences, x = [], picture()
    up = Upscaler(random_net, device="cuda", warn=sentences.append)
    expected, forward = up(x, **TILE), Restorer.forward

    def starving(self, x, *others):
        if x.shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *others)

    monkeypatch.setattr(Restorer, "forward", starving)
    up._engine.at(None).running.graphs.clear()
    assert psnr(up(x, **TILE), expected) > 55
    assert sentences == [
        "too little memory for 6 tiles at a time: going on with 3",
        "too little memory for 3 tiles at a time: going on with 1",
    ]


def test_a_limit_on_memory_is_kept_by_smaller_batches_and_tiles():
    torch.manual_seed(0)
    net = Restorer(RestorerConfig.preset("base", depths=(1,), image_skip="bilinear")).eval()
    sentences, x = [], picture(512, 512)
    up = Upscaler(net, device="cuda", warn=sentences.append)
    batched, whole = up(x, tile=128, overlap=16), up(x, tile=0)
    up._engine.at(None).running.graphs.clear()
    with memory_limit(GIB // 2):
        assert psnr(up(x, tile=128, overlap=16), batched) > 50
        assert psnr(up(x, tile=0, overlap=16), whole) > 40
    assert [sentence for sentence in sentences if "at a time" in sentence]
    assert [sentence for sentence in sentences if "for tiles of 512" in sentence]


def test_memory_that_never_suffices_is_told(random_net, monkeypatch):
    def starving(self, x, *others):
        raise torch.OutOfMemoryError("CUDA out of memory")

    up = Upscaler(random_net, device="cuda", warn=lambda sentence: None)
    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "forward", starving)
        with pytest.raises(UpscaleError, match="too little memory on cuda even for"):
            up(picture(), **TILE)
    assert up(picture(), tile=32, overlap=8).shape == (1, 3, 600, 800)


def test_a_network_that_waits_is_not_recorded_and_loses_nothing(random_net):
    class Waiting(torch.nn.Module):
        def forward(self, x):
            return random_net(x) * (1 if x.max().item() < 2 else 0)

    run, x = Graphs(Waiting()), torch.rand(1, 3, 32, 32, device="cuda")
    random_net.cuda()
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(run(x), random_net(x), rtol=0, atol=1e-3)
        plain = Graphs(random_net)  # and others are recorded all the same
        for _ in range(3):
            torch.testing.assert_close(plain(x), random_net(x), rtol=0, atol=1e-3)
    assert list(run._graphs.values()) == [None]
    assert len(plain._graphs) == 1
    assert None not in plain._graphs.values()
