"""Training with a condition: pictures, windows and embeddings stay together."""

import csv
from pathlib import Path

import pytest
import torch
from tiny_tagger import TAGS, write_tagger
from torch import Tensor

from dacesr.checkpoint import load_restorer, save_restorer
from dacesr.conditioning import load_guided
from dacesr.dataset import Batch, Batches, Photographs
from dacesr.image import read
from dacesr.nets.restorer import Restorer, RestorerConfig
from dacesr.train.config import ConfigError
from dacesr.train.loop import train
from dacesr.train.scenes import Crops, Scenes, gathered, squares
from train.conftest import PLAIN, Recipe, assert_same_run
from train.test_restorer import task

SMALL = 10  # sides of a small picture, of which crops take 8
CONDITIONED = ["network.modulation=spatial", "network.condition_dim=16"]


def cut(whole: Tensor, window: Tensor) -> Tensor:
    """The part of (3, h, w) that a window is."""
    top, left, bottom, right = (window * torch.tensor([*whole.shape[1:], *whole.shape[1:]])).round().long().tolist()
    return whole[:, top:bottom, left:right]


def scenes(**changes: object) -> Scenes:
    """Scenes whose condition is the small picture itself, and whose small picture is every fourth pixel."""
    parts = {
        "crop": 32,
        "scale": 4,
        "seed": 1,
        "degrade": lambda gt, generators: gt[..., ::4, ::4],
        "embed": lambda lr: lr.mul(255).flatten(1, 2),
        "device": torch.device("cpu"),
    }
    return Scenes(**{**parts, **changes})


