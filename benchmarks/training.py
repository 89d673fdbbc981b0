"""Time of a training step, as ratios measured in one run.

    python benchmarks/training.py [--preset light] [--threads 2] [--json out/training.json]
    python benchmarks/training.py --device cuda --batch 64

Two questions: what the scan adds to a step (forward, L1, backward, AdamW) over the same step with the scan replaced by
identity, in fp32 and in bf16 autocast; and what it costs to make a batch and to degrade it, over the step. Crops come
from the photographs of $DACESR_DATA, or from drawings without it. Everything takes its turn in every round.
"""

import argparse
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from restorer import scan_as_identity
from timing import in_turns

from dacesr.dataset import Batches, Photographs, Source
from dacesr.drawings import Drawings
from dacesr.memory import keep_freed_memory
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.train.scenes import ruin

SPACES = {"dasr": 1.0}


def waited(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The same, to the end of what it started on the device."""

    def whole() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return whole


def make_steps(preset: str, batch: int, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """A step in fp32 and in bf16, each with the scan and without."""
    torch.manual_seed(0)
    net = Restorer(RestorerConfig.preset(preset)).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)
    lr = torch.rand(batch, 3, side, side, device=device)
    gt = torch.rand(batch, 3, side * net.config.scale, side * net.config.scale, device=device)

    def step(half: bool) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            out = net(lr)
        torch.nn.functional.l1_loss(out.float(), gt).backward()
        optimizer.step()

    def without_scan(half: bool) -> None:
        with scan_as_identity():
            step(half)

    return {
        "fp32": lambda: step(False),
        "fp32_identity": lambda: without_scan(False),
        "bf16": lambda: step(True),
        "bf16_identity": lambda: without_scan(True),
    }


def pictures() -> Source:
    root = os.environ.get("DACESR_DATA")
    return Photographs([Path(root, "photos", "train")], warn=lambda _: None) if root else Drawings()


def make_data(
    source: Source, batch: int, crop: int, scale: int, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Making another batch of uint8 crops each time, and that with its degradation on the device."""
    batches = Batches(source, size=crop, batch=batch, seed=0)
    numbers = itertools.count()

    def data() -> torch.Tensor:
        made = batches.batch(next(numbers))
        return ruin(made.gt.to(device).float().div(255), SPACES, made.generators, scale)

    return {"batch": lambda: batches.batch(next(numbers)), "data": data}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="light", choices=["light", "base", "large"])
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=48, help="of the small crops")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    keep_freed_memory()  # as the command line does
    torch.set_num_threads(args.threads)
    scale = RestorerConfig.preset(args.preset).scale
    runs = make_steps(args.preset, args.batch, args.side, args.device)
    runs |= make_data(pictures(), args.batch, args.side * scale, scale, args.device)
    machine = describe()
    print(machine["summary"])
    seconds = in_turns({name: waited(run, args.device) for name, run in runs.items()}, args.rounds)
    ratios = {f"{kind}_over_identity": seconds[kind] / seconds[f"{kind}_identity"] for kind in ("fp32", "bf16")}
    ratios |= {f"data_over_{kind}": seconds["data"] / seconds[kind] for kind in ("fp32", "bf16")}
    print(f"{args.preset}, {args.batch} crops of {args.side} x {args.side}, on {args.device}")
    for name, value in seconds.items():
        print(f"  {name:20s} {value * 1e3:8.1f} ms")
    for name, value in ratios.items():
        print(f"  {name:20s} {value:8.3f}")
    if args.json:
        report = {"machine": machine, **vars(args), "seconds": seconds, "ratios": ratios}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
