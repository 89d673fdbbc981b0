"""When a network's work is recorded and when it is run as it is. Real graphs: test_inference_cuda."""

import threading

import pytest
import torch

from dacesr import graphs
from dacesr.engine import Engine
from dacesr.graphs import Graphs
from dacesr.nets.restorer import Restorer, RestorerConfig


class Doubling(torch.nn.Module):
    """A network that counts its runs."""

    runs = 0

    def forward(self, x, *others):
        self.runs += 1
        return sum(others, 2 * x)


class Recordings:
    """Stands for CUDA graphs: keeps the function, and what it read when it was recorded."""

    def __init__(self):
        self.made, self.replayed, self.error = [], [], None

    def __call__(self, net, inputs):
        shape = tuple(inputs[0].shape)
        if self.error:
            raise self.error
        self.made.append(shape)

        def replay(given):
            self.replayed.append(shape)
            return net.forward(*given)

        return replay


@pytest.fixture
def emptied(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    return calls


def tensor(side=4, batch=1):
    return torch.rand(batch, 3, side, side)


def test_a_shape_is_recorded_when_it_comes_again():
    recordings = Recordings()
    run = Graphs(Doubling(), record=recordings)
    for side in (4, 5, 4, 4, 5, 5):
        x = tensor(side)
        torch.testing.assert_close(run(x), 2 * x)
    assert recordings.made == [(1, 3, 4, 4), (1, 3, 5, 5)]
    assert len(recordings.replayed) == 4


def test_all_inputs_count():
    recordings = Recordings()
    run, x = Graphs(Doubling(), record=recordings), tensor()
    for others in ((), (x,), (x[:, :1],), (x.double(),)):
        run(x, *others)
    assert not recordings.made
    torch.testing.assert_close(run(x, x), 3 * x)
    assert len(recordings.made) == 1


def test_large_inputs_are_run_as_they_are(monkeypatch):
    monkeypatch.setattr(graphs, "MOST_PIXELS", 2 * 4 * 4)
    recordings = Recordings()
    run = Graphs(Doubling(), record=recordings)
    for batch in (2, 3):
        for _ in range(3):
            run(tensor(batch=batch))
    assert recordings.made == [(2, 3, 4, 4)]


def test_few_shapes_are_kept_those_used_last(monkeypatch):
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    recordings = Recordings()
    run = Graphs(Doubling(), record=recordings)
    for side in (1, 1, 2, 2, 1, 3, 3, 1, 2):
        run(tensor(side))
    assert [shape[3] for shape in recordings.made] == [1, 2, 3]
    run(tensor(2))  # once dropped, it has to come twice again
    assert [shape[3] for shape in recordings.made] == [1, 2, 3, 2]


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted when stream is capturing"), None])
def test_what_cannot_be_recorded_is_run_as_it_is_and_not_tried_again(error, emptied):
    recordings, net = Recordings(), Doubling()
    recordings.error = error or torch.OutOfMemoryError("CUDA out of memory")
    run, x = Graphs(net, record=recordings), tensor()
    for _ in range(2):
        torch.testing.assert_close(run(x), 2 * x)
    recordings.error = None
    run(x)
    assert (net.runs, recordings.made) == (3, [])


def test_what_is_dropped_is_recorded_anew(emptied):
    recordings = Recordings()
    run, x = Graphs(Doubling(), record=recordings), tensor()
    run(x), run(x)
    run.clear()
    assert emptied == [1]
    run(x), run(x)
    assert len(recordings.made) == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_recording_that_broke_off_is_closed_for_the_allocator_too(monkeypatch, known):
    class Broken:
        def capture_end(self):
            raise RuntimeError("operation failed due to a previous error during capture")

    called = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        if known:
            monkeypatch.setattr(torch._C, name, lambda *given, name=name: called.append((name, *given)), raising=False)
        else:
            monkeypatch.delattr(torch._C, name, raising=False)
    with pytest.raises(RuntimeError, match="previous error"):
        graphs.end_recording(Broken(), (0, 3))
    assert called == ([("_cuda_endAllocateToPool", 1, (0, 3)), ("_cuda_releasePool", 1, (0, 3))] if known else [])


def test_errors_of_the_network_are_the_callers(emptied):
    class Starving(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    run = Graphs(Starving(), record=Recordings())
    for _ in range(2):  # and the lock is free again
        with pytest.raises(torch.OutOfMemoryError):
            run(tensor())


def test_one_thread_at_a_time_gives_work():
    inside, most = [], []

    class Watched(torch.nn.Module):
        def forward(self, x):
            inside.append(1)
            most.append(len(inside))
            threading.Event().wait(0.01)
            inside.pop()
            return x

    nets = [Graphs(Watched(), record=Recordings()) for _ in range(2)]
    threads = [threading.Thread(target=nets[i % 2], args=(tensor(),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 6


def test_a_thread_runs_a_shape_once_before_it_records_it():
    recordings = Recordings()
    run = Graphs(Doubling(), record=recordings)
    run(tensor())
    thread = threading.Thread(target=run, args=(tensor(),))
    thread.start()
    thread.join()
    assert not recordings.made
    run(tensor())
    assert recordings.made == [(1, 3, 4, 4)]


def test_the_cpu_has_no_graphs():
    net = Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect"))
    engine = Engine(net, pair=None, strength=None, device=torch.device("cpu"), precision="fp32", name="", warn=print)
    assert engine.at(None).running.graphs is None
