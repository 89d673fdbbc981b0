"""Time of the recognition networks, as ratios measured in one run.

    python benchmarks/recognition.py [--preset ram] [--rounds 5] [--json out/recognition.json]

Two questions: what a tagger's forward takes over its matrix products alone (the same linear layers, convolutions and
attention products, on inputs that lie ready, in turns with the whole), and what bf16 brings. `lite` is also timed as
users meet it: one picture of 512 x 512 pixels to tokens, resizing included.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe
from timing import in_turns
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dacesr.memory import keep_freed_memory
from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Tagger, TaggerConfig

TAGS = {"lite": {"tags": 74}}  # as bundled; `ram` says its own


class Products(TorchFunctionMode):
    """Collects every matrix product of what runs inside, to be done again on inputs of the same shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.again: list[Callable[[], Tensor]] = []
        self.operations = 0  # multiplications

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear:
            x, weight = args[0], args[1]
            rows = torch.randn_like(x).flatten(0, -2)
            transposed = weight.t()
            self.again.append(lambda: rows @ transposed)
            self.operations += rows.numel() * len(weight)
        elif function in (F.conv2d, torch.conv2d):
            x, rest = torch.randn_like(args[0]), args[1:]
            self.again.append(lambda: F.conv2d(x, *rest, **(kwargs or {})))
            y = function(*args, **(kwargs or {}))
            self.operations += y.numel() * args[1][0].numel()
            return y
        elif function is F.scaled_dot_product_attention:
            q, k, v = (torch.randn(each.shape, dtype=each.dtype).flatten(0, 1) for each in args[:3])
            scores = torch.randn(len(q), q.shape[1], k.shape[1], dtype=q.dtype)
            keys = k.transpose(1, 2)
            self.again += [lambda: q @ keys, lambda: scores @ v]
            self.operations += 2 * scores.numel() * q.shape[2]
        return function(*args, **(kwargs or {}))


@torch.inference_mode()
def over_products(preset: str, rounds: int) -> dict[str, float]:
    """Seconds of the whole and of its products, fp32, and of the whole in bf16."""
    torch.manual_seed(0)
    net = Tagger(TaggerConfig.preset(preset, **TAGS.get(preset, {}))).eval()
    side = net.config.image_size
    x = torch.randn(1, 3, side, side)
    with Products() as products:
        net(x)

    def alone() -> None:
        for product in products.again:
            product()

    half = Tagger(net.config).eval().to(torch.bfloat16)
    found = in_turns({"fp32": lambda: net(x), "products": alone, "bf16": lambda: half(x.bfloat16())}, rounds)
    ratios = {"over_products": found["fp32"] / found["products"], "fp32_over_bf16": found["fp32"] / found["bf16"]}
    return {**found, **ratios, "gmac": products.operations / 1e9}


def lite_picture(rounds: int) -> float:
    """Seconds from a picture of 512 x 512 pixels to tokens."""
    torch.manual_seed(0)
    extractor = Extractor(Tagger(TaggerConfig.preset("lite", **TAGS["lite"])))
    x = torch.rand(1, 3, 512, 512)
    return in_turns({"lite": lambda: extractor.embed(x)}, rounds)["lite"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("ram", "lite"), action="append", help="both unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    machine = describe()
    print(machine["summary"])
    results = {}
    for preset in options.preset or ("ram", "lite"):
        found = results[preset] = over_products(preset, options.rounds)
        print(
            f"{preset}: {found['gmac']:.1f} GMAC, fp32 {found['fp32'] * 1e3:.0f} ms, "
            f"{found['over_products']:.2f} x its products alone; bf16 {found['fp32_over_bf16']:.2f} x as fast"
        )
    results["lite_picture"] = lite_picture(4 * options.rounds)
    print(f"lite, 512 x 512 pixels to tokens: {results['lite_picture'] * 1e3:.1f} ms")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, **results}, indent=2))


if __name__ == "__main__":
    main()
