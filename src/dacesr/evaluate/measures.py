"""The measures of a comparison by name, and the files that some of them need.

    psnr_y, ssim_y       on luma, without a border of `scale` pixels, as super-resolution papers do
    psnr_rgb, ssim_rgb   on R, G and B, without a border
    gmsd                 gradient magnitude similarity deviation
    lpips_alex, lpips_vgg, lpips_squeeze   LPIPS v0.1 as published
    lpips_s              LPIPS v0.1 on SqueezeNet 1.1 as trained in Caffe: for comparing within a table only
    dists                structure and texture similarity
    niqe                 natural image quality, without a reference

Files are looked for under the names that their authors gave them, in one folder and its subfolder `lpips_v0.1`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.featurefile import DOWNLOADS, LPIPS_WEIGHTS, TORCHVISION, load_dists, load_lpips, load_niqe
from dacesr.metrics import dists, gmsd, lpips, niqe, psnr, ssim
from dacesr.metrics.planes import check_pair
from dacesr.tensorfile import sha256_of

Compare = Callable[[Tensor, Tensor], Tensor]
"""Result and reference, (1, 3, h, w) in [0, 1], to (1,)."""


class Measure(NamedTuple):
    """A measure, ready to use.

    Attributes:
        name: As columns and options call it.
        title: As tables call it.
        digits: After the point, in tables.
        higher: Whether more is better.
        reference: Whether it compares with a reference; without one the second picture is not looked at.
        smallest: Shorter side of the smallest picture it takes, in pixels.
        key: Of the files it uses; empty where it uses none.
        compare: It.
    """

    name: str
    title: str
    digits: int
    higher: bool
    reference: bool
    smallest: int
    key: str
    compare: Compare


class _Kind(NamedTuple):
    """A measure before its files are read; `make` gets them and the border."""

    title: str
    digits: int
    higher: bool
    make: Callable[[Sequence[Path], int, torch.device], Compare]
    files: tuple[str, ...] = ()
    source: str = ""  # where the files are to be had
    reference: bool = True
    smallest: int = 1  # inside the border
    bordered: bool = False


def _pixels(metric: Callable[..., Tensor], y_channel: bool) -> Callable[[Sequence[Path], int, torch.device], Compare]:
    return lambda files, border, device: partial(metric, crop_border=border if y_channel else 0, y_channel=y_channel)


def _lpips(files: Sequence[Path], border: int, device: torch.device) -> Compare:
    return partial(lpips, network=load_lpips(*files).to(device))


def _dists(files: Sequence[Path], border: int, device: torch.device) -> Compare:
    return partial(dists, network=load_dists(*files).to(device))


def _niqe(files: Sequence[Path], border: int, device: torch.device) -> Compare:
    natural = load_niqe(*files)
    return lambda result, _: niqe(result, natural)


def _lpips_kind(title: str, features: str, linear: str) -> _Kind:
    source = f"{DOWNLOADS} and {LPIPS_WEIGHTS}"
    return _Kind(title, 3, False, _lpips, (features, linear), source, smallest=32)


KINDS: dict[str, _Kind] = {
    "psnr_y": _Kind("PSNR-Y", 2, True, _pixels(psnr, True), bordered=True),
    "ssim_y": _Kind("SSIM-Y", 4, True, _pixels(ssim, True), smallest=11, bordered=True),
    "psnr_rgb": _Kind("PSNR", 2, True, _pixels(psnr, False)),
    "ssim_rgb": _Kind("SSIM", 4, True, _pixels(ssim, False), smallest=11),
    "gmsd": _Kind("GMSD", 4, False, lambda files, border, device: gmsd, smallest=3),
    "lpips_alex": _lpips_kind("LPIPS", TORCHVISION["alexnet"], "alex.pth"),
    "lpips_vgg": _lpips_kind("LPIPS-VGG", TORCHVISION["vgg16"], "vgg.pth"),
    "lpips_squeeze": _lpips_kind("LPIPS-Squeeze", TORCHVISION["squeezenet"], "squeeze.pth"),
    "lpips_s": _lpips_kind("LPIPS-S", "squeezenet_v1.1_keras.h5", "squeeze.pth"),
    "dists": _Kind(
        "DISTS", 3, False, _dists, (TORCHVISION["vgg16"], "weights.pt"), "https://github.com/dingkeyan93/DISTS",
        smallest=16,
    ),
    "niqe": _Kind(
        "NIQE", 2, False, _niqe, ("niqe_pris_params.npz",), "https://github.com/XPixelGroup/BasicSR",
        reference=False, smallest=96,
    ),
}  # fmt: skip
LPIPS_ORDER = ("lpips_alex", "lpips_vgg", "lpips_squeeze", "lpips_s")  # `lpips` is the first whose files are there
DEFAULT = ("psnr_y", "ssim_y", "lpips", "niqe")
NAMES = (*KINDS, "lpips")


def metrics_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    """Where files of measures are: as given, else `metrics` in `$DACESR_DATA`; None where neither is."""
    if folder is not None:
        return Path(folder).expanduser()
    data = os.environ.get("DACESR_DATA")
    return Path(data, "metrics") if data else None


def load_measures(
    names: Sequence[str] | None, folder: Path | None, *, scale: int, device: torch.device
) -> tuple[dict[str, Measure], list[str]]:
    """Measures ready to use, and sentences on those that were left out.

    Args:
        names: Of `NAMES`; None for those of `DEFAULT` whose files are there.
        folder: Of files, from `metrics_folder`.
        scale: Pixels of the border that measures on luma leave out.
        device: Of the pictures.

    Raises:
        ValueError: There is no such measure, or one that was asked for lacks a file (the sentence says where it is to
            be had); a file is damaged.
    """
    if unknown := [name for name in names or () if name not in NAMES]:
        raise ValueError(f"there is no measure {unknown[0]}; there are {', '.join(NAMES)}")
    measures, missing = {}, []
    for name in DEFAULT if names is None else dict.fromkeys(names):
        exact = _exact(name, folder)
        lacking = [file for file in KINDS[exact].files if _find(file, folder) is None]
        if not lacking:
            measures[exact] = _load(exact, folder, scale, device)
            continue
        where = folder or "a folder of metrics"
        sentence = f"{name} needs {' and '.join(lacking)} in {where}; see {KINDS[exact].source}"
        if names is not None:
            raise ValueError(sentence)
        missing.append(f"left out: {sentence}")
    return measures, missing


def _exact(name: str, folder: Path | None) -> str:
    """`lpips` as the first kind that has its files, or else as the published one."""
    if name != "lpips":
        return name
    return next(
        (kind for kind in LPIPS_ORDER if all(_find(file, folder) for file in KINDS[kind].files)), LPIPS_ORDER[0]
    )


def _find(file: str, folder: Path | None) -> Path | None:
    places = [] if folder is None else [folder / file, folder / "lpips_v0.1" / file]
    return next((path for path in places if path.is_file()), None)


def _load(name: str, folder: Path | None, scale: int, device: torch.device) -> Measure:
    kind = KINDS[name]
    files = [path for file in kind.files if (path := _find(file, folder))]
    key = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:16] if files else ""
    compare = kind.make(files, scale, device)
    smallest = kind.smallest + 2 * scale * kind.bordered
    return Measure(name, kind.title, kind.digits, kind.higher, kind.reference, smallest, key, compare)


@torch.no_grad()
def apply(measures: Mapping[str, Measure], result: Tensor, reference: Tensor | None) -> dict[str, float]:
    """Numbers of one picture, without those that it is too small for or has no reference for.

    Args:
        measures: From `load_measures`.
        result: (1, 3, h, w) in [0, 1].
        reference: Likewise; None where there is none.

    Raises:
        ValueError: The sizes differ.
    """
    if reference is not None:
        check_pair(result, reference)
    found = {}
    for name, measure in measures.items():
        if (measure.reference and reference is None) or min(result.shape[2:]) < measure.smallest:
            continue
        value = float(measure.compare(result, result if reference is None else reference))
        if value == value:  # NIQE of a picture without structure is NaN
            found[name] = value
    return found
