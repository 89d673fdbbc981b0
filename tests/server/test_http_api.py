"""The HTTP API over real sockets: what it gives, what it refuses, and clients that misbehave."""

import asyncio
import io
import json
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from test_service import Gate

from dacesr import Upscaler
from dacesr.api import answers, create_app, guarding, receiving
from dacesr.api.guarding import Guard
from dacesr.api.listening import Listener, address_of, bind
from dacesr.serving.service import Service
from dacesr.serving.wishes import Limits, Wish

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300_000  # bytes of an upload


class Running:
    """An application that answers in a thread."""

    def __init__(self, service, **options):
        self.service, self._bound, started = service, bind("127.0.0.1", 0), threading.Event()
        self.address = address_of(self._bound)
        app = create_app(service, **({"page": False} | options))
        self._listener = Listener(app, started=started.set, stop=service.close, abandon=service.rooms.close)
        self._thread = threading.Thread(target=self._listener.run, kwargs={"sockets": [self._bound]})
        self._thread.start()
        assert started.wait(30)

    def close(self):
        self._listener.should_exit = True
        self._thread.join(30)
        self._bound.close()
        assert not self._thread.is_alive()
        assert not self.service.rooms.path.exists()

    def ask(self, method, path, **options):
        return httpx.request(method, self.address + path, timeout=30, trust_env=False, **options)

    def upscale(self, path, **fields):
        with open(path, "rb") as file:
            return self.ask("POST", "/api/upscale", files={"file": (path.name, file)}, data=fields)

    def line(self):
        place = urlsplit(self.address)
        return socket.create_connection((place.hostname, place.port), 20)


@pytest.fixture(scope="module")
def server(tiny):
    limits = Limits(waiting=2, upload_bytes=LIMIT, pixels=10**6, result_pixels=25 * 10**6)
    running = Running(Service([str(tiny)], limits=limits))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "server" in request.fixturenames:
        service = request.getfixturevalue("server").service
        assert eventually(lambda: service.load() == (0, 0) and list(service.rooms.path.iterdir()) == [])


@pytest.fixture
def held(server, photo):
    """Keeps the only worker busy with a picture."""
    gate = Gate()
    with server.service.rooms.make() as room:
        ticket = server.service.submit(photo(), "held.png", Wish(), room=room, watch=gate)
        assert gate.reached.wait(20)
        yield gate
        gate.opened.set()
        ticket.future.result(20)


def eventually(true, seconds=20):
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def error_of(answer):
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert answer.status_code == answers.STATUSES[error["code"]]
    assert "/tmp" not in error["message"]
    return error["code"]


