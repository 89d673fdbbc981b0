"""One queue for all: bounded, in order, cancellable, and nothing left behind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dacesr import Upscaler
from dacesr.serving.service import Service
from dacesr.serving.wishes import Refusal, Wish

ROOT = Path(__file__).resolve().parents[2]


class Gate:
    """Holds the worker that shows it a tile, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *_) -> None:
        self.reached.set()
        assert self.opened.wait(40)


def submit(service, path, wish=None, watch=None, name=None):
    return service.submit(path, name or path.name, wish or Wish(), room=service.rooms.make(), watch=watch)


def code_of(ticket):
    with pytest.raises(Refusal) as refusal:
        ticket.future.result(20)
    return refusal.value.code


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_result_is_that_of_the_upscaler(serving, photo, tiny):
    service = serving()
    assert service.models == ("tiny",)
    ticket = submit(service, photo("a.png"), name="../my photo.png")
    outcome = ticket.future.result(20)
    with Image.open(photo("a.png")) as image:
        expected = np.asarray(Upscaler.load(tiny)(image))
    assert np.array_equal(pixels(outcome.path), expected)
    assert outcome.path.parent == ticket.room.path
    assert (outcome.name, outcome.format, outcome.model) == ("my photo_x4.png", "png", "tiny")
    assert (outcome.input_size, outcome.output_size) == ((24, 16), (96, 64))
    assert service.status(ticket).state == "done"
    assert (service.finished, service.load()) == (1, (0, 0))


@pytest.mark.parametrize(
    ("wish", "size", "kind"),
    [
        (Wish(scale=2), (48, 32), "PNG"),
        (Wish(width=100, format="jpg"), (100, 67), "JPEG"),
        (Wish(height=8, format=".webp", quality=50), (12, 8), "WEBP"),
    ],
)
def test_wishes_are_granted(serving, photo, wish, size, kind):
    outcome = submit(serving(), photo(), wish).future.result(20)
    with Image.open(outcome.path) as image:
        assert (image.size, image.format) == (size, kind)
    assert outcome.output_size == size


def test_pictures_beyond_the_queue_are_refused(serving, photo):
    service, gate = serving(waiting=2), Gate()
    first = submit(service, photo(), watch=gate)
    assert gate.reached.wait(20)
    others = [submit(service, photo()) for _ in range(2)]
    assert service.status(first).state == "working"
    assert [(s.state, s.ahead) for s in map(service.status, others)] == [("waiting", 0), ("waiting", 1)]
    assert service.load() == (1, 2)
    for refused in (service.check_room, lambda: submit(service, photo())):
        with pytest.raises(Refusal, match="2 pictures wait already") as refusal:
            refused()
        assert refusal.value.code == "busy"
    gate.opened.set()
    for ticket in (first, *others):
        assert ticket.future.result(20).path.is_file()
    service.check_room()


def test_a_waiting_picture_is_cancelled_at_once(serving, photo):
    service, gate = serving(), Gate()
    first = submit(service, photo(), watch=gate)
    assert gate.reached.wait(20)
    second, third = submit(service, photo()), submit(service, photo())
    service.cancel(second)
    assert second.future.done()
    assert code_of(second) == "cancelled"
    assert service.status(third).ahead == 0
    gate.opened.set()
    assert first.future.result(20).path.is_file()
    assert third.future.result(20).path.is_file()
    assert service.finished == 2


def test_a_picture_is_cancelled_at_its_next_tile(serving, photo):
    service, gate = serving(), Gate()
    ticket = submit(service, photo(), watch=gate)
    assert gate.reached.wait(20)
    service.cancel(ticket)
    gate.opened.set()
    assert code_of(ticket) == "cancelled"
    assert list(ticket.room.path.iterdir()) == []
    service.cancel(ticket)
    assert submit(service, photo()).future.result(20).path.is_file()


def test_a_slow_picture_is_given_up(serving, photo):
    service = serving(seconds=0.05)
    ticket = submit(service, photo(), watch=lambda *_: time.sleep(0.1))
    assert code_of(ticket) == "too_slow"
    assert list(ticket.room.path.iterdir()) == []


def test_a_worker_outlives_what_it_does_not_expect(serving, photo, caplog):
    service = serving()

    def broken(*_):
        raise RuntimeError("a secret")

    ticket = submit(service, photo(), watch=broken)
    assert code_of(ticket) == "internal"
    assert "secret" not in str(ticket.future.exception())
    assert "upscaling a.png failed" in caplog.text
    assert submit(service, photo()).future.result(20).path.is_file()


def test_closing_ends_all_pictures(serving, photo):
    service, gate = serving(), Gate()
    tickets = [submit(service, photo(), watch=gate), submit(service, photo())]
    assert gate.reached.wait(20)
    closing = threading.Thread(target=service.close)
    closing.start()
    assert code_of(tickets[1]) == "closing"
    gate.opened.set()
    assert code_of(tickets[0]) == "closing"
    closing.join(20)
    assert not service.rooms.path.exists()
    with pytest.raises(Refusal, match="being stopped") as refusal:
        service.check_room()
    assert refusal.value.code == "closing"


