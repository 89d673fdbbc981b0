"""Training: the step by itself, the real run with its data and degradation, and the degradation alone.

    python benchmarks/gpu_training.py CONFIG MINUTES

is the child that `gpu.py` starts for a real run: it trains, then prints what it took as JSON.
"""

import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_bench import Bench, Preset
from gpu_floors import Work, step_seconds
from gpu_report import Row
from torch.nn.utils import convert_conv2d_weight_memory_format

from dacesr.dataset import sample_generator
from dacesr.degradation import recipe
from dacesr.nets.restorer import Restorer

BATCH, SIDE = 32, 64  # crops, and their sides in pixels
STEP_TARGET = 0.120  # seconds, base
WAITING_TARGET = 0.10  # share of a step
MINUTES = {"base": 0.4, "light": 0.3}
WARM_UP = 2  # lines of the log
PASSES = {"bicubic": 6, "dasr": 40, "level3": 70}  # over a picture in fp32, expected of a degradation


# --- the step by itself


def measure_step(bench: Bench) -> None:
    """Forward, L1, backward and AdamW in bf16, as called and with the gradients as a CUDA graph."""
    for preset in bench.presets():
        with bench.report.guarded(f"step, {preset}"):
            _step(bench, preset)
        bench.release()


def _step(bench: Bench, preset: Preset) -> None:
    batch, side, rounds = (2, 8, 2) if bench.quick else (BATCH, SIDE, 10)
    net, gradients, update = make_step(bench, preset, batch, side, cached=True)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    expected = step_seconds(net.config, batch, side, parameters, bench.ceilings)
    target = STEP_TARGET if preset == "base" else None
    name = f"{preset}, {batch} crops {side} x {side}, bf16"

    def called(_: int) -> None:
        gradients()
        update()

    times = bench.timer.one_after_another(called, rounds)
    bench.report.add(Row("Training step", f"{name}, called", "ms", times.median, expected, target))
    bench.report.add(Row("Training step", f"{name}, peak memory", "GB", bench.timer.peak(called)))
    _, gradients, update = make_step(bench, preset, batch, side, cached=False)
    replay = bench.timer.graph(gradients)

    def replayed(number: int) -> None:
        replay(number)
        update()

    times = bench.timer.one_after_another(replayed, rounds)
    bench.report.add(Row("Training step", f"{name}, gradients as CUDA graph", "ms", times.median, expected, target))


def make_step(
    bench: Bench, preset: Preset, batch: int, side: int, *, cached: bool
) -> tuple[Restorer, Callable[[], None], Callable[[], None]]:
    """A network, what gives it gradients, and what updates it.

    Args:
        bench: Where.
        preset: Which network.
        batch: Crops.
        side: Their sides.
        cached: Whether autocast keeps converted weights; not within a graph.
    """
    device = bench.device
    net = bench.network(preset).train().to(device)
    net = convert_conv2d_weight_memory_format(net, torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6, fused=device.type == "cuda")
    lr = torch.rand(batch, 3, side, side, device=device)
    gt = torch.rand(batch, 3, side * net.config.scale, side * net.config.scale, device=device)

    def gradients() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=cached):
            out = net(lr)
        torch.nn.functional.l1_loss(out.float(), gt).backward()

    return net, gradients, lambda: optimizer.step() and None


# --- the real run


def measure_training(bench: Bench) -> None:
    """`dacesr train restorer` with `dasr` degradations, in a process of its own."""
    for preset in bench.presets():
        with bench.report.guarded(f"training, {preset}"):
            _train(bench, preset)


