"""Where the device's time goes, kernel by kernel, as Markdown."""

from collections.abc import Callable

import torch
from gpu_bench import Bench
from gpu_training import BATCH, SIDE, make_step
from torch.profiler import ProfilerActivity, profile

from dacesr.dataset import sample_generator
from dacesr.degradation import recipe

TOP = 25
NAME = 90  # characters of a kernel's name


def measure_profile(bench: Bench) -> None:
    """A forward pass of base, a training step of base, a degraded batch."""
    tasks = {
        "Profile: base, 256 x 256, bf16, forward": _forward,
        f"Profile: base, training step, {BATCH} crops {SIDE} x {SIDE}, bf16": _step,
        f"Profile: dasr, {BATCH} crops {4 * SIDE} x {4 * SIDE}": _degradation,
    }
    for heading, make in tasks.items():
        with bench.report.guarded(heading):
            bench.report.texts[heading] = _profiled(bench, make(bench))
        bench.release()


def _forward(bench: Bench) -> Callable[[], object]:
    side = 16 if bench.quick else 4 * SIDE
    net = bench.network("base").to(bench.device, torch.bfloat16)
    x = torch.rand(1, 3, side, side, device=bench.device)

    @torch.inference_mode()
    def run() -> None:
        net(x)

    return run


def _step(bench: Bench) -> Callable[[], object]:
    batch, side = (2, 8) if bench.quick else (BATCH, SIDE)
    _, gradients, update = make_step(bench, "base", batch, side, cached=True)
    return lambda: (gradients(), update())


def _degradation(bench: Bench) -> Callable[[], object]:
    batch, side = (2, 32) if bench.quick else (BATCH, 4 * SIDE)
    x = torch.rand(batch, 3, side, side, device=bench.device)
    return lambda: recipe.degrade(x, "dasr", [sample_generator(0, i) for i in range(batch)])


def _profiled(bench: Bench, run: Callable[[], object], calls: int = 3) -> str:
    """The kernels that take longest, per call, and how busy the device was."""
    on_device = bench.device.type == "cuda"
    for _ in range(2):
        run()
    bench.timer.finish()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    with profile(activities=activities) as found:
        for _ in range(calls):
            run()
        bench.timer.finish()
    kind = "CUDA" if on_device else "CPU"
    rows = []
    for event in found.key_averages():
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total
        if event.device_type.name == kind and spent > 0:
            rows.append((spent / calls / 1e3, event.count / calls, event.key))
    rows.sort(reverse=True)
    busy, launches = sum(row[0] for row in rows), sum(row[1] for row in rows)
    whole = bench.timer.whole(lambda _: run(), calls).median * 1e3
    lines = [
        f"{busy:.3f} ms in {launches:.0f} {'kernels' if on_device else 'operators'}; {whole:.3f} ms by the clock.",
        "",
        "| kernel | calls | ms | share |",
        "| --- | --: | --: | --: |",
    ]
    for spent, count, name in rows[:TOP]:
        name = name.replace("|", "/").replace("\n", " ")[:NAME]
        lines.append(f"| `{name}` | {count:.0f} | {spent:.3f} | {spent / busy:.1%} |")
    return "\n".join(lines)