def test_what_is_no_picture_is_refused_by_its_name(serving, tmp_path):
    (tmp_path / "upload").write_text("hello")
    with pytest.raises(Refusal, match=r"^me.png is not a picture") as refusal:
        submit(serving(), tmp_path / "upload", name="/home/me.png")
    assert refusal.value.code == "bad_picture"


def test_a_damaged_picture_is_refused_by_its_name(serving, photo, tmp_path):
    (tmp_path / "upload").write_bytes(photo("big.png", (64, 64)).read_bytes()[:4000])
    ticket = submit(serving(), tmp_path / "upload", name="me.png")
    assert code_of(ticket) == "bad_picture"
    assert str(ticket.future.exception()).startswith("me.png is damaged")
    assert str(tmp_path) not in str(ticket.future.exception())


@pytest.mark.parametrize(
    ("limits", "wish", "code", "telling"),
    [
        ({"pixels": 383}, Wish(), "too_many_pixels", "a.png has more than the 0.000383 million"),
        ({"result_pixels": 6143}, Wish(), "too_many_pixels", "would be 96 x 64 pixels"),
        ({}, Wish(width=70_000, format="jpg"), "too_many_pixels", "the enlargement of a.png cannot be written"),
        ({}, Wish(strength=0.5), "bad_request", "the model tiny has one set of weights"),
        ({}, Wish(model="/etc/passwd"), "unknown_model", "there are tiny"),
    ],
)
def test_the_impossible_is_refused_before_it_waits(serving, photo, limits, wish, code, telling):
    service = serving(**({"result_pixels": 10**10} | limits))
    with pytest.raises(Refusal, match=telling) as refusal:
        submit(service, photo(), wish)
    assert refusal.value.code == code
    assert service.load() == (0, 0)


def test_a_result_that_cannot_be_written_tells_no_path(serving, photo, caplog):
    service, gate = serving(), Gate()
    submit(service, photo(), watch=gate)
    ticket = submit(service, photo())
    ticket.room.discard()
    gate.opened.set()
    assert code_of(ticket) == "internal"
    assert str(service.rooms.path) not in str(ticket.future.exception())
    assert str(service.rooms.path) in caplog.text


def test_many_at_once_are_not_mixed_up(serving, photo, tiny):
    torch.set_num_threads(1)  # as the workers have: sums of more are rounded otherwise
    up = Upscaler.load(tiny)
    sources = [photo(f"{i}.png", (8 + 3 * i, 30 - 2 * i), seed=i) for i in range(10)]
    expected = {}
    for path in sources:
        with Image.open(path) as image:
            expected[path] = np.asarray(up(image))
    service = serving(workers=2, waiting=100)

    def one(number):
        path = sources[number % 10]
        room = service.rooms.make()
        with room:
            outcome = service.submit(path, path.name, Wish(), room=room).future.result(60)
            assert np.array_equal(pixels(outcome.path), expected[path])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(40)))
    assert service.finished == 40
    assert list(service.rooms.path.iterdir()) == []


def test_inspecting(serving, photo, tmp_path):
    service = serving()
    found = service.inspect(ROOT / "examples" / "portrait.jpg", "me.jpg")
    assert found.advice.model
    with pytest.raises(Refusal, match=r"^me.png is too small") as refusal:
        service.inspect(photo("small.png", (2, 2)), "me.png")
    assert refusal.value.code == "bad_picture"


def test_models_have_names_of_their_own(tiny, tmp_path):
    other = tmp_path / tiny.name
    other.write_bytes(tiny.read_bytes())
    with pytest.raises(ValueError, match="would both be called tiny"):
        Service([str(tiny), str(other)])
    with pytest.raises(ValueError, match="at least one model"):
        Service([])
    with pytest.raises(ValueError, match="at least one worker; got 0"):
        Service([str(tiny)], workers=0)
    with pytest.raises(ValueError, match=r"nothing\.pth does not exist"):
        Service([str(tiny), "nothing.pth"])


def test_warnings_name_the_result_and_no_folder(serving, tmp_path):
    service = serving()
    Image.new("RGBA", (16, 16), (255, 0, 0, 100)).save(tmp_path / "a.png")
    (warning,) = submit(service, tmp_path / "a.png", Wish(format="jpg")).future.result(20).warnings
    assert warning.startswith("a_x4.jpg: JPEG has no transparency")
    assert str(service.rooms.path) not in warning


def test_what_is_left_is_told_by_the_tiles_that_are_done(serving, photo, monkeypatch):
    service, gate = serving(), Gate()
    ticket = submit(service, photo(), watch=gate)
    assert gate.reached.wait(20)
    assert service.status(ticket).seconds_left is None
    ticket.tiles, ticket.spent = (2, 6), 10.0
    for passed, left in ((10.0, 20.0), (13.0, 17.0), (99.0, 0.0)):
        monkeypatch.setattr(time, "monotonic", lambda passed=passed: ticket.began + passed)
        assert service.status(ticket).seconds_left == pytest.approx(left)
    monkeypatch.undo()
    gate.opened.set()
    ticket.future.result(20)
