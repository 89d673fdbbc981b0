"""Judge weights: pictures degraded with fixed seeds, enlarged by each model, measured, and shown side by side.

    python benchmarks/weights.py MODEL... --sets photos/val benchmarks/Set14/HR --spaces level1 level2 level3
        [--baseline MODEL] [--strength 0 0.5 1] [--csv out/scores.csv] [--markdown out/scores.md] [--sheet out/a.png]
    python benchmarks/weights.py MODEL... --real real/RealSRSet --sheet out/real.png

A model is a file or a bundled name; bicubic enlargement is always measured too. Folders are looked for in $DACESR_DATA
first. Scores that the CSV already has are not computed again; they are told by the model file's SHA-256, strength,
precision, set, space, seed and picture, so remove the CSV when the code of degradations, networks or metrics changes.
"""

import argparse
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from dacesr import Upscaler
from dacesr.checkpoint import describe
from dacesr.crops import existing, list_pictures
from dacesr.dataset import ValidationSet
from dacesr.degradation.recipe import SPACES
from dacesr.evaluate.statistics import bootstrap
from dacesr.featurefile import load_lpips, load_niqe
from dacesr.image import imresize, read
from dacesr.inference import Precision
from dacesr.memory import keep_freed_memory
from dacesr.metrics import gmsd, lpips, niqe, psnr, ssim
from dacesr.tensorfile import write_whole

SCALE = 4
KEY = ("sha256", "strength", "precision", "set", "space", "seed", "picture")
TITLES = {"psnr_y": "PSNR-Y", "ssim_y": "SSIM-Y", "lpips_s": "LPIPS-S", "niqe": "NIQE", "gmsd": "GMSD"}
DIGITS = {"psnr_y": 2, "ssim_y": 4, "lpips_s": 3, "niqe": 2, "gmsd": 4}
SMALLEST_NIQE = 96
CROP, REAL_CROP = 256, 128  # sides on a sheet: pixels of the output, and of the input of real pictures
GAP, LINE = 6, 14  # of a sheet, in pixels
NOTES = """PSNR-Y and SSIM-Y leave out a border of 4 pixels; higher is better for them, lower for the others.
LPIPS-S is LPIPS v0.1 on SqueezeNet 1.1 as trained in Caffe: good for comparing within this table, and not comparable
with published LPIPS. NIQE is rough on small pictures (those of BSD100 have 15 blocks each).
Differences are means over the same pictures with a 95 % bootstrap interval; * marks an interval without 0.
"""


class Model(NamedTuple):
    name: str
    identity: tuple[str, str, str]  # the first three of KEY
    upscale: Callable[[Tensor], Tensor]


class Set(NamedTuple):
    name: str  # below $DACESR_DATA, or the whole path
    folder: Path
    pictures: list[str]


Metrics = dict[str, Callable[[Tensor, Tensor], Tensor]]  # by the keys of TITLES
Scores = dict[tuple[str, ...], dict[str, str]]  # rows of the CSV by the values of KEY
Rows = Iterator[tuple[str, list[Tensor]]]  # of a sheet

# --- what is judged, where, and by what


def find_set(name: str, limit: int | None) -> Set:
    data = Path(os.environ.get("DACESR_DATA", ".")).resolve()
    folder = data / name if (data / name).is_dir() else existing(name).resolve()
    label = folder.relative_to(data) if folder.is_relative_to(data) else folder
    paths = list_pictures(folder)[:limit]
    return Set(label.as_posix(), folder, [path.relative_to(folder).with_suffix("").as_posix() for path in paths])


def short_names(models: Sequence[str]) -> list[str]:
    """File names without ending, and as many folders as tell them apart; of a run's `model.safetensors` the folder."""
    paths = [Path(model).with_suffix("") for model in models]
    paths = [path.parent if path.name == "model" and path.parent.name else path for path in paths]
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        tails = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(tails)) == len(models):
            return tails
    return list(models)


def load_models(names: Sequence[str], strengths: Sequence[float], device: str, precision: Precision) -> list[Model]:
    """Bicubic enlargement, then the models, those that are a pair of weights once for each strength."""
    models = [Model("bicubic", ("bicubic", "", ""), lambda x: imresize(x, SCALE).clamp(0, 1))]
    names = [name for name in dict.fromkeys(names) if name != "bicubic"]
    load = partial(Upscaler.load, device=device, precision=precision)
    for name, short in zip(names, short_names(names), strict=True):
        own = load(name)
        if own.scale != SCALE:
            raise ValueError(f"{name} enlarges {own.scale} times, and pictures are degraded for {SCALE} times")
        for strength in [None] if own.strength is None else strengths or [own.strength]:
            text = "" if strength is None else f"{strength:g}"
            up = own if strength is None else load(name, strength=strength)
            identity = (describe(name).sha256, text, precision)
            models.append(Model(f"{short}@{text}" if text else short, identity, partial(up, tile=0)))
    if strengths and not any(model.identity[1] for model in models):
        raise ValueError("--strength is for pairs of weights, and none of the models is one")
    return models


