"""Workers on one machine: how they share the threads, and what stays as it was."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dacesr import _native
from dacesr.batch import Batch, Telling, shares, use_threads
from dacesr.inference import Upscaler
from dacesr.jobs import plan_jobs
from dacesr.making import Maker, Options, Sentences, attempt

OPTIONS = Options(tile=32, overlap=8)


class Spy:
    """Makes nothing, and notes how many threads its callers may use, how many of them there are, and which."""

    def __init__(self, device="cpu"):
        self.upscaler = type("Fake", (), {"device": torch.device(device)})()
        self.warnings = Sentences()
        self.seen, self.at_once, self.most = {}, 0, 0
        self._lock = threading.Lock()

    def make(self, job, source, result, *, name, progress):
        with self._lock:
            self.at_once += 1
            self.seen[threading.get_ident()] = torch.get_num_threads()
            self.most = max(self.most, self.at_once)
        time.sleep(0.03)
        with self._lock:
            self.at_once -= 1
        result.status = "done"


@pytest.mark.parametrize(
    ("threads", "workers", "expected"),
    [(2, 1, [2]), (2, 2, [1, 1]), (8, 3, [3, 3, 2]), (4, 4, [1] * 4), (1, 2, [1, 1])],
)
def test_all_threads_are_shared_out(threads, workers, expected):
    assert shares(threads, workers) == expected


@pytest.mark.parametrize(("threads", "workers", "shared"), [(5, 2, [2, 3]), (4, 3, [1, 1, 2]), (2, 8, [1, 1])])
def test_workers_never_have_more_threads_than_there_are(photos, tmp_path, threads, workers, shared):
    torch.set_num_threads(threads)
    jobs = 5 * plan_jobs([str(photos)], str(tmp_path))
    spy = Spy()
    results = Batch(spy, Telling(quiet=True)).run(jobs, workers)
    assert [result.status for result in results] == ["done"] * len(jobs)
    assert sorted(spy.seen.values()) == shared
    assert spy.most == len(shared)


def test_a_gpu_may_have_more_workers_than_there_are_threads(photos, tmp_path):
    torch.set_num_threads(1)
    spy = Spy("cuda")
    Batch(spy, Telling(quiet=True)).run(5 * plan_jobs([str(photos)], str(tmp_path)), 3)
    assert spy.most == 3


def test_threads_of_later_have_what_they_had_before(photos, tmp_path):
    torch.set_num_threads(3)
    Batch(Spy(), Telling(quiet=True)).run(plan_jobs([str(photos)], str(tmp_path)), 3)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


def test_a_thread_keeps_its_share_whatever_others_set_meanwhile():
    with ThreadPoolExecutor(1, initializer=use_threads, initargs=(3,)) as pool:
        pool.submit(int).result()  # the thread is there
        torch.set_num_threads(1)
        assert pool.submit(torch.get_num_threads).result() == 3


def test_the_native_scan_takes_its_workers_share(bilinear, photos, tmp_path, monkeypatch):
    torch.set_num_threads(4)
    forward, lock, at_once, most, asked = _native.forward, threading.Lock(), [0], [0], set()

    def counted(*args):
        threads = args[-1]
        with lock:
            asked.add((threads, torch.get_num_threads()))
            at_once[0] += threads
            most[0] = max(most[0], at_once[0])
        try:
            return forward(*args)
        finally:
            with lock:
                at_once[0] -= threads

    monkeypatch.setattr(_native, "forward", counted)
    maker = Maker(Upscaler(bilinear), OPTIONS, warnings=Sentences())
    results = Batch(maker, Telling(quiet=True)).run(plan_jobs([str(photos)], str(tmp_path)), 2)
    assert [result.status for result in results] == ["done"] * 3
    assert asked == {(2, 2)}
    assert most[0] <= 4


def test_workers_write_what_one_writes(bilinear, photos, tmp_path):
    maker = Maker(Upscaler(bilinear), OPTIONS, warnings=Sentences())
    for workers in (1, 3):
        torch.set_num_threads(2 * workers)  # with other shares PyTorch rounds otherwise, in the last bit of fp32
        jobs = plan_jobs([str(photos)], str(tmp_path / str(workers)))
        assert [r.status for r in Batch(maker, Telling(quiet=True)).run(jobs, workers)] == ["done"] * 3
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "3" / path.name).read_bytes()


def test_an_error_becomes_the_sentence_of_its_picture():
    def fails(error):
        def work(result):
            raise error

        return attempt("a.png", work, Sentences())

    assert (fails(OSError("the disk is full")).error, fails(OSError()).status) == ("the disk is full", "failed")
    assert fails(KeyError("x")).error == "a.png failed in a way that should not happen (KeyError: 'x')"
