"""Many pictures on many machines: `dacesr upscale --engine ray`, by Ray Data.

Every device gets one worker, an actor of Ray that loads the model once and is given one picture at a time
(`dacesr.raywork`). Nothing but rows about pictures passes through Ray: workers read and write the files themselves.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, cast

import ray
import ray.data
import torch
from ray.exceptions import RayError

from dacesr.batch import Telling
from dacesr.jobs import STREAM, Job, JobError, plan_places
from dacesr.ledger import Ledger
from dacesr.making import Result, Settings
from dacesr.manifest import Manifest, choices
from dacesr.places import Place, place_of, walk
from dacesr.raywork import Layout, Worker

_ENVIRONMENT = {  # unless the user says otherwise; the last for what is started here
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning of what Ray is going to change
    "RAY_worker_niceness": "0",  # 15 otherwise, which starves workers on a busy machine
}


class ClusterError(RuntimeError):
    """There are no workers, or they cannot work; the sentence says why."""


def plan(
    inputs: Sequence[str], output: str, *, suffix: str, extension: str | None, recursive: bool
) -> tuple[list[Job[Place]], Place]:
    """`dacesr.jobs.plan_jobs` for paths and URLs, and the folder whose manifest records the results.

    Raises:
        JobError: As there; and for standard input and output, and what only this process can read.
        PlaceError: A place cannot be reached.
    """
    if STREAM in (*inputs, output):
        raise JobError("--engine ray takes files, folders and URLs, not standard input or output (-)")
    jobs = plan_places(inputs, output, place_of, walk, suffix=suffix, extension=extension, recursive=recursive)
    target = jobs[0].target
    assert target is not None  # only standard output has none
    whole = place_of(output)
    return jobs, target.parent if target == whole else whole


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Ray, without its chatter: a cluster, or for the time being one of this machine.

    Args:
        address: Of the cluster; RAY_ADDRESS unless given, and where neither is, there is none yet.

    Raises:
        ClusterError: The cluster does not answer, or breaks down.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = {"num_cpus": torch.get_num_threads(), "include_dashboard": False} if address == "local" else {}
    begun = not ray.is_initialized()
    with _silence():
        try:
            if begun:
                ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, **here)
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            yield
        except (ConnectionError, RayError) as error:
            raise ClusterError(f"Ray at {address}: {str(error).splitlines()[0]}") from error
        finally:
            if begun:
                ray.shutdown()


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what Ray prints of its processes: in Python on standard output, in C++ on standard error.

    What Python writes to standard error is still seen. Ray keeps all of it in its own logs, below /tmp/ray.
    """
    errors, seen = sys.stderr, os.dup(2)
    with open(os.devnull, "w") as nowhere, os.fdopen(seen, "w", buffering=1) as kept, redirect_stdout(nowhere):
        own = errors is sys.__stderr__
        sys.stderr = kept if own else errors
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(seen, 2)
            sys.stderr = errors


def lay_out(device: str, per_machine: int | None, pictures: int) -> Layout:
    """Share the cluster's devices out; called while connected.

    Every GPU gets a worker; without any, every machine gets as many as asked for, which share its cores, and a machine
    with more cores than the smallest gets more workers in proportion.

    Args:
        device: `auto`, `cpu` or `cuda`.
        per_machine: Workers on the smallest machine without GPUs; one unless given.
        pictures: How many there are.

    Raises:
        ValueError: Another device, workers given where GPUs decide, no GPU where one is wanted.
        ClusterError: No machine has a core.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"with --engine ray, --device must be auto, cpu or cuda; got {device}: Ray chooses the card")
    machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    having = [(int(m.get("CPU", 0)), int(m["GPU"])) for m in machines if int(m.get("GPU", 0))]
    if device == "cuda" and not having:
        raise ValueError("there is no GPU in this Ray cluster: --device cpu does without")
    if having and device != "cpu":
        if per_machine is not None:
            raise ValueError("-j is for machines without GPUs: with --engine ray every GPU has one worker")
        workers = min(pictures, sum(gpus for _, gpus in having))
        return Layout(workers, max(1, min(cpus // gpus for cpus, gpus in having)), "cuda")
    cores = [int(m["CPU"]) for m in machines if int(m.get("CPU", 0))]
    if not cores:
        raise ClusterError("no machine of this Ray cluster has a core to work with")
    smallest = min(cores)
    most = min(per_machine or 1, smallest, pictures)
    return Layout(min(pictures, sum(count * most // smallest for count in cores)), smallest // most, "cpu")


def run(
    jobs: Sequence[Job[Place]], folder: Place, settings: Settings, layout: Layout, telling: Telling
) -> tuple[list[Result], str]:
    """Make all pictures; called while connected.

    Args:
        jobs: From `plan`, as is the folder.
        folder: Whose manifest records the results.
        settings: For all workers.
        layout: Who works.
        telling: Tells of the pictures.

    Returns:
        The results in the order of the jobs, and the precision; empty where no picture had to be made.

    Raises:
        ClusterError: A worker cannot work.
        PlaceError: The folder cannot be written.
    """
    results: dict[int, Result] = {}
    precision = ""
    with telling.all(len(jobs)) as tell:
        for row in _rows_back(jobs, folder, settings, layout):
            if row["broken"]:
                raise ClusterError(row["broken"])
            precision = row["precision"] or precision
            job, result = jobs[row["number"]], Result(**json.loads(row["result"]))
            if result.output and job.target:
                result.output = str(job.target.with_name(place_of(result.output).name))
            results[row["number"]] = result
            tell(result)
        for number, job in enumerate(jobs):
            if number not in results:
                results[number] = Result(job.name, error=f"{job.name} was given up: the machine that had it was lost")
                tell(results[number])
    return [results[number] for number in range(len(jobs))], precision


def _rows_back(
    jobs: Sequence[Job[Place]], folder: Place, settings: Settings, layout: Layout
) -> Iterator[dict[str, Any]]:
    """What the workers give back, in whatever order they do."""
    chosen, place = choices(settings), _absolute(folder)
    Manifest(place, chosen).begin()
    ledger = ray.remote(Ledger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    told = (settings, layout, str(place), chosen, ledger)
    rows = [
        {
            "number": number,
            "name": job.name,
            "source": str(_absolute(job.source)),
            "target": str(_absolute(job.target)),
            "extension": job.extension or "",
        }
        for number, job in enumerate(jobs)
        if job.source and job.target  # they have: there are no streams
    ]
    pictures = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        cast(Any, Worker),
        fn_constructor_args=told,
        compute=ray.data.ActorPoolStrategy(size=layout.workers, max_tasks_in_flight_per_actor=1),
        num_cpus=layout.threads if layout.device == "cpu" else None,
        num_gpus=1 if layout.device == "cuda" else None,
    )
    pictures.context.enable_progress_bars = False
    pictures.context.print_on_execution_start = False
    pictures.context.max_errored_blocks = -1  # a picture that is lost is missed at the end
    yield from pictures.iter_rows()


def _absolute(place: Place) -> Place:
    """The same for a process in another folder."""
    return place.absolute() if isinstance(place, Path) else place
