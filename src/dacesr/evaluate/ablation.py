"""Train the arms of an ablation, measure them, compare them.

    OUT/SEED/start.safetensors   the weights from which all arms of a seed start
    OUT/SEED/ARM/                a training run, and scores.csv: what was measured of its weights
    OUT/scores.csv, ablation.md, .tex, .json   of all runs that are trained and measured

Every run keeps its own scores, so several commands may work on different arms at the same time.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console

from dacesr.checkpoint import KINDS, load_restorer, save_restorer
from dacesr.conditioning import Guided, find_extractor
from dacesr.config import NetworkConfig
from dacesr.device import choose_device
from dacesr.evaluate.comparison import Scores, as_json, tabulate
from dacesr.evaluate.config import START, Ablation, bare
from dacesr.evaluate.scores import Judge, Score, read_scores, write_scores
from dacesr.evaluate.tables import Table, as_latex, as_markdown, show
from dacesr.featurefile import load_lpips
from dacesr.progress import progress_bar
from dacesr.tensorfile import sha256_of, write_whole
from dacesr.train.config import ConfigError, RestorerTraining
from dacesr.train.loop import train
from dacesr.train.state import saved_states
from dacesr.weightfiles import resolve

MODEL = "model.safetensors"
SCORES = "scores.csv"
FREE = {"output", "threads", "log_every", "save_every", "validation"}  # what a finished run may have had otherwise
NOTES = """Means over all pictures of the sets. The second line is the paired difference from the first arm and its 95 %
bootstrap interval over pictures (scores averaged over the seeds), marked * where that leaves out 0. It says nothing of
other seeds: where there are several, brackets hold the lowest and highest mean, and the last line each difference.
"""


class Ablating:
    """Works through an ablation.

    Attributes:
        judge: Measures, the same pictures for all.
    """

    def __init__(self, ablation: Ablation, console: Console) -> None:
        """List the pictures and find what all arms need, so that nothing is missing after hours.

        Raises:
            ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
        """
        self._ablation, self._console, config = ablation, console, ablation.config
        self._device = choose_device()
        lpips = None
        if config.features is not None and config.lpips is not None:
            lpips = load_lpips(config.features, config.lpips)
        self.judge = Judge(
            sets=config.sets,
            spaces=config.spaces,
            scale=ablation.scale,
            device=self._device,
            limit=config.limit,
            crop=config.crop,
            network=lpips,
            warn=lambda sentence: console.print(f"dacesr: {sentence}", markup=False),
        )
        for training in ablation.runs.values():
            if training.extractor is not None:
                resolve(training.extractor)

    def run(self, arms: Sequence[str] = (), max_minutes: float | None = None) -> bool:
        """Train and measure, seed by seed; the tables are written after each run.

        Args:
            arms: Only these; all unless given.
            max_minutes: Stop and save after so long.

        Returns:
            Whether all that was asked for is done.

        Raises:
            ValueError: An unknown arm, a folder of another ablation, or something that a config names is unfit.
            TrainingError: See `train`.
        """
        ablation = self._ablation
        if unknown := [name for name in arms if name not in ablation.config.arms]:
            known = ", ".join(ablation.config.arms)
            raise ConfigError(f"{ablation.file} has no arm {', '.join(unknown)}; there are {known}")
        end = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        wanted = {key: training for key, training in ablation.runs.items() if not arms or key[1] in arms}
        for place, ((seed, arm), training) in enumerate(wanted.items(), start=1):
            self._console.print(f"seed {seed}, arm {arm} ({place} of {len(wanted)})", markup=False)
            if not self._train(training, end) or not self._measure(training, f"{seed}/{arm}", end):
                return False
            self.report()
        return True

    # --- one run

    def _train(self, training: RestorerTraining, end: float | None) -> bool:
        """Go on with a run unless it is finished; whether it is."""
        folder = _folder(training)
        if not _unchanged(training):
            raise ConfigError(f"{folder} holds a run of another config: remove it or choose another output")
        if not _finished(training) and not _over(end):
            start = folder.parent / START
            if training.init == str(start):
                _write_start(start, training)
            train(training, max_minutes=None if end is None else (end - time.monotonic()) / 60, console=self._console)
        return _finished(training)

    def _measure(self, training: RestorerTraining, name: str, end: float | None) -> bool:
        """Measure what has not been measured of a run's weights; whether all is."""
        folder, key = _folder(training), self._key(training)
        known = _known(folder, key)
        missing = [block for block in self.judge.blocks if block not in {score.block for score in known}]
        if not missing:
            return True
        if training.threads:
            torch.set_num_threads(training.threads)
        net = _guided(training).to(self._device)
        with progress_bar(self._console) as progress:
            bar = progress.add_task(f"measuring {name}", total=sum(self.judge.blocks[block] for block in missing))
            for block in missing:
                if _over(end):
                    return False
                known += self.judge.measure(net, block, lambda: progress.advance(bar))
                write_scores(folder / SCORES, (({"key": key}, score) for score in known))
        return True

    def _key(self, training: RestorerTraining) -> str:
        """Of all that decides a run's scores: the weights, and how they are measured."""
        config = self._ablation.config
        way = [sha256_of(_folder(training) / MODEL), config.limit, config.crop, config.features, config.lpips]
        return hashlib.sha256(json.dumps([*way, *self.judge.blocks.values()]).encode()).hexdigest()[:16]

    # --- all runs

    def scores(self) -> Scores:
        """Of all runs that are finished and measured, whoever did it."""
        found = {}
        for key, training in self._ablation.runs.items():
            if _finished(training) and _unchanged(training):
                measured = _known(_folder(training), self._key(training))
                known = [score for score in measured if score.block in self.judge.blocks]
                if {score.block for score in known} == set(self.judge.blocks):
                    found[key] = known
        return found

    def tables(self, scores: Scores) -> list[Table]:
        """The arms, and what the config wants to be compared, from `scores`."""
        ablation = self._ablation
        found = [_arms(ablation, scores)]
        for title, arms in ablation.tables.items():
            found += tabulate(title, scores, arms, ablation.config.spaces)
        return found

    def report(self) -> None:
        """Write the scores and the tables."""
        scores, ablation = self.scores(), self._ablation
        tables = self.tables(scores)
        rows = (({"arm": arm, "seed": seed}, score) for (seed, arm), found in scores.items() for score in found)
        write_scores(ablation.output / SCORES, rows)
        text = "\n\n".join([f"# {ablation.file.stem}", NOTES.rstrip(), *map(as_markdown, tables)])
        write_whole(ablation.output / "ablation.md", f"{text}\n".encode())
        write_whole(ablation.output / "ablation.tex", "\n\n".join(map(as_latex, tables)).encode() + b"\n")
        facts = {
            "arms": {row[0]: dict(zip(tables[0].head[1:], row[1:], strict=True)) for row in tables[0].rows},
            "tables": {title: as_json(scores, arms, ablation.config.spaces) for title, arms in ablation.tables.items()},
        }
        write_whole(ablation.output / "ablation.json", json.dumps(facts, indent=1).encode())