def head(path, *lines):
    return "\r\n".join([f"PUT {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def test_a_picture_in_a_form_or_as_it_is(server, photo, tiny):
    path = photo("my photo.png")
    with Image.open(path) as image:
        expected = np.asarray(Upscaler.load(tiny)(image))
    form = server.upscale(path)
    posted = server.ask("POST", "/api/upscale", content=path.read_bytes(), headers={"Content-Type": "image/png"})
    put = server.ask("PUT", "/api/upscale?name=my%20photo.png", content=path.read_bytes())
    for answer in (form, posted, put):
        assert answer.status_code == 200, answer.text
        with Image.open(io.BytesIO(answer.content)) as image:
            assert np.array_equal(np.asarray(image), expected)
    for answer in (form, put):
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-length"] == str(len(answer.content))
        assert "filename*=UTF-8''my%20photo_x4.png" in answer.headers["content-disposition"]
        assert answer.headers["x-dacesr-model"] == "tiny"
        assert answer.headers["x-dacesr-input-size"] == "24x16"
        assert answer.headers["x-dacesr-output-size"] == "96x64"
        assert float(answer.headers["x-dacesr-seconds"]) > 0
        assert json.loads(answer.headers["x-dacesr-warnings"]) == []


def test_fields_of_a_form_and_of_a_query(server, photo):
    path = photo()
    form = server.upscale(path, width="50", format="jpg", model="tiny")
    query = server.ask("PUT", "/api/upscale?width=50&format=jpg&quality=80", content=path.read_bytes())
    for answer in (form, query):
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("JPEG", (50, 33))
        assert answer.headers["content-type"] == "image/jpeg"


def test_what_could_not_be_kept_is_told(server, tmp_path):
    Image.new("RGBA", (16, 16), (255, 0, 0, 100)).save(tmp_path / "a.png")
    answer = server.upscale(tmp_path / "a.png", format="jpg")
    assert "transparen" in " ".join(json.loads(answer.headers["x-dacesr-warnings"]))


@pytest.mark.parametrize(
    ("query", "fields", "code"),
    [
        ("?bogus=1", {}, "bad_request"),
        ("", {"bogus": "1"}, "bad_request"),
        ("?scale=2", {"scale": "2"}, "bad_request"),
        ("?name=a&name=b", {}, "bad_request"),
        ("", {"scale": "x" * 600}, "bad_request"),
        ("", {"scale": "2", "width": "9"}, "bad_request"),
        ("", {"model": "/etc/passwd"}, "unknown_model"),
        ("", {"scale": "64"}, "too_many_pixels"),
        ("", {"strength": "0.5"}, "bad_request"),
    ],
)
def test_impossible_wishes(server, photo, query, fields, code):
    files = {"file": ("a.png", photo(size=(90, 90)).read_bytes())}
    assert error_of(server.ask("POST", f"/api/upscale{query}", files=files, data=fields)) == code


def test_bodies_that_are_no_picture(server, photo):
    def send(code, **options):
        assert error_of(server.ask("POST", "/api/upscale", **options)) == code

    png = photo().read_bytes()
    send("bad_picture", files={"file": ("a.png", b"hello")})
    send("bad_picture", content=png[:200])
    send("bad_request", content=b"")
    send("bad_request", files={"picture": ("a.png", png)})
    send("bad_request", files=[("file", ("a.png", png)), ("file", ("b.png", png))])
    send("bad_request", files={f"f{i}": (None, b"1") for i in range(20)})
    send("unsupported_type", data={"scale": "2"})
    send("unsupported_type", json={"file": "/etc/passwd"})
    for kind in (
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; boundary=b",
    ):
        send("bad_request", content=b"--b\r\nno header", headers={"Content-Type": kind})
    cut = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png
    send("bad_request", content=cut, headers={"Content-Type": "multipart/form-data; boundary=b"})


def test_errors_of_the_framework_are_told_alike(server):
    for method, path, code in [
        ("GET", "/api/nothing", "not_found"),
        ("GET", "/nothing", "not_found"),
        ("GET", "/api/docs", "not_found"),
        ("GET", "/api/upscale", "method_not_allowed"),
        ("DELETE", "/api/health", "method_not_allowed"),
    ]:
        assert error_of(server.ask(method, path)) == code
    with server.line() as line:
        line.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        assert b'"code":"bad_request"' in line.recv(4096)


def test_more_than_a_queue_is_refused_before_it_is_sent(server, photo, held):
    results = []
    sending = [threading.Thread(target=lambda: results.append(server.upscale(photo()))) for _ in range(2)]
    for thread in sending:
        thread.start()
    assert eventually(lambda: server.service.load() == (1, 2))
    health = server.ask("GET", "/api/health").json()
    assert (health["working"], health["waiting"]) == (1, 2)
    with server.line() as line:
        line.sendall(head("/api/upscale", f"Content-Length: {LIMIT}", "Expect: 100-continue"))
        said = line.recv(4096)
    assert said.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 5" in said
    held.opened.set()
    for thread in sending:
        thread.join(20)
    assert [answer.status_code for answer in results] == [200, 200]


def test_uploads_that_are_too_large(server):
    with server.line() as line:
        line.sendall(head("/api/upscale", f"Content-Length: {LIMIT + 1}", "Expect: 100-continue"))
        assert line.recv(4096).startswith(b"HTTP/1.1 413")
    chunks = (bytes(10_000) for _ in range(LIMIT // 10_000 + 2))
    assert error_of(server.ask("PUT", "/api/upscale", content=chunks)) == "too_large"
    form = {"file": ("a.png", bytes(LIMIT + 1))}
    assert error_of(server.ask("POST", "/api/upscale", files=form)) == "too_large"
    whole = server.ask("PUT", "/api/upscale", content=bytes(LIMIT))
    assert error_of(whole) == "bad_picture"


def test_a_length_that_is_too_short_cuts_the_picture(server, photo):
    png = photo().read_bytes()
    with server.line() as line:
        line.sendall(head("/api/upscale", "Content-Length: 200", "Connection: close") + png)
        assert line.recv(4096).startswith(b"HTTP/1.1 422")


def test_slow_uploads_are_given_up(server, monkeypatch):
    with server.line() as line:
        monkeypatch.setattr(receiving, "IDLE_SECONDS", 0.1)
        line.sendall(head("/api/upscale", "Content-Length: 1000") + b"abc")
        assert line.recv(4096).startswith(b"HTTP/1.1 408")
    monkeypatch.setattr(receiving, "IDLE_SECONDS", 20)
    monkeypatch.setattr(server.service, "limits", replace(server.service.limits, upload_seconds=0.3))
    with server.line() as line:
        line.sendall(head("/api/upscale", "Content-Length: 1000"))
        line.settimeout(0.05)
        said = b""
        for _ in range(100):
            line.sendall(b"x")
            try:
                said = line.recv(4096)
                break
            except TimeoutError:
                continue
        assert said.startswith(b"HTTP/1.1 408")


def test_a_client_that_asks_nothing_is_hung_up_on(server, monkeypatch):
    monkeypatch.setattr("dacesr.api.listening.HEAD_SECONDS", 0.1)
    with server.line() as line:
        line.sendall(b"GET /api/health HTTP/1.1\r\nHost:")
        assert line.recv(10) == b""


def test_a_client_that_leaves_while_it_uploads(server, photo):
    with server.line() as line:
        line.sendall(head("/api/upscale", "Content-Length: 5000") + photo().read_bytes()[:500])
        assert eventually(lambda: list(server.service.rooms.path.iterdir()))


def test_a_client_that_leaves_while_it_waits(server, photo, held):
    png = photo().read_bytes()
    with server.line() as line:
        line.sendall(head("/api/upscale", f"Content-Length: {len(png)}") + png)
        assert eventually(lambda: server.service.load() == (1, 1))
    assert eventually(lambda: server.service.load() == (1, 0))
    assert eventually(lambda: len(list(server.service.rooms.path.iterdir())) == 1)


def test_a_client_that_leaves_frees_its_worker(server, photo, monkeypatch):
    gate, submit, finished = Gate(), server.service.submit, server.service.finished
    monkeypatch.setattr(server.service, "submit", lambda *a, **k: submit(*a, **k, watch=gate))
    png = photo().read_bytes()
    with server.line() as line:
        line.sendall(head("/api/upscale", f"Content-Length: {len(png)}") + png)
        assert gate.reached.wait(20)
    ticket = server.service._tickets[0]
    assert ticket.left.wait(20)
    gate.opened.set()
    assert eventually(lambda: server.service.load() == (0, 0))
    monkeypatch.undo()
    assert server.upscale(photo()).status_code == 200
    assert server.service.finished == finished + 1


@pytest.mark.parametrize("stays", [False, True])
def test_a_client_that_breaks_a_download_off(server, photo, monkeypatch, stays):
    monkeypatch.setattr("dacesr.api.listening.STALLED_SECONDS", 0.3)
    png = photo("big.png", (200, 200)).read_bytes()
    with server.line() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(head("/api/upscale?format=ppm&scale=24", f"Content-Length: {len(png)}") + png)
        assert line.recv(2000).startswith(b"HTTP/1.1 200")
        assert list(server.service.rooms.path.iterdir())
        if stays:
            assert eventually(lambda: list(server.service.rooms.path.iterdir()) == [])
            assert eventually(lambda: not server._listener.server_state.connections)


def test_places_are_given_back(server, photo):
    """More requests of each kind than may be there at once, one after another."""
    for _ in range(2 * server.service.capacity + 1):
        assert error_of(server.ask("PUT", "/api/upscale", content=b"x")) == "bad_picture"
        assert error_of(server.ask("PUT", "/api/inspect", content=b"x")) == "bad_picture"
        assert server.upscale(photo()).status_code == 200


def test_requests_are_bounded(server):
    with_places = [server.line() for _ in range(2 * server.service.capacity)]
    for line in with_places:
        line.sendall(head("/api/upscale", "Content-Length: 1000") + b"abc")
    assert eventually(lambda: len(list(server.service.rooms.path.iterdir())) == len(with_places))
    answer = server.ask("PUT", "/api/upscale", content=b"x")
    for line in with_places:
        line.close()
    assert error_of(answer) == "busy"


@pytest.mark.parametrize(
    ("name", "given_back"),
    [
        ("../../../etc/cron.d/x.png", "x_x4.png"),
        ("a\r\nX-Evil: 1\r\n\r\n<script>.png", "a X-Evil 1 script_x4.png"),
        ('"; filename="b.exe', "; filename= b.exe_x4.png"),
        ("\u202egnp.exe.png", "gnp.exe_x4.png"),
        ("n" * 300 + ".png", "n" * 116 + "_x4.png"),
        ("写真 é.png", "写真 é_x4.png"),
        ("..", "picture_x4.png"),
    ],
)
def test_file_names_of_strangers(server, photo, name, given_back):
    png = photo().read_bytes()
    answers_to_both = (
        server.ask("PUT", "/api/upscale", content=png, params={"name": name}),
        server.ask("POST", "/api/upscale", files={"file": ("upload", png)}, data={"name": name}),
    )
    for answer in answers_to_both:
        assert answer.status_code == 200, answer.text
        assert "x-evil" not in answer.headers
        plain, full = answer.headers["content-disposition"].split("; filename*=UTF-8''")
        assert unquote(full) == given_back
        assert plain.startswith('attachment; filename="')
        assert plain.count('"') == 2
    raw = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name[:9]}\0.png"\r\n\r\n'.encode()
    body = raw + png + b"\r\n--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert server.ask("POST", "/api/upscale", content=body, headers=kind).status_code in (200, 400)


def test_inspecting(server):
    jpeg = (ROOT / "examples" / "portrait.jpg").read_bytes()
    answer = server.ask("POST", "/api/inspect", files={"file": jpeg})
    found = answer.json()
    assert answer.status_code == 200
    assert found["tags"]
    assert {"model", "strength", "reason"} == set(found["advice"])
    assert (found["width"], found["height"]) == (128, 150)
    assert error_of(server.ask("PUT", "/api/inspect?scale=2", content=jpeg)) == "bad_request"


def test_what_there_is(server):
    found = server.ask("GET", "/api/models").json()
    assert found["models"] == [{"name": "tiny", "scale": 4, "strength": None}]
    assert "png" in found["formats"]
    assert found["limits"]["upload_bytes"] == LIMIT
    health = server.ask("GET", "/api/health")
    assert health.json()["status"] == "ok"
    assert "/" not in health.text
    assert health.headers["cache-control"] == "no-store"
    assert health.headers["x-content-type-options"] == "nosniff"
    assert health.headers["content-security-policy"] == "frame-ancestors 'self'"


def test_the_document_names_every_field_and_code(server):
    document = server.ask("GET", "/api/openapi.json").json()
    assert set(document["paths"]) == {"/upscale", "/inspect", "/models", "/health"}
    assert document["servers"] == [{"url": "/api"}]
    upscale = document["paths"]["/upscale"]["post"]
    fields = {"name", *Wish.__dataclass_fields__}
    assert {parameter["name"] for parameter in upscale["parameters"]} == fields
    form = upscale["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) == {"file", *fields}
    assert {"200", "400", "408", "413", "415", "422", "429", "500", "503", "504"} <= set(upscale["responses"])
    assert set(answers.MEANINGS) == set(answers.STATUSES)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "localhost:1"}, None),
        ({"Host": "[::1]:7860"}, None),
        ({"Host": "192.168.1.7"}, None),
        ({"Host": "evil.com"}, "bad_host"),
        ({"Host": "localhost.evil.com"}, "bad_host"),
        ({"Host": "127.0.0.1.evil.com"}, "bad_host"),
        ({"Host": ""}, "bad_host"),
        ({"Host": "localhost", "Origin": "http://localhost"}, None),
        ({"Host": "localhost", "Origin": "https://localhost"}, None),
        ({"Host": "localhost", "Origin": "http://localhost:8000"}, "bad_origin"),
        ({"Host": "localhost", "Origin": "http://evil.com"}, "bad_origin"),
        ({"Host": "localhost", "Origin": "null"}, "bad_origin"),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site"}, "bad_origin"),
        ({"Host": "localhost", "Sec-Fetch-Site": "same-origin"}, None),
    ],
)
def test_hosts_and_origins(server, photo, headers, code):
    answer = server.ask("PUT", "/api/upscale", content=photo().read_bytes(), headers=headers)
    if code:
        assert error_of(answer) == code
    else:
        assert answer.status_code == 200


