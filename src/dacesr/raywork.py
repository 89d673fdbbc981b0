"""What a worker of `dacesr.distributed` is told, and does: one picture after another, in a process somewhere.

Ray starts a worker that died anew and gives its picture out again; the ledger counts how often, so that a picture which
kills its workers is given up. A worker records what it has finished (`dacesr.manifest`), and skips what it finds
recorded.
"""

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from dacesr.batch import use_threads
from dacesr.jobs import Job
from dacesr.making import Maker, Result, Sentences, Settings, attempt
from dacesr.manifest import Manifest, choices
from dacesr.memory import keep_freed_memory
from dacesr.places import Place, place_of, read_bytes, size, version, write_bytes

RETRIES = 3  # of a picture whose worker died


@dataclass(frozen=True)
class Layout:
    """Who works.

    Attributes:
        workers: How many, all machines together.
        threads: Of each.
        device: `cpu` or `cuda`.
    """

    workers: int
    threads: int
    device: str


class Worker:
    """Makes pictures in a process of its own, somewhere."""

    def __init__(self, settings: Settings, layout: Layout, folder: str, choices: dict[str, Any], ledger: Any) -> None:
        """Take what holds for the run; the model is loaded when a picture needs it.

        Args:
            settings: For the model and every picture.
            layout: Who works.
            folder: Of the manifest.
            choices: Those of `settings`, where the run was started.
            ledger: The actor.
        """
        self._settings, self._layout, self._choices, self._ledger = settings, layout, choices, ledger
        self._manifest = Manifest(place_of(folder), choices)
        self._warnings = Sentences()
        self._maker: Maker | None = None
        self._broken = ""  # why no picture can be made here

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make a picture.

        Args:
            row: From `_rows`.

        Returns:
            Its number, its result as JSON, the precision, and why no picture can be made here, if so.
        """
        use_threads(self._layout.threads)
        result = attempt(row["name"], lambda result: self._work(row, result), self._warnings)
        return {
            "number": row["number"],
            "result": json.dumps(asdict(result)),
            "precision": self._maker.upscaler.precision if self._maker else "",
            "broken": self._broken,
        }

    def _work(self, row: dict[str, Any], result: Result) -> None:
        name, source, target = row["name"], place_of(row["source"]), place_of(row["target"])
        died: Any = ray.get(self._ledger.begin.remote(row["number"]))
        if died > RETRIES:
            why = f"the processes that worked on it died, {died} of them"
            raise ValueError(f"{name} was given up: {why}; a smaller tile (-t) needs less memory")
        if died:
            self._warnings(f"{name} was begun anew: the process that worked on it died")
        if self._settings.options.skip_existing and size(target) is not None:
            result.status, result.output = "skipped", str(target)
            return
        found = version(source)
        if found is None:
            raise ValueError(f"{name} does not exist")
        done = self._manifest.find(row["source"], found, target)
        if done:
            vars(result).update(vars(done), input=name, status="skipped", warnings=[])
            return
        maker, job = self._ready(), Job[Place](source, target, row["extension"] or None)
        given = source if isinstance(source, Path) else read_bytes(source)
        encoded = maker.make(job, given, result, name=name)
        made = target.with_name(place_of(str(result.output)).name)
        if encoded is not None:
            write_bytes(made, encoded)
        self._manifest.add(row["source"], found, target, made, result)

    def _ready(self) -> Maker:
        """What makes pictures, loaded once."""
        if self._maker is None:
            try:
                keep_freed_memory()
                if choices(self._settings) != self._choices:
                    raise ValueError(f"{self._settings.model} or its extractor is another file here")
                self._maker = self._settings.load(self._layout.device, self._warnings)
            except (ValueError, OSError) as error:
                self._broken = f"the worker on {socket.gethostname()} cannot work: {error}"
                raise
        return self._maker
