"""A trial: files in a folder of their own, a command run on them, and what must hold whatever the files hold."""

import base64
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.forked import Ended, Server
from tests.fuzz import mutators
from tests.fuzz.drawn_pictures import pictures
from tests.fuzz.drawn_weights import Weights, models, weights
from tests.fuzz.judging import SECONDS, SENTENCE, Trial, judge

from dacesr.image import ImageError, open_picture

ADDRESSES = 3 << 30  # bytes beyond the server's that a trial may ask for
SMALL = 20_000  # pixels of the pictures that are upscaled
LARGE = 1 << 24  # pixels of those that are only decoded


class Outcome(NamedTuple):
    """What came of a trial: in a word, how it ended, and what should not have been."""

    word: str
    ended: Ended
    problems: list[str]


class Bench:
    """Where trials run: a server of processes, and a folder that is emptied before each."""

    def __init__(self, server: Server, folder: Path) -> None:
        """Prepare the models that pictures are given to."""
        self._server, self._folder = server, folder / "trial"
        self._models = folder / "models"
        self._models.mkdir()
        models(self._models)
        self._idle = server.call("builtins:int", [], seconds=60, cwd=folder, temporary=folder).peak

    def run(self, trial: Trial) -> Outcome:
        """Run a trial and judge it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        temporary = self._folder / "tmp"
        temporary.mkdir(parents=True)
        shutil.copytree(self._models, self._folder / "models")
        (self._folder / "out").mkdir()
        (self._folder / "in").mkdir()
        for name, content in trial.files.items():
            (self._folder / "in" / name).write_bytes(base64.b64decode(content))
        before = self._listing()
        options = {"cwd": self._folder, "temporary": temporary, "memory": ADDRESSES}
        ended = self._server.call(trial.function, trial.arguments, seconds=SECONDS, **options)
        made = sorted(self._listing() - before)
        word, problems = judge(trial, ended, made, ended.peak - self._idle)
        problems += [problem for name in made if name.startswith("out/") for problem in self._unreadable(name)]
        return Outcome(word, ended, problems)

    def _listing(self) -> set[str]:
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self._folder)) for path in files}

    def _unreadable(self, name: str) -> list[str]:
        if name.endswith(".safetensors"):
            return []
        try:
            picture = open_picture(self._folder / name)
            picture.region(0, 0, picture.width, picture.height)
        except ImageError as error:
            return [f"an output is not whole: {error}"]
        return []


# --- what is tried


def picture_trials(random: Random) -> Iterator[Trial]:
    """Mutants of pictures without end: upscaled, or for those that may be large decoded only."""
    whole = pictures()
    others = list(whole.values())
    while True:
        name = random.choice(list(whole))
        ending = name.rpartition(".")[2]
        content = mutators.mutated(whole[name], mutators.PICTURES.get(ending), others, random)
        subject = f"in/a.{ending}"
        files = _encoded({f"a.{ending}": content})
        if random.random() < 0.15:
            yield Trial("images", name, files, [subject, LARGE], subject, [0, 1], "tests.fuzz.trials:decode")
            continue
        options = ["-n", f"models/{random.choice(('crisp', 'soft'))}.safetensors", "--max-pixels", str(SMALL)]
        options += random.choice(([], ["-t", "32", "--overlap", "8"], ["-s", "0.5"], ["--strip-metadata"], ["-s", "3"]))
        if random.random() < 0.3:
            options += ["--ext", random.choice(("png", "jpg", "webp", "tiff", "avif", "gif", "bmp", "ppm"))]
        yield Trial("images", name, files, [["upscale", subject, "-o", "out", *options]], subject, [0, 1])


def decode(path: str, max_pixels: int) -> int:
    """Decode a picture, and say as the command does what is wrong with it; the exit code."""
    try:
        picture = open_picture(Path(path), max_pixels=max_pixels)
        picture.region(0, 0, min(64, picture.width), min(64, picture.height))
    except ImageError as error:
        print(f"{SENTENCE}{error}", file=sys.stderr)
        return 1
    return 0


def weight_trials(random: Random) -> Iterator[Trial]:
    """Files of weights described, converted and used: mutants without end, among them the hostile ones as they are."""
    whole = weights()
    others = [content for one in whole.values() for content in one.files.values()]
    hostile = [(name, c) for name in whole if name.startswith("hostile.") for c in COMMANDS["restorer"]]
    random.shuffle(hostile)
    while True:
        if hostile and random.random() < 0.5:
            name, command = hostile.pop()
            yield _weight_trial(name, whole[name], whole[name].files, command)
            continue
        name = random.choice(list(whole))
        one = whole[name]
        changed = random.choice(list(one.files))
        content = mutators.mutated(one.files[changed], mutators.change_container, others, random)
        files = {**one.files, changed: content}
        yield _weight_trial(f"{name}, {changed}", one, files, random.choice(COMMANDS[one.kind]))


COMMANDS = {  # for each kind of weights; FILE stands for them
    "restorer": (
        "upscale models/photo.png -o out -n FILE",
        "models info FILE",
        "models convert FILE -o out/new.safetensors",
    ),
    "tagger": (
        "models info FILE",
        "models convert FILE -o out/new.safetensors",
        "upscale models/photo.png -o out -n models/release.safetensors --extractor FILE",
    ),
    "adapter": ("models convert in/eye.safetensors --lora FILE -o out/new.safetensors", "models info FILE"),
}


def _weight_trial(name: str, one: Weights, files: dict[str, bytes], command: str) -> Trial:
    place = "in" if one.given == "." else f"in/{one.given}"
    arguments = [place if word == "FILE" else word for word in command.split()]
    return Trial("checkpoints", name, _encoded(files), [arguments], "in", [0, 1, 2])


def _encoded(files: dict[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in files.items()}
