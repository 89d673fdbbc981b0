"""Visits of the page: what they hold, when that goes, and what may begin."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dacesr.image import write
from dacesr.serving.service import Service
from dacesr.serving.wishes import Limits, Refusal, Wish
from dacesr.web.visits import Visits
from dacesr.web.work import wish_of


@pytest.fixture
def service(bilinear_file: Path) -> Iterator[Service]:
    made = Service([str(bilinear_file)], limits=Limits(waiting=1, upload_bytes=10_000))
    yield made
    made.close()


@pytest.fixture
def visits(service: Service) -> Visits:
    return Visits(service)


def sent(visits: Visits, name: str = "a.png") -> Path:
    path = visits.rooms.make().path / name
    write(path, torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return path


def test_who_leaves_takes_files_along_but_not_those_of_others(visits: Visits) -> None:
    path, shared = sent(visits), sent(visits)
    for name, held in (("a", {path, shared}), ("b", {shared})):
        visits.of(name).uploads.update(held)
    upload = visits.received([{"path": str(shared), "orig_name": "x.png"}])[0]
    room, source = visits.take_in(visits.of("a"), upload)
    assert source.read_bytes() == shared.read_bytes()
    visits.leave("a")
    assert (path.exists(), shared.exists(), room.path.exists()) == (False, True, False)
    visits.leave("b")
    assert not shared.exists()
    visits.leave("b")  # once is enough


def test_a_session_s_calls_end_with_it(visits: Visits) -> None:
    first = visits.of("a/1")
    assert visits.of("a/1") is first
    other = visits.of("ab/1")
    visits.leave("a")
    assert visits.of("a/1") is not first
    assert visits.of("ab/1") is other


def test_a_room_stays_until_its_work_is_done(visits: Visits, service: Service) -> None:
    visit = visits.of("a")
    upload = visits.received({"path": str(sent(visits))})[0]
    room, source = visits.take_in(visit, upload)
    ticket = service.submit(source, upload.name, Wish(), room=room)
    visit.give(room, ticket)
    visits.leave("a")
    assert ticket.left.is_set()
    end = time.monotonic() + 5
    while room.path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_room_given_too_late_goes_as_well(visits: Visits, service: Service) -> None:
    visit = visits.of("a")
    room, source = visits.take_in(visit, visits.received({"path": str(sent(visits))})[0])
    shutil.copy(source, visits.rooms.path / "kept")
    ticket = service.submit(visits.rooms.path / "kept", "a.png", Wish(), room=visits.rooms.make())
    visits.leave("a")
    visit.give(room, ticket)
    assert ticket.left.is_set()
    assert not room.path.exists()


def test_as_many_may_work_as_may_wait(visits: Visits, service: Service) -> None:
    first, second, third = (visits.of(name) for name in "abc")
    visits.begin(first)
    with pytest.raises(Refusal, match="at work already"):
        visits.begin(first)
    visits.begin(second)
    with pytest.raises(Refusal, match="try again later") as caught:
        visits.begin(third)
    assert caught.value.code == "busy"
    first.working = False
    visits.begin(third)


def test_nothing_begins_where_files_take_all_space(visits: Visits) -> None:
    assert visits.space() == 20_000
    (visits.rooms.path / "much").write_bytes(bytes(20_000))
    with pytest.raises(Refusal, match="try again later"):
        visits.begin(visits.of("a"))


@pytest.mark.parametrize("record", [5, "x", [None], {"path": None}, {"path": ["a"]}, {"path": "/etc/passwd"}, {}])
def test_records_of_no_upload_are_refused(visits: Visits, record: object) -> None:
    with pytest.raises(Refusal, match="send it again"):
        visits.received(record)
    assert visits.received(None) == visits.received([]) == []


def test_large_files_are_refused_by_name(visits: Visits) -> None:
    path = visits.rooms.path / "large.png"
    path.write_bytes(bytes(10_001))
    with pytest.raises(Refusal, match=r"^big\.png has more than") as caught:
        visits.received({"path": str(path), "orig_name": "../big.png"})
    assert caught.value.code == "too_large"


def test_the_sweep_removes_what_is_nobody_s(visits: Visits) -> None:
    held, orphan, fresh = sent(visits), sent(visits), sent(visits)
    visit = visits.of("a")
    visit.uploads.add(held)
    room, source = visits.take_in(visit, visits.received({"path": str(held)})[0])
    idle = visits.of("idle")
    idle.uploads.add(sent(visits))
    now = time.time()
    for path in (held, orphan, source):
        os.utime(path, (now - 1000, now - 1000))
    idle.used = now - 7 * 3600
    visits.sweep(now)
    assert (held.exists(), orphan.exists(), fresh.exists(), source.exists()) == (True, False, True, True)
    assert not any(path.exists() for path in idle.uploads)
    visits.sweep(now + 1000)
    assert not fresh.parent.exists()
    assert room.path.exists()
    assert held.exists()


def test_wishes_from_json() -> None:
    assert wish_of() == wish_of(model="", scale=0, width=0, format="", quality=0, strip_metadata=None) == Wish()
    wish = wish_of(model="m", width=100.0, strength=0, format="png", quality=90, strip_metadata=True)
    assert wish == Wish(model="m", width=100, strength=0.0, format="png", quality=90, strip_metadata=True)
    for wrong in ({"scale": True}, {"scale": float("nan")}, {"width": 1.5}, {"model": 1}, {"strip_metadata": "yes"}):
        with pytest.raises(Refusal) as caught:
            wish_of(**wrong)
        assert caught.value.code == "bad_request"