def load_metrics(quick: bool, device: str) -> Metrics:
    metrics: Metrics = {"psnr_y": psnr, "ssim_y": ssim, "gmsd": gmsd}
    if quick:
        return metrics
    if "DACESR_DATA" not in os.environ:
        raise ValueError("LPIPS-S and NIQE need $DACESR_DATA/metrics; --quick leaves them out")
    folder = Path(os.environ["DACESR_DATA"], "metrics")
    network = load_lpips(folder / "squeezenet_v1.1_keras.h5", folder / "lpips_v0.1" / "squeeze.pth").to(device)
    natural = load_niqe(folder / "niqe_pris_params.npz")

    def naturalness(output: Tensor, _: Tensor) -> Tensor:
        return niqe(output, natural) if min(output.shape[2:]) >= SMALLEST_NIQE else torch.full((1,), torch.nan)

    return {**metrics, "lpips_s": lambda a, b: lpips(a, b, network), "niqe": naturalness}


# --- scores


def read_scores(path: Path | None) -> Scores:
    if path is None or not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[field] for field in KEY): row for row in csv.DictReader(file)}


def write_scores(path: Path, scores: Scores) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["model", *KEY, *TITLES], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(scores.values())
    write_whole(path, text.getvalue().encode())


def key_of(model: Model, chosen: Set, space: str, seed: int, picture: str) -> tuple[str, ...]:
    return (*model.identity, chosen.name, space, str(seed), picture)


def judge(
    models: list[Model], metrics: Metrics, scores: Scores, chosen: Set, space: str, args: argparse.Namespace
) -> Rows:
    """Add the scores that are missing, and yield the first pictures for the sheet."""

    def missing(model: Model, picture: str) -> bool:
        return not all(scores.get(key_of(model, chosen, space, args.seed, picture), {}).get(m) for m in metrics)

    shown = min(args.pictures, len(chosen.pictures)) if args.sheet else 0
    complete = not any(missing(model, picture) for model in models for picture in chosen.pictures)
    if complete and not shown:
        return
    limit = shown if complete else args.limit
    degraded = ValidationSet(chosen.folder, space=space, seed=args.seed, scale=SCALE, limit=limit)
    for number, (name, lr, gt) in enumerate(track(degraded, f"{chosen.name} {space}", total=len(degraded))):
        lr, gt, images = lr.to(args.device), gt.to(args.device), []
        for model in models:
            if number >= shown and not missing(model, name):
                continue
            images.append(model.upscale(lr))
            if missing(model, name):
                key = key_of(model, chosen, space, args.seed, name)
                found = {metric: f"{float(measure(images[-1], gt)):.6f}" for metric, measure in metrics.items()}
                scores[key] = {"model": model.name, **dict(zip(KEY, key, strict=True)), **found}
        if args.csv and not complete:
            write_scores(args.csv, scores)
        if number < shown:
            yield f"{chosen.name} {name} {space}", [centre(image, CROP) for image in (*images, gt)]


# --- tables


def tabulate(
    models: list[Model], others: list[Model], metrics: Metrics, scores: Scores, sets: list[Set], space: str, seed: int
) -> list[list[str]]:
    """Cells, the first row of them the head: means over each set and over all pictures, and differences from others."""
    used = [metric for metric in TITLES if metric in metrics]
    compared = [(metric, other) for other in others for metric in ("psnr_y", "lpips_s") if metric in metrics]
    cells = [["set", "model", *(TITLES[m] for m in used), *(f"{TITLES[m]} - {o.name}" for m, o in compared)]]
    for group in [[chosen] for chosen in sets] + ([sets] if len(sets) > 1 else []):
        values: dict[tuple[Model, str], Tensor] = {}  # each (pictures,)
        for model in models:
            keys = [key_of(model, chosen, space, seed, picture) for chosen in group for picture in chosen.pictures]
            rows = [scores[key] for key in keys if key in scores]  # pictures that can't be read have none
            values |= {(model, m): torch.tensor([float(row[m]) for row in rows]) for m in used}
        for model in models:
            means = [f"{values[model, m].nanmean():.{DIGITS[m]}f}" for m in used]
            differences = [
                "" if model is other else difference(values[model, m] - values[other, m], DIGITS[m])
                for m, other in compared
            ]
            name = group[0].name if len(group) == 1 else "all pictures"
            label = f"{name} ({len(values[model, 'psnr_y'])})" if model is models[0] else ""
            cells.append([label, model.name, *means, *differences])
    return cells


