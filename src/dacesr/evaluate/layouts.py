"""Benchmark sets as their users have them after unpacking: which files are pairs.

A layout says where sharp (HR) and low-resolution (LR) pictures lie below a folder and what they are called; `*` in a
pattern is the picture's own name, SCALE the scale, STEM what stands before `_HR` in the sharp folder's name. Known are

    DIV2K, Flickr2K   DIV2K_valid_HR/0801.png, and any of DIV2K_valid_LR_{bicubic,unknown}/X4/0801x4.png,
                      DIV2K_valid_LR_{mild,difficult,wild}/0801x4{m,d,w1..w4}.png
    RealSR (V3)       Canon/Test/4/Canon_001_HR.png and Canon_001_LR4.png; likewise Nikon
    DRealSR           Test_x4/test_HR/NAME_x4.png and Test_x4/test_LR/NAME_x1.png
    crops of StableSR test_HR/NAME.png and test_LR/NAME.png
    AIM2019           valid-gt-clean/0900.png and valid-input-noisy/0900.png
    Set5, Set14, BSD100, Urban100, Manga109 as in
      EDSR, KAIR      HR/NAME.png, LR_bicubic/X4/NAMEx4.png
      BasicSR         GTmod12/NAME.png, LRbicx4/NAME.png; or original/NAME.png alone
      SelfExSR        image_SRF_4/img_001_SRF_4_HR.png and img_001_SRF_4_LR.png
      this project    HR/NAME.png, LR_bicubic_x4/NAMEx4.png

The pairs of RealSR V1 and V2 have the same size; they are another task (x1), and their sizes are refused when read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dacesr.jobs import EXTENSIONS


class Layout(NamedTuple):
    """Where pairs are: folders below the set's (`.`: itself) and patterns of file names without their endings.

    Attributes:
        sharp: Folder of the sharp pictures; a regular expression.
        sharp_name: Pattern of their names.
        low: Folder of the low-resolution ones; a regular expression whose group, if any, is the version's name.
        low_name: Pattern of their names.
        version: What the low-resolution pictures are called where the folder does not say it.
    """

    sharp: str
    sharp_name: str
    low: str
    low_name: str
    version: str = "given"


LAYOUTS = (
    Layout(r"\w+_HR", "*", r"STEM_LR_(bicubic|unknown)(/X|_X)SCALE", "*xSCALE"),
    Layout(r"\w+_HR", "*", r"STEM_LR_(mild)", "*xSCALEm"),
    Layout(r"\w+_HR", "*", r"STEM_LR_(difficult)", "*xSCALEd"),
    *(Layout(r"\w+_HR", "*", r"STEM_LR_wild", f"*xSCALEw{number}", f"wild{number}") for number in range(1, 5)),
    Layout(r"\.", "*_HR", r"\.", "*_LRSCALE"),
    Layout(r"test_HR", "*_xSCALE", r"test_LR", "*_x1"),
    Layout(r"test_HR", "*", r"test_LR", "*"),
    Layout(r"valid-gt-clean", "*", r"valid-input-noisy", "*"),
    Layout(r"HR", "*", r"LR_(\w+)/XSCALE", "*xSCALE"),
    Layout(r"HR", "*", r"LR_(\w+)_xSCALE", "*xSCALE"),
    Layout(r"HR", "*", r"LR_(\w+)_xSCALE", "*"),
    Layout(r"GTmod12", "*", r"LRbicxSCALE", "*", "bicubic"),
    Layout(r"\.", "*_SRF_SCALE_HR", r"\.", "*_SRF_SCALE_LR", "bicubic"),
)
INNER = (  # folders between what users name and the pictures, by where they are looked for
    r"image_SRF_SCALE",
    r"Test_xSCALE",
    r"(Canon|Nikon)/Test/SCALE",
)
CAMERAS = ("Canon", "Nikon")
GENERAL = r"HR|GTmod12|original|test_HR|valid-gt-clean|image_SRF_\d|Test_x\d"  # folders that are no name of a set
SHARP = (r"HR", r"GTmod12", r"original", r"test_HR", r"valid-gt-clean", r"\w+_HR")  # alone, to be degraded


class Pair(NamedTuple):
    """A picture's name, and the files of its sharp and its low-resolution version."""

    name: str
    sharp: Path
    low: Path


class Found(NamedTuple):
    """Pairs of one version of a set: how the set and the version are called, and the pairs by name."""

    name: str
    version: str
    pairs: list[Pair]


