"""One tile through PyTorch with dacesr's native scan, through onnxruntime, and through a program of torch.export.

    python benchmarks/runtimes.py [-n light -n dacesr-light] [--tile 128 --tile 256] [--rounds 3] [--no-program]

All compute in fp32 with the same number of threads (OMP_NUM_THREADS) and take turns; printed are medians of seconds and
how many times as long as with the native scan each takes. Needs the extra `onnx`.
"""

import argparse
import tempfile
from pathlib import Path

import machine
import torch
from timing import in_turns

from dacesr.checkpoint import load_restorer
from dacesr.conditioning import find_extractor, kind_of
from dacesr.exporting import export_model
from dacesr.pairing import find_pair
from dacesr.weightfiles import resolve


@torch.no_grad()
def compared(name: str, tile: int, onnx: Path, folder: Path, rounds: int, program: bool) -> None:
    net = load_restorer(name)
    extractor, _ = find_extractor(name, resolve(name), net)
    x = torch.rand(1, 3, tile, tile, generator=torch.Generator().manual_seed(0))
    inputs = (x,)
    if extractor is not None:
        inputs = (x, extractor.condition(x, kind_of(net.config)), torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
    exported = load_restorer(onnx)
    runs = {"native scan": lambda: net(*inputs), "onnxruntime": lambda: exported(*inputs)}
    if program:
        path = folder / f"{name}_{tile}.pt2"
        export_model(name, path, format="torch", tile=tile, strength=strength_of(name))
        loaded = torch.export.load(path).module()
        runs["torch.export"] = lambda: loaded(*inputs)
    seconds = in_turns(runs, rounds)
    for run, value in seconds.items():
        ratio = value / seconds["native scan"]
        print(f"{name:22s} tile {tile:4d}  {run:14s} {value:8.3f} s  {ratio:6.2f} x", flush=True)


def strength_of(name: str) -> float | None:
    """1 for a network with two sets of weights, so that the exported ones are those of its file."""
    return None if find_pair(name, resolve(name), load_restorer(name)) is None else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--model", action="append")
    parser.add_argument("--tile", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-program", dest="program", action="store_false")
    args = parser.parse_args()
    print(machine.describe()["summary"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in args.model or ["light", "dacesr-light"]:
            onnx = folder / f"{name}.onnx"
            export_model(name, onnx, strength=strength_of(name))
            for tile in args.tile or [128, 256]:
                compared(name, tile, onnx, folder, args.rounds, args.program)


if __name__ == "__main__":
    main()