def random_batch(seed: int, count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    gt = torch.randint(256, (count, 3, 4 * SMALL, 4 * SMALL), generator=generator, dtype=torch.uint8)
    return Batch(gt, None, [torch.Generator() for _ in range(count)])


def assert_together(crops: Crops) -> None:
    """Every crop is the part of its own condition, here its picture, that its window tells."""
    assert crops.condition is not None
    assert crops.window is not None
    for lr, gt, condition, window in zip(*crops, strict=True):
        assert torch.equal(lr.mul(255).round(), cut(condition.float().unflatten(0, (3, SMALL)), window))
        assert torch.equal(gt[:, ::4, ::4], lr)


def test_crops_come_with_the_condition_of_their_picture_and_their_place_in_it():
    made = scenes().crops(random_batch(0), 5)
    assert made.lr.shape == (3, 3, 8, 8)
    assert made.gt.shape == (3, 3, 32, 32)
    assert_together(made)
    assert len({tuple(window) for window in made.window.tolist()}) > 1


def test_the_pool_and_flips_keep_picture_and_embedding_together(recipe: Recipe, tmp_path: Path):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    changes = [*CONDITIONED, f"extractor={extractor}", "data.context=[40, 40]", "loss.gan=0"]
    made = task(recipe("run", *changes, "data.pool=4", "data.transpose=true", "accumulate=1"))
    made._feed._scenes = scenes()
    came: list[Crops] = []
    plain = made._feed._scenes.crops
    made._feed._scenes.crops = lambda *args, **options: came.append(plain(*args, **options)) or came[-1]
    strangers = 0
    for number in range(6):
        crops = made._crops(number)
        assert_together(crops)
        strangers += sum(not any(torch.equal(lr, new) for new in came[-1].lr) for lr in crops.lr)
    made.close()
    assert strangers > 0  # what comes out of the full pool went in at other steps


def test_pictures_that_are_kept_are_degraded_and_seen_once():
    calls = []

    def degrade(gt: Tensor, generators: object) -> Tensor:
        calls.append(len(gt))
        return gt[..., ::4, ::4]

    made = scenes(degrade=degrade)
    first, again = (made.crops(random_batch(0), number, keep=0) for number in (0, 9))
    other = made.crops(random_batch(1), 1, keep=1)
    assert calls == [3, 3]
    assert torch.equal(first.condition, again.condition)
    assert not torch.equal(first.window, again.window)
    for crops in (again, other):
        assert_together(crops)
    assert not torch.equal(other.condition, first.condition)


def test_what_is_kept_as_a_whole_is_not_read_again_while_there_is_room():
    batch = random_batch(0)
    made = scenes(device_bytes=batch.gt.nbytes + 1)
    first = made.crops(batch, 0, keep=0)
    made.crops(random_batch(1), 1, keep=1)
    assert [made.complete(keep) for keep in (0, 1, 2, None)] == [True, False, False, False]
    again, expected = made.crops(None, 9, keep=0), scenes().crops(batch, 9)
    for got, wanted in zip(again, expected, strict=True):
        assert torch.equal(got, wanted)
    assert not torch.equal(again.window, first.window)
    with pytest.raises(ValueError, match="batch 1 is not kept"):
        made.crops(None, 10, keep=1)
    assert not scenes().complete(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_crops_on_a_gpu_are_those_on_the_cpu():
    batch, device = random_batch(0), torch.device("cuda")
    for number, crop in ((0, 32), (7, 32), (0, 4 * SMALL)):
        expected = scenes(crop=crop).crops(batch, number)
        got = scenes(crop=crop, device=device, device_bytes=1 << 20).crops(batch, number)
        for one, two in zip(got, expected, strict=True):
            assert one.is_cuda
            assert torch.equal(one.cpu(), two)


def test_gathered_squares_are_those_that_are_copied():
    pictures = torch.arange(2 * 3 * 9 * 8, dtype=torch.int32).reshape(2, 3, 9, 8)
    places = torch.tensor([[0, 4], [3, 1]])
    copied = torch.stack([pictures[0, :, 0:5, 3:8], pictures[1, :, 4:9, 1:6]])
    assert torch.equal(squares(pictures, places, 5), copied)
    assert torch.equal(gathered(pictures, places, 5), copied)


def test_samples_come_again_after_their_number(photos: Path):
    source = Photographs([str(photos)])
    batches = Batches(source, size=(32, 40), multiple=4, batch=2, seed=1, samples=6)
    assert batches.period == 3
    assert torch.equal(batches.batch(1).gt, batches.batch(4).gt)
    sizes = {Batches(source, size=(32, 40), multiple=4, batch=1, seed=1).batch(i).gt.shape[-1] for i in range(20)}
    assert sizes == {32, 36, 40}


def test_without_a_context_the_crop_itself_is_recognised():
    batch = random_batch(0)
    made = scenes(crop=4 * SMALL).crops(batch, 0)
    assert torch.equal(made.window, torch.tensor([[0.0, 0, 1, 1]] * 3))
    assert torch.equal(made.gt, batch.gt.float() / 255)
    assert scenes(embed=None).crops(batch, 0)[2:] == (None, None)


def test_two_processes_crop_where_one_with_all_samples_would():
    batch = random_batch(0, count=4)
    whole = scenes().crops(batch, 3)
    for rank in (0, 1):
        half = Batch(batch.gt[2 * rank : 2 * rank + 2], None, batch.generators[:2])
        part = scenes(rank=rank, processes=2).crops(half, 3)
        assert torch.equal(part.gt, whole.gt[2 * rank : 2 * rank + 2])
        assert torch.equal(part.window, whole.window[2 * rank : 2 * rank + 2])


@pytest.mark.parametrize("samples", [0, 4])
def test_a_conditioned_run_resumes_bit_for_bit(recipe: Recipe, tmp_path: Path, samples: int):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    changes = [*CONDITIONED, f"extractor={extractor}", "data.context=[36, 40]", f"data.samples={samples}"]
    whole = train(recipe("whole", *changes))
    part = recipe("part", *changes)
    train(part, max_minutes=0)
    assert_same_run(whole, train(part))
    net = load_restorer(whole / "model.safetensors")
    assert any(parameter.any() for parameter in net.modulation.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("cuda_accelerator")
def test_a_conditioned_run_on_a_gpu_goes_on_and_logs_its_waiting(recipe: Recipe, tmp_path: Path):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    changes = [*CONDITIONED, f"extractor={extractor}", "data.context=[36, 40]", "data.samples=4", "data.pool=0"]
    train(recipe("run", *changes, "iterations=20"), max_minutes=0)
    folder = train(recipe("run", *changes, "iterations=20", "optimizer.schedule_minutes=0.001"))
    with (folder / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert [row["iteration"] for row in log] == [str(number) for number in range(2, 21, 2)]
    assert all(0 <= float(row["waiting"]) <= 1 for row in log)
    assert all(row["skipped"] == "0" for row in log)
    assert float(log[-1]["lr"]) == pytest.approx(0, abs=1e-9)


def test_training_starts_from_the_unconditioned_network_and_names_its_extractor(
    recipe: Recipe, tmp_path: Path, photos: Path
):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    plain = Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect"))
    torch.nn.init.normal_(plain.upsample[0].weight, std=0.1)
    save_restorer(tmp_path / "plain.safetensors", plain)
    changes = [*PLAIN, *CONDITIONED, f"extractor={extractor}", f"init={tmp_path / 'plain.safetensors'}", "ema=0.0"]
    folder = train(recipe("run", *changes, "optimizer.lr=1e-12", "iterations=1"))
    (folder / extractor.name).write_bytes(extractor.read_bytes())
    x = read(next(photos.iterdir()))
    with torch.no_grad():
        got, expected = load_guided(folder / "model.safetensors")(x), plain(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_run_goes_on_with_its_own_extractor_only(recipe: Recipe, tmp_path: Path):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    config = recipe("run", *PLAIN, *CONDITIONED, f"extractor={extractor}")
    train(config, max_minutes=0)
    write_tagger(extractor, seed=1)
    with pytest.raises(ConfigError, match="holds a run of another network or config"):
        train(config)


def test_weights_to_start_from_must_have_the_same_modulation_and_extractor(recipe: Recipe, tmp_path: Path):
    extractor, other = (write_tagger(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (0, 1))
    folder = train(recipe("first", *PLAIN, *CONDITIONED, f"extractor={extractor}", "iterations=1"))
    start = f"init={folder / 'model.safetensors'}"
    for changes, words in (
        ([f"extractor={extractor}", *CONDITIONED, "network.modulation=global"], "network.modulation is global"),
        ([f"extractor={other}", *CONDITIONED], "is not the one that init"),
    ):
        with pytest.raises(ConfigError, match=words):
            task(recipe("second", start, *changes))


def test_logits_condition_too(recipe: Recipe, tmp_path: Path):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    network = ["network.modulation=global", "network.condition=le", f"network.condition_dim={len(TAGS)}"]
    folder = train(recipe("run", *PLAIN, *network, f"extractor={extractor}", "iterations=2"))
    assert load_restorer(folder / "model.safetensors").config.condition == "le"


def test_what_does_not_fit_is_named(recipe: Recipe, tmp_path: Path):
    extractor = write_tagger(tmp_path / "tagger.safetensors")
    wrong = {
        "network.modulation should say": [f"extractor={extractor}"],
        "extractor should name": ["network.modulation=spatial"],
        "condition_dim is 512": [f"extractor={extractor}", "network.modulation=spatial"],
        "condition le is one token": ["network.modulation=spatial", "network.condition=le"],
        "context should be": ["data.context=[16, 64]"],
        "samples should be": ["data.samples=1"],
        "should be multiples of the scale 4": ["data.context=[33, 64]"],
    }
    for words, changes in wrong.items():
        with pytest.raises(ConfigError, match=words):
            task(recipe("run", *changes))
