"""What clients of the page's server may do without the page: one endpoint, with its limits, and no file or address."""

import json
import socket
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import pyvips
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from serving import Served

from dacesr.image import open_picture
from dacesr.inference import Upscaler
from dacesr.web.looks import EXAMPLES

PORTRAIT = EXAMPLES / "portrait.jpg"


@pytest.fixture
def client(served: Served, tmp_path: Path) -> Any:
    before = set(served.files())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the client's own, on the versions that it finds
        talking = Client(served.url, download_files=tmp_path / "got", verbose=False)
    yield talking
    talking.close()
    served.until(lambda: before.issuperset(served.files()), "what the client sent and got has gone")


def told(served: Served, picture: Any, *rest: Any, name: str = "upscale") -> str:
    """What the endpoint answers to raw JSON."""
    data = [picture, *rest] + [None] * (8 - len(rest))
    begun = httpx.post(f"{served.url}/gradio_api/call/{name}", json={"data": data})
    if begun.status_code != 200:
        return f"{begun.status_code} {begun.text}"
    return httpx.get(f"{served.url}/gradio_api/call/{name}/{begun.json()['event_id']}", timeout=20).text


def record(path: object, **fields: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **fields}


def test_one_endpoint_is_public(client: Any) -> None:
    endpoints = client.view_api(return_format="dict")
    assert list(endpoints["named_endpoints"]) == ["/upscale"]
    assert not endpoints["unnamed_endpoints"]
    parameters = endpoints["named_endpoints"]["/upscale"]["parameters"]
    assert [one["parameter_name"] for one in parameters] == [
        "picture", "model", "scale", "width", "height", "strength", "format", "quality", "strip_metadata",
    ]  # fmt: skip
    assert all(one["parameter_has_default"] for one in parameters[1:])


def test_gradios_client_gets_the_file_and_what_was_made(client: Any, served: Served, tmp_path: Path) -> None:
    path, made = client.predict(handle_file(str(PORTRAIT)), scale=2, format="png", api_name="/upscale")
    assert Path(path).name == "portrait_x4.png"
    assert (made["width"], made["height"], made["model"]) == (256, 300, served.service.models[0])
    target = tmp_path / "expected.png"
    Upscaler.load(served.weights).upscale(open_picture(PORTRAIT), target, format="png", size=(256, 300))
    read, expected = (pyvips.Image.new_from_file(str(one)).numpy() for one in (path, target))
    assert np.array_equal(read, expected)


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"model": "/etc/passwd"}, "unknown_model: there is no model"),
        ({"scale": 2, "width": 50}, "bad_request: scale, width and height exclude one another"),
        ({"scale": 65}, "bad_request: scale must lie between"),
        ({"format": "exe"}, "bad_request: format must be one of"),
        ({"quality": 50.5}, "bad_request: quality must be a whole number"),
        ({"strength": 0.5}, "bad_request: the model"),
    ],
)
def test_what_is_refused_is_told_with_its_code(client: Any, wish: dict[str, Any], code: str) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(str(PORTRAIT)), api_name="/upscale", **wish)
    assert str(caught.value).startswith(code)


