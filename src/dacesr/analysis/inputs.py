"""What an analysis is given: pictures from several places, extractors by name, and a selection of degradations."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.image import read
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.taggerfile import load_extractor
from dacesr.train.ranking import sharp_pictures
from dacesr.train.selection import Selection
from dacesr.weightfiles import RECOGNITION, WEIGHTS, recognition_names

BUNDLED = ("lite-ram", "lite-dape", "lite-ft1", "lite-ft2", "lite-ree")  # the reference first, as figures show them
SELECTION = WEIGHTS / RECOGNITION / "lite.selection.json"


def gather_pictures(
    sources: Sequence[str | Path], *, images: int, split: str = "test", shorter: int | None = None
) -> dict[str, Tensor]:
    """Clean pictures from all places that a user names.

    Args:
        sources: Picture files; folders (with their subfolders) and labelled CSVs, of which some pictures are taken.
        images: How many to take of each folder and CSV, at even distances.
        split: "train", "val" or "test" of a CSV.
        shorter: Reduce pictures whose shorter side has more pixels than that.

    Returns:
        By their names (3, h, w) in [0, 1].

    Raises:
        ValueError: A place is missing or empty, or a picture cannot be decoded.
    """
    found: dict[str, Tensor] = {}
    for source in map(Path, sources):
        if source.is_dir():
            place, part = source, sharp_pictures(source, images)
        elif source.suffix.lower() == ".csv":
            place, part = source.with_suffix(""), sharp_pictures(source, images, split=split)
        else:
            place, part = source.parent, {source.name: read(source)[0]}
        for name, picture in part.items():
            own = name if name not in found else (place / name).as_posix()
            found[own] = picture if shorter is None else _reduced(picture, shorter)
    return found


def check_sizes(pictures: dict[str, Tensor], scale: int) -> None:
    """ValueError naming a picture in which nothing can be recognised once it is `scale` times smaller."""
    for name, picture in pictures.items():
        height, width = picture.shape[-2:]
        if min(height, width) // scale < SMALLEST:
            least = SMALLEST * scale
            raise ValueError(f"{name} is {width} x {height} pixels; it takes {least} a side to shrink it by {scale}")


def load_extractors(names: Sequence[str] | None) -> dict[str, Extractor]:
    """Extractors by the names that figures give them.

    Args:
        names: Bundled names, files or hub ids, with `NAME=` before them to be called so (files are called by their
            stem); the first is the reference. All that are bundled unless given.

    Raises:
        ValueError: None is given or bundled, two have one name, one cannot be loaded, or they know other tags.
    """
    if not names:
        bundled = recognition_names()
        names = [*(n for n in BUNDLED if n in bundled), *(n for n in bundled if n not in BUNDLED)]
    if not names:
        raise ValueError("no extractor is bundled with this version: give one with --extractor FILE")
    found: dict[str, Extractor] = {}
    for text in names:
        name, source = _named(text)
        if name in found:
            raise ValueError(
                f"two extractors are called {name}: give one another name, as in --extractor NAME={source}"
            )
        found[name] = load_extractor(source)
    first, *others = found
    for name in others:
        if found[name].tag_names != found[first].tag_names:
            raise ValueError(f"{name} knows other tags than the reference {first}, so they cannot be compared")
    return found


def _named(text: str) -> tuple[str, str]:
    """What an extractor is called, and where it is."""
    name, sign, source = text.partition("=")
    if sign and name and source and not Path(text).exists():
        return name, source
    return (Path(text).stem if Path(text).suffix else text), text


def load_selection(path: str | Path | None, *, scale: int | None = None) -> Selection | None:
    """The selection in a file, or the bundled one; None where there is no file and none is bundled.

    Args:
        path: The file.
        scale: Let degraded pictures be so many times smaller, whatever the selection was ranked with.

    Raises:
        ValueError: The file is missing or holds no selection.
    """
    if path is None and not SELECTION.is_file():
        return None
    selection = Selection.load(SELECTION if path is None else path)
    if scale is None:
        return selection
    return selection.model_copy(update={"settings": selection.settings.model_copy(update={"scale": scale})})


def _reduced(picture: Tensor, shorter: int) -> Tensor:
    """Rounded to 8 bit."""
    height, width = picture.shape[1:]
    if min(height, width) <= shorter:
        return picture
    ratio = shorter / min(height, width)
    size = max(round(height * ratio), 1), max(round(width * ratio), 1)
    small = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
    return torch.round(small.clamp(0, 1) * 255) / 255
