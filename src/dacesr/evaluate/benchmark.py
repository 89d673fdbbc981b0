"""Methods on sets of pictures: every picture's scores, kept in files that a later run goes on from.

    OUT/scores/METHOD/SET-VERSION.csv   a row for each picture: measures, seconds, megapixels of the result
    OUT/pictures/METHOD/SET/VERSION/    the results themselves, if wanted

A row holds for what decides it: the weights, the picture's files and degradation, and the code (`code_version`); where
one of these is another, or a measure is new, the picture is done again. The methods take turns on every picture, so
that whatever else the machine does meets all of them alike, and their seconds can be compared.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from dacesr.evaluate.measures import Measure, apply
from dacesr.evaluate.methods import Method, find_results
from dacesr.evaluate.scores import Score, read_scores, write_scores
from dacesr.evaluate.sets import BenchmarkSet
from dacesr.evaluate.version import code_version
from dacesr.image import read, write
from dacesr.progress import progress_bar
from dacesr.tensorfile import sha256_of

SECONDS, MEGAPIXELS = "seconds", "megapixels"  # of a result; columns beside those of the measures
WARM_UP = 32  # side of the picture that every network sees before it is timed


class Row(NamedTuple):
    """A score, what decides it, and the measures it has, each with the key of its files."""

    key: str
    measured: frozenset[str]
    score: Score


class Result(NamedTuple):
    """What is known of a method on a set.

    Attributes:
        method: Its name.
        set: The set's name.
        version: Of the low-resolution pictures.
        wanted: How many pictures the set has.
        scores: Of those that could be measured.
        file: That they are kept in, relative to the folder of results.
    """

    method: str
    set: str
    version: str
    wanted: int
    scores: list[Score]
    file: str


class Benchmark:
    """Measures methods on sets.

    Attributes:
        failures: A sentence for each picture that could not be measured.
    """

    def __init__(
        self,
        *,
        methods: Sequence[Method],
        sets: Sequence[BenchmarkSet],
        measures: Mapping[str, Measure],
        output: Path,
        device: torch.device,
        console: Console,
        save_pictures: bool = False,
    ) -> None:
        """Keep the arguments.

        Args:
            methods: Rows of the tables.
            sets: What they are measured on.
            measures: From `load_measures`, on `device`.
            output: Folder of results.
            device: Where measures are taken.
            console: For progress and failures.
            save_pictures: Write the results too, as PNG.
        """
        self._methods, self._sets, self._measures = methods, sets, measures
        self._output, self._device, self._console, self._save = output, device, console, save_pictures
        self.failures: list[str] = []
        self._wanted = frozenset(f"{name}={one.key}" if one.key else name for name, one in measures.items())
        self._known: dict[tuple[str, str, str], dict[str, Row]] = {}
        self._results: dict[tuple[str, str, str], dict[str, Path | str]] = {}
        self._keys: dict[tuple[str, str, str], dict[str, str | None]] = {}  # of each picture, by method
        self._warm: set[str] = set()

    def run(self) -> list[Result]:
        """Measure what is not known yet.

        Returns:
            All methods on all sets, in that order within a set.

        Raises:
            ValueError: A file of scores is damaged.
            OSError: A file can't be written.
        """
        for chosen in self._sets:
            for method in self._methods:
                place = method.name, chosen.name, chosen.version
                self._known[place] = self._read(method, chosen)
                if method.folder is not None:
                    self._results[place] = find_results(method.folder, chosen.names, chosen.name, chosen.version)
        total = sum(len(chosen) for chosen in self._sets)
        with progress_bar(self._console) as progress:
            bar = progress.add_task("measuring", total=total)
            for chosen in self._sets:
                progress.update(bar, description=f"{chosen.name} {chosen.version}")
                for place in range(len(chosen)):
                    self._picture(chosen, place)
                    progress.advance(bar)
        return [self._result(method, chosen) for chosen in self._sets for method in self._methods]

    def _picture(self, chosen: BenchmarkSet, place: int) -> None:
        """One picture of a set by all methods that have not done it."""
        name = chosen.names[place]
        keys = {method.name: self._key(method, chosen, name) for method in self._methods}
        self._keys[chosen.name, chosen.version, name] = keys
        todo = [
            (method, key)
            for method in self._methods
            if (key := keys[method.name]) and not self._has(method, chosen, name, key)
        ]
        if not todo:
            return
        try:
            _, small, reference = chosen.pair(place)
        except (ValueError, OSError) as error:
            self._fail(str(error))
            return
        for method, key in todo:
            try:
                score = self._score(method, chosen, name, small, reference)
            except (ValueError, OSError) as error:
                self._fail(f"{method.name} on {chosen.name} {chosen.version}, {name}: {error}")
                continue
            self._keep(method, chosen, Row(key, self._wanted, score))

    def _score(
        self, method: Method, chosen: BenchmarkSet, name: str, small: Tensor | None, reference: Tensor | None
    ) -> Score:
        values: dict[str, float] = {}
        if method.enlarge is None:
            result = read(self._result_of(method, chosen, name))
        elif small is None:
            raise ValueError("the set has no low-resolution picture to enlarge")
        else:
            self._warm_up(method)
            start = time.perf_counter()
            result = method.enlarge(small)
            values = {SECONDS: time.perf_counter() - start, MEGAPIXELS: result.shape[2] * result.shape[3] / 1e6}
            result = (result * 255).round() / 255  # as a file would hold it
        if self._save and method.enlarge is not None:
            path = self._picture_file(method, chosen, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, result)
        target = None if reference is None else reference.to(self._device)
        return Score(chosen.name, chosen.version, name, apply(self._measures, result.to(self._device), target) | values)

    def _warm_up(self, method: Method) -> None:
        if method.name not in self._warm and method.enlarge is not None:
            method.enlarge(torch.rand(1, 3, WARM_UP, WARM_UP, generator=torch.Generator().manual_seed(0)))
            self._warm.add(method.name)

    # --- what is known

    def _key(self, method: Method, chosen: BenchmarkSet, name: str) -> str | None:
        """Of what decides a method's score of a picture; None where its result is missing."""
        facts = [method.key, chosen.contents[name], code_version()]
        if method.enlarge is None:
            try:
                facts.append(sha256_of(self._result_of(method, chosen, name)))
            except (ValueError, OSError) as error:
                self._fail(f"{method.name} on {chosen.name} {chosen.version}: {error}")
                return None
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

    def _has(self, method: Method, chosen: BenchmarkSet, name: str, key: str | None) -> bool:
        row = self._known[method.name, chosen.name, chosen.version].get(name)
        saved = not self._save or method.enlarge is None or self._picture_file(method, chosen, name).exists()
        return row is not None and row.key == key and row.measured >= self._wanted and saved

    def _keep(self, method: Method, chosen: BenchmarkSet, row: Row) -> None:
        """Add a row, with what else is known of the same picture, and write the file."""
        rows, name = self._known[method.name, chosen.name, chosen.version], row.score.picture
        old = rows.get(name)
        if old is not None and old.key == row.key:
            score = row.score._replace(values={**old.score.values, **row.score.values})
            row = Row(row.key, row.measured | old.measured, score)
        rows[name] = row
        path = self._output / score_file(method.name, chosen.name, chosen.version)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scores(path, (({"key": r.key, "measured": " ".join(sorted(r.measured))}, r.score) for r in rows.values()))

    def _read(self, method: Method, chosen: BenchmarkSet) -> dict[str, Row]:
        found = read_scores(self._output / score_file(method.name, chosen.name, chosen.version))
        return {
            score.picture: Row(before.get("key", ""), frozenset(before.get("measured", "").split()), score)
            for before, score in found
        }

    def _result_of(self, method: Method, chosen: BenchmarkSet, name: str) -> Path:
        """The file of a picture in a folder of results; ValueError where it is missing."""
        found = self._results[method.name, chosen.name, chosen.version][name]
        if isinstance(found, str):
            raise ValueError(found)
        return found

    def _picture_file(self, method: Method, chosen: BenchmarkSet, name: str) -> Path:
        folder = self._output / "pictures" / plain(method.name) / plain(chosen.name) / plain(chosen.version)
        return folder / f"{name}.png"

    def _result(self, method: Method, chosen: BenchmarkSet) -> Result:
        rows = self._known[method.name, chosen.name, chosen.version]
        keys = {name: self._keys[chosen.name, chosen.version, name][method.name] for name in chosen.names}
        scores = [rows[name].score for name, key in keys.items() if self._has(method, chosen, name, key)]
        file = score_file(method.name, chosen.name, chosen.version)
        return Result(method.name, chosen.name, chosen.version, len(chosen), scores, file)

    def _fail(self, sentence: str) -> None:
        if sentence not in self.failures:
            self.failures.append(sentence)
            self._console.print(f"dacesr: {sentence}", markup=False)


def score_file(method: str, chosen: str, version: str) -> str:
    """Where the scores of a method on a set are, relative to the folder of results."""
    return f"scores/{plain(method)}/{plain(chosen)}-{plain(version)}.csv"


def plain(name: str) -> str:
    """A name as a file may be called everywhere; others may become the same."""
    return re.sub(r"[^\w.@+-]", "_", name)
