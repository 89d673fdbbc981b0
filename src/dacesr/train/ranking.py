"""Degradation selection (DACESR Sec. III-B): many random degradations, ranked by how much a tagger still sees.

Each is applied to the same n pictures; its score is the mean similarity of the tags (Eq. 1, 2), and the embedding's
cosine decides between equal ones. The ranking is cut into four classes, 1 mild to 4 severe.
"""

import contextlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from dacesr.crops import list_pictures
from dacesr.degradation.recipe import SPACES, carry_out, draw
from dacesr.image import read
from dacesr.labelled import LabelledSet
from dacesr.progress import progress_bar
from dacesr.similarity import CleanReference, Recogniser, digest, fingerprint, similarity
from dacesr.sources import sample_generator
from dacesr.tensorfile import write_whole
from dacesr.train.selection import Member, Selection, SelectionError, Settings

T = TypeVar("T")

COUNT, IMAGES = 1000, 30  # degradations, and pictures each is applied to
SIDE = 512  # pixels of the picture that a member's description is about
EVERY = 50  # degradations between lines of progress where there is no bar


class Score(NamedTuple):
    """Means over the pictures."""

    jaccard: float
    cosine: float


def rank_degradations(
    path: str | Path,
    extractor: Recogniser,
    pictures: Mapping[str, Tensor],
    *,
    tagger: str,
    space: str = "realesrgan",
    scale: int = 4,
    seed: int = 0,
    count: int = COUNT,
    thresholds: tuple[float, float] | None = None,
    max_minutes: float | None = None,
    console: Console | None = None,
) -> Selection | None:
    """Rank random degradations and write the selection file; the same call goes on with one that was stopped.

    Scores so far stand in FILE.partial, and a finished FILE is taken up again too: with another count or other
    thresholds only what is missing is computed.

    Args:
        path: The selection file.
        extractor: The reference tagger, a module: names the clean pictures and the degraded ones.
        pictures: Clean pictures (3, h, w) in [0, 1] by name, on the device of the extractor.
        tagger: What the file calls the tagger.
        space: Where degradations are drawn from.
        scale: How many times smaller degraded pictures are.
        seed: With its index it decides a degradation.
        count: How many degradations.
        thresholds: (tau1, tau2): above tau1 is mild, below tau2 severe, the rest is halved; quarters unless given.
        max_minutes: Stop after so long.
        console: Where progress goes; standard error unless given.

    Returns:
        The selection, or None where the time was up before.

    Raises:
        ValueError: Settings that cannot be used, or that differ from those of the file that is there.
        OSError: The file cannot be written.
    """
    path = Path(path)
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    _check(space, scale, count, thresholds, pictures)
    settings = Settings(
        space=space,
        scale=scale,
        seed=seed,
        tagger=tagger,
        tagger_hash=fingerprint(extractor),
        pictures=tuple(pictures),
        pictures_hash=digest(list(pictures.values())),
    )
    ranking = _Ranking(path, settings)
    if not ranking.score(extractor, list(pictures.values()), count, max_minutes, console):
        return None
    selection = ranking.selection(count, thresholds)
    selection.save(path)
    ranking.partial.unlink(missing_ok=True)
    console.print(f"{path}: {_summary(selection)}", markup=False)
    return selection


