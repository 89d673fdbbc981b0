"""The training loop: set up, resume, then step, log, validate, save, until it is done or told to stop.

Everything random in a step is a function of (seed, iteration), so a run that was killed goes on from its last saved
state and ends as if nothing had happened, bit for bit on the CPU.
"""

import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from dacesr.device import choose_device
from dacesr.progress import progress_bar
from dacesr.tensorfile import write_whole
from dacesr.train.config import ConfigError
from dacesr.train.log import Means, Record
from dacesr.train.state import load_state, pack, remove_older, save_state, unpack
from dacesr.train.task import Outcome, Task
from dacesr.train.tasks import Training, make_task

PATIENCE = 10  # steps in a row without finite losses, after which a run stops


class TrainingError(RuntimeError):
    """The run cannot go on; the sentence says why and what is kept."""


class _Ledger:
    """What the steps came to: means for the log, those skipped so far, and failures in a row.

    The last outcome may still be on its way from the device until it is settled.
    """

    def __init__(self, means: Means, skipped: int, folder: Path) -> None:
        self.means, self.skipped, self.failures = means, skipped, 0
        self._folder = folder
        self._open: deque[tuple[int, Outcome]] = deque()

    def add(self, outcome: Outcome, done: int) -> None:
        """Take the outcome of the step after which so many are done; errors as for `settle`."""
        self._open.append((done, outcome))
        while self._open and (len(self._open) > 1 or self._open[0][1].ready()):
            self._enter(*self._open.popleft())

    def settle(self) -> None:
        """Wait for what is open.

        Raises:
            TrainingError: Losses were not finite for too long.
        """
        while self._open:
            self._enter(*self._open.popleft())

    def _enter(self, done: int, outcome: Outcome) -> None:
        terms, updated = outcome.read()
        self.failures = 0 if updated else self.failures + 1
        self.skipped += not updated
        if self.failures == PATIENCE:
            raise TrainingError(
                f"losses were not finite in {PATIENCE} steps in a row, up to iteration {done}: stopped; "
                f"{self._folder} keeps the last good state"
            )
        if updated:
            self.means.add(terms)


def train(
    config: Training,
    *,
    max_minutes: float | None = None,
    console: Console | None = None,
) -> Path:
    """Train until all iterations are done, the time is up, or the process is asked to stop (Ctrl-C, SIGTERM).

    Args:
        config: The run. Its folder gets config.json, state-*, model.safetensors, log.csv, validation.csv, images and
            events.
        max_minutes: Stop and save after so long.
        console: Where progress goes; standard error unless given.

    Returns:
        The run folder.

    Raises:
        ValueError: Something that the config names is missing or unfit.
        TrainingError: Losses were not finite for ten steps in a row, or the folder cannot be written any more; the last
            good state is kept.
    """
    started = time.monotonic()
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    accelerator = _accelerator(config)
    task = make_task(config, accelerator, lambda sentence: console.print(f"dacesr: {sentence}", markup=False))
    assert config.output is not None  # load_config sets it
    folder, main = Path(config.output), accelerator.is_main_process
    begin, means, skipped, minutes = _resume(task, folder)
    ledger = _Ledger(means, skipped, folder)
    spent = _clock(started - minutes * 60, task, accelerator)
    if main:
        _write_config(config, folder)
        remove_older(folder)
    record = Record(folder, until=begin) if main else None
    last_log = time.monotonic(), begin
    task.start(begin)
    done = begin
    with progress_bar(console, shown=main) as progress, _stop_requests(accelerator) as stop_wanted:
        bar = progress.add_task("training", total=config.iterations, completed=begin)
        try:
            for iteration in range(begin, config.iterations):
                ledger.add(_step(task, config, iteration, spent()), iteration + 1)
                done, last = iteration + 1, iteration + 1 == config.iterations
                progress.update(bar, completed=done)
                if record and done % config.log_every == 0:
                    ledger.settle()
                    seconds = time.monotonic() - last_log[0]
                    speed = seconds / (done - last_log[1])
                    last_log = (time.monotonic(), done)
                    values = {**ledger.means.take(), "skipped": float(ledger.skipped)}
                    values["waiting"] = min(1.0, task.waited() / seconds)
                    record.step(done, {**values, "seconds": speed})
                    progress.update(bar, description=_say(progress, config, done, values, speed))
                if record and (done % config.validation.every == 0 or last):
                    rows = task.validate(done, folder, record.measured)
                    record.scores(rows)
                    _print_scores(progress, rows)
                over = max_minutes is not None and time.monotonic() - started > max_minutes * 60
                stop = stop_wanted(over)
                if last or stop or done % config.save_every == 0:
                    ledger.settle()
                    if last or ledger.failures == 0:
                        _save(task, folder, done, ledger, spent(), accelerator)
                if stop:
                    break
        except OSError as error:
            raise TrainingError(f"{folder} keeps the last saved state, and the run cannot go on: {error}") from error
        finally:
            task.close()
            if record:
                record.close()
    if main:
        console.print(f"{folder}: {done} of {config.iterations} iterations done", markup=False)
    accelerator.end_training()
    return folder


