"""What a trial is, and what must hold of how it ended whatever its files hold."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.forked import Ended

MEMORY = 512 << 20  # bytes beyond an idle process that a trial may come to hold
SECONDS = 60
MOST_SAID = 6  # sentences, warnings too
LONGEST = 2000  # characters of a sentence
MARK = "executed"  # the file that hostile pickles would make
SENTENCE = "dacesr: "
RESULT = re.compile(r"\S+  \d+ x \d+ -> \d+ x \d+  [\d.]+ s")


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


def judge(trial: Trial, ended: "Ended", made: list[str], grown: int) -> tuple[str, list[str]]:
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
