"""Many clients at one server: is every answer whole and the client's own, does memory stay flat, is nothing left?

    python benchmarks/server_load.py [--clients 32] [--minutes 2] [--queue 16] [--json FILE] [--markdown FILE]

Starts `dacesr serve` with a tiny network and the bundled `light`. Every client has pictures of its own, of random
sizes, whose enlargements are computed beforehand; it sends them both ways that there are, and now and then hangs up.
An answer counts as good if it decodes to exactly those pixels. Exit code 1 if one is not, or anything is left behind.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import machine
import numpy as np
import torch
from PIL import Image

from dacesr import Upscaler
from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer, RestorerConfig

LEAVING = 0.1  # of the requests
SIDES = 16, 96  # of the pictures, in pixels


@dataclass(frozen=True)
class Sample:
    """A picture, the model that it is for, and what must come of it."""

    model: str
    png: bytes
    expected: np.ndarray


@dataclass
class Tally:
    """What the clients met."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def tiny_weights(path: Path) -> Path:
    torch.manual_seed(3)
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear")
    save_restorer(path, Restorer(config).eval())
    return path


def samples(upscalers: dict[str, Upscaler], clients: int) -> list[list[Sample]]:
    """For each client a picture a model, no two alike."""
    made = []
    for number in range(clients):
        rng = np.random.default_rng(number)
        own = []
        for model, up in upscalers.items():
            height, width = rng.integers(*SIDES, 2, endpoint=True)
            image = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
            file = io.BytesIO()
            image.save(file, "png")
            own.append(Sample(model, file.getvalue(), np.asarray(up(image))))
        made.append(own)
    return made


