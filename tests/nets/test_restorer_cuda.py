"""The restorer on a GPU: as on the CPU, without waiting for the device, and as a CUDA graph."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from weights_by_name import fill

from dacesr.nets.mamba import TokenNorm
from dacesr.nets.restorer import Restorer, RestorerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CONFIGS = {
    "light": RestorerConfig.preset("light"),
    "base": RestorerConfig.preset("base"),
    "spatial": RestorerConfig.preset("light", modulation="spatial", scan_order="alternate", image_skip="bilinear"),
    "global": RestorerConfig.preset("base", depths=(2,), modulation="global", head="nearest+conv"),
    "release": RestorerConfig.preset("light", depths=(1,), modulation="release", modulate="add"),
}
BATCH, SIDES = 3, (40, 56)
PHOTOGRAPH = 0.25  # standard deviation of a photograph's values


@cache
def on_cpu(name):
    """A network in fp32 whose tensors are all of plain size, so that errors show."""
    return fill(Restorer(CONFIGS[name]))


def on_gpu(name, dtype):
    net = Restorer(CONFIGS[name])
    net.load_state_dict(on_cpu(name).state_dict())
    return net.eval().to("cuda", dtype)


def draw(name, seed=0, device="cuda"):
    """A batch of tiles, and where the network takes them, conditions and windows."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(BATCH, 3, *SIDES, generator=g).to(device)
    if CONFIGS[name].modulation == "none":
        return (x,)
    starts = 0.5 * torch.rand(BATCH, 2, generator=g)
    window = torch.cat((starts, starts + 0.4), dim=1)
    return x, torch.randn(BATCH, 10, 512, generator=g).to(device), window.to(device)


@cache
def expected(name):
    with torch.no_grad():
        return on_cpu(name)(*draw(name, device="cpu"))


def psnr(found, exact):
    """Of outputs that are given the contrast of a photograph, whose range is 0 to 1."""
    return -20 * ((found.cpu() - exact).square().mean().sqrt() / exact.std() * PHOTOGRAPH).log10().item()


@pytest.mark.parametrize(
    ("name", "dtype", "least"),
    [*((name, torch.bfloat16, 45) for name in CONFIGS), ("light", torch.float16, 55), ("base", torch.float32, 55)],
)
def test_is_near_fp32_on_the_cpu(name, dtype, least):
    with torch.no_grad():
        out = on_gpu(name, dtype)(*draw(name))
    assert out.dtype == torch.float32
    assert psnr(out, expected(name)) >= least


def outputs_of(net, inputs, gradients):
    """A function of nothing: what the network gives for the inputs, and the gradients of training under autocast."""

    def forward():
        with torch.no_grad():
            return (net(*inputs),)

    def both():
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            out = net(*inputs)
        return out, *torch.autograd.grad(out.square().mean(), list(net.parameters()))

    return both if gradients else forward


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ["light", "base", "spatial"])
def test_a_graph_replayed_on_other_inputs_gives_what_the_network_gives(name, gradients):
    net, inputs = on_gpu(name, torch.float32 if gradients else torch.bfloat16), draw(name)
    run = outputs_of(net, inputs, gradients)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    for seed in (1, 2):
        for old, new in zip(inputs, draw(name, seed), strict=True):
            old.copy_(new)
        graph.replay()
        for ours, exact in zip(results, run(), strict=True):
            assert (ours - exact.detach()).abs().max() <= 1e-2 * exact.abs().max()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_never_waits_for_the_device(name, gradients):
    run = outputs_of(on_gpu(name, torch.float32 if gradients else torch.bfloat16), draw(name), gradients)
    run()  # kernels are compiled and loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_gradients_under_autocast_point_where_those_on_the_cpu_do():
    name = "spatial"
    run = outputs_of(on_gpu(name, torch.float32), draw(name), gradients=True)
    found = torch.cat([g.flatten().cpu() for g in run()[1:]])
    net = on_cpu(name)
    loss = net(*draw(name, device="cpu")).square().mean()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    assert torch.nn.functional.cosine_similarity(found, exact, dim=0) > 0.99


def test_tokens_are_normalised_in_their_own_precision_under_autocast():
    norm, tokens = TokenNorm(180).cuda(), torch.randn(2, 50, 180, device="cuda") + 3
    torch.nn.init.normal_(norm.weight)
    exact = norm(tokens.bfloat16().float())
    with torch.autocast("cuda", torch.bfloat16):
        found = norm(tokens.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["base", "spatial"])
def test_the_estimate_of_memory_is_above_the_peak(name):
    net, x, *others = on_gpu(name, torch.bfloat16), *draw(name)
    side, config = 512, CONFIGS[name]
    with torch.no_grad():
        net(x, *others)  # whatever libraries keep is there before
        picture = torch.rand(1, 3, side, side, device="cuda")
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        net(picture, *(other[:1] for other in others))
    peak = torch.cuda.max_memory_allocated() - before
    assert 0.4 < peak / (config.bytes_per_pixel(2, whole=True) * side**2) < 1


def test_a_batch_gives_what_its_pictures_give_alone():
    net, (x, condition, window) = on_gpu("spatial", torch.bfloat16), draw("spatial")
    with torch.no_grad():
        together = net(x, condition, window)
        for first, end in pairwise(range(BATCH + 1)):
            alone = net(x[first:end], condition[first:end], window[first:end])
            assert psnr(alone, together[first:end].cpu()) >= 45
