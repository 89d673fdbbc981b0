"""Labelled pictures: folders by class, or a CSV with a tar or a folder; decoded once, and their tags as multi-hot rows.

A set's tags and their order depend on the training pictures that the source names, so that all splits of one source
agree on them.
"""

import csv
import hashlib
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.crops import existing, list_pictures
from dacesr.formats import ImageError
from dacesr.picture import open_picture

SPLITS = ("train", "val", "test")

_COLUMNS = ("file", "split", "tags")
_DECODERS = 4  # threads


class LabelledSet:
    """Pictures of one split, in memory, with their tags.

    Attributes:
        tags: The words, one a column of `labels`.
        names: The files, as the source names them.
        pictures: Of each file uint8 (3, h, w), RGB; gray is repeated.
        labels: uint8 (n, tags), 1 where the picture has the tag.
    """

    def __init__(
        self, *, tags: Sequence[str], names: Sequence[str], pictures: Sequence[Tensor], labels: Tensor
    ) -> None:
        """Only keep the arguments; `open` reads files.

        Raises:
            ValueError: Their numbers differ.
        """
        if not len(names) == len(pictures) == len(labels) or labels.shape[1:] != (len(tags),):
            found = f"{len(names)} names, {len(pictures)} pictures and {len(tags)} tags"
            raise ValueError(f"{found} do not go with labels {tuple(labels.shape)}")
        self.tags, self.names = tuple(tags), tuple(names)
        self.pictures = list(pictures)
        self.labels = labels

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        split: str,
        files: str | Path | None = None,
        tags: Sequence[str] | None = None,
        minimum: int = 1,
        validation_share: float = 0.0,
        shorter: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> "LabelledSet":
        """Read one split of a source.

        Training pictures without any of the tags are left out; those of other splits stay, as examples of none. A
        picture that cannot be decoded is left out with a warning.

        Args:
            source: A folder with a sub-folder of pictures for each class, or with `train`, `test` (and `val`) that
                hold such sub-folders; else a CSV with the columns file, split and tags, which `|` separates. (A file
                that is listed twice has the tags of both lines.)
            split: "train", "val" or "test". Classes that lie in no folder of a split are training pictures.
            files: Tar (not compressed) or folder that holds the files of a CSV; the one beside it of the same name
                unless given.
            tags: The words to learn, in this order; those of the source unless given, the most frequent first.
            minimum: Leave out words that fewer training pictures have; not used with `tags`.
            validation_share: Share of the training pictures that are of the split "val" instead, chosen by a hash of
                their names; they still count for `minimum`.
            shorter: Reduce pictures whose shorter side has more pixels than that, to save memory.
            warn: Takes sentences on skipped files; Python's warnings unless given.

        Raises:
            ValueError: The source, its files, a column, a split or a tag is missing or impossible, a label names a
                file that is not there, or no picture is left.
        """
        if split not in SPLITS:
            raise ValueError(f"split should be one of {', '.join(SPLITS)}, not {split!r}")
        if not 0 <= validation_share < 1 or minimum < 1 or (shorter is not None and shorter < 1):
            raise ValueError(
                f"validation_share {validation_share}, minimum {minimum} and shorter {shorter} leave nothing to load"
            )
        path = Path(source)
        entries = _folder_entries(path) if path.is_dir() else _csv_entries(path)
        chosen = _check_tags(tags) if tags is not None else _frequent(path, entries, minimum)
        entries = [entry for entry in entries if _split(entry, validation_share) == split]
        if split == "train":
            entries = [entry for entry in entries if not entry.tags.isdisjoint(chosen)]
        if not entries:
            raise ValueError(f"{path} holds no picture of the split {split!r} with these tags")
        names = [entry.file for entry in entries]
        place = _files_of(path, files) if not path.is_dir() else None
        contents = [path / entry.place for entry in entries] if place is None else _contents(place, names, path)
        pictures = _decode(names, contents, shorter, warn or warnings.warn)
        kept = [i for i, picture in enumerate(pictures) if picture is not None]
        if not kept:
            raise ValueError(f"{path} holds no picture of the split {split!r}: none of its {len(names)} can be decoded")
        return cls(
            tags=chosen,
            names=[names[i] for i in kept],
            pictures=[picture for picture in pictures if picture is not None],
            labels=_multi_hot([entries[i].tags for i in kept], chosen),
        )


class _Entry(NamedTuple):
    """A labelled file: `file` is its name, `place` its path below the folder of a source that is one."""

    file: str
    split: str
    tags: frozenset[str]
    place: str = ""


def _split(entry: _Entry, validation_share: float) -> str:
    """The split an entry is of, once a share of the training pictures has been set aside."""
    if entry.split != "train" or validation_share == 0:
        return entry.split
    drawn = int.from_bytes(hashlib.sha256(entry.file.encode()).digest()[:8]) / 2**64
    return "val" if drawn < validation_share else "train"


def _frequent(path: Path, entries: Iterable[_Entry], minimum: int) -> tuple[str, ...]:
    counts = Counter(tag for entry in entries if entry.split == "train" for tag in entry.tags)
    tags = sorted((tag for tag in counts if counts[tag] >= minimum), key=lambda tag: (-counts[tag], tag))
    if not tags:
        raise ValueError(f"{path} has no tag that {minimum} training pictures or more have")
    return tuple(tags)