def find_pairs(folder: Path, scale: int = 4) -> list[Found]:
    """The pairs in a folder, a group for each version of the low-resolution pictures; none where no layout fits.

    Args:
        folder: As the set was unpacked, or a folder in it.
        scale: Of the pairs.

    Raises:
        ValueError: A picture of a layout that fits has no partner; the sentence names it.
    """
    found: dict[tuple[str, str], Found] = {}
    for place in _places(folder, scale):
        for layout in LAYOUTS:
            for sharp in _folders(place, layout.sharp, scale):
                name, stem = set_name(sharp), re.escape(sharp.name.removesuffix("_HR"))
                for low, version in _versions(place, layout._replace(low=layout.low.replace("STEM", stem)), scale):
                    pairs = _pairs(sharp, low, layout, scale)
                    if pairs and (name, version) not in found:
                        found[name, version] = Found(name, version, pairs)
    return list(found.values())


def find_sharp(folder: Path) -> tuple[str, Path]:
    """A set's name and the folder of its sharp pictures: the one that a layout has for them, or the folder itself.

    Raises:
        ValueError: There is no such folder, or several in it may be meant.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    if pictures_in(folder):
        return set_name(folder), folder
    for pattern in SHARP:
        inside = [each for each in _folders(folder, pattern, 0) if pictures_in(each)]
        if len(inside) > 1:
            raise ValueError(f"{folder} has pictures in {' and '.join(each.name for each in inside)}: name one of them")
        if inside:
            return set_name(inside[0]), inside[0]
    return set_name(folder), folder


def sharp_pictures(folder: Path, limit: int | None = None) -> tuple[str, dict[str, Path]]:
    """A set's name and its sharp pictures by their names, the first `limit` of them; see `find_sharp`.

    Raises:
        ValueError: There is no such folder, or no picture in it.
    """
    name, place = find_sharp(folder)
    files = dict(list(pictures_in(place).items())[:limit])
    if not files:
        raise ValueError(f"{place} holds no picture")
    return name, files


def pictures_in(folder: Path) -> dict[str, Path]:
    """The picture files right in a folder by their names without ending, sorted.

    Raises:
        ValueError: Two differ in their ending alone.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())
    found: dict[str, Path] = {}
    for path in files:
        if path.name.startswith("."):
            continue
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name} have the same name but for their endings")
        found[path.stem] = path
    return found


def set_name(folder: Path) -> str:
    """What a set is called: its folder, above those that only say what kind of pictures is in them."""
    parts = list(folder.resolve().parts)
    if camera := next((part for part in parts[-3:] if part in CAMERAS), None):
        return f"RealSR-{camera}"
    while len(parts) > 1 and re.fullmatch(GENERAL, parts[-1]):
        parts.pop()
    return re.sub(r"_HR$", "", parts[-1])


def _places(folder: Path, scale: int) -> list[Path]:
    """Folders to look into: it, and those below it that some sets have around their pictures."""
    tails = ["/".join(pattern.split("/")[depth:]) for pattern in INNER for depth in range(pattern.count("/") + 1)]
    return [folder, *(inner for tail in tails for inner in _folders(folder, tail, scale))]


def _folders(place: Path, pattern: str, scale: int) -> list[Path]:
    """Folders below a place whose relative path fits a pattern; the place itself for `.`."""
    if pattern == r"\.":
        return [place]
    found = [place]
    for part in pattern.replace("SCALE", str(scale)).split("/"):
        found = [each for above in found for each in _inside(above) if re.fullmatch(part, each.name)]
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _versions(place: Path, layout: Layout, scale: int) -> Iterator[tuple[Path, str]]:
    """Folders of low-resolution pictures and the names of their versions."""
    options = (layout.low.replace("(/X|_X)", middle) for middle in ("/X", "_X"))
    for pattern in dict.fromkeys(options):
        for low in _folders(place, pattern, scale):
            relative = low.relative_to(place).as_posix()
            match = re.fullmatch(pattern.replace("SCALE", str(scale)), relative) if pattern != r"\." else None
            yield low, match[1] if match and match.groups() else layout.version


def _pairs(sharp: Path, low: Path, layout: Layout, scale: int) -> list[Pair]:
    ours, theirs = (_named(*part, scale) for part in ((sharp, layout.sharp_name), (low, layout.low_name)))
    common = [Pair(name, ours[name], theirs[name]) for name in ours if name in theirs]
    alone = sorted(ours.keys() ^ theirs.keys())
    if common and alone:
        missing = alone[0]
        raise ValueError(f"{(ours | theirs)[missing]} has no partner in {low if missing in ours else sharp}")
    return common


def _named(folder: Path, pattern: str, scale: int) -> dict[str, Path]:
    """Pictures whose names fit a pattern, by what stands at its `*`."""
    before, after = (re.escape(part) for part in pattern.replace("SCALE", str(scale)).split("*"))
    matches = {path: re.fullmatch(f"{before}(.+){after}", stem) for stem, path in pictures_in(folder).items()}
    return {match[1]: path for path, match in matches.items() if match}