def run_ablation(
    ablation: Ablation,
    *,
    arms: Sequence[str] = (),
    max_minutes: float | None = None,
    table: str | None = None,
    console: Console | None = None,
) -> bool:
    """Train, measure and compare, and show the tables on standard output; see `Ablating.run`.

    Args:
        ablation: What to do.
        arms: As for `run`.
        max_minutes: As for `run`.
        table: Only the arms of this one, and only it is shown; its title up to a colon will do.
        console: For progress; standard error unless given.
    """
    title = None if table is None else ablation.title(table)
    work = Ablating(ablation, console or Console(stderr=True, highlight=False, soft_wrap=True))
    done = work.run(arms if title is None else ablation.tables[title], max_minutes)
    show([one for one in work.tables(work.scores()) if title is None or one.title.startswith(title)], NOTES)
    return done


def iterations_done(folder: Path) -> int:
    """Of a training run, as its newest state says."""
    states = saved_states(folder)
    return int(states[-1].name.removeprefix("state-")) if states else 0


def _folder(training: RestorerTraining) -> Path:
    assert training.output is not None  # load_ablation sets it
    return Path(training.output)


def _over(end: float | None) -> bool:
    return end is not None and time.monotonic() >= end


def _finished(training: RestorerTraining) -> bool:
    folder = _folder(training)
    return iterations_done(folder) >= training.iterations and (folder / MODEL).exists()


def _known(folder: Path, key: str) -> list[Score]:
    """What has been measured of a run's weights in just this way."""
    return [score for before, score in read_scores(folder / SCORES) if before.get("key") == key]


def _unchanged(training: RestorerTraining) -> bool:
    """Whether what is in a run's folder, if anything, was trained by this config."""
    folder = _folder(training)
    path = folder / "config.json"
    if not path.exists():
        return True
    try:
        earlier = RestorerTraining.model_validate_json(path.read_bytes())
    except ValidationError:
        return False
    from_start = all(Path(run.init or "").name == START for run in (earlier, training))  # the folder may have moved
    free = FREE | ({"init"} if from_start else set())
    return earlier.model_dump(exclude=free) == training.model_dump(exclude=free)


def _write_start(path: Path, training: RestorerTraining) -> None:
    """The weights that the seed draws for the network without modulation, whose layers would change the draws."""
    if path.exists():
        return
    network = bare(training.network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        net = KINDS[network.kind].network(network)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_restorer(path, net)


def _guided(training: RestorerTraining) -> Guided:
    """A run's network with the extractor it was trained with."""
    path = _folder(training) / MODEL
    net = load_restorer(path)
    takes_none = getattr(net.config, "modulation", "none") == "none"
    return Guided(net, find_extractor(path, path, net, None if takes_none else training.extractor)[0]).eval()


def _arms(ablation: Ablation, scores: Scores) -> Table:
    """What the arms are."""
    rows = []
    for arm, changes in ablation.config.arms.items():
        runs = {seed: training for (seed, name), training in ablation.runs.items() if name == arm}
        training = next(iter(runs.values()))
        seeds = [str(seed) for seed in runs if (seed, arm) in scores]
        done = sorted({iterations_done(_folder(run)) for run in runs.values()})
        iterations = " to ".join(str(count) for count in dict.fromkeys((done[0], done[-1])))
        size = f"{_parameters(training.network):,}"
        rows.append([arm, ", ".join(changes) or "as the file", size, iterations, ", ".join(seeds) or "none"])
    return Table("Arms", ["arm", "changes", "parameters", "iterations", "seeds measured"], rows, names=2)


def _parameters(network: NetworkConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in KINDS[network.kind].network(network).parameters())
