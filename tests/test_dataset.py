"""Batches, the pool of pairs, and validation sets."""

import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dacesr.dataset import Batches, PairPool, Pairs, Photographs, Sample, ValidationSet
from dacesr.image import read, write


class Noise:
    """Every sample another picture; a pair where asked, whose gt is the enlarged lr."""

    def __init__(self, paired: bool = False) -> None:
        self.paired = paired

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        small = torch.randint(256, (3, size // 4, size // 4), generator=generator, dtype=torch.uint8)
        gt = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
        return Sample(gt, small if self.paired else None)


class Failing(Noise):
    def sample(self, size: int, generator: torch.Generator) -> Sample:
        raise ValueError("nothing to draw")


class Half(Noise):
    """Pairs and others by chance."""

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        self.paired = not self.paired
        return super().sample(size, generator)


def batches(source: Noise | None = None, **options: int) -> Batches:
    return Batches(source or Noise(), **{"size": 16, "batch": 4, "seed": 7, **options})


def folder_of(path: Path, sizes: list[tuple[int, int]]) -> Path:
    path.mkdir()
    for i, (height, width) in enumerate(sizes):
        write(path / f"{i}.png", torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(i)))
    return path


def no_threads() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    first, again = batches(), batches()
    expected = [first.batch(i) for i in range(5)]
    for i in (3, 0, 4):
        other = again.batch(i)
        assert torch.equal(expected[i].gt, other.gt)
        for a, b in zip(expected[i].generators, other.generators, strict=True):
            assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    assert expected[0].gt.shape == (4, 3, 16, 16)
    assert expected[0].gt.dtype == torch.uint8
    assert expected[0].lr is None
    assert not torch.equal(expected[0].gt, expected[1].gt)
    assert not torch.equal(expected[0].gt, batches(seed=8).batch(0).gt)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_see_together_what_one_sees(processes: int) -> None:
    one = batches(batch=6).batch(9)
    parts = [batches(batch=6 // processes, rank=rank, processes=processes).batch(9) for rank in range(processes)]
    assert torch.equal(one.gt, torch.cat([part.gt for part in parts]))
    generators = [generator for part in parts for generator in part.generators]
    for a, b in zip(one.generators, generators, strict=True):
        assert torch.equal(a.get_state(), b.get_state())


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_flips_keep_pairs_together(flip: bool, transpose: bool) -> None:
    plain = batches(Noise(paired=True), batch=64, flip=False).batch(0)
    turned = batches(Noise(paired=True), batch=64, flip=flip, transpose=transpose).batch(0)
    assert plain.lr is not None
    assert turned.lr is not None
    assert turned.lr.shape == (64, 3, 4, 4)
    assert torch.equal(turned.gt, turned.lr.repeat_interleave(4, 2).repeat_interleave(4, 3))
    ways = {
        (False, False): plain.lr,
        (True, False): plain.lr.flip(-1),
        (False, True): plain.lr.mT,
        (True, True): plain.lr.flip(-1).mT,
    }
    counts = {way: int((turned.lr == lr).flatten(1).all(1).sum()) for way, lr in ways.items()}
    assert sum(counts.values()) == 64
    for (mirrored, swapped), count in counts.items():
        allowed = (flip or not mirrored) and (transpose or not swapped)
        assert (count > 6) == allowed


def test_pairs_from_files_stay_together(tmp_path: Path) -> None:
    folder_of(tmp_path / "lr", [(10, 12), (9, 20)])
    (tmp_path / "gt").mkdir()
    for path in (tmp_path / "lr").iterdir():
        write(tmp_path / "gt" / path.name, read(path).repeat_interleave(4, 2).repeat_interleave(4, 3))
    batch = Batches(Pairs(tmp_path / "gt", tmp_path / "lr"), size=24, batch=8, seed=0, transpose=True).batch(0)
    assert batch.lr is not None
    assert torch.equal(batch.gt[..., ::4, ::4], batch.lr)
    assert torch.equal(batch.gt[..., 3::4, 3::4], batch.lr)


def test_half_of_a_batch_cannot_be_pairs() -> None:
    with pytest.raises(ValueError, match="2 of 4 samples are pairs"):
        batches(Half()).batch(0)


@pytest.mark.parametrize("options", [{"size": 0}, {"batch": 0}, {"rank": 2, "processes": 2}, {"rank": -1}])
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="are no batches"):
        batches(**options)


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_prefetching_gives_the_same_batches(ahead: int) -> None:
    source = batches()
    got = list(source.prefetch(3, 8, ahead))
    assert len(got) == 5
    for i, batch in enumerate(got):
        assert torch.equal(batch.gt, source.batch(3 + i).gt)
    assert no_threads()
    assert list(source.prefetch(3, 3)) == []


def test_prefetching_goes_on_in_the_background() -> None:
    made = threading.Semaphore(0)

    class Counting(Noise):
        def sample(self, size: int, generator: torch.Generator) -> Sample:
            made.release()
            return super().sample(size, generator)

    batch = batches(Counting(), batch=1).prefetch(0, 100, ahead=3)
    next(batch)
    assert all(made.acquire(timeout=10) for _ in range(4))  # the first and three more
    assert not made.acquire(timeout=0.05)
    batch.close()
    assert no_threads()


def test_an_error_in_the_background_is_raised_in_its_place() -> None:
    class Late(Noise):
        left = 8

        def sample(self, size: int, generator: torch.Generator) -> Sample:
            self.left -= 1
            if self.left < 0:
                raise ValueError("nothing to draw")
            return super().sample(size, generator)

    got = []
    with pytest.raises(ValueError, match="nothing to draw"):
        got.extend(batch for batch in batches(Late()).prefetch(0, 9))
    assert no_threads()
    with pytest.raises(ValueError, match="nothing to draw"):
        next(batches(Failing()).prefetch(0, 1))
    with pytest.raises(ValueError, match="ahead should be at least 1"):
        batches().prefetch(0, 1, ahead=0)


def test_a_run_resumed_in_the_middle_goes_on_alike(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", [(40, 50), (60, 33), (20, 20)])

    def run(start: int, end: int, pool: PairPool) -> list[Tensor]:
        source = Batches(Photographs([folder]), size=16, batch=2, seed=1)
        stream = enumerate(source.prefetch(start, end), start)
        return [pool.exchange(i, batch.gt / 255, batch.gt)[0] for i, batch in stream]

    whole = run(0, 12, PairPool(6, seed=1))
    pool = PairPool(6, seed=1)
    first = run(0, 7, pool)
    resumed = PairPool(6, seed=1)
    resumed.load_state_dict(pool.state_dict())
    for a, b in zip(whole, first + run(7, 12, resumed), strict=True):
        assert torch.equal(a, b)


def numbered(iteration: int, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """lr, gt and a condition that all carry the sample's number."""
    number = torch.arange(iteration * count, (iteration + 1) * count) % 256
    lr = (number / 255).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return lr, lr.repeat_interleave(4, 2).repeat_interleave(4, 3), number[:, None] * 0.1234


def test_the_pool_shuffles_and_keeps_pairs_together() -> None:
    pool = PairPool(10, seed=0)  # no multiple of the batch
    come, gone = [], []
    for i in range(40):
        batch = numbered(i)
        lr, gt, condition = pool.exchange(i, *batch)
        assert lr.shape == batch[0].shape
        assert torch.equal(gt[..., ::4, ::4], lr)
        torch.testing.assert_close(condition[:, 0] / 0.1234, lr[:, 0, 0, 0] * 255)
        if i < 3:
            assert torch.equal(lr, batch[0])
            continue
        come += batch[0][:, 0, 0, 0].mul(255).round().tolist()
        gone += lr[:, 0, 0, 0].mul(255).round().tolist()
    assert len(set(gone)) == len(gone)  # none twice
    assert set(gone) <= set(come) | set(range(10))
    assert gone != come
    assert max(b - a for a, b in pairwise(gone)) > 4  # across batches


def test_the_pool_resumes_exactly_and_small() -> None:
    pool = PairPool(12, seed=3)
    for i in range(6):
        pool.exchange(i, *numbered(i))
    state = pool.state_dict()
    assert [state[key].dtype for key in ("0", "1", "2")] == [torch.uint8, torch.uint8, torch.float32]
    resumed = PairPool(12, seed=3)
    resumed.load_state_dict(state)
    for i in range(6, 20):
        for a, b in zip(pool.exchange(i, *numbered(i)), resumed.exchange(i, *numbered(i)), strict=True):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize("filled", [0, 1, 2])
def test_a_pool_that_is_not_full_resumes_too(filled: int) -> None:
    pool, resumed = PairPool(12, seed=3), PairPool(12, seed=3)
    for i in range(filled):
        pool.exchange(i, *numbered(i))
    resumed.load_state_dict(pool.state_dict())
    for i in range(filled, 9):
        for a, b in zip(pool.exchange(i, *numbered(i)), resumed.exchange(i, *numbered(i)), strict=True):
            assert torch.equal(a, b)


def test_every_8_bit_value_survives_the_state() -> None:
    values = (torch.arange(256) / 255).reshape(256, 1)
    for tensor in (values, values + 1e-6, values.double(), torch.arange(256, dtype=torch.uint8)[:, None]):
        pool, resumed = PairPool(256, seed=0), PairPool(256, seed=0)
        pool.exchange(0, tensor)
        resumed.load_state_dict(pool.state_dict())
        (a,), (b,) = pool.exchange(1, tensor), resumed.exchange(1, tensor)
        assert torch.equal(a, b)
        assert a.dtype == b.dtype == tensor.dtype


def test_pools_refuse_what_does_not_fit() -> None:
    pool = PairPool(4, seed=0)
    with pytest.raises(ValueError, match="a pool of 4 takes one count"):
        pool.exchange(0, torch.zeros(5, 1))
    with pytest.raises(ValueError, match="a pool of 4 takes one count"):
        pool.exchange(0, torch.zeros(2, 1), torch.zeros(3, 1))
    pool.exchange(0, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="the pool holds samples of"):
        pool.exchange(1, torch.zeros(2, 3))
    pool.exchange(1, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="has 3 places, and its saved state fills 4"):
        PairPool(3, seed=0).load_state_dict(pool.state_dict())
    with pytest.raises(ValueError, match="lacks 'packed'"):
        pool.load_state_dict({})
    with pytest.raises(ValueError, match="at least one place"):
        PairPool(0, seed=0)


def test_validation_is_the_same_in_every_pass(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "val", [(41, 50), (64, 35)])
    whole = list(ValidationSet(folder, space="level2", seed=1))
    assert [name for name, _, _ in whole] == ["0", "1"]
    assert [tuple(gt.shape) for _, _, gt in whole] == [(1, 3, 40, 48), (1, 3, 64, 32)]
    assert [tuple(lr.shape) for _, lr, _ in whole] == [(1, 3, 10, 12), (1, 3, 16, 8)]
    assert torch.equal(whole[0][2], read(folder / "0.png")[..., :40, 1:49])
    again = ValidationSet(folder, space="level2", seed=1)
    for _ in range(2):
        for a, b in zip(whole, again, strict=True):
            assert torch.equal(a[1], b[1])
            assert torch.equal(a[2], b[2])
    first = next(iter(ValidationSet(folder, space="level2", seed=1, limit=1)))
    assert torch.equal(first[1], whole[0][1])
    assert not torch.equal(next(iter(ValidationSet(folder, space="level2", seed=2)))[1], whole[0][1])
    lr = whole[0][1]
    assert lr.dtype == torch.float32
    assert torch.equal(lr.mul(255).round() / 255, lr)


def test_validation_may_use_the_centre_of_some(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "val", [(40, 50), (64, 16), (30, 30)])
    cropped = list(ValidationSet(folder, space="bicubic", limit=2, crop=26))
    assert [tuple(gt.shape[2:]) for _, _, gt in cropped] == [(24, 24), (24, 16)]
    assert torch.equal(cropped[0][2], read(folder / "0.png")[..., 8:32, 13:37])
    assert len(ValidationSet(folder, space="bicubic", limit=2)) == 2


def test_validation_names_and_skips_damaged_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "val", [(40, 50), (64, 16), (2, 30)])
    (folder / "0.png").write_text("text")
    said: list[str] = []
    pictures = ValidationSet(folder, space="bicubic", warn=said.append)
    for _ in range(2):
        assert [name for name, _, _ in pictures] == ["1"]
    assert (pictures.skipped, len(pictures), len(said)) == (2, 1, 2)
    assert "0.png" in said[0]
    assert "2 pixels a side, less than the scale 4" in said[1]
    (folder / "1.png").unlink()
    with pytest.raises(ValueError, match="none of its files can be used"):
        list(ValidationSet(folder, space="bicubic", warn=said.append))


def test_validation_needs_a_folder_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone is not a folder"):
        ValidationSet(tmp_path / "gone", space="bicubic")
    with pytest.raises(ValueError, match="holds no picture to validate on"):
        ValidationSet(tmp_path, space="bicubic")
    with pytest.raises(ValueError, match="leave nothing to validate on"):
        ValidationSet(tmp_path, space="bicubic", limit=0)