def test_no_picture_is_told(client: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(AppError, match=r"^bad_picture: notes\.jpg"):
        client.predict(handle_file(str(tmp_path / "notes.jpg")), api_name="/upscale")


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../../etc/passwd", "http://127.0.0.1:1/x.png", "https://example.org/x.png", "", "\0", None,
     5, "data:image/png;base64,AAAA", "file:///etc/passwd"],
)  # fmt: skip
def test_paths_and_addresses_are_not_followed(served: Served, path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio import processing_utils

    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("an address was fetched")

    for way in ("async_ssrf_protected_download", "ssrf_protected_download", "save_url_to_cache"):
        monkeypatch.setattr(processing_utils, way, fetched)
    for sent in (record(path), [record(path)], record("/etc/passwd", url=path)):
        answer = told(served, sent)
        assert "event: error" in answer
        assert "bad_request: files must be uploaded, not named" in answer
    assert "bad_request" in told(served, None, record(path))  # in the place of another field
    assert not served.files()


def test_folders_and_other_rooms_are_no_pictures(served: Served) -> None:
    for path in (served.folder, served.folder / "none.png"):
        answer = told(served, record(str(path)))
        assert "event: error" in answer
        assert "bad_request: files must be uploaded, not named" in answer


@pytest.mark.parametrize("value", [{"a": 1}, [1], "NaN", True, "x" * 10_000])
def test_fields_of_another_kind_are_refused(served: Served, value: Any) -> None:
    sent = httpx.post(f"{served.url}/gradio_api/upload", files={"files": ("a.jpg", PORTRAIT.read_bytes())}).json()
    answer = told(served, record(sent[0]), "", value)
    assert "bad_request: scale must be a number" in answer
    assert not Path(sent[0]).exists()


@pytest.mark.parametrize(
    "path",
    ["gradio_api/file=/etc/passwd", "gradio_api/file=/proc/self/environ", "gradio_api/file=..%2F..%2Fetc%2Fpasswd",
     "gradio_api/file=http://127.0.0.1:1/", "gradio_api/file=https://example.org/", "gradio_api/file=%00",
     "gradio_api/proxy=http://127.0.0.1:1/", "gradio_api/file//etc/passwd", "gradio_api/runs", "gradio_api/vibe-code",
     "monitoring", "gradio_api/openapi.json", "gradio_api/dev/reload", "gradio_api/call/on_start",
     "gradio_api/deep_link"],
)  # fmt: skip
def test_gradios_other_routes_are_shut(served: Served, path: str) -> None:
    assert httpx.get(f"{served.url}/{path}").status_code == 404


@pytest.mark.parametrize("path", ["component_server", "process_recording", "run/upscale", "api/upscale", "vibe-edit"])
def test_and_those_that_take_something(served: Served, path: str) -> None:
    assert httpx.post(f"{served.url}/gradio_api/{path}", json={"data": []}).status_code == 404


def test_a_file_in_the_page_s_folder_is_no_way_out_of_it(served: Served) -> None:
    inside = served.folder / "link.png"
    inside.symlink_to("/etc/passwd")
    assert httpx.get(f"{served.url}/gradio_api/file={inside}").status_code == 404
    inside.unlink()


def test_uploads_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{served.url}/gradio_api/upload"
    limit = served.service.limits.upload_bytes
    assert httpx.post(url, files={"files": ("a.png", b"x" * (limit + 1))}).status_code == 413
    assert httpx.post(url, files=[("files", (f"{i}.png", b"x" * limit)) for i in range(6)]).status_code == 507
    chunked = httpx.post(url, content=iter([b"x"]), headers={"content-type": "multipart/form-data; boundary=x"})
    assert chunked.status_code == 411
    for left in served.files():  # `Visits.sweep` removes what broke off
        left.unlink()


def test_uploads_under_way_take_their_space_at_once(served: Served) -> None:
    place = urlsplit(served.url)
    length = 6 << 20  # of 10 MB that there may be
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    lines = f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
    with socket.create_connection((place.hostname, place.port), 10) as first:
        first.sendall(lines.encode())
        first.settimeout(0.3)
        with pytest.raises(TimeoutError):  # it is taken
            first.recv(10)
        with socket.create_connection((place.hostname, place.port), 10) as second:
            second.sendall(lines.encode())
            assert second.recv(100).startswith(b"HTTP/1.1 507")

    def taken_again() -> bool:
        with socket.create_connection((place.hostname, place.port), 10) as third:
            third.sendall(lines.encode())
            third.settimeout(0.3)
            try:
                return not third.recv(100).startswith(b"HTTP/1.1 507")
            except TimeoutError:
                return True

    served.until(taken_again, "the first one's space is free")
    for left in served.files():
        left.unlink()


def test_who_breaks_off_is_no_error_of_the_server(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    place = urlsplit(served.url)
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    with socket.create_connection((place.hostname, place.port), 10) as line:
        line.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b".encode())
        time.sleep(0.2)
    over = httpx.get(f"{served.url}/gradio_api/queue/data", params={"session_hash": "over"})
    assert "session_not_found" in over.text
    assert httpx.get(f"{served.url}/config").status_code == 200
    time.sleep(0.2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["../../evil.jpg", "a\nb.jpg", "ü" * 150 + ".jpg", "con\0.jpg", '"><img src=x>.jpg'])
def test_names_are_harmless(served: Served, name: str) -> None:
    sent = httpx.post(f"{served.url}/gradio_api/upload", files={"files": (name, PORTRAIT.read_bytes())})
    if sent.status_code != 200:
        assert sent.status_code in (400, 422)
        return
    answer = told(served, record(sent.json()[0], orig_name=name), "", 1)
    assert "event: complete" in answer
    made = json.loads(answer.split("data: ")[1])[0]
    assert Path(made["path"]).is_relative_to(served.folder)
    assert "/" not in made["orig_name"]
    assert not any(ord(sign) < 32 for sign in made["orig_name"])
    assert len(made["orig_name"].encode()) < 150


def test_a_client_that_leaves_takes_its_work_along(client: Any, served: Served, slowly: None, tmp_path: Path) -> None:
    pyvips.Image.black(300, 200, bands=3).cast("uchar").copy(interpretation="srgb").write_to_file(
        str(tmp_path / "a.png")
    )
    finished = served.service.finished
    client.submit(handle_file(str(tmp_path / "a.png")), api_name="/upscale")
    served.until(lambda: served.service.load() == (1, 0), "it is at work")
    client.close()
    served.until(lambda: served.service.load() == (0, 0), "its work has stopped")
    assert served.service.finished == finished