def describe_run(config: Training, *, steps: int = 5) -> str:
    """The resolved config, and what the run would take by a few real steps, as text; nothing is written.

    Raises:
        ValueError: Something that the config names is missing or unfit.
    """
    accelerator = _accelerator(config)
    task = make_task(config, accelerator, lambda sentence: None)
    task.start(0)
    times = []
    try:
        for iteration in range(min(steps + 2, config.iterations)):
            start = time.monotonic()
            _step(task, config, iteration, 0.0).read()
            times.append(time.monotonic() - start)
    finally:
        task.close()
    seconds = statistics.median(times)
    lines = [config.model_dump_json(indent=2)]
    for name, learner in task.learners.items():
        lines.append(f"{name}: {sum(p.numel() for p in learner.net.parameters()):,} parameters")
    lines.append(f"on {accelerator.device}: {seconds:.3f} s per iteration, {_peak_memory(accelerator.device)}")
    lines.append(f"{config.iterations} iterations: about {seconds * config.iterations / 3600:.2f} hours")
    return "\n".join(lines)


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    elif sys.platform == "win32":
        return "memory unknown"
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return f"{peak / 2**30:.2f} GB at the most"


def _accelerator(config: Training) -> Accelerator:
    """Finds the other processes; all else is decided by the config, whatever the user's settings of accelerate say."""
    buffers_stay = DistributedDataParallelKwargs(broadcast_buffers=False)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=3))  # while the main process validates
    accelerator = Accelerator(
        cpu=choose_device().type == "cpu", mixed_precision="no", kwargs_handlers=[buffers_stay, patience]
    )
    if config.threads:
        torch.set_num_threads(config.threads)
    return accelerator


def _clock(start: float, task: Task, accelerator: Accelerator) -> Callable[[], float]:
    """What tells the minutes since a moment; alike in all processes where a learning rate depends on it."""
    shared = accelerator.num_processes > 1 and any(learner.timed for learner in task.learners.values())

    def minutes() -> float:
        passed = (time.monotonic() - start) / 60
        if shared:
            passed = cast(Tensor, accelerator.reduce(torch.tensor(passed, device=accelerator.device), "mean")).item()
        return passed

    return minutes


def _step(task: Task, config: Training, iteration: int, minutes: float) -> Outcome:
    """A step in which even random numbers of PyTorch's own are a function of (seed, iteration)."""
    for learner in task.learners.values():
        learner.minutes = minutes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + iteration)
        return task.step(iteration)


# --- the run folder


def _write_config(config: Training, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.json", config.model_dump_json(indent=2).encode())
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be written: {error.strerror or error}") from error


def _resume(task: Task, folder: Path) -> tuple[int, Means, int, float]:
    """Iterations done, running means, steps skipped and minutes spent so far."""
    found = load_state(folder)
    if found is None:
        return 0, Means(), 0, 0.0
    iteration, tensors, facts = found
    try:
        task.load_state_dict(unpack(facts["task"], tensors))
        return iteration, Means(**facts["means"]), facts["skipped"], facts.get("minutes", 0.0)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} holds a run of another network or config: choose another output") from error


def _save(task: Task, folder: Path, iteration: int, ledger: _Ledger, minutes: float, accelerator: Accelerator) -> None:
    """Write the weights, then the state: a run that is killed in between repeats some steps and writes both again."""
    state = task.state_dict()  # in all processes: it gathers
    if accelerator.is_main_process:
        task.export(folder, iteration)
        tensors: dict[str, torch.Tensor] = {}
        packed = pack("task", state, tensors)
        facts = {"means": ledger.means.state_dict(), "skipped": ledger.skipped, "minutes": minutes}
        save_state(folder, iteration, tensors, {"task": packed, **facts})
    accelerator.wait_for_everyone()


# --- the outside world


@contextmanager
def _stop_requests(accelerator: Accelerator) -> Iterator[Callable[[bool], bool]]:
    """A function that says, alike in all processes, whether one of them was asked to stop or wants to."""
    asked = threading.Event()
    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            earlier[number] = signal.signal(number, lambda *_: asked.set())

    def wanted(over: bool) -> bool:
        stop = over or asked.is_set()
        if accelerator.num_processes > 1:
            stop = bool(accelerator.reduce(torch.tensor(float(stop), device=accelerator.device)))
        return stop

    try:
        yield wanted
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _say(progress: Progress, config: Training, done: int, values: dict[str, float], speed: float) -> str:
    """Print a line of the log where there is no bar; the bar's text."""
    text = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "skipped" or value)
    line = f"{done} of {config.iterations}: {text}, {1 / speed:.2f} it/s"
    if not progress.console.is_terminal:
        left = (config.iterations - done) * speed
        progress.console.print(f"{line}, {left / 3600:.1f} h left", markup=False)
    return line


def _print_scores(progress: Progress, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in row.items() if isinstance(value, float))
        progress.console.print(f"  {row['model']} on {row['space']}: {scores}", markup=False)
