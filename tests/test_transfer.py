"""Strips written by a thread: in order, few at a time, and its errors. Copies on a GPU: test_inference_cuda."""

import threading

import pytest
import torch

from dacesr import transfer
from dacesr.transfer import Arriving, Copies, Filled

CPU = torch.device("cpu")


def strips(count=5, rows=10):
    return [torch.rand(1, 3, rows, 4) for _ in range(count)]


def test_on_the_cpu_nothing_is_copied():
    x = torch.rand(2, 3)
    for arriving in (Copies(CPU).send(x), Copies(CPU).fetch(x), Arriving(x)):
        assert arriving.on_device() is x
        assert arriving.in_memory() is x


def test_strips_are_written_in_order_by_another_thread(monkeypatch):
    monkeypatch.setattr(transfer, "ROWS", 4)
    given, written, writers = strips(), [], set()

    def write(piece):
        writers.add(threading.current_thread())
        written.append(piece)

    Copies(CPU).write(given, lambda rows: 2 * rows, write)
    assert [piece.shape[2] for piece in written] == [4, 4, 2] * 5
    torch.testing.assert_close(torch.cat(written, dim=2), 2 * torch.cat(given, dim=2))
    assert len(writers) == 1
    assert threading.main_thread() not in writers


def test_few_strips_wait(monkeypatch):
    monkeypatch.setattr(transfer, "MOST_WAITING", 3)
    made, go_on, ahead = [], threading.Event(), []

    def making():
        for number, strip in enumerate(strips(12)):
            made.append(number)
            if number == 3:
                go_on.set()
            yield strip

    def write(piece):
        assert go_on.wait(5)
        ahead.append(len(made))

    Copies(CPU).write(making(), lambda rows: rows, write)
    assert len(ahead) == 12
    assert all(seen - number <= 5 for number, seen in enumerate(ahead))


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [0, 4])
def test_an_error_while_writing_is_raised(error, at):
    written = []

    def write(piece):
        if len(written) == at:
            raise error
        written.append(piece)

    with pytest.raises(type(error)):
        Copies(CPU).write(strips(), lambda rows: rows, write)
    assert len(written) == at
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write")]


def test_an_error_while_strips_are_made_ends_the_thread():
    def making():
        yield from strips(2)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        Copies(CPU).write(making(), lambda rows: rows, lambda piece: None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("write")]


def test_a_tensor_is_filled_from_the_top():
    given, filled = strips(), Filled(torch.empty(1, 3, 50, 4))
    for strip in given:
        filled.add(strip)
    torch.testing.assert_close(filled.tensor, torch.cat(given, dim=2))
    with pytest.raises(RuntimeError, match="exceeds"):
        filled.add(given[0])
