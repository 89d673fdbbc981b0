"""How far tiles are from the whole picture, in dB of PSNR over RGB, for the pictures of a folder.

    python benchmarks/tiles.py FOLDER -n MODEL [--extractor NAME] [--tile 256] [--overlap 32] [--difference out/seams]

Pictures are cropped around their middle. With `--difference`, |tiles - whole| times 50 is written for each, to look for
seams.
"""

import argparse
import statistics
from pathlib import Path

import torch

from dacesr import Upscaler
from dacesr.formats import FORMATS
from dacesr.image import open_picture, write
from dacesr.memory import keep_freed_memory


def middle(path: Path, width: int, height: int) -> torch.Tensor:
    picture = open_picture(path)
    w, h = min(width, picture.width), min(height, picture.height)
    return picture.region((picture.width - w) // 2, (picture.height - h) // 2, w, h)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", "--model", default="default")
    parser.add_argument("--extractor", help="as for `dacesr upscale`")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--difference", type=Path)
    args = parser.parse_args()
    keep_freed_memory()
    up = Upscaler.load(args.model, precision="fp32", extractor=args.extractor)
    endings = {ending for format in FORMATS.values() for ending in format.extensions}
    scores = []
    for path in sorted(p for p in args.folder.iterdir() if p.suffix.lower() in endings):
        x = middle(path, args.width, args.height)
        difference = up(x, tile=args.tile, overlap=args.overlap) - up(x, tile=0)
        scores.append(-10 * difference.square().mean().log10().item())
        print(f"{path.name}: {scores[-1]:.2f} dB", flush=True)
        if args.difference:
            args.difference.mkdir(parents=True, exist_ok=True)
            write(args.difference / f"{path.stem}.png", (50 * difference.abs()).clamp(0, 1))
    print(f"median {statistics.median(scores):.2f} dB, lowest {min(scores):.2f} dB, {len(scores)} pictures")


if __name__ == "__main__":
    main()
