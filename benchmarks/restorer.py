"""Time and memory of the restorer, as ratios measured in one run.

    python benchmarks/restorer.py [--preset base] [--json out/restorer.json]

Three questions: what the scan adds to the rest of the network (the same network with the scan replaced by identity, in
turns with the real one), what bf16 brings, and what a pixel costs through tiles from a small picture to a large one.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from machine import describe
from timing import in_turns, timed

from dacesr import Upscaler
from dacesr.memory import keep_freed_memory
from dacesr.nets.restorer import Restorer, RestorerConfig


class Identity(torch.autograd.Function):
    """Returns u; delta and z get the gradient of u too, the others zero, so that every layer has its work."""

    @staticmethod
    def forward(ctx, u, delta, z, *others):
        ctx.save_for_backward(*others)
        return u.view_as(u)

    @staticmethod
    def backward(ctx, grad):
        return grad, grad, grad, *map(torch.zeros_like, ctx.saved_tensors)


@contextlib.contextmanager
def scan_as_identity() -> Iterator[None]:
    """Every mixer's scan returns its input."""

    def scan(u, delta, A, B, C, D, *, z, delta_bias, **_):
        return Identity.apply(u, delta, z, A, B, C, D, delta_bias), None

    with mock.patch("dacesr.nets.mamba.selective_scan", scan):
        yield


@torch.inference_mode()
def scan_and_precision(preset: str, side: int, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    net = Restorer(RestorerConfig.preset(preset)).eval()
    half = Restorer(RestorerConfig.preset(preset)).eval().to(torch.bfloat16)
    x = torch.rand(1, 3, side, side)

    def identity() -> None:
        with scan_as_identity():
            net(x)

    found = in_turns({"fp32": lambda: net(x), "identity": identity}, rounds)
    found["bf16"] = in_turns({"bf16": lambda: half(x)}, 1)["bf16"]
    return found


def per_pixel(preset: str, sides: list[int]) -> dict[int, float]:
    """Microseconds per input pixel through `auto` tiles."""
    torch.manual_seed(0)
    up = Upscaler(Restorer(RestorerConfig.preset(preset)), precision="fp32")
    up(torch.rand(1, 3, 64, 64))
    costs = {}
    for side in sides:
        x = torch.rand(1, 3, side, side)
        rounds = max(1, 512 // side) * 2
        costs[side] = min(timed(lambda x=x: up(x)) for _ in range(rounds)) / side**2 * 1e6
    return costs


def peak_memory(preset: str, side: int) -> int:
    """Bytes of resident memory at the most, of a process of its own that upscales a side x side PNG to PNG."""
    command = [sys.executable, __file__, "--peak", preset, str(side)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def upscale_once(preset: str, side: int) -> None:
    import tempfile

    from dacesr.image import open_picture, write

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.png")
        write(source, torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
        up = Upscaler(Restorer(RestorerConfig.preset(preset)), precision="fp32")
        up.upscale(open_picture(source), Path(folder, "out.png"))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="base", choices=["light", "base", "large"])
    parser.add_argument("--tiles-preset", default="light", choices=["light", "base", "large"])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", type=int, nargs="*", default=[256, 512, 1024, 2048])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("PRESET", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()  # as the command line does
    if args.peak:
        upscale_once(args.peak[0], int(args.peak[1]))
        return

    report: dict = {"machine": describe()}
    print(report["machine"]["summary"])
    seconds = scan_and_precision(args.preset, args.side, args.rounds)
    report["network"] = {"preset": args.preset, "side": args.side, **seconds}
    report["network"] |= {
        "fp32_over_identity": seconds["fp32"] / seconds["identity"],
        "bf16_over_fp32": seconds["bf16"] / seconds["fp32"],
    }
    print(f"{args.preset} at {args.side} x {args.side}: fp32 {seconds['fp32']:.3f} s,")
    print(f"  over the same with the scan as identity: {report['network']['fp32_over_identity']:.2f}")
    print(f"  bf16 over fp32: {report['network']['bf16_over_fp32']:.2f}")
    costs = per_pixel(args.tiles_preset, args.sides)
    report["tiles"] = {"preset": args.tiles_preset, "us_per_pixel": costs}
    first = next(iter(costs.values()), None)
    for side, cost in costs.items():
        print(f"{args.tiles_preset} {side} x {side}: {cost:.2f} us per input pixel, {cost / first:.3f} of the first")
    if args.sides:
        report["tiles"]["peak_bytes"] = peak_memory(args.tiles_preset, args.sides[-1])
        print(f"peak resident memory, PNG to PNG, {args.sides[-1]}: {report['tiles']['peak_bytes'] / 2**30:.2f} GB")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