def test_a_link_from_another_site_may_be_followed(server):
    assert server.ask("GET", "/api/health", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_password_and_a_host_of_its_own(tiny):
    hosts = ["photos.example.org", "127.0.0.1"]
    running = Running(Service([str(tiny)]), auth=("me", "pass:wörd"), hosts=hosts, origins=["friends.example.org"])
    try:
        for auth in (None, ("me", "password"), ("you", "pass:wörd"), ("", "")):
            answer = running.ask("GET", "/api/health", auth=auth)
            assert error_of(answer) == "unauthorized"
            assert answer.headers["www-authenticate"].startswith("Basic ")
        for given in ("Basic !!!", "Basic", "Bearer bWU6", "Basic w6Q="):
            assert error_of(running.ask("GET", "/api/health", headers={"Authorization": given})) == "unauthorized"
        assert error_of(running.ask("GET", "/")) == "unauthorized"
        good = httpx.BasicAuth(b"me", "pass:wörd".encode())
        named = {"Host": "photos.example.org", "Origin": "https://photos.example.org"}
        assert running.ask("GET", "/api/health", auth=good, headers=named).status_code == 200
        for origin, code in (("friends.example.org", 200), ("127.0.0.1:1", 403), ("photos.example.org:1", 403)):
            answer = running.ask("GET", "/api/health", auth=good, headers={"Origin": f"http://{origin}"})
            assert answer.status_code == code
    finally:
        running.close()


def test_clients_are_answered_when_the_server_ends(tiny, photo):
    running, gate, found = Running(Service([str(tiny)])), Gate(), []
    room = running.service.rooms.make()
    ticket = running.service.submit(photo(), "a.png", Wish(), room=room, watch=gate)
    assert gate.reached.wait(20)
    asking = threading.Thread(target=lambda: found.append(running.upscale(photo())))
    asking.start()
    assert eventually(lambda: running.service.load() == (1, 1))
    threading.Timer(0.3, gate.opened.set).start()
    running.close()
    asking.join(20)
    assert error_of(found[0]) == "closing"
    assert ticket.future.exception().code == "closing"


def test_a_second_signal_does_not_wait(monkeypatch):
    said = []
    monkeypatch.setattr(os, "_exit", said.append)
    listener = Listener(None, started=list, stop=list, abandon=lambda: said.append("abandoned"))
    listener.handle_exit(2, None)
    assert listener.should_exit
    assert said == []
    listener.handle_exit(2, None)
    assert said == ["abandoned", 130]


def test_bodies_for_the_page_are_bounded_too():
    async def reads_all(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    guard = Guard(reads_all, page_upload_bytes=3 << 20)

    async def ask():
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def pieces(count):
                for _ in range(count):
                    yield bytes(1 << 20)

            return [
                (await client.post("/gradio_api/upload", content=pieces(3))).status_code,
                (await client.post("/gradio_api/upload", content=pieces(4))).status_code,
                (await client.post("/gradio_api/upload", content=bytes((3 << 20) + 1))).status_code,
                (await client.post("/gradio_api/queue/join", content=pieces(2))).status_code,
                (await client.post("/gradio_api/queue/join", content=b"{}")).status_code,
            ]

    assert asyncio.run(ask()) == [200, 413, 413, 413, 200]


def test_bodies_for_the_page_that_do_not_come_are_given_up(monkeypatch):
    monkeypatch.setattr(guarding, "IDLE_SECONDS", 0.1)

    async def reads_all(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await asyncio.sleep(0.2)
        with pytest.raises(TimeoutError):  # it is there: whoever waits for the client to leave may do so for long
            await asyncio.wait_for(receive(), 0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def ask(path, pause, count):
        left, said = count, []

        async def receive():
            nonlocal left
            if left:
                left -= 1
                await asyncio.sleep(pause)
                return {"type": "http.request", "body": b"x", "more_body": left > 0}
            await asyncio.Event().wait()

        async def send(message):
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"host", b"localhost")]}
        await guarding.Guard(reads_all, page_upload_bytes=100)(scope, receive, send)
        return said[0]["status"]

    assert asyncio.run(ask("/gradio_api/upload", 0, 3)) == 200
    assert asyncio.run(ask("/gradio_api/upload", 0.06, 3)) == 200
    assert asyncio.run(ask("/gradio_api/upload", 1, 3)) == 408
    assert asyncio.run(ask("/gradio_api/queue/join", 0.06, 3)) == 408


def test_many_clients_at_once(tiny, monkeypatch):
    """The load of `benchmarks/server_load.py` in small."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from server_load import run_clients, samples, settled

    running = Running(Service([str(tiny)], limits=Limits(waiting=4)))
    try:
        tally = run_clients(running.address, samples({"tiny": Upscaler.load(tiny)}, 8), seconds=3)
        assert tally.wrong == []
        assert tally.outcomes["200"] > 8
        state = settled(running.address)
        assert state["working"] == state["waiting"] == 0
        assert eventually(lambda: os.listdir(running.service.rooms.path) == [])
    finally:
        running.close()
