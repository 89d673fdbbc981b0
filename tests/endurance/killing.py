"""Kill a run at random moments, start it again, and look at what lies there each time."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from tests.forked import Ended, Server

OF_LIBRARIES = ("torchinductor_", "ray")  # folders that PyTorch and Ray keep among temporary files, one for all runs
LONGEST = 300  # seconds that a run may take


class Run(Protocol):
    """A command whose result is known.

    Attributes:
        name: What it is called.
        modules: What it imports.
    """

    name: str
    modules: tuple[str, ...]

    def prepare(self, folder: Path) -> None:
        """Write what the command needs."""

    def arguments(self, output: Path) -> list[str]:
        """The command line that makes an output folder, and goes on with one that is begun."""
        ...

    def at_death(self, whole: Path, output: Path) -> list[str]:
        """What is wrong in a folder after a death, or after the end; `whole` is that of a run that nobody killed."""
        ...

    def at_end(self, whole: Path, output: Path) -> list[str]:
        """What is wrong besides, once a run has ended."""
        ...


class Launcher(Protocol):
    """Starts commands."""

    def start(self, arguments: list[str], folder: Path) -> int:
        """Start the command; the number of its process group."""
        ...

    def wait(self, pid: int) -> Ended:
        """Wait for the end of the one that was started."""
        ...


class Forked:
    """Commands forked from a process that has imported everything."""

    def __init__(self, server: Server) -> None:
        """Take the server."""
        self._server = server

    def start(self, arguments: list[str], folder: Path) -> int:
        """Start the command; the number of its process group."""
        return self._server.start("tests.forked:command", [arguments], cwd=folder, temporary=folder / "tmp")

    def wait(self, pid: int) -> Ended:
        """Wait for the end of the one that was started."""
        return self._server.wait(pid, LONGEST)


class Separate:
    """Commands in interpreters of their own, as users start them."""

    def __init__(self) -> None:
        """None runs yet."""
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0

    def start(self, arguments: list[str], folder: Path) -> int:
        """Start the command; the number of its process group."""
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dacesr.cli", *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self._process.pid

    def wait(self, pid: int) -> Ended:
        """Wait for the end of the one that was started."""
        assert self._process
        said, errors = self._process.communicate(timeout=LONGEST)
        seconds = time.monotonic() - self._started
        return Ended(self._process.returncode, 0, seconds, False, said, errors)


@dataclass
class Figures:
    """What was done and found."""

    kills: int = 0
    runs: int = 0
    completed: int = 0
    seconds: float = 0.0
    whole_seconds: float = 0.0
    starts: list[int] = field(default_factory=list)  # runs that it took to complete, each time
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """In a sentence."""
        most = max(self.starts, default=0)
        return (
            f"{self.kills} kills in {self.runs} runs ({self.whole_seconds:.1f} s each if nobody kills), "
            f"{self.completed} completed after at most {most} starts, {self.seconds:.0f} s; "
            f"{len(self.problems)} problems"
        )


def endure(run: Run, launcher: Launcher, kills: int, random: Random, folder: Path) -> Figures:
    """Kill a run so many times, each time at a moment drawn from the time that a whole run takes.

    The same command is started until it ends; then it begins again in another folder. The last one is completed.
    """
    figures, began = Figures(), time.monotonic()
    run.prepare(folder)
    (folder / "tmp").mkdir()
    whole = folder / "whole"
    launcher.wait(launcher.start(run.arguments(whole), folder))  # the first one reads everything from the disk
    again = launcher.wait(launcher.start(run.arguments(folder / "again"), folder))
    figures.whole_seconds = again.seconds
    figures.problems += _failed(again) + run.at_death(whole, folder / "again") + run.at_end(whole, folder / "again")
    while figures.kills < kills:
        output = folder / f"killed-{figures.completed}"
        starts = 0
        while True:
            starts, figures.runs = starts + 1, figures.runs + 1
            pid = launcher.start(run.arguments(output), folder)
            if figures.kills < kills:
                time.sleep(random.uniform(0, figures.whole_seconds))
                _kill(pid)
            ended = launcher.wait(pid)
            figures.problems += run.at_death(whole, output)
            if ended.code != -signal.SIGKILL:
                break
            figures.kills += 1
        figures.problems += _failed(ended) + run.at_end(whole, output)
        figures.problems += [
            f"{path} is left" for path in (folder / "tmp").iterdir() if not path.name.startswith(OF_LIBRARIES)
        ]
        figures.completed += 1
        figures.starts.append(starts)
    figures.seconds = time.monotonic() - began
    return figures


def _failed(ended: Ended) -> list[str]:
    return [] if ended.code == 0 else [f"exit code {ended.code}: {ended.stderr[-500:]}"]


def _kill(pid: int) -> None:
    """SIGKILL to a process and all that it has started; nothing where they have ended."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def endure_in(run: Run, kills: int, seed: int, *, separate: bool) -> Figures:
    """`endure` in a temporary folder, with forked or separate processes."""
    random = Random(f"{seed} {run.name}")
    with tempfile.TemporaryDirectory(prefix="dacesr-endurance-") as name:
        folder = Path(name)
        if separate:
            return endure(run, Separate(), kills, random, folder)
        with Server(folder, run.modules) as server:
            return endure(run, Forked(server), kills, random, folder)


def hidden(folder: Path) -> list[str]:
    """Files and folders that are there under no name of their own."""
    return [f"{path} is left" for path in sorted(folder.rglob(".*"))]
