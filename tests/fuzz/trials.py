"""A trial: files in a folder of their own, a command run on them, and what must hold whatever the files hold."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.forked import Ended, Server
from tests.fuzz import mutators
from tests.fuzz.drawn_pictures import pictures
from tests.fuzz.drawn_weights import Weights, models, weights

from dacesr.image import ImageError, open_picture

MEMORY = 512 << 20  # bytes beyond an idle process that a trial may come to hold
ADDRESSES = 3 << 30  # bytes beyond the server's that it may ask for
SECONDS = 60
MOST_SAID = 6  # sentences, warnings too
LONGEST = 2000  # characters of a sentence
MARK = "executed"  # the file that hostile pickles would make
SENTENCE = "dacesr: "
RESULT = re.compile(r"\S+  \d+ x \d+ -> \d+ x \d+  [\d.]+ s")
SMALL = 20_000  # pixels of the pictures that are upscaled
LARGE = 1 << 24  # pixels of those that are only decoded


@dataclass
class Trial:
    """Files and what is done with them; all of it goes through JSON.

    Attributes:
        target: What kind of trial it is.
        name: Of the whole file that it was made from, and what was done to it.
        files: Name in the folder -> content in base 64.
        arguments: Of the command, or of `function`.
        subject: The file that an error must name.
        codes: Exit codes that are right.
        function: What runs.
    """

    target: str
    name: str
    files: dict[str, str]
    arguments: list[Any]
    subject: str
    codes: list[int]
    function: str = "tests.forked:command"
    problems: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it for `load`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> "Trial":
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))


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


def judge(trial: Trial, ended: Ended, made: list[str], grown: int) -> tuple[str, list[str]]:
    """What came of a trial in a word, and what should not have been.

    Args:
        trial: What ran.
        ended: How it ended.
        made: Files that are there now and were not.
        grown: Bytes that the process came to hold beyond an idle one.
    """
    problems = []
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(SENTENCE)]
    if ended.timed_out:
        problems.append(f"it took more than {SECONDS} seconds")
    elif ended.code < 0:
        problems.append(f"signal {-ended.code} ended it")
    elif ended.code not in trial.codes:
        problems.append(f"its exit code is {ended.code}, not one of {trial.codes}")
    if "Traceback" in ended.stderr or "should not happen" in ended.stderr:
        problems.append("an error was not foreseen")
    if noise := [line for line in lines if line not in said and not RESULT.fullmatch(line)]:
        problems.append(f"it says what no user should see: {noise[0][:200]}")
    if len(set(lines)) < len(lines):
        problems.append("it says something twice")
    if any(len(line) > LONGEST for line in lines):
        problems.append(f"a sentence has {max(map(len, lines))} characters")
    if any(not character.isprintable() and character not in "\n\t" for character in ended.stderr + ended.stdout):
        problems.append("it writes control characters to the terminal")
    if ended.code > 0 and not any(trial.subject in line for line in said):
        problems.append(f"no sentence names {trial.subject}")
    if len(said) > MOST_SAID:
        problems.append(f"it says {len(said)} sentences")
    outputs = [name for name in made if name.startswith("out/")]
    if left := [name for name in made if name not in outputs]:
        problems.append(f"it leaves {', '.join(left)}" + (" (code was run!)" if MARK in left else ""))
    writes = trial.arguments[:1] != [["models", "info"]] and "out" in str(trial.arguments)
    if writes and len(outputs) != (ended.code == 0):
        problems.append(f"its exit code is {ended.code}, and {len(outputs)} files are written")
    if grown > MEMORY:
        problems.append(f"it came to hold {grown >> 20} MiB")
    word = "done" if ended.code == 0 else _reason(said[0] if said else "")
    return word, problems


def _reason(sentence: str) -> str:
    """The kind of a refusal."""
    kinds = ("damaged", "not a picture", "cannot be read", "empty", "more than the limit", "too little memory")
    kinds += ("does not fit", "seems to hold", "holds", "not a checkpoint", "is not", "numbers")
    return next((kind for kind in kinds if kind in sentence), "another refusal")


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
    """Files of weights described, converted and used: the hostile ones as they are, then mutants without end."""
    whole = weights()
    others = [content for one in whole.values() for content in one.files.values()]
    for name, one in whole.items():
        if name.startswith("hostile."):
            for command in COMMANDS["restorer"]:
                yield _weight_trial(name, one, one.files, command)
    while True:
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
