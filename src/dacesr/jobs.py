"""From what a user names to a list of jobs: which picture becomes which file. Only paths; nothing is decoded."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Generic, Protocol, Self, TypeVar

from dacesr.formats import FORMATS, format_of

STREAM = "-"  # standard input or standard output
LONGEST_SIDE = 10_000_000  # pixels, of libvips
EXTENSIONS = frozenset(extension for format in FORMATS.values() for extension in format.extensions)


class JobError(ValueError):
    """The call cannot be carried out as it stands; the sentence names the input or output."""


class Place(Protocol):
    """Where a file or folder is: of `Path`, what planning needs."""

    @property
    def name(self) -> str:
        """The last part."""
        ...

    @property
    def stem(self) -> str:
        """The last part without its ending."""
        ...

    @property
    def suffix(self) -> str:
        """The ending of the last part, with its dot."""
        ...

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        ...

    def exists(self) -> bool:
        """Whether anything is there."""
        ...

    def resolve(self) -> Self:
        """The same place, however it was written."""
        ...

    def with_name(self, name: str, /) -> Self:
        """Another file in its folder."""
        ...

    def relative_to(self, folder: Any, /) -> PurePath:
        """The way to it from a folder that it lies in."""
        ...

    def __truediv__(self, below: str | PurePath, /) -> Self:
        """What lies in it."""
        ...


P = TypeVar("P", bound=Place)
Walk = Callable[[P], Iterator[tuple[P, list[str], list[str]]]]
"""Folders from the top, each with the names of its subfolders, of which may be removed, and files, as `os.walk`."""


@dataclass(frozen=True)
class Job(Generic[P]):
    """One picture to make: `source` None is standard input, `target` None standard output."""

    source: P | None
    target: P | None
    extension: str | None  # of the target; None: that of the picture's format

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.source) if self.source else "standard input"


def plan_jobs(
    inputs: Iterable[str],
    output: str,
    *,
    suffix: str = "_x4",
    extension: str | None = None,
    recursive: bool = False,
) -> list[Job[Path]]:
    """Name an output for every input.

    Files in a folder are taken if they end like a picture; with `recursive` those of its subfolders too, and the tree
    is kept. What lies in the output folder is left alone. The output is a folder, unless there is one input that is no
    folder and the output ends like a picture and is no folder yet.

    Args:
        inputs: Files, folders, or `-`.
        output: Folder, file, or `-`.
        suffix: Put between stem and extension of every name in a folder.
        extension: Of the outputs, such as `png` or `.png`; that of the input unless given.
        recursive: Look into subfolders.

    Raises:
        JobError: Nothing to do, `-` used twice or beside others, two inputs with one output, or an output that is an
            input.
    """
    named = list(dict.fromkeys(inputs))
    if STREAM in named or output == STREAM:
        return [_streaming_job(named, output, suffix, _extension(extension))]
    return plan_places(named, output, Path, _walk_folder, suffix=suffix, extension=extension, recursive=recursive)


def plan_places(
    inputs: Iterable[str],
    output: str,
    place: Callable[[str], P],
    walk: Walk[P],
    *,
    suffix: str,
    extension: str | None,
    recursive: bool,
) -> list[Job[P]]:
    """`plan_jobs` for whatever kinds of places, without standard input and output.

    Args:
        inputs: Files and folders.
        output: Folder or file.
        place: What a name stands for.
        walk: Lists a folder.
        suffix: Put between stem and extension.
        extension: Of the outputs.
        recursive: Look into subfolders.

    Raises:
        JobError: As there.
    """
    named = list(dict.fromkeys(inputs))
    ending = _extension(extension)
    folder = place(output)
    sources = [place(name) for name in named]
    if len(sources) == 1 and not sources[0].is_dir() and _is_file_name(output, folder):
        jobs = [_file_job(sources[0], folder, ending)]
    else:
        if folder.exists() and not folder.is_dir():
            raise JobError(f"{output} is a file, and several pictures need a folder")
        found = (pair for source in sources for pair in _pictures(source, folder, walk, recursive))
        jobs = [Job(source, folder / where / _named(source, suffix, ending), ending) for source, where in found]
    if not jobs:
        step = "pictures end in .jpg, .png, .webp, .tif, ..." if recursive else "--recursive looks into subfolders too"
        raise JobError(f"there is no picture in {', '.join(named)}; {step}")
    _check_collisions(jobs)
    return jobs


def _extension(extension: str | None) -> str | None:
    if extension is None:
        return None
    ending = "." + extension.lower().lstrip(".")
    if ending not in EXTENSIONS:
        raise JobError(f"pictures cannot be written as {ending}; known: {', '.join(sorted(EXTENSIONS))}")
    return ending


def _is_file_name(output: str, place: Place) -> bool:
    ends_in_slash = output.endswith(("/", os.sep))
    return not ends_in_slash and place.suffix.lower() in EXTENSIONS and not place.is_dir()


def _named(source: Place, suffix: str, ending: str | None) -> str:
    known = source.suffix.lower() in EXTENSIONS
    stem = source.stem if known else source.name
    return f"{stem}{suffix}{ending or (source.suffix if known else '')}"


def _file_job(source: P | None, target: P, ending: str | None) -> Job[P]:
    own = target.suffix.lower()
    if ending and ending != own:
        raise JobError(f"{target} ends in {own}, but --ext asks for {ending}")
    return Job(source, target, own)


def _streaming_job(named: list[str], output: str, suffix: str, ending: str | None) -> Job[Path]:
    if len(named) != 1 or (named[0] != STREAM and Path(named[0]).is_dir()):
        raise JobError("standard input and standard output (-) take one picture and no others")
    source = None if named[0] == STREAM else Path(named[0])
    if output == STREAM:
        return Job(source, None, ending)
    if _is_file_name(output, Path(output)):
        return _file_job(source, Path(output), ending)
    return Job(source, Path(output) / f"stdin{suffix}{ending or ''}", ending)


def _pictures(source: P, output: P, walk: Walk[P], recursive: bool) -> Iterator[tuple[P, PurePath]]:
    """Pictures of one input, each with the folder below the output that it goes to."""
    if not source.is_dir():
        yield source, PurePath()
        return
    done = output.resolve()
    for here, subfolders, names in walk(source):
        subfolders[:] = sorted(s for s in subfolders if recursive and (here / s).resolve() != done)
        if here.resolve() == done:  # the folder of outputs itself, given as input: results would feed on results
            raise JobError(f"{source} is input and output at once")
        for name in sorted(names):
            if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."):
                yield here / name, here.relative_to(source)


def _walk_folder(source: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for folder, subfolders, names in os.walk(source, onerror=_unreadable):
        yield Path(folder), subfolders, names


def _unreadable(error: OSError) -> None:
    raise JobError(f"the folder {error.filename} cannot be read: {error.strerror}")


def _check_collisions(jobs: list[Job[P]]) -> None:
    sources = {job.source.resolve(): job.source for job in jobs if job.source}
    taken: dict[P, Job[P]] = {}
    for job in jobs:
        if job.target is None:
            continue
        place = job.target.resolve()
        if place in sources:
            raise JobError(f"{job.target} is an input and would be overwritten: choose another folder or --suffix")
        if place in taken:
            raise JobError(f"{taken[place].name} and {job.name} would both become {job.target}")
        taken[place] = job


def target_format(job: Job[P], own: str) -> tuple[P | None, str]:
    """The file to write and its format (key of `FORMATS`), once the picture's own format is known."""
    ending = job.extension or (job.target.suffix if job.target else "")
    if ending.lower() not in EXTENSIONS:
        ending = FORMATS[own].extensions[0]
        target = job.target.with_name(job.target.name + ending) if job.target else None
        return target, own
    return job.target, format_of(Path(f"x{ending}"))


def output_size(
    size: tuple[int, int],
    native: int,
    *,
    scale: float | None = None,
    width: int | None = None,
    height: int | None = None,
) -> tuple[int, int]:
    """Size of a result, in the proportions of its picture.

    Args:
        size: (width, height) of the picture.
        native: Scale of the network, which holds unless one of the others is given.
        scale: Times the picture's size.
        width: Of the result; the height follows.
        height: Of the result; the width follows.

    Raises:
        ValueError: A side is longer than `LONGEST_SIDE`.
    """
    if width:
        factor = width / size[0]
    elif height:
        factor = height / size[1]
    else:
        factor = scale or native
    across, down = (max(1, round(side * factor)) for side in size)
    across, down = width or across, height or down
    if max(across, down) > LONGEST_SIDE:
        raise ValueError(f"the result would be {across} x {down} pixels, and a side has {LONGEST_SIDE:,} at most")
    return across, down
