"""The networks on one picture, and the Upscaler on a large one, from tensors and from files."""

import copy
from pathlib import Path

import torch
from drawing import drawn
from gpu_bench import Bench, Preset
from gpu_floors import network_parts, network_seconds
from gpu_report import Row

from dacesr import Upscaler
from dacesr.image import open_picture, write

SIDE, LARGE, FILE = 256, 2048, 1024  # pixels
SLOW = 3.0  # seconds of an upscale that is not repeated
FORWARD_TARGET = 0.012  # seconds, base in bf16
RATE_TARGET = 25.0  # output megapixels a second, base in bf16
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def measure_network(bench: Bench) -> None:
    """Base and light on one 256 x 256 picture, as it is called and as a CUDA graph."""
    side = 16 if bench.quick else SIDE
    for preset in bench.presets():
        net = bench.network(preset)
        parts = network_parts(net.config, 1, side, side, 2)
        bench.report.facts[f"predicted_ms_{preset}_bf16"] = {
            name: part.floor(bench.ceilings) * 1e3 for name, part in parts.items()
        }
        for precision in DTYPES:
            with bench.report.guarded(f"network, {preset}, {precision}"):
                _forward(bench, preset, net, precision, side)
            bench.release()


@torch.inference_mode()
def _forward(bench: Bench, preset: Preset, net: torch.nn.Module, precision: str, side: int) -> None:
    dtype, rounds = DTYPES[precision], 3 if bench.quick else 20
    running = copy.deepcopy(net).to(bench.device, dtype)
    x = torch.rand(1, 3, side, side, device=bench.device)
    expected = network_seconds(bench.config(preset), 1, side, side, dtype.itemsize, bench.ceilings)
    expected = expected if precision == "bf16" else None  # fp32 products are not among the ceilings
    target = FORWARD_TARGET if (preset, precision) == ("base", "bf16") else None

    def add(what: str, times) -> None:
        name = f"{preset}, {side} x {side}, {precision}, {what}"
        bench.report.add(
            Row(
                "Network",
                name,
                "ms",
                times.median,
                expected,
                target,
                details={"least": times.least, "most": times.most},
            )
        )

    add("called", bench.timer.one_after_another(lambda _: running(x), rounds))
    peak = bench.timer.peak(lambda _: running(x))
    bench.report.add(Row("Network", f"{preset}, {precision}, peak memory", "GB", peak))
    with bench.report.guarded(f"network, {preset}, {precision}, as a CUDA graph"):
        add("CUDA graph", bench.timer.alone(bench.timer.graph(lambda: running(x)), rounds))


def measure_upscaler(bench: Bench) -> None:
    """Output megapixels a second through tiles, then from file to file."""
    side = 40 if bench.quick else LARGE
    x = torch.rand(1, 3, side, side)
    for preset in bench.presets():
        with bench.report.guarded(f"upscaler, {preset}"):
            _tiles(bench, preset, x)
        bench.release()
    with bench.report.guarded("upscaler, file to file"):
        _files(bench)
    bench.release()


def _tiles(bench: Bench, preset: Preset, x: torch.Tensor) -> None:
    up = Upscaler(bench.network(preset), device=bench.device, precision="bf16", name=preset)
    config, side = bench.config(preset), x.shape[-1]
    pixels = x.shape[0] * side**2 * config.scale**2 / 1e6
    expected = pixels / network_seconds(config, 1, side, side, 2, bench.ceilings)
    target = RATE_TARGET if preset == "base" else None
    on_device = x.to(bench.device)
    peak = bench.timer.peak(lambda _: up(on_device))  # warms up too
    bench.report.add(Row("Upscaler", f"{preset}, {side} x {side}, peak memory", "GB", peak))
    for place, given in (("on the device", on_device), ("in the host's memory", x)):
        times = bench.timer.whole(lambda _, given=given: up(given), 1, warm_up=0)
        if times.median < SLOW:
            times = bench.timer.whole(lambda _, given=given: up(given), 3, warm_up=0)
        name = f"{preset}, {side} x {side} tensor {place}, bf16"
        details = {"least_s": times.least, "most_s": times.most}
        bench.report.add(Row("Upscaler", name, "MP/s", pixels / times.median, expected, target, "at least", details))


def _files(bench: Bench) -> None:
    """The bundled model with its extractor, reading and writing included."""
    side = 40 if bench.quick else FILE
    up = Upscaler.load("default", device=bench.device)
    for ending in ("png", "jpg"):
        source, target = bench.folder / f"small.{ending}", bench.folder / f"large.{ending}"
        write(source, drawn(1, side, side))
        times = bench.timer.whole(lambda _, source=source, target=target: _upscale(up, source, target), 2)
        rate = side**2 * up.scale**2 / 1e6 / times.median
        details = {"seconds": times.median, "precision": up.precision}
        name = f"default, {side} x {side}, {ending} file to file"
        bench.report.add(Row("Upscaler", name, "MP/s", rate, details=details))


def _upscale(up: Upscaler, source: Path, target: Path) -> None:
    up.upscale(open_picture(source), target)