def difference(values: Tensor, digits: int) -> str:
    """Mean of paired differences and its 95 % interval, by drawing pictures with replacement."""
    if len(values) < 2:
        return f"{values.mean():+.{digits}f}"
    return bootstrap(values, generator=torch.Generator().manual_seed(0)).text(digits)


def markdown(title: str, cells: list[list[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([f"\n## {title}\n", head, "|---" * 2 + "|--:" * (len(cells[0]) - 2) + "|", *body, ""])


def show(title: str, cells: list[list[str]], console: Console) -> None:
    table = Table(title=title, box=box.SIMPLE)
    for number, head in enumerate(cells[0]):
        table.add_column(head, justify="left" if number < 2 else "right")
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)


# --- sheets


def centre(image: Tensor, side: int) -> Tensor:
    height, width = (min(length, side) for length in image.shape[2:])
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[..., top : top + height, left : left + width].cpu()


def real_rows(models: list[Model], chosen: Set, args: argparse.Namespace) -> Rows:
    for path in track(list_pictures(chosen.folder)[: args.limit], chosen.name):
        x = centre(read(path), REAL_CROP).to(args.device)
        yield path.name, [model.upscale(x).cpu() for model in models]


def write_sheet(path: Path, heads: list[str], rows: list[tuple[str, list[Tensor]]]) -> None:
    """The pictures of a row side by side, below its label and the names of the columns."""
    width = max(image.shape[3] for _, images in rows for image in images) + GAP
    heights = [2 * LINE + max(image.shape[2] for image in images) + GAP for _, images in rows]
    sheet = Image.new("RGB", (width * len(heads) + GAP, sum(heights) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for (label, images), height in zip(rows, heights, strict=True):
        draw.text((GAP, top), label, "black")
        for column, (head, image) in enumerate(zip(heads, images, strict=True)):
            left = GAP + column * width
            draw.text((left, top + LINE), head, "gray")
            pixels = image[0].mul(255).round().byte().permute(1, 2, 0)  # (h, w, 3)
            sheet.paste(Image.fromarray(pixels.numpy()), (left, top + 2 * LINE))
        top += height
    file = io.BytesIO()
    sheet.save(file, "PNG")
    write_whole(path, file.getvalue())


# --- the program


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument(
        "--baseline", nargs="+", default=[], metavar="MODEL", help="more models; compared with the first"
    )
    parser.add_argument("--strength", nargs="+", type=float, default=[], metavar="S", help="of pairs of weights")
    parser.add_argument("--sets", nargs="+", default=[], metavar="FOLDER")
    parser.add_argument("--spaces", nargs="+", default=["level1", "level2", "level3"], choices=list(SPACES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="only the first pictures of each folder")
    parser.add_argument("--quick", action="store_true", help="without LPIPS-S and NIQE")
    parser.add_argument("--csv", type=Path, help="scores of each picture, added to those in the file")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--pictures", type=int, default=2, help="on the sheet, of each set and space")
    parser.add_argument("--real", metavar="FOLDER", help="only a sheet, of pictures without ground truth")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(arguments)
    if bool(args.sets) == bool(args.real) or (args.real and not args.sheet):
        parser.error("give --sets, or --real together with --sheet")
    return args


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads or torch.get_num_threads())
    for path in filter(None, (args.csv, args.markdown, args.sheet)):
        path.parent.mkdir(parents=True, exist_ok=True)
    models = load_models([*args.baseline, *args.models], args.strength, args.device, args.precision)
    heads = [model.name for model in models]
    if args.real:
        write_sheet(args.sheet, heads, list(real_rows(models, find_set(args.real, args.limit), args)))
        return
    metrics, scores = load_metrics(args.quick, args.device), read_scores(args.csv)
    sets = [find_set(name, args.limit) for name in args.sets]
    judged = (judge(models, metrics, scores, chosen, space, args) for chosen in sets for space in args.spaces)
    rows = [row for rows in judged for row in rows]
    if rows:
        write_sheet(args.sheet, [*heads, "ground truth"], rows)
    others = models[: 2 if args.baseline and args.baseline[0] != "bicubic" else 1]
    console, text = Console(), NOTES
    console = console if console.is_terminal else Console(width=200)
    for space in args.spaces:
        cells = tabulate(models, others, metrics, scores, sets, space, args.seed)
        show(f"{space}, seed {args.seed}", cells, console)
        text += markdown(f"{space}, seed {args.seed}", cells)
    console.print(NOTES)
    if args.markdown:
        write_whole(args.markdown, text.encode())


def main(arguments: Sequence[str] | None = None) -> None:
    keep_freed_memory()  # as the command line does
    args = parse(arguments)
    try:
        run(args)
    except (ValueError, OSError) as error:
        raise SystemExit(f"weights.py: {error}") from error


if __name__ == "__main__":
    main()
