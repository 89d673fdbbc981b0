"""Ray: two workers on this machine, one of them killed; restarts; bad pictures; URLs; calls that cannot be meant."""

import json
import os
import signal
import time
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.jobs import JobError
from dacesr.making import Options, Settings
from dacesr.manifest import FOLDER, choices
from dacesr.places import Url

ray = pytest.importorskip("ray")

from dacesr import distributed  # noqa: E402  (needs Ray)
from dacesr.distributed import lay_out, plan  # noqa: E402
from dacesr.raywork import RETRIES, Layout, Worker  # noqa: E402

OPTIONS = Options(tile=32, overlap=8)


def noise(path, size=(24, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def call(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def pictures_in(folder):
    """Names and bytes of what a user sees in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != FOLDER}


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine, as if it had two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_worker_niceness", "0")  # 15 unless told otherwise, which starves them on a busy machine
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
        yield
        ray.shutdown()


# --- whole runs


def children(pid):
    """Processes below a process: their numbers and command lines."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: lines[child] for child in below - {pid}}


def ticks(pid):
    """Processor time that a process has had, in hundredths of a second."""
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def kill_a_busy_worker(out, stop, killed):
    """Once a picture is there, kill a worker that computes."""
    while not stop.is_set():
        if not list(out.glob("*.png")):
            time.sleep(0.02)
            continue
        workers = [pid for pid, line in children(os.getpid()).items() if line.startswith("ray::MapWorker")]
        before = {pid: ticks(pid) for pid in workers}
        time.sleep(0.1)
        for pid in workers:
            if ticks(pid) - before[pid] >= 3:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                return


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_a_restart_does_nothing_twice(cluster, bilinear_file, tmp_path):
    for i in range(6):
        noise(tmp_path / f"in/{i}.png", size=(300, 200), seed=i)
    (tmp_path / "in/bad.png").write_text("this is no picture\n")
    common = ("upscale", tmp_path / "in", "-n", bilinear_file, "-t", "32", "--precision", "fp32")
    out, stop, killed = tmp_path / "out", Event(), []
    killer = Thread(target=kill_a_busy_worker, args=(out, stop, killed))
    killer.start()
    first = call(*common, "-o", out, "--engine", "ray", "-j", "2", "--device", "cpu", "--json")
    stop.set()
    killer.join()
    assert killed, first.output
    assert first.exit_code == 1, first.output
    report = json.loads(first.stdout)
    assert (report["engine"], report["workers"], report["device"]) == ("ray", 2, "cpu")
    assert [result["input"] for result in report["results"]] == [str(p) for p in sorted((tmp_path / "in").iterdir())]
    assert [result["status"] for result in report["results"]] == ["done"] * 6 + ["failed"]
    assert report["results"][6]["error"] in first.stderr
    assert "bad.png is not a picture" in first.stderr
    assert any("begun anew" in said for result in report["results"] for said in result["warnings"])
    assert "Traceback" not in first.stderr

    torch.set_num_threads(2)  # shared by two workers, as there: with other shares PyTorch rounds otherwise
    assert call(*common, "-o", tmp_path / "here", "--device", "cpu", "-j", "2").exit_code == 1
    assert pictures_in(out) == pictures_in(tmp_path / "here")
    assert len(list(out.glob(f"{FOLDER}/*/*.json"))) == 6

    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != "choices.json"}
    (out / "5_x4.png").unlink()
    noise(tmp_path / "in/4.png", size=(50, 40), seed=9)
    again = json.loads(call(*common, "-o", out, "--engine", "ray", "--device", "cpu", "--json").stdout)
    assert [result["status"] for result in again["results"]] == ["skipped"] * 4 + ["done"] * 2 + ["failed"]
    assert again["results"][0]["output_size"] == [1200, 800]
    assert again["results"][0]["output"] == str(out / "0_x4.png")
    for number in range(4):
        assert (out / f"{number}_x4.png").stat().st_mtime_ns == times[out / f"{number}_x4.png"]


# --- a worker


def worker(weights, folder, *, begun=0, **changed):
    """A worker in this process, whose ledger says that each picture was begun so often."""
    settings = Settings(
        model=str(weights), precision="fp32", strength=None, extractor=None, tags=False, options=OPTIONS, **changed
    )
    ledger = SimpleNamespace(begin=SimpleNamespace(remote=lambda number: ray.put(begun)))
    return Worker(settings, Layout(1, 1, "cpu"), str(folder), choices(settings), ledger)


def row(source, target, extension=""):
    return {"number": 0, "name": str(source), "source": str(source), "target": str(target), "extension": extension}


def said(row):
    return json.loads(row["result"])


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_a_worker_reads_and_writes_urls(cluster, bilinear_file, tmp_path, memory):
    memory.pipe_file("/in/a.v2", noise(tmp_path / "a.png").read_bytes())
    made = row(Url("memory:///in/a.v2"), Url("memory:///out/a.v2_x4"))
    work = worker(bilinear_file, "memory:///out")
    assert said(work(made))["status"] == "done"
    (tmp_path / "b.png").write_bytes(memory.cat_file("/out/a.v2_x4.png"))
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (96, 64)
    at = memory.info("/out/a.v2_x4.png")["created"]
    again = said(work(made))
    assert (again["status"], again["output"]) == ("skipped", "memory:///out/a.v2_x4.png")
    assert memory.info("/out/a.v2_x4.png")["created"] == at
    missing = said(work(row(Url("memory:///in/none.png"), Url("memory:///out/none_x4.png"))))
    assert missing["error"] == "memory:///in/none.png does not exist"


def test_what_decides_the_output_decides_whether_it_is_skipped(cluster, bilinear_file, tmp_path):
    made = row(noise(tmp_path / "a.png"), tmp_path / "out/a_x4.png")
    assert said(worker(bilinear_file, tmp_path / "out")(made))["status"] == "done"
    assert said(worker(bilinear_file, tmp_path / "out")(made))["status"] == "skipped"
    (record,) = (tmp_path / "out").glob(f"{FOLDER}/*/*.json")
    bilinear_file.write_bytes(bilinear_file.read_bytes() + b" ")  # another file; what is at its end is not read
    assert said(worker(bilinear_file, tmp_path / "out")(made))["status"] != "skipped"
    record.write_bytes(b"{")
    assert said(worker(bilinear_file, tmp_path / "out")(made))["status"] != "skipped"


def test_a_picture_that_kills_its_workers_is_given_up(cluster, bilinear_file, tmp_path):
    made = row(noise(tmp_path / "a.png"), tmp_path / "out/a_x4.png")
    tried = said(worker(bilinear_file, tmp_path / "out", begun=RETRIES)(made))
    assert (tried["status"], len(tried["warnings"])) == ("done", 1)
    given_up = said(worker(bilinear_file, tmp_path / "other", begun=RETRIES + 1)(made))
    assert "was given up: the processes that worked on it died, 4 of them" in given_up["error"]
    assert not (tmp_path / "other").exists()


def test_a_worker_without_the_same_weights_says_so(cluster, bilinear_file, tmp_path):
    work = worker(bilinear_file, tmp_path / "out")
    bilinear_file.write_bytes(b"other")
    answer = work(row(noise(tmp_path / "a.png"), tmp_path / "out/a_x4.png"))
    assert "cannot work" in answer["broken"]
    assert "is another file here" in answer["broken"]


# --- planning


def test_urls_are_planned_as_paths_are(memory):
    for name in ("a.png", "notes.txt", ".hidden.png", "sub/b.webp", "out/c_x4.png"):
        memory.pipe_file(f"/in/{name}", b"x")
    jobs, folder = plan(["memory://in"], "memory://in/out", suffix="_big", extension="png", recursive=True)
    assert [(str(job.source), str(job.target)) for job in jobs] == [
        ("memory:///in/a.png", "memory:///in/out/a_big.png"),
        ("memory:///in/sub/b.webp", "memory:///in/out/sub/b_big.png"),
    ]
    assert str(folder) == "memory:///in/out"


def test_paths_and_urls_may_be_mixed_and_file_urls_are_paths(tmp_path, memory):
    noise(tmp_path / "in/a.png")
    jobs, folder = plan([f"file://{tmp_path}/in"], "memory://out", suffix="_x4", extension=None, recursive=False)
    assert [(job.source, str(job.target)) for job in jobs] == [(tmp_path / "in/a.png", "memory:///out/a_x4.png")]
    jobs, folder = plan([str(tmp_path / "in/a.png")], f"{tmp_path}/b.jpg", suffix="", extension=None, recursive=False)
    assert (jobs[0].target, jobs[0].extension, folder) == (tmp_path / "b.jpg", ".jpg", tmp_path)


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        (["-"], "out", "not standard input or output"),
        (["memory://1/a.png", "memory://2/a.png"], "memory://out", "would both become memory:///out/a.png"),
        (["memory://1/a.png"], "memory://1", "is an input and would be overwritten"),
        (["memory://1"], "memory://1", "input and output at once"),
        (["memory://nothing/"], "memory://out/", "no picture"),
        (["xyz://bucket"], "out", "xyz://bucket cannot be reached: Protocol not known: xyz"),
    ],
)
def test_calls_that_cannot_be_meant(memory, inputs, output, words):
    for folder in ("1", "2"):
        memory.pipe_file(f"/{folder}/a.png", b"x")
    memory.makedirs("/nothing")
    with pytest.raises((JobError, ValueError), match=words):
        plan(inputs, output, suffix="", extension=None, recursive=False)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--ray-address", "x:1"), "--ray-address is for --engine ray"),
        (("s3://bucket/a.png",), "s3://bucket/a.png is a URL: --engine ray reads"),
        (("--engine", "ray", "--strength", "0.5"), "has one set of weights"),
        (("--engine", "ray", "--device", "cuda:1"), "must be auto, cpu or cuda"),
        (("--engine", "ray", "--device", "cuda"), "no GPU in this Ray cluster"),
    ],
)
def test_wrong_calls_exit_with_2(cluster, bilinear_file, tmp_path, args, words):
    result = call("upscale", noise(tmp_path / "a.png"), "-o", tmp_path / "out", "-n", bilinear_file, *args)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_ray_one_sentence_says_what_to_install(bilinear_file, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = call("upscale", noise(tmp_path / "a.png"), "-o", tmp_path / "out", "-n", bilinear_file, "--engine", "ray")
    assert (result.exit_code, 'pip install "dacesr[ray]"' in result.stderr) == (2, True)


# --- who works


def machine(cpus, gpus=0):
    return {"Alive": True, "Resources": {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}}


@pytest.mark.parametrize(
    ("machines", "call", "layout"),
    [
        ([machine(2)], ("auto", None, 9), Layout(1, 2, "cpu")),
        ([machine(2)], ("auto", 4, 9), Layout(2, 1, "cpu")),
        ([machine(16)], ("cpu", 6, 99), Layout(6, 2, "cpu")),
        ([machine(16)], ("cpu", 6, 3), Layout(3, 5, "cpu")),
        ([machine(4), machine(16), machine(0)], ("auto", 2, 99), Layout(10, 2, "cpu")),
        ([machine(16, 2), machine(8, 1), machine(4)], ("auto", None, 99), Layout(3, 8, "cuda")),
        ([machine(16, 2)], ("cpu", 4, 99), Layout(4, 4, "cpu")),
    ],
)
def test_every_device_gets_a_worker_and_no_core_two(monkeypatch, machines, call, layout):
    monkeypatch.setattr(distributed.ray, "nodes", lambda: machines)
    assert lay_out(*call) == layout
    if layout.device == "cpu":
        assert layout.workers * layout.threads <= sum(m["Resources"]["CPU"] for m in machines)


def test_workers_are_not_for_gpus(monkeypatch):
    monkeypatch.setattr(distributed.ray, "nodes", lambda: [machine(8, 1)])
    with pytest.raises(ValueError, match="every GPU has one worker"):
        lay_out("auto", 2, 5)
