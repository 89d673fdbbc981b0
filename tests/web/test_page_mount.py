"""How the page is put into an app, and what is left of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dacesr.serving.service import Service
from dacesr.web import add_page


@pytest.fixture
def service(bilinear_file: Path) -> Iterator[Service]:
    made = Service([str(bilinear_file)])
    yield made
    made.close()


def test_files_and_environment_are_as_they_were(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/somewhere")
    app = FastAPI()
    app.get("/api/health")(lambda: {"well": True})
    assert add_page(app, service) is app
    with TestClient(app) as client:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert folder.is_relative_to(service.rooms.path)
        assert (folder.stat().st_mode & 0o777) == 0o700
        assert client.get("/api/health").json() == {"well": True}
        page = client.get("/").text
        assert '"title":"dacesr"' in page
        sent = client.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).json()
        assert Path(sent[0]).is_relative_to(folder)
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "/somewhere"


def test_who_gives_no_password_gets_nothing(service: Service) -> None:
    app = add_page(FastAPI(), service, auth=("ann", "secret"))
    with TestClient(app) as client:
        for path in ("config", "gradio_api/info", f"gradio_api/file={__file__}"):
            assert client.get(f"/{path}").status_code in (401, 404)
        assert client.post("/gradio_api/upload", files={"files": ("a.png", b"x")}).status_code == 401
        assert client.post("/gradio_api/call/upscale", json={"data": [None] * 9}).status_code == 401
        assert client.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
        assert client.get("/config").status_code == 200
