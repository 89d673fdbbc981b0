"""`dacesr serve`: what it says, what it refuses, and how it ends."""

import contextlib
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


@contextlib.contextmanager
def running(tiny, temporary, *flags, number, **variables):
    """A client of a server in a process of its own, which is ended by a signal and must leave nothing."""
    command = [sys.executable, "-m", "dacesr.cli", "serve", "-n", str(tiny), "--port", "0", *flags]
    environment = {**os.environ, "TMPDIR": str(temporary), **variables}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            said = server.stderr.readline()
            address = re.fullmatch(r"dacesr: at (http://127\.0\.0\.1:\d+) until Ctrl-C\n", said)
            assert address, said
            with httpx.Client(base_url=address[1], trust_env=False, timeout=30) as client:
                yield client
                assert list(temporary.glob("dacesr-serve-*"))
                server.send_signal(number)
                assert server.stderr.read() == ""
                assert server.wait(30) == 0
        finally:
            server.kill()
    assert list(temporary.glob("*dacesr*")) == []


def test_it_says_where_it_is_and_ends_without_leavings(tiny, photo, tmp_path):
    with running(tiny, tmp_path, "--no-page", number=signal.SIGINT) as client:
        answer = client.put("/api/upscale?scale=2", content=photo().read_bytes())
        assert answer.headers["x-dacesr-output-size"] == "48x32"


def test_the_page_stands_behind_the_same_guard(tiny, photo, tmp_path):
    with running(tiny, tmp_path, number=signal.SIGTERM, DACESR_AUTH="me:secret") as client:
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=a"):
            assert client.get(path).json()["error"]["code"] == "unauthorized"
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
        client.auth = ("me", "secret")
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["x-frame-options"] == "SAMEORIGIN"
        assert client.get("/api/nothing").json()["error"]["code"] == "not_found"
        foreign = client.post("/gradio_api/queue/join", headers={"Origin": "http://evil.com"})
        assert foreign.json()["error"]["code"] == "bad_origin"
        large = client.post("/gradio_api/queue/join", content=bytes(2 << 20))
        assert large.json()["error"]["code"] == "too_large"
        assert client.put("/api/upscale", content=photo().read_bytes()).status_code == 200


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
        (["--allow-host", "https://"], "--allow-host takes a host name such as photos.example.org; got 'https://'"),
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
    names = ["--allow-host", "a.example", "--allow-host", "https://b.example:8443/x", "--allow-host", "C.example:80"]
    assert call("--port", 0, *names, *flags).exit_code == 0
    options = started[0][1]
    limits = options["limits"]
    assert (limits.waiting, limits.upload_bytes, limits.pixels, limits.result_pixels) == (3, 5 << 20, 1000, 16000)
    assert (limits.seconds, options["workers"]) == (7, 2)
    assert (options["allowed"], options["host"]) == (["a.example", "b.example", "c.example"], "127.0.0.1")