class _Ranking:
    """Scores of degradations by index, kept in a file as they come."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Take up what was computed before."""
        self.partial = path.with_name(f"{path.name}.partial")
        self._settings = settings
        self._scores: dict[int, Score] = {}
        if path.exists():
            before = Selection.load(path)
            self._check_same(before.settings, path)
            self._scores = {each.index: Score(each.score, each.cosine) for each in before.ranked}
        if self.partial.exists():
            self._scores |= self._read_partial()

    def _check_same(self, before: Settings, path: Path) -> None:
        for name, value in self._settings:
            if name != "tagger" and (other := getattr(before, name)) != value:
                raise SelectionError(
                    f"{path} was made with {name} {_short(other)}, not {_short(value)}: delete it or choose another"
                )

    def _read_partial(self) -> dict[int, Score]:
        """The whole lines of the file; the last one may have been cut short."""
        header, *lines = self.partial.read_bytes().splitlines(keepends=True) or [b""]
        try:
            before = Settings.model_validate_json(header)
            rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
            scores = {int(index): Score(float(jaccard), float(cosine)) for index, jaccard, cosine in rows}
        except (ValueError, TypeError) as error:
            raise SelectionError(f"{self.partial} is damaged: delete it to begin anew") from error
        self._check_same(before, self.partial)
        return scores

    def score(
        self,
        extractor: Recogniser,
        pictures: Sequence[Tensor],
        count: int,
        max_minutes: float | None,
        console: Console,
    ) -> bool:
        """Score what is missing of the first `count`; whether all are done."""
        missing = [index for index in range(count) if index not in self._scores]
        if not missing:
            return True
        started = time.monotonic()
        rows = [json.dumps([index, *score]) for index, score in self._scores.items()]
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.partial, "\n".join([self._settings.model_dump_json(), *rows, ""]).encode())
        reference = CleanReference.of(extractor, pictures)
        with progress_bar(console) as progress, self.partial.open("a", encoding="utf-8") as file:
            bar = progress.add_task("degradations", total=count, completed=count - len(missing))
            for done, index in enumerate(missing):
                if max_minutes is not None and time.monotonic() - started > max_minutes * 60:
                    kept = f"{self.partial}: {count - len(missing) + done} of {count} degradations are scored"
                    console.print(f"{kept}; the same command goes on", markup=False)
                    return False
                score = self._score_of(index, reference, extractor, pictures)
                self._scores[index] = score
                file.write(json.dumps([index, *score]) + "\n")
                file.flush()
                progress.update(bar, advance=1)
                if not console.is_terminal and (done + 1) % EVERY == 0:
                    left = (time.monotonic() - started) / (done + 1) * (len(missing) - done - 1)
                    place = count - len(missing) + done + 1
                    console.print(f"{place} of {count} degradations, {left / 60:.1f} min left", markup=False)
        return True

    def _score_of(
        self, index: int, reference: CleanReference, extractor: Recogniser, pictures: Sequence[Tensor]
    ) -> Score:
        seed = member_seed(self._settings.seed, index)
        settings = self._settings

        def degrade(x: Tensor, generator: torch.Generator) -> Tensor:
            height, width = x.shape[-2:]
            drawn = draw(settings.space, height, width, settings.scale, torch.Generator().manual_seed(seed))
            return carry_out(x, [drawn], [generator])

        found = similarity(reference, {"": extractor}, pictures, degrade, seed=seed)[""]
        return Score(float(found.jaccard.mean()), float(found.cosine.mean()))

    def selection(self, count: int, thresholds: tuple[float, float] | None) -> Selection:
        """Rank the first `count` and cut."""
        order = sorted(range(count), key=lambda i: (-self._scores[i].jaccard, -self._scores[i].cosine, i))
        ranked = [self._scores[index].jaccard for index in order]
        ends = _cut(ranked, thresholds)
        tau1, tau2 = thresholds or tuple(statistics.mean(ranked[end - 1 : end + 1]) for end in (ends[0], ends[2]))
        members = tuple(self._member(index, 1 + sum(place >= end for end in ends)) for place, index in enumerate(order))
        return Selection(settings=self._settings, tau1=tau1, tau2=tau2, ranked=members)

    def _member(self, index: int, severity: Any) -> Member:
        seed, settings = member_seed(self._settings.seed, index), self._settings
        drawn = draw(settings.space, SIDE, SIDE, settings.scale, torch.Generator().manual_seed(seed))
        return Member(
            index=index,
            seed=seed,
            description=str(drawn),
            vector=tuple(round(number, 4) for number in drawn.vector) if any(drawn.vector) else None,
            score=self._scores[index].jaccard,
            cosine=self._scores[index].cosine,
            severity=severity,
        )


def sharp_pictures(source: str | Path, count: int = IMAGES, *, split: str | None = None) -> dict[str, Tensor]:
    """Pictures to rank with, taken at even distances from a list.

    Args:
        source: Folder of pictures, or a labelled CSV (see `labelled.LabelledSet`).
        count: How many; all where there are fewer.
        split: "train", "val" or "test" of a labelled source; of a CSV "train" unless given, of a folder all pictures.

    Returns:
        By their names (3, h, w) in [0, 1].

    Raises:
        ValueError: The source is missing or holds no picture, or a chosen one cannot be decoded.
    """
    path = Path(source)
    if path.is_dir() and split is None:
        paths = list_pictures(path)
        if not paths:
            raise ValueError(f"{path} holds no picture")
        return {each.relative_to(path).as_posix(): read(each)[0] for each in _spread(paths, count)}
    labelled = LabelledSet.open(path, split=split or "train")
    pairs = list(zip(labelled.names, labelled.pictures, strict=True))
    return {name: picture.float() / 255 for name, picture in _spread(pairs, count)}


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items, at even distances."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def member_seed(seed: int, index: int) -> int:
    """The seed of the index-th degradation, 32 bits."""
    return sample_generator(seed, index).initial_seed()


def _cut(ranked: Sequence[float], thresholds: tuple[float, float] | None) -> tuple[int, int, int]:
    """Where classes 1, 2 and 3 end in scores that fall."""
    count = len(ranked)
    if thresholds is None:
        return count // 4, count // 2, count - count // 4
    mild = sum(score > thresholds[0] for score in ranked)
    severe = sum(score < thresholds[1] for score in ranked)
    return mild, (mild + count - severe) // 2, count - severe


def _check(
    space: str, scale: int, count: int, thresholds: tuple[float, float] | None, pictures: Mapping[str, Tensor]
) -> None:
    if space not in SPACES:
        raise ValueError(f"no degradation space {space!r}; there are {', '.join(SPACES)}")
    if count < 4:
        raise ValueError(f"four classes take at least 4 degradations; got {count}")
    if thresholds is not None and not 0 <= thresholds[1] <= thresholds[0] <= 1:
        raise ValueError(f"tau1 and tau2 should be within 0 to 1, tau2 the lower one; got {thresholds}")
    if scale < 1 or not pictures:
        raise ValueError(f"a ranking takes a scale of at least 1 and a picture; got {scale} and {len(pictures)}")
    for name, picture in pictures.items():
        if min(picture.shape[-2:]) < scale:
            raise ValueError(f"{name} has {min(picture.shape[-2:])} pixels a side, less than the scale {scale}")


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _summary(selection: Selection) -> str:
    parts = []
    for severity in (1, 2, 3, 4):
        with contextlib.suppress(ValueError):
            scores = [member.score for member in selection.members(severity)]
            parts.append(f"class {severity}: {len(scores)} with {statistics.mean(scores):.3f}")
    return f"tau1 {selection.tau1:.3f}, tau2 {selection.tau2:.3f}; {', '.join(parts)}"
