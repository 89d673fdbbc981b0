"""Runs of the command line by the hundred: a server that has imported everything once forks a process for each.

The forked process has its own process group, streams, folder for temporary files and memory limit.
`python -m tests.forked` is the server; `Server` starts one and talks to it in lines of JSON.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

ROOT = Path(__file__).resolve().parent.parent
MODULES = (  # what a run needs, so that no run pays for the import
    *("dacesr.cli", "dacesr.batch", "dacesr.checkpoint", "dacesr.inference", "dacesr.jobs", "dacesr.memory"),
    *(
        "dacesr.nets.scan_native",
        "dacesr.nets.conv_native",
        "torch._dynamo",
        "torch._inductor",
        "rich._emoji_codes",
    ),
    *("PIL.BmpImagePlugin", "PIL.TiffImagePlugin"),
)


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; minus the number of the signal that ended it.
        peak: Its largest resident size in bytes; what it shares with the server counts once it is touched.
        seconds: How long it ran.
        timed_out: Whether it was killed for taking too long.
        stdout, stderr: What it said.
    """

    code: int
    peak: int
    seconds: float
    timed_out: bool
    stdout: str
    stderr: str


class Server:
    """A server process with one forked process at a time."""

    def __init__(self, folder: Path, modules: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            folder: For the streams of the processes.
            modules: To be imported beside those of an upscale.
        """
        self._streams = [folder / "stdout", folder / "stderr"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "2000"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", *modules],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read(120)

    def __enter__(self) -> "Server":
        """The server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def start(
        self,
        function: str,
        arguments: Sequence[Any],
        *,
        cwd: Path,
        temporary: Path,
        memory: int | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> int:
        """Fork a process that calls a function; its number.

        Args:
            function: `module:name`, called as name(*arguments); what it returns is the exit code.
            arguments: That JSON can hold.
            cwd: Its folder.
            temporary: Its folder for temporary files.
            memory: Bytes of address space it may take beyond what the server has.
            variables: Of its environment.
        """
        assert self._process.stdin
        request = {
            "function": function,
            "arguments": list(arguments),
            "cwd": str(cwd),
            "temporary": str(temporary),
            "memory": memory,
            "variables": dict(variables or {}),
            "streams": [str(path) for path in self._streams],
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read(60)["pid"]

    def wait(self, pid: int, seconds: float) -> Ended:
        """Wait for the process to end; after so many seconds it is killed, and all that it has started."""
        ended = self._read(seconds, kill=pid)
        streams = (path.read_text(errors="replace") for path in self._streams)
        return Ended(ended["code"], ended["peak"], ended["seconds"], ended["timed_out"], *streams)

    def call(self, function: str, arguments: Sequence[Any], *, seconds: float, **options: Any) -> Ended:
        """`start` and `wait`."""
        return self.wait(self.start(function, arguments, **options), seconds)

    def upscale(self, arguments: Sequence[str], *, seconds: float, **options: Any) -> Ended:
        """Run the command line with arguments."""
        return self.call("tests.forked:command", [list(arguments)], seconds=seconds, **options)

    def _read(self, seconds: float, kill: int | None = None) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream
        timed_out = False
        if not select.select([stream], [], [], seconds)[0]:
            if kill is None:
                raise TimeoutError("the server of forked processes does not answer")
            os.killpg(kill, signal.SIGKILL)
            timed_out = True
        line = stream.readline()
        if not line:
            raise RuntimeError("the server of forked processes has ended")
        return {**json.loads(line), "timed_out": timed_out}


def command(arguments: list[str]) -> int:
    """The `dacesr` command, as its entry point runs it."""
    from dacesr.cli import main

    sys.argv = ["dacesr", *arguments]
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    return 0


# --- the server


def serve(modules: Sequence[str]) -> None:
    """Fork a process for every line of standard input until there is none, and report how each ended."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        _serve(modules, answers)


def _serve(modules: Sequence[str], answers: TextIO) -> None:
    for module in (*MODULES, *modules):
        importlib.import_module(module)
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    _say(answers, {})
    for line in sys.stdin:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            answers.close()
            _become(json.loads(line))
        with contextlib.suppress(OSError):  # the process does it too: whoever is first
            os.setpgid(pid, pid)
        _say(answers, {"pid": pid})
        _, status, usage = os.wait4(pid, 0)
        code, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10
        _say(answers, {"code": code, "peak": peak, "seconds": time.monotonic() - started})


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _become(request: dict[str, Any]) -> NoReturn:
    """Turn the forked process into the one that is asked for, and end it."""
    os.setpgid(0, 0)
    for number, path in enumerate(request["streams"], start=1):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.environ.update({**request["variables"], "TMPDIR": request["temporary"]})
    tempfile.tempdir = None
    os.chdir(request["cwd"])
    if request["memory"] is not None:
        limit = _status("VmSize") + request["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os._exit(_end_of(request["function"], request["arguments"]))


def _end_of(function: str, arguments: list[Any]) -> int:
    """Call a function, end threads, and do what was left for the exit; taking modules apart is spared."""
    code = 1
    try:
        module, _, name = function.partition(":")
        code = getattr(importlib.import_module(module), name)(*arguments)
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _status(field: str) -> int:
    """A size from /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    serve(sys.argv[1:])
    os._exit(0)