def _check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    if not tags or len(set(tags)) < len(tags):
        raise ValueError("tags should be a list of different words, at least one")
    return tuple(tags)


def _multi_hot(rows: Sequence[frozenset[str]], tags: Sequence[str]) -> Tensor:
    column = {tag: i for i, tag in enumerate(tags)}
    labels = torch.zeros(len(rows), len(tags), dtype=torch.uint8)
    for i, row in enumerate(rows):
        labels[i, [column[tag] for tag in row if tag in column]] = 1
    return labels


# --- what a source lists


def _folder_entries(folder: Path) -> list[_Entry]:
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    places = [(split, folder / split) for split in splits] if "train" in splits else [("train", folder)]
    entries = [
        _Entry(picture.relative_to(place).as_posix(), split, frozenset((label.name,)), str(picture.relative_to(folder)))
        for split, place in places
        for label in _subfolders(place)
        for picture in list_pictures(label)
    ]
    if not entries:
        raise ValueError(f"{folder} holds no sub-folder of pictures, as many as there are classes")
    return entries


def _subfolders(folder: Path) -> list[Path]:
    found = (path for path in existing(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name)


def _csv_entries(path: Path) -> list[_Entry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rows(path, csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: it is no CSV in UTF-8") from error


def _rows(path: Path, reader: "csv.DictReader[str]") -> list[_Entry]:
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]}; it should have {', '.join(_COLUMNS)}")
    entries: dict[str, _Entry] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}:"
        file, split, tags = (row[column] for column in _COLUMNS)
        if not file or split is None or tags is None or len(row) > len(reader.fieldnames or ()):
            raise ValueError(f"{where} the row has more or fewer fields than there are columns, or names no file")
        if split not in SPLITS:
            raise ValueError(f"{where} split should be one of {', '.join(SPLITS)}, not {split!r}")
        entry = _Entry(file, split, frozenset(tag.strip() for tag in tags.split("|") if tag.strip()))
        known = entries.setdefault(file, entry)
        if known.split != split:
            raise ValueError(f"{where} {file} is of the split {split}, and of {known.split} in a line before")
        entries[file] = entry._replace(tags=entry.tags | known.tags)
    return list(entries.values())


# --- the files of a CSV, and their pixels


def _files_of(path: Path, files: str | Path | None) -> Path:
    if files is not None:
        if not Path(files).exists():
            raise ValueError(f"{files}, which should hold the files of {path}, does not exist")
        return Path(files)
    for place in (path.with_suffix(".tar"), path.with_suffix("")):
        if place.exists() and place != path:
            return place
    raise ValueError(f"{path} needs its files beside it, in {path.with_suffix('.tar').name} or a folder {path.stem}")


def _contents(place: Path, names: Sequence[str], path: Path) -> list[Path | bytes]:
    """The files by these names: paths in a folder, bytes from a tar."""
    if place.is_dir():
        _check_found(names, {name for name in names if (place / name).is_file()}, place, path)
        return [place / name for name in names]
    try:
        with tarfile.open(place, "r:") as tar:
            members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
            _check_found(names, members.keys(), place, path)
            read = {name: _bytes(tar, members[name]) for name in sorted(names, key=lambda name: members[name].offset)}
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ValueError(f"{place} cannot be read as a tar: {error}") from error
    return [read[name] for name in names]


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _check_found(names: Iterable[str], found: Iterable[str], place: Path, path: Path) -> None:
    there = set(found)
    missing = [name for name in names if name not in there]
    if missing:
        count = f"{len(missing)} files" if len(missing) > 1 else "1 file"
        raise ValueError(f"{path} names {count} that {place} does not hold, the first of them {missing[0]}")


def _decode(
    names: Sequence[str], contents: Sequence[Path | bytes], shorter: int | None, warn: Callable[[str], None]
) -> list[Tensor | None]:
    def attempt(name: str, content: Path | bytes) -> Tensor | ImageError:
        try:
            return _reduced(_pixels(name, content), shorter)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(_DECODERS, "decoders") as pool:
        decoded = list(pool.map(attempt, names, contents))
    return list(_usable(decoded, warn))


def _usable(decoded: Iterable[Tensor | ImageError], warn: Callable[[str], None]) -> Iterator[Tensor | None]:
    for result in decoded:
        if isinstance(result, ImageError):
            warn(f"{result}; it is skipped")
        yield None if isinstance(result, ImageError) else result


def _pixels(name: str, content: Path | bytes) -> Tensor:
    picture = open_picture(content, name=name)
    pixels = picture.region(0, 0, picture.width, picture.height)[0]
    return pixels.mul_(255).round_().to(torch.uint8)


def _reduced(pixels: Tensor, shorter: int | None) -> Tensor:
    height, width = pixels.shape[1:]
    if shorter is None or min(height, width) <= shorter:
        return pixels
    ratio = shorter / min(height, width)
    size = max(round(height * ratio), 1), max(round(width * ratio), 1)
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