def run_clients(address: str, pictures: list[list[Sample]], seconds: float) -> Tally:
    """As many clients at once as there are lists of pictures, for so long."""
    tally, counting, end = Tally(), threading.Lock(), time.monotonic() + seconds

    def live(number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as client:
            while time.monotonic() < end:
                sample = draw.choice(pictures[number])
                start = time.perf_counter()
                try:
                    outcome = _leave(address, sample, draw) if draw.random() < LEAVING else _ask(client, sample, draw)
                except httpx.HTTPError as error:
                    outcome = type(error).__name__
                with counting:
                    tally.outcomes[outcome] += 1
                    if outcome == "200":
                        tally.seconds.append(time.perf_counter() - start)
                    elif outcome not in ("429", "left"):
                        tally.wrong.append(f"client {number}, {sample.model}: {outcome}")
                if outcome == "429":
                    time.sleep(draw.uniform(0.1, 1))

    threads = [threading.Thread(target=live, args=(number,)) for number in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def _ask(client: httpx.Client, sample: Sample, draw: random.Random) -> str:
    """Send a picture and look at what comes; 200 if it is right."""
    if draw.random() < 0.5:
        answer = client.post("/api/upscale", files={"file": ("a.png", sample.png)}, data={"model": sample.model})
    else:
        answer = client.put("/api/upscale", content=sample.png, params={"model": sample.model})
    if answer.status_code != 200:
        code = answer.json()["error"]["code"]
        return "429" if (answer.status_code, code) == (429, "busy") else f"{answer.status_code} {code}"
    with Image.open(io.BytesIO(answer.content)) as image:
        found = np.asarray(image)
    if found.shape != sample.expected.shape:
        return f"size {found.shape} for {sample.expected.shape}"
    return "200" if np.array_equal(found, sample.expected) else "other pixels"


def _leave(address: str, sample: Sample, draw: random.Random) -> str:
    """Send a picture, or a part of it, and hang up without an answer."""
    place = urlsplit(address)
    head = f"PUT /api/upscale?model={sample.model} HTTP/1.1\r\nHost: {place.netloc}\r\n"
    body = sample.png[: draw.choice([len(sample.png), len(sample.png) // 2])]
    with socket.create_connection((place.hostname, place.port), 10) as line:
        line.sendall(f"{head}Content-Length: {len(sample.png)}\r\n\r\n".encode() + body)
        time.sleep(draw.uniform(0, 0.5))
    return "left"


class Memory(threading.Thread):
    """Samples the resident size of a process every second, in MB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self.done = threading.Event()
        self._status = Path(f"/proc/{pid}/status")

    def run(self) -> None:
        while not self.done.wait(1):
            lines = self._status.read_text().splitlines()
            self.samples.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")))


@contextlib.contextmanager
def serving(weights: Path, temporary: Path, queue: int):
    """The server in a process of its own: (process, address); it is stopped at the end, and must end well."""
    command = [sys.executable, "-m", "dacesr.cli", "serve", "-n", str(weights), "-n", "light", "--no-page"]
    command += ["--port", "0", "--queue", str(queue), "--device", "cpu", "--precision", "fp32"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stderr
    said = server.stderr.readline()
    found = re.search(r"http://\S+", said)
    if not found:
        raise SystemExit(f"the server did not start: {said}{server.stderr.read()}")
    try:
        yield server, found[0]
    finally:
        server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
        if server.wait(60) or rest:
            raise SystemExit(f"the server ended with {server.returncode} and said: {rest}")


def settled(address: str, seconds: float = 60) -> dict:
    """The server's state once it has nothing to do any more."""
    end = time.monotonic() + seconds
    while True:
        state = httpx.get(f"{address}/api/health", trust_env=False).json()
        if state["working"] == state["waiting"] == 0 or time.monotonic() > end:
            return state
        time.sleep(0.1)


def figures(tally: Tally, memory: list[float], seconds: float, leftover: int) -> dict:
    ordered = sorted(tally.seconds) or [float("nan")]
    half = memory[len(memory) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else float("nan")
    return {
        "machine": machine.describe()["summary"],
        "seconds": round(seconds, 1),
        "outcomes": dict(tally.outcomes),
        "good_per_second": round(tally.outcomes["200"] / seconds, 1),
        "latency_seconds": {
            f"p{p}": round(ordered[min(len(ordered) * p // 100, len(ordered) - 1)], 3) for p in (50, 90, 99)
        },
        "slowest_seconds": round(ordered[-1], 3),
        "memory_mb": {
            "first": round(memory[0]) if memory else None,
            "middle": round(half[0]) if half else None,
            "last": round(memory[-1]) if memory else None,
            "highest": round(max(memory)) if memory else None,
            "slope_per_minute_second_half": round(60 * slope, 2),
        },
        "files_left": leftover,
        "wrong": tally.wrong[:20],
    }


def table(found: dict, clients: int) -> str:
    latency, memory = found["latency_seconds"], found["memory_mb"]
    rows = {
        "clients": clients,
        "seconds": found["seconds"],
        "whole, right answers": found["outcomes"].get("200", 0),
        "refused, as the queue was full (429)": found["outcomes"].get("429", 0),
        "clients that left midway": found["outcomes"].get("left", 0),
        "lost, wrong, mixed up, half": sum(n for k, n in found["outcomes"].items() if k not in ("200", "429", "left")),
        "answers a second": found["good_per_second"],
        "seconds to an answer: median, 90 %, 99 %, longest": f"{latency['p50']}, {latency['p90']}, {latency['p99']}, "
        f"{found['slowest_seconds']}",
        "memory of the server in MB: first, middle, last, highest": f"{memory['first']}, {memory['middle']}, "
        f"{memory['last']}, {memory['highest']}",
        "its slope over the second half, MB a minute": memory["slope_per_minute_second_half"],
        "files left": found["files_left"],
    }
    return (
        "\n".join(["| what | found |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows.items())]) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights, temporary = tiny_weights(Path(folder) / "tiny.safetensors"), Path(folder) / "tmp"
        temporary.mkdir()
        upscalers = {name: Upscaler.load(name, precision="fp32") for name in (str(weights), "light")}
        upscalers["tiny"] = upscalers.pop(str(weights))
        pictures = samples(upscalers, args.clients)
        with serving(weights, temporary, args.queue) as (server, address):
            memory = Memory(server.pid)
            memory.start()
            start = time.monotonic()
            tally = run_clients(address, pictures, 60 * args.minutes)
            seconds = time.monotonic() - start
            memory.done.set()
            settled(address)
            leftover = sum(path.is_file() for path in temporary.rglob("*"))
        found = figures(tally, memory.samples, seconds, leftover + len(list(temporary.iterdir())))
    for path, text in ((args.json, json.dumps(found, indent=2)), (args.markdown, table(found, args.clients))):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print(json.dumps(found, indent=2))
    print(table(found, args.clients))
    if found["wrong"] or found["files_left"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
