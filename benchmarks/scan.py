"""Time of the selective scan against a PyTorch time loop, as ratios measured in one run.

    python benchmarks/scan.py [--device cuda --images 64 --channels 120 --tokens 4096] [--json out/scan.json]

One image of 128x128 tokens at the width of the released network: u, delta, z (1, 384, 16384), 16 states, fp32,
channel-last views. "element" means one state of one channel at one token.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import describe

from dacesr.nets.scan import available_backends, selective_scan


def inputs(b: int, d: int, l: int, n: int, device: torch.device) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    widths = {"u": d, "delta": d, "z": d, "B": n, "C": n}
    rows = {k: torch.randn(b, l, w, generator=g).mT for k, w in widths.items()}
    A = -torch.arange(1.0, n + 1).expand(d, n).contiguous()
    x = {**rows, "A": A, "D": torch.ones(d), "delta_bias": torch.randn(d, generator=g) - 4}
    return {k: v.to(device) for k, v in x.items()}


def seconds(run, repeats: int) -> list[float]:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    run()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return times


def forward(x: dict[str, torch.Tensor], backend: str) -> None:
    with torch.inference_mode():
        selective_scan(**x, delta_softplus=True, backend=backend)


def both(x: dict[str, torch.Tensor], weight: torch.Tensor, backend: str) -> None:
    leaves = {k: v.detach().requires_grad_() for k, v in x.items()}
    out = selective_scan(**leaves, delta_softplus=True, backend=backend)
    torch.autograd.grad(out, list(leaves.values()), weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=128 * 128)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    x = inputs(args.images, args.channels, args.tokens, args.states, args.device)
    weight = torch.randn(args.images, args.tokens, args.channels).mT.to(args.device)
    elements = args.images * args.channels * args.tokens * args.states

    rows = {"reference": {"forward": [], "both": []}}
    elsewhere = "triton" if args.device.type == "cpu" else "native"
    fast = [name for name in available_backends() if name not in ("reference", elsewhere)]
    rows |= {name: {"forward": [], "both": []} for name in fast}
    for _ in range(2):  # the loop takes seconds, and its share of noise is small
        rows["reference"]["forward"] += seconds(lambda: forward(x, "reference"), 1)
    for _ in range(args.rounds):  # in turns, so that a slow spell of the machine meets all of them
        for name in fast:
            rows[name]["forward"] += seconds(lambda name=name: forward(x, name), 1)
            rows[name]["both"] += seconds(lambda name=name: both(x, weight, name), 1)

    report = {"machine": describe(), "backends": {}}
    report |= {"device": str(args.device), "shape": [args.images, args.channels, args.tokens, args.states]}
    loop = statistics.median(rows["reference"]["forward"])
    print(
        f"{report['machine']['summary']}\n"
        f"{'backend':10s} {'forward ms':>11} {'ns/element':>11} {'x reference':>12}  both/forward"
    )
    for name, times in rows.items():
        ahead = statistics.median(times["forward"])
        entry = {"forward_s": ahead, "ns_per_element": ahead / elements * 1e9, "speedup": loop / ahead}
        if times["both"]:
            entry |= {"both_s": statistics.median(times["both"])}
            entry["both_over_forward"] = entry["both_s"] / ahead
        report["backends"][name] = entry
        ratio = f"{entry['both_over_forward']:.2f}" if times["both"] else "-"
        print(f"{name:10s} {ahead * 1e3:11.1f} {entry['ns_per_element']:11.3f} {entry['speedup']:12.1f}  {ratio:>12}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
