"""What conditioning adds to an upscale: the extractor's and the modulation's shares of the time, measured in one run.

    python benchmarks/conditioning.py [-n light] [--extractor lite] [--side 512] [--rounds 7] [--json out/shares.json]

A network without a condition and the same with random projections added to it upscale the same picture in turns, and so
does the extractor alone; what is left of the difference is the modulation's, its smaller `auto` tiles included.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from machine import describe
from timing import in_turns

from dacesr import Upscaler
from dacesr.checkpoint import load_extractor, load_restorer
from dacesr.conditioning import condition_of, region_of
from dacesr.config import RestorerConfig
from dacesr.memory import keep_freed_memory
from dacesr.nets.extractor import Extractor
from dacesr.nets.restorer import Restorer

MODULATIONS = ("spatial", "global")


def modulated(plain: Restorer, modulation: str, extractor: Extractor) -> Restorer:
    """The same network with a modulation whose projections are random."""
    changes = {"modulation": modulation, "condition": "re", "condition_dim": extractor.condition_dim()}
    net = Restorer(RestorerConfig(**{**plain.config.model_dump(), **changes}))
    net.load_state_dict(plain.state_dict(), strict=False)
    for parameter in net.modulation.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    return net


def measure(model: str, extractor: Extractor, side: int, rounds: int) -> dict[str, float]:
    """Median seconds of the upscale without a condition, of the extractor, and of the upscale with each modulation."""
    plain = load_restorer(model)
    if not isinstance(plain, Restorer) or plain.config.learned_modulation:
        raise SystemExit(f"{model} must be a restorer without a learned modulation, to which one can be added")
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    runs = {
        "none": partial(Upscaler(plain, precision="fp32"), x),
        "extractor": partial(condition_of, extractor, region_of(x), side, side),
    }
    for modulation in MODULATIONS:
        net = modulated(plain, modulation, extractor)
        runs[modulation] = partial(Upscaler(net, precision="fp32", extractor=extractor), x)
    return in_turns(runs, rounds)


def shares(seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Of the whole conditioned upscale, for each modulation: the extractor's part, the modulation's, the network's."""
    found = {}
    for modulation in MODULATIONS:
        whole = seconds[modulation]
        parts = {"extractor": seconds["extractor"] / whole, "network": seconds["none"] / whole}
        found[modulation] = {**parts, "modulation": 1 - sum(parts.values())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--model", default="light")
    parser.add_argument("--extractor", default="lite")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    machine = describe()
    print(machine["summary"])
    seconds = measure(args.model, load_extractor(args.extractor), args.side, args.rounds)
    found = shares(seconds)
    print(f"{args.model} with {args.extractor}, {args.side} x {args.side}, median of {args.rounds} rounds in turns")
    print("| modulation | upscale | extractor | modulation | over none |\n|---|---|---|---|---|")
    print(f"| none | {seconds['none']:.2f} s | | | 1.00 |")
    for name, part in found.items():
        over = seconds[name] / seconds["none"]
        print(f"| {name} | {seconds[name]:.2f} s | {part['extractor']:.1%} | {part['modulation']:.1%} | {over:.2f} |")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": machine, "seconds": seconds, "shares": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