def _train(bench: Bench, preset: Preset) -> None:
    config, output = bench.folder / f"{preset}.toml", bench.folder / f"trained_{preset}"
    config.write_text(_config(bench, preset, output))
    minutes = min(MINUTES[preset], max(0.0, bench.report.left() - 20) / 60)
    command = [sys.executable, __file__, str(config), str(minutes)]
    hidden = {} if bench.device.type == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    limit = 60 * minutes + 90  # seconds
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=limit, check=False, env={**os.environ, **hidden}
    )
    bench.report.note(f"--- training, {preset}\n{done.stdout}\n{done.stderr}")
    if done.returncode:
        raise RuntimeError(f"it ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    log = _log(output / "log.csv")
    found = json.loads(done.stdout.splitlines()[-1])
    base = preset == "base"
    rows = log[min(WARM_UP, len(log) - 1) :]
    seconds = statistics.median(float(row["seconds"]) for row in rows)
    name = f"dacesr train, {preset}, {'tiny' if bench.quick else f'{BATCH} crops {SIDE} x {SIDE}'}, dasr"
    details = {"logged_s": [float(row["seconds"]) for row in log], "iterations": int(log[-1]["iteration"])}
    net = bench.network(preset)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    expected = step_seconds(net.config, BATCH, SIDE, parameters, bench.ceilings)
    bench.report.add(
        Row("Training", name, "ms", seconds, expected, STEP_TARGET if base else None, details={**found, **details})
    )
    waiting = [float(row["waiting"]) for row in rows if row.get("waiting")]
    if waiting:
        share, target = statistics.median(waiting), WAITING_TARGET if base else None
        bench.report.add(Row("Training", f"{name}, waiting for data", "%", share, None, target))
    else:
        bench.report.errors[f"training, {preset}, waiting"] = "log.csv has no column `waiting`"
    bench.report.add(Row("Training", f"{name}, peak memory", "GB", found["peak_bytes"]))
    bench.report.add(Row("Training", f"{name}, start to end, with {minutes:.2g} minutes given", "s", found["seconds"]))


def _log(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows:
        raise RuntimeError(f"{file} has no line: the run was too short")
    return rows


def _config(bench: Bench, preset: Preset, output: Path) -> str:
    changes = {"preset": preset} | (bench.config(preset).model_dump(exclude={"kind"}) if bench.quick else {})
    network = "\n".join(f"{key} = {json.dumps(value)}" for key, value in changes.items())
    crop = 32 if bench.quick else SIDE * 4
    return f"""
iterations = {4 if bench.quick else 1_000_000}
precision = "bf16"
log_every = {1 if bench.quick else 20}
save_every = 1000000
output = {json.dumps(str(output))}

[network]
{network}

[data]
folders = [{json.dumps(str(bench.photographs()))}]
crop = {crop}
batch = {2 if bench.quick else BATCH}
spaces = {{ dasr = 1.0 }}

[optimizer]
name = "adamw"
"""


def child(config: str, minutes: float) -> None:
    """Train, and print the most memory that was in use and how long it took."""
    from dacesr.train.config import load_config
    from dacesr.train.loop import train

    start = time.perf_counter()
    train(load_config(config), max_minutes=minutes)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    print(json.dumps({"peak_bytes": peak, "seconds": seconds}))


# --- the degradation alone


def measure_degradation(bench: Bench) -> None:
    """Batches of 32 crops of 256 x 256 through three spaces: the device's time, and Python's."""
    batch, side, rounds = (2, 32, 2) if bench.quick else (BATCH, SIDE * 4, 8)
    generator = torch.Generator(bench.device).manual_seed(0)
    x = torch.rand(batch, 3, side // 8, side // 8, generator=generator, device=bench.device)
    x = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear")
    for space, passes in PASSES.items():
        with bench.report.guarded(f"degradation, {space}"):
            numbers = itertools.count()

            def degrade(_: int, space: str = space, numbers=numbers) -> None:
                first = next(numbers) * batch
                generators = [sample_generator(0, first + i) for i in range(batch)]
                recipe.degrade(x, space, generators)

            expected = Work(2 * passes * x.nbytes).floor(bench.ceilings)
            name = f"{space}, {batch} crops {side} x {side}"
            for what, times in (
                ("from start to end", bench.timer.whole(degrade, rounds, warm_up=2)),
                ("until Python is free", bench.timer.calling(degrade, rounds)),
                ("one after another", bench.timer.one_after_another(degrade, rounds)),
            ):
                predicted = None if what == "until Python is free" else expected
                details = {"least": times.least, "most": times.most}
                bench.report.add(Row("Degradation", f"{name}, {what}", "ms", times.median, predicted, details=details))
        bench.release()


if __name__ == "__main__":
    child(sys.argv[1], float(sys.argv[2]))
