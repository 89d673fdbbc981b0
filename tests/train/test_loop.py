"""Runs as a whole: stopped anywhere and resumed, broken losses, several processes, and the debug recipe's curve."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.train import loop, state
from dacesr.train.config import ConfigError, load_config
from dacesr.train.learner import Learner
from dacesr.train.log import Table
from dacesr.train.loop import PATIENCE, TrainingError, describe_run, train
from dacesr.train.restorer import RestorerTask
from dacesr.train.state import saved_states
from dacesr.train.validation import Validation
from train.conftest import PLAIN, Recipe, assert_same_run, rows, tensors, write_tiny

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "dacesr.cli", "train", "restorer"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny run."""
    folder = tmp_path_factory.mktemp("whole")
    return train(load_config(write_tiny(folder, photos), [f"output={folder / 'run'}"]))


def kill_at(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int, *, after: bool = False
) -> Callable[[], None]:
    """Raise in the n-th call of a function, before or after its work; the function to call before another run."""
    original, calls = getattr(owner, name), []

    def function(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == call and not after:
            raise Killed
        result = original(*args, **options)
        if len(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, function)
    return monkeypatch.undo


def test_a_run_leaves_its_config_tables_weights_and_state(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {
        *("config.json", "log.csv", "validation.csv", "model.safetensors", "events", "images"),
        "state-00000006",
    }
    log = rows(uninterrupted / "log.csv")
    assert [row["iteration"] for row in log] == ["2", "4", "6"]
    assert list(log[0]) == [
        *("iteration", "pixel", "gan", "judge_real", "judge_fake", "lr", "gradient", "skipped"),
    ]
    scores = [(row["iteration"], row["model"], row["space"]) for row in rows(uninterrupted / "validation.csv")]
    assert scores == [
        *(("0", "bicubic", "bicubic"), ("0", "bicubic", "level1")),
        *(("3", "restorer", "bicubic"), ("3", "restorer", "level1")),
        *(("6", "restorer", "bicubic"), ("6", "restorer", "level1")),
    ]


MOMENTS = [
    *((RestorerTask, "step", call, False) for call in (1, 2, 3, 4, 6)),
    *((Learner, "update", call, True) for call in (3, 9)),  # between restorer and discriminator
    *((Table, "add", call, after) for call in (1, 2, 3) for after in (False, True)),
    *((Validation, "run", call, False) for call in (1, 2)),
    *((RestorerTask, "export", call, after) for call in (1, 2, 3) for after in (False, True)),
    *((loop, "save_state", call, after) for call in (1, 3) for after in (False, True)),
    *((state.shutil, "rmtree", call, after) for call in (1, 2, 5) for after in (False, True)),
]


@pytest.mark.parametrize(("owner", "name", "call", "after"), MOMENTS)
def test_a_run_killed_at_any_moment_ends_as_an_uninterrupted_one(
    uninterrupted: Path,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    call: int,
    after: bool,
) -> None:
    config = recipe("killed")
    undo = kill_at(monkeypatch, owner, name, call, after=after)
    with pytest.raises(Killed):
        train(config)
    undo()
    assert_same_run(uninterrupted, train(config))


def test_a_run_killed_again_and_again(uninterrupted: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("killed")
    for call in (4, 2, 3):
        undo = kill_at(monkeypatch, RestorerTask, "step", call, after=True)
        with pytest.raises(Killed):
            train(config)
        undo()
    assert_same_run(uninterrupted, train(config))


@pytest.mark.slow
def test_killed_from_outside(tiny: Path, tmp_path: Path) -> None:
    changes = ["--set", "iterations=40", "--set", "save_every=3", "--set", "validation.every=7"]
    options = [*changes, "--set", f"output={tmp_path / 'killed'}"]
    for lines, delay in ((2, 0.03), (5, 0.11), (9, 0.0)):
        process = subprocess.Popen([*COMMAND, str(tiny), *options], env=ONE_THREAD, stderr=subprocess.DEVNULL)
        log, end = tmp_path / "killed" / "log.csv", time.monotonic() + 60
        while not (log.exists() and len(log.read_text().splitlines()) > lines) and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert CliRunner().invoke(app, ["train", "restorer", str(tiny), *options]).exit_code == 0
    whole = ["train", "restorer", str(tiny), *changes, "--set", f"output={tmp_path / 'whole'}"]
    assert CliRunner().invoke(app, whole).exit_code == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_asked_to_stop_a_run_saves_and_exits(
    uninterrupted: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, step = recipe("asked"), RestorerTask.step
    for number in (signal.SIGTERM, signal.SIGINT):
        monkeypatch.setattr(RestorerTask, "step", lambda *args, n=number: (os.kill(os.getpid(), n), step(*args))[1])
        before = signal.getsignal(number)
        folder = train(config)
        assert signal.getsignal(number) is before
    assert [path.name for path in saved_states(folder)] == ["state-00000002"]
    monkeypatch.undo()
    assert_same_run(uninterrupted, train(config))


@pytest.mark.slow
def test_sigterm_from_outside(tiny: Path, tmp_path: Path) -> None:
    options = ["--set", "iterations=100000", "--set", f"output={tmp_path / 'run'}"]
    process = subprocess.Popen([*COMMAND, str(tiny), *options], env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (tmp_path / "run" / "log.csv").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    (saved,) = saved_states(tmp_path / "run")
    assert f"{int(saved.name[6:])} of 100000 iterations done" in said


def test_no_time_means_one_step_at_a_time(uninterrupted: Path, tiny: Path, tmp_path: Path) -> None:
    call = ["train", "restorer", str(tiny), "--set", f"output={tmp_path / 'run'}", "--max-minutes", "0"]
    for done in range(1, 7):
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0
        assert f"{done} of 6 iterations done" in result.stderr
        assert [path.name for path in saved_states(tmp_path / "run")] == [f"state-{done:08d}"]
    assert_same_run(uninterrupted, tmp_path / "run")
    again = CliRunner().invoke(app, call)
    assert again.exit_code == 0
    assert "6 of 6" in again.stderr
    assert_same_run(uninterrupted, tmp_path / "run")


def test_the_log_tells_the_share_of_waiting(uninterrupted: Path) -> None:
    with (uninterrupted / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert all(0 < float(row["waiting"]) < 1 for row in log)  # on the CPU crops are degraded in their step


def test_a_rate_that_ends_by_its_time_counts_the_minutes_before_a_stop(recipe: Recipe) -> None:
    changes = ["log_every=1", "optimizer.warmup=0", "optimizer.schedule_minutes=1000"]
    folder = train(recipe("run", *changes), max_minutes=0)
    facts = next(folder.glob("state-*")) / "state.json"
    content = json.loads(facts.read_text())
    assert 0 < content["facts"]["minutes"] < 1
    content["facts"]["minutes"] = 500.0
    facts.write_text(json.dumps(content))
    train(recipe("run", *changes), max_minutes=0)
    assert [float(row["lr"]) for row in rows(folder / "log.csv")] == pytest.approx([1e-3, 5e-4], rel=1e-3)


def test_what_is_compared_is_measured_once_even_if_a_model_joins(recipe: Recipe, bilinear_file: Path) -> None:
    folder = train(recipe("run", "iterations=3"))
    changes = [f'validation.compare=["{bilinear_file}"]']
    train(recipe("run", "iterations=6", *changes))
    assert [row["model"] for row in rows(folder / "validation.csv")] == [
        *("bicubic", "bicubic", "restorer", "restorer"),
        *("bilinear", "bilinear", "restorer", "restorer"),
    ]


# --- what goes wrong


def break_losses(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Make the losses of some iterations infinite."""
    step, terms, now = RestorerTask.step, RestorerTask._terms, []

    def counted_step(self: RestorerTask, iteration: int) -> object:
        now.append(iteration)
        return step(self, iteration)

    def broken_terms(self: RestorerTask, *args: torch.Tensor) -> dict[str, torch.Tensor]:
        found = terms(self, *args)
        return {name: value * torch.inf for name, value in found.items()} if now[-1] in bad else found

    monkeypatch.setattr(RestorerTask, "step", counted_step)
    monkeypatch.setattr(RestorerTask, "_terms", broken_terms)


def test_a_step_without_a_finite_loss_is_skipped_and_counted(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    break_losses(monkeypatch, {2, 3})
    folder = train(recipe("run", "save_every=1", "log_every=1"))
    log = rows(folder / "log.csv")
    assert [row["skipped"] for row in log] == ["0", "0", "1", "2", "2", "2"]
    assert [row["pixel"] == "" for row in log] == [False, False, True, True, False, False]
    assert all(tensor.isfinite().all() for tensor in tensors(folder).values())


def test_a_skipped_step_changes_no_weight(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    break_losses(monkeypatch, {2, 3})
    folder = train(recipe("run", "iterations=2"))
    before = tensors(folder)
    train(recipe("run", "iterations=4"))
    after = tensors(folder)
    learned = [name for name in before if not name.endswith((".0._u", ".0._v")) and ".pools." not in name]
    assert len(learned) > 50
    assert not [name for name in learned if not torch.equal(before[name], after[name])]


def test_a_judge_without_a_finite_loss_holds_up_both(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tensors(train(recipe("run", "iterations=1")))
    judge = RestorerTask._judge
    monkeypatch.setattr(
        RestorerTask, "_judge", lambda *args: {name: value * torch.nan for name, value in judge(*args).items()}
    )
    after = tensors(train(recipe("run", "iterations=2")))
    assert not [name for name in before if name.startswith("model.") and not torch.equal(before[name], after[name])]


def test_ten_in_a_row_end_the_run_and_keep_the_last_good_state(
    recipe: Recipe, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_losses(monkeypatch, {1, *range(3, 3 + PATIENCE)})
    config = recipe("run", "iterations=50", "save_every=1")
    with pytest.raises(
        TrainingError, match=r"not finite in 10 steps in a row, up to iteration 13: stopped; .*run keeps"
    ):
        train(config)
    assert config.output is not None
    assert [path.name for path in saved_states(Path(config.output))] == ["state-00000003"]
    call = ["train", "restorer", str(tiny), "--set", f"output={config.output}", "--set", "iterations=50"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 1
    assert "dacesr: losses were not finite in 10 steps in a row" in result.stderr
    assert "Traceback" not in result.stderr


class Late:
    """An outcome that is read when it must be."""

    def __init__(self, updated: bool) -> None:
        self.updated, self.there = updated, False

    def ready(self) -> bool:
        return self.there

    def read(self) -> tuple[dict[str, float], bool]:
        self.there = True
        return {"pixel": 1.0}, self.updated


def test_outcomes_are_waited_for_a_step_late(tmp_path: Path) -> None:
    ledger = loop._Ledger(loop.Means(), 0, tmp_path)
    late = [Late(updated) for updated in (True, False, True)]
    for done, outcome in enumerate(late, 1):
        ledger.add(outcome, done)  # type: ignore[arg-type]
    assert [outcome.there for outcome in late] == [True, True, False]
    assert (ledger.skipped, ledger.failures) == (1, 1)
    ledger.settle()
    assert (ledger.skipped, ledger.failures) == (1, 0)
    assert ledger.means.state_dict()["counts"] == {"pixel": 2}
    for done in range(4, 4 + PATIENCE):
        ledger.add(Late(False), done)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"in a row, up to iteration 13: stopped"):
        ledger.settle()


def test_a_full_disk_ends_the_run_with_a_sentence(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = state.write_whole

    def full(path: Path, content: bytes) -> None:
        if "00000004" in str(path):
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(state, "write_whole", full)
    result = CliRunner().invoke(app, ["train", "restorer", str(tiny), "--set", f"output={tmp_path / 'run'}"])
    assert result.exit_code == 1
    assert "run keeps the last saved state, and the run cannot go on" in result.stderr
    assert "No space left" in result.stderr
    assert [path.name for path in saved_states(tmp_path / "run")] == ["state-00000002"]


def test_a_damaged_state_or_another_run_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    call = ["train", "restorer", str(tiny), "--set", f"output={tmp_path / 'run'}", "--set", "iterations=2"]
    assert CliRunner().invoke(app, call).exit_code == 0
    config = (tmp_path / "run" / "config.json").read_text()
    for change in ("network.embed_dim=12", "discriminator.width=3", "data.pool=2"):
        other = CliRunner().invoke(app, [*call, "--set", change])
        assert other.exit_code == 2
        assert other.stderr.strip().endswith("run holds a run of another network or config: choose another output")
        assert (tmp_path / "run" / "config.json").read_text() == config
    os.truncate(tmp_path / "run" / "state-00000002" / "0.safetensors", 50)
    damaged = CliRunner().invoke(app, call)
    assert damaged.exit_code == 2
    assert "state-00000002 is damaged" in damaged.stderr
    assert len(damaged.stderr.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the run folder .*file/run cannot be written: Not a directory"):
        train(recipe("file/run"))


def test_a_dry_run_writes_nothing(tiny: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    call = ["train", "restorer", str(tiny), "--dry-run", "--set", f"output={tmp_path / 'run'}"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    assert sorted(tmp_path.iterdir()) == before
    for words in (
        '"embed_dim": 8',
        "restorer: ",
        "discriminator: ",
        "s per iteration",
        "GB at the most",
        "6 iterations",
    ):
        assert words in result.stdout
    assert "6 iterations: about" in describe_run(load_config(tiny, ["output=/nowhere"]), steps=1)


# --- several processes


def launch(config: Path, *options: str, **variables: str) -> str:
    """Run the command in two processes; what they said."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    call = [sys.executable, *launcher, *COMMAND[1:], str(config), *options]
    environment = {**ONE_THREAD, **variables}
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=240, check=True).stderr


@pytest.mark.slow
def test_two_processes_are_one_with_the_double_batch(tiny: Path, recipe: Recipe, tmp_path: Path) -> None:
    changes = ["data.pool=0", "log_every=1", "optimizer.clip=0.5"]
    one = train(recipe("one", "data.batch=4", *changes))
    options = [text for change in [*changes, f"output={tmp_path / 'two'}"] for text in ("--set", change)]
    launch(tiny, *options, "--max-minutes", "0")
    two = tmp_path / "two"
    assert [path.name for path in saved_states(two)] == ["state-00000001"]
    settings = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    said = launch(tiny, *options, **settings)  # the config decides, not the user's settings of accelerate
    assert said.count("6 of 6 iterations done") == 1
    assert len(list((two / "events").iterdir())) == 2  # of the main process, each time
    expected, got = rows(one / "log.csv"), rows(two / "log.csv")
    assert [row["iteration"] for row in got] == [str(i) for i in range(1, 7)]
    for a, b in zip(expected, got, strict=True):
        assert {k: float(v) for k, v in b.items()} == pytest.approx({k: float(v) for k, v in a.items()}, rel=1e-5)
    weights, others = tensors(one), tensors(two)
    assert weights.keys() == others.keys()
    for name in (name for name in weights if name.startswith(("model.", "task.restorer.net."))):
        torch.testing.assert_close(others[name], weights[name], atol=2e-5, rtol=1e-3, msg=lambda text, n=name: n + text)


@pytest.mark.slow
def test_two_processes_resume_with_pools_of_their_own(tiny: Path, tmp_path: Path) -> None:
    options = {name: ["--set", f"output={tmp_path / name}", "--set", "iterations=4"] for name in ("whole", "parts")}
    launch(tiny, *options["whole"])
    launch(tiny, *options["parts"], "--max-minutes", "0")
    launch(tiny, *options["parts"])
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    pools = [tensors(tmp_path / "whole")[f"task.pools.{rank}.0"] for rank in range(2)]
    assert not torch.equal(*pools)


# --- numbers


def test_accumulating_two_batches_is_one_of_double_size(recipe: Recipe) -> None:
    changes = [*PLAIN, "log_every=1"]
    one = train(recipe("one", *changes, "data.batch=4"))
    two = train(recipe("two", *changes, "accumulate=2"))
    for a, b in zip(rows(one / "log.csv"), rows(two / "log.csv"), strict=True):
        assert {k: float(v) for k, v in b.items()} == pytest.approx({k: float(v) for k, v in a.items()}, rel=1e-4)
    weights, others = tensors(one), tensors(two)
    for name in (name for name in weights if name.startswith("model.")):
        torch.testing.assert_close(others[name], weights[name], atol=2e-5, rtol=1e-3)


CURVE = {  # of log.csv, at iterations 2, 4 and 6
    "pixel": [0.0885041, 0.0919105, 0.0929273],
    "gan": [0.0682928, 0.068299, 0.0683223],
    "judge_real": [0.682913, 0.682983, 0.683112],
    "judge_fake": [0.703475, 0.703412, 0.703173],
    "lr": [0.00075, 0.000926777, 0.000323223],
}


def test_the_curve_of_the_debug_recipe_is_the_recorded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of these numbers is a change of training: degradation, data, networks, losses or steps."""
    monkeypatch.chdir(ROOT)
    folder = train(load_config(Path("configs/debug.toml"), ["data.drawings=0", f"output={tmp_path / 'debug'}"]))
    log = rows(folder / "log.csv")
    for name, values in CURVE.items():
        assert [float(row[name]) for row in log] == pytest.approx(values, rel=1e-4), name
