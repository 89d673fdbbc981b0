"""The same places of pictures as several methods enlarge them, and how well each did on the whole picture.

low-quality picture -> methods -> scores of whole results, and of each result only the parts that are looked at
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.analysis.views import INPUT, REFERENCE, Comparison, as_bytes, plan_views
from dacesr.analysis.windows import Window, check_window, find_window
from dacesr.degrading import check_spaces, cropped, degraded
from dacesr.engine import UpscaleError
from dacesr.evaluate.benchmark import plain
from dacesr.evaluate.layouts import pictures_in, set_name, sharp_pictures
from dacesr.evaluate.measures import Measure, apply, load_measures
from dacesr.evaluate.methods import Method, find_results
from dacesr.evaluate.tables import as_csv
from dacesr.image import read

DEFAULT = ("bicubic", "default")  # methods
MEASURES, BLIND = ("psnr_y", "lpips"), ("niqe",)  # with a reference, and without
SIDE = 128  # of a window that is found, in output pixels
MOST, LEAST, BUDGET = 1_500_000, 200_000, 30_000_000  # output pixels that are kept: of a picture, and of all together
PAGE = 2 * BUDGET  # output pixels that a page holds, of many pictures of which each has `LEAST`
_FAILURES = (ValueError, OSError, UpscaleError)


class Photo(NamedTuple):
    """A picture file: what figures call it, where it is, and the set that it belongs to."""

    name: str
    path: Path
    set: str


class Comparer:
    """Compares methods on pictures, one after another.

    Attributes:
        failures: A sentence for each picture, and method on a picture, that could not be done.
    """

    def __init__(
        self,
        *,
        methods: Sequence[Method],
        measures: Mapping[str, Measure],
        scale: int,
        degradations: Sequence[str] = (),
        reference: Path | None = None,
        windows: Sequence[Window] = (),
        size: int | None = None,
        seed: int = 0,
        device: torch.device,
        warn: Callable[[str], None],
    ) -> None:
        """Keep the arguments.

        Args:
            methods: From `find_methods`.
            measures: From `find_measures`, on `device`.
            scale: That all methods enlarge by.
            degradations: Spaces; pictures are sharp ones that are degraded so, as `dacesr evaluate` does it.
            reference: Folder of sharp versions of the pictures, which have the same names and are `scale` times larger.
            windows: In output pixels; the most detailed one is found where there are none.
            size: Of a window that is found; `SIDE`, or less in small pictures, unless given.
            seed: Of the degradations.
            device: Where measures are taken.
            warn: Is told each failure.

        Raises:
            ValueError: There is no such space or folder, it holds no picture, both a reference and degradations are
                given, or a method is called as the input or the reference are.
        """
        if degradations and reference is not None:
            raise ValueError("pictures that are degraded are their own references: leave out one of the two")
        check_spaces(degradations, scale)
        for method in methods:
            if method.name in (INPUT, REFERENCE):
                raise ValueError(f"a method cannot be called {method.name}: give it another name, as in NAME=MODEL")
        self._methods, self._measures, self._scale, self._seed = methods, measures, scale, seed
        self._spaces = tuple(dict.fromkeys(degradations)) or ("",)
        self._folder, self._sharp = reference, sharp_pictures(reference)[1] if reference is not None else None
        self._windows, self._size = tuple(dict.fromkeys(windows)), size
        self._device, self._warn = device, warn
        self._files: dict[tuple[Path, str, str], dict[str, Path | str]] = {}  # by folder of results, set, space
        self.failures: list[str] = []

    def run(self, photos: Sequence[Photo]) -> Iterator[Comparison]:
        """Compare; what fails is named, and the rest is done.

        Args:
            photos: From `gather_photos`.

        Yields:
            A comparison for each picture and degradation for which a method worked.
        """
        stems: dict[str, list[str]] = {}
        for photo in photos:
            stems.setdefault(photo.set, []).append(photo.path.stem)
        kept = len(photos) * len(self._spaces) * (len(self._methods) + 2)
        limit = min(max(BUDGET // max(kept, 1), LEAST), MOST)
        for photo in photos:
            for space in self._spaces:
                try:
                    found = self._compared(photo, space, stems[photo.set], limit)
                except _FAILURES as error:
                    self._fail(f"{_called(photo, space)}: {error}")
                    continue
                if found.scores:
                    yield found

    def _compared(self, photo: Photo, space: str, stems: Sequence[str], limit: int) -> Comparison:
        small, reference = self._pair(photo, space)
        height, width = (side * self._scale for side in small.shape[-2:])
        windows = self._windows or (self._found(small),)
        for window in windows:
            check_window(window, height, width)
        views = plan_views(windows, height, width, scale=self._scale, limit=limit)
        for view in views:
            view.pictures[INPUT] = view.cut(small, self._scale)
        target = None if reference is None else reference.to(self._device)
        scores: dict[str, dict[str, float]] = {}
        for method in self._methods:
            try:
                result = self._result(method, photo, space, small, stems)
                scores[method.name] = apply(self._measures, result.to(self._device), target)
            except _FAILURES as error:
                self._fail(f"{method.name} on {_called(photo, space)}: {error}")
                continue
            for view in views:
                view.pictures[method.name] = view.cut(result)
        if reference is not None:
            for view in views:
                view.pictures[REFERENCE] = view.cut(reference)
        return Comparison(
            name=photo.name,
            degradation=space,
            scale=self._scale,
            whole=as_bytes(small if reference is None else reference),
            size=(height, width),
            windows=windows,
            views=views,
            measures=self._measures,
            scores=scores,
            failed=[method.name for method in self._methods if method.name not in scores],
        )

    def _pair(self, photo: Photo, space: str) -> tuple[Tensor, Tensor | None]:
        """The low-quality picture and its reference, if it has one."""
        image = read(photo.path)
        if space:
            sharp = cropped(image, self._scale, str(photo.path))
            return degraded(sharp, photo.path.stem, space=space, seed=self._seed, scale=self._scale)[0], sharp
        if self._sharp is None:
            return image, None
        if photo.path.stem not in self._sharp:
            raise ValueError(f"{self._folder} holds no picture of that name")
        path = self._sharp[photo.path.stem]
        sharp = read(path)
        height, width = (side * self._scale for side in image.shape[-2:])
        if not (0 <= sharp.shape[-2] - height < self._scale and 0 <= sharp.shape[-1] - width < self._scale):
            raise ValueError(f"its reference {path} has {sharp.shape[-1]} x {sharp.shape[-2]} pixels, and {width} x "
                             f"{height}, {self._scale} times its own, are needed")  # fmt: skip
        return image, sharp[..., :height, :width]

    def _found(self, small: Tensor) -> Window:
        largest = max(min(small.shape[-2:]) * self._scale // 2, 2)
        return find_window(small, self._scale, self._size or min(SIDE, largest))

    def _result(self, method: Method, photo: Photo, space: str, small: Tensor, stems: Sequence[str]) -> Tensor:
        """What a method makes of a picture, in the values that a file would hold."""
        if method.enlarge is not None:
            result = (method.enlarge(small) * 255).round() / 255
        else:
            assert method.folder  # what does not enlarge is a folder of results
            key = method.folder, photo.set, space
            if key not in self._files:
                self._files[key] = find_results(method.folder, stems, photo.set, space)
            path = self._files[key][photo.path.stem]
            if isinstance(path, str):
                raise ValueError(path)
            result = read(path)
        wanted = [side * self._scale for side in small.shape[-2:]]
        if list(result.shape[-2:]) != wanted:
            raise ValueError(f"the result has {result.shape[-1]} x {result.shape[-2]} pixels, not "
                             f"{wanted[1]} x {wanted[0]}")  # fmt: skip
        return result

    def _fail(self, sentence: str) -> None:
        self.failures.append(sentence)
        self._warn(sentence)


def gather_photos(sources: Sequence[Path], *, sharp: bool) -> list[Photo]:
    """Pictures by the names that figures give them: their own, with their folder's where two are called alike.

    Args:
        sources: Files, and folders of them.
        sharp: Sharp pictures are wanted; folders may be benchmark sets then (`evaluate.layouts`).

    Raises:
        ValueError: A place is missing, or a folder holds no picture.
    """
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found = sharp_pictures(source)[1] if sharp else pictures_in(source)
            if not found:
                raise ValueError(f"{source} holds no picture")
            files |= dict.fromkeys(found.values())
        elif source.is_file():
            files[source] = None
        else:
            raise ValueError(f"{source} does not exist")
    distinct = {path.resolve(): path for path in files}.values()
    photos: dict[str, Photo] = {}
    for path in distinct:
        parts = (path.stem, f"{path.resolve().parent.name}/{path.stem}", str(path))
        name = next(name for part in parts if (name := printable(part)) not in photos or part == parts[-1])
        photos[name] = Photo(name, path, set_name(path.resolve().parent))
    return list(photos.values())


def find_measures(
    names: Sequence[str] | None, folder: Path | None, *, reference: bool, scale: int, device: torch.device
) -> tuple[dict[str, Measure], list[str]]:
    """Measures ready to use, and sentences on those that are usual and were left out; see `evaluate.measures`.

    Args:
        names: Of measures; None for `MEASURES`, or `BLIND` without a reference, as far as their files are there.
        folder: Of files.
        reference: Whether pictures have one.
        scale: Pixels of the border that measures on luma leave out.
        device: Of the pictures.

    Raises:
        ValueError: There is no such measure, its files are missing or damaged, or it needs a reference.
    """
    measures, missing = load_measures(names, folder, scale=scale, device=device)
    if names is not None:
        if not reference and (needing := [name for name, one in measures.items() if one.reference]):
            raise ValueError(f"{needing[0]} compares with sharp pictures: say how to degrade the pictures, or where "
                             "references are")  # fmt: skip
        return measures, []
    wanted = MEASURES if reference else BLIND
    told = [sentence for sentence in missing if any(f" {name} needs" in sentence for name in wanted)]
    return {name: one for name, one in measures.items() if name.startswith(wanted)}, told


def printable(text: str) -> str:
    """Without control characters and bytes that are no text, which names of files may hold."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def sheet_name(comparison: Comparison, taken: Container[str]) -> str:
    """What the sheet of a comparison is called, unlike those that are taken."""
    stem = plain("_".join(part for part in (comparison.name, comparison.degradation) if part))
    names = (f"{stem}{number}_sheet.png" for number in chain([""], (f"_{place}" for place in count(2))))
    return next(name for name in names if name not in taken)


def scores_csv(rows: Iterable[tuple[str, str, str, Mapping[str, float]]], measures: Sequence[str]) -> str:
    """Scores as CSV.

    Args:
        rows: Picture, degradation, method, and its numbers by measure.
        measures: The columns.
    """
    return as_csv(
        ("picture", "degradation", "method", *measures),
        ([*place, *(f"{values[name]:.6f}" if name in values else "" for name in measures)] for *place, values in rows),
    )


def _called(photo: Photo, space: str) -> str:
    return f"{photo.name}, {space}" if space else photo.name
