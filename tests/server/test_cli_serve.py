"""`dacesr serve`: what it says, what it refuses, and how it ends."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from dacesr import cli_serve
from dacesr.cli import app


def call(*args, **options):
    return CliRunner().invoke(app, ["serve", "--no-page", *map(str, args)], **options)


@pytest.fixture
def started(monkeypatch):
    """What would have been started, without starting it."""
    calls = []
    monkeypatch.setattr(cli_serve, "_run", lambda bound, address, **options: calls.append((address, options)))
    return calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_without_leavings(tiny, photo, tmp_path, number):
    command = [sys.executable, "-m", "dacesr.cli", "serve", "-n", str(tiny), "--no-page", "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stderr
    said = server.stderr.readline()
    address = re.fullmatch(r"dacesr: at (http://127\.0\.0\.1:\d+) until Ctrl-C\n", said)
    assert address, said
    with httpx.Client(base_url=address[1], trust_env=False, timeout=30) as client:
        answer = client.put("/api/upscale?scale=2", content=photo().read_bytes())
        assert answer.headers["x-dacesr-output-size"] == "48x32"
        assert list(tmp_path.iterdir())
        server.send_signal(number)
        assert server.stderr.read() == ""
        assert server.wait(30) == 0
    server.stderr.close()
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken(tiny):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = call("-n", tiny, "--port", port)
    assert result.exit_code == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use; choose another" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "telling"),
    [
        (["--host", "203.0.113.9"], "cannot listen at 203.0.113.9"),
        (["--host", "no such name"], "cannot listen at no such name"),
        (["--auth", "me"], "a user and a password with a colon between them"),
        (["--auth", ":secret"], "a user and a password with a colon between them"),
        (["-n", "nothing.pth"], "nothing.pth does not exist"),
    ],
)
def test_wrong_calls_are_one_sentence(args, telling):
    result = call("--port", 0, *args)
    assert result.exit_code == 2
    assert telling in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_missing_extra_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    result = call()
    assert result.exit_code == 2
    assert 'pip install "dacesr[web]"' in result.stderr


def test_it_is_of_this_computer_alone_unless_told_otherwise(started):
    assert call("--port", 0).exit_code == 0
    address, options = started[0]
    assert address.startswith("http://127.0.0.1:")
    assert options["auth"] is None
    assert options["models"][0] == "dacesr-light"
    assert "light" in options["models"]


def test_an_open_door_is_warned_of(started):
    warning = "everyone who reaches this machine can use the server"
    assert warning not in call("--port", 0).stderr
    assert warning in call("--port", 0, "--host", "0.0.0.0").stderr
    locked = call("--port", 0, "--host", "0.0.0.0", env={"DACESR_AUTH": "me:se:cret"})
    assert warning not in locked.stderr
    address, options = started[-1]
    assert address.startswith("http://localhost:")
    assert options["auth"] == ("me", "se:cret")


def test_limits_are_handed_on(started):
    flags = ["--queue", 3, "--workers", 2, "--max-upload", 5, "--max-pixels", 1000, "--max-seconds", 7]
    assert call("--port", 0, "--allow-host", "a.example", *flags).exit_code == 0
    options = started[0][1]
    limits = options["limits"]
    assert (limits.waiting, limits.upload_bytes, limits.pixels, limits.result_pixels) == (3, 5 << 20, 1000, 16000)
    assert (limits.seconds, options["workers"]) == (7, 2)
    assert options["hosts"] == ["a.example", "127.0.0.1"]
