"""Batches of labelled pictures: what decides them, how pictures vary, how often each is drawn."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dacesr.augmentation import (
    Augmentation,
    LabelledBatches,
    LabelledCrops,
    evaluation_batches,
    picture_weights,
)
from dacesr.dataset import Batches
from dacesr.labelled import LabelledSet

LUMA = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
STILL = Augmentation.none()


def labelled(pictures: list[Tensor], labels: list[list[int]] | None = None) -> LabelledSet:
    labels = labels or [[1]] * len(pictures)
    names = [str(i) for i in range(len(pictures))]
    tags = [f"tag {i}" for i in range(len(labels[0]))]
    return LabelledSet(tags=tags, names=names, pictures=pictures, labels=torch.tensor(labels, dtype=torch.uint8))


def noise(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def slopes(height: int, width: int) -> Tensor:
    """Red is the column, green the row, both from 0 to 255; blue is 0."""
    rows, columns = (torch.linspace(0, 255, side).round().to(torch.uint8) for side in (height, width))
    return torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width), torch.zeros(height, width).byte()])


def changed(**options: object) -> Augmentation:
    """Nothing varies but what is named."""
    return Augmentation(**{**vars(STILL), **options})  # type: ignore[arg-type]


def batches(pictures: LabelledSet | None = None, **options: object) -> LabelledBatches:
    pictures = pictures or labelled(noise((20, 30), (30, 20), (16, 16)), [[1, 0], [1, 1], [0, 1]])
    return LabelledBatches(pictures, **{"size": 12, "batch": 6, "seed": 5, **options})  # type: ignore[arg-type]


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    first, again = batches(), batches()
    expected = [first.batch(i) for i in range(4)]
    for i in (2, 0, 3):
        assert all(torch.equal(a, b) for a, b in zip(expected[i], again.batch(i), strict=True))
    images, labels, indices = expected[0]
    assert (images.shape, images.dtype) == ((6, 3, 12, 12), torch.float32)
    assert (labels.dtype, indices.dtype) == (torch.float32, torch.int64)
    assert labels.tolist() == [[[1, 0], [1, 1], [0, 1]][i] for i in indices.tolist()]
    assert 0 <= images.min() < images.max() <= 1
    for a, b in pairwise(expected):
        assert not torch.equal(a.images, b.images)
    assert not torch.equal(batches(seed=6).batch(0).images, images)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_see_together_what_one_sees(processes: int) -> None:
    one = batches().batch(9)
    parts = [batches(batch=6 // processes, rank=rank, processes=processes).batch(9) for rank in range(processes)]
    torch.testing.assert_close(one.images, torch.cat([part.images for part in parts]), rtol=0, atol=1e-6)
    assert torch.equal(one.indices, torch.cat([part.indices for part in parts]))


def test_prefetching_gives_the_same_batches() -> None:
    source = batches()
    got = list(source.prefetch(3, 7))
    assert len(got) == 4
    for i, batch in enumerate(got, 3):
        assert torch.equal(batch.images, source.batch(i).images)


def test_without_variation_training_sees_what_evaluation_sees() -> None:
    pictures = labelled(noise((20, 30), (30, 20), (12, 12)))
    whole = next(evaluation_batches(pictures, size=12)).images
    images, _, indices = batches(pictures, augmentation=STILL, batch=20).batch(0)
    assert set(indices.tolist()) == {0, 1, 2}
    assert torch.equal(images, whole[indices])
    assert torch.equal(whole[2], pictures.pictures[2] / 255)


def test_evaluation_sees_every_picture_once_squashed_and_antialiased() -> None:
    fine = (torch.arange(48) % 2 * 255).byte().expand(3, 32, 48)  # stripes of one pixel
    pictures = labelled([fine, *noise(*[(8, 8)] * 4)], [[1, 0], [0, 1], [0, 0], [1, 1], [0, 1]])
    found = list(evaluation_batches(pictures, size=8, batch=2))
    assert [len(part.images) for part in found] == [2, 2, 1]
    assert torch.cat([part.indices for part in found]).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(torch.cat([part.labels for part in found]), pictures.labels.float())
    images = torch.cat([part.images for part in found])
    assert torch.equal(images[1:], torch.stack(pictures.pictures[1:]) / 255)
    assert abs(images[0] - 0.5).max() < 0.06


def test_crops_have_the_area_and_aspect_asked_for_and_lie_anywhere() -> None:
    pictures = labelled([slopes(200, 300)])
    vary = changed(area=(0.2, 0.5), aspect=(0.5, 2.0))
    images = batches(pictures, augmentation=vary, batch=600, size=40).batch(0).images
    left, right = images[:, 0, 20, 0], images[:, 0, 20, -1]
    top, bottom = images[:, 1, 0, 20], images[:, 1, -1, 20]
    width, height = (right - left) * 40 / 39, (bottom - top) * 40 / 39  # between centres of pixels
    area, aspect = width * height, width / height
    assert 0.18 < area.min() < 0.23
    assert 0.45 < area.max() < 0.52
    assert abs(area.mean() - 0.35) < 0.02
    assert 0.48 < aspect.min() < 0.55
    assert 1.8 < aspect.max() < 2.1
    assert abs(aspect.log().mean()) < 0.06
    for start, part in ((left, width), (top, height)):
        share = ((start - part / 80) / (1 - part))[part < 0.9]
        assert abs(share.mean() - 0.5) < 0.05
        assert share.min() < 0.05
        assert share.max() > 0.95


def test_a_crop_never_leaves_the_picture() -> None:
    pictures = labelled([torch.full((3, *size), 200, dtype=torch.uint8) for size in ((1, 1), (1, 50), (7, 3))])
    vary = changed(area=(0.001, 1.0), aspect=(0.1, 10.0))
    images = batches(pictures, augmentation=vary, batch=100).batch(0).images
    torch.testing.assert_close(images, torch.full_like(images, 200 / 255))


def test_half_of_the_pictures_are_mirrored() -> None:
    pictures = labelled([slopes(12, 12)])
    plain = pictures.pictures[0] / 255
    images = batches(pictures, augmentation=changed(flip=True), batch=100).batch(0).images
    mirrored = (images == plain.flip(-1)).flatten(1).all(1)
    assert ((images == plain).flatten(1).all(1) ^ mirrored).all()
    assert 35 < mirrored.sum() < 65


def colours() -> Tensor:
    return (torch.tensor([60, 80, 120]).reshape(3, 1, 1) + torch.arange(12) * 2).expand(3, 12, 12).to(torch.uint8)


def test_brightness_scales_all_values() -> None:
    plain = colours() / 255
    images = batches(labelled([colours()]), augmentation=changed(brightness=0.4), batch=300).batch(0).images
    factors = (images / plain).flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors))
    assert 0.6 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4001
    bright = batches(labelled([colours() + 120]), augmentation=changed(brightness=1.0), batch=100).batch(0).images
    assert bright.max() == 1


def test_contrast_scales_differences_from_the_mean() -> None:
    plain = colours() / 255
    mean = (plain * LUMA).sum(0).mean()
    images = batches(labelled([colours()]), augmentation=changed(contrast=0.5), batch=300).batch(0).images
    factors = ((images - mean) / (plain - mean)).flatten(1)[:, :12]  # red, which is far from the mean
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-3, atol=1e-3)
    assert 0.499 <= factors.min() < 0.53
    assert 1.47 < factors.max() <= 1.501


def test_saturation_scales_differences_from_luma() -> None:
    plain = colours() / 255
    luma = (plain * LUMA).sum(0)
    images = batches(labelled([colours()]), augmentation=changed(saturation=0.5), batch=300).batch(0).images
    torch.testing.assert_close((images * LUMA).sum(1), luma.expand(300, -1, -1))
    factors = ((images - luma) / (plain - luma))[:, 2].flatten(1)
    torch.testing.assert_close(factors, factors[:, :1].expand_as(factors), rtol=1e-3, atol=1e-3)
    assert 0.499 <= factors.min() < 0.53
    assert 1.47 < factors.max() <= 1.501


def test_some_pictures_become_gray() -> None:
    images = batches(labelled([colours()]), augmentation=changed(gray=0.25), batch=400).batch(0).images
    gray = (images.amax(1) - images.amin(1)).flatten(1).amax(1) < 1e-6
    assert 60 < gray.sum() < 140
    torch.testing.assert_close(images[~gray], (colours() / 255).expand(int((~gray).sum()), -1, -1, -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": (0, 1)}, "area should be a rising pair"),
        ({"area": (0.5, 1.5)}, "area"),
        ({"area": (0.5, 0.4)}, "area"),
        ({"aspect": (0, 1)}, "aspect"),
        ({"aspect": (1, float("inf"))}, "aspect"),
        ({"brightness": 1.1}, "brightness should be within 0 and 1, not 1.1"),
        ({"gray": -0.1}, "gray"),
        ({"contrast": float("nan")}, "contrast"),
    ],
)
def test_impossible_variations_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


@pytest.mark.parametrize("options", [{"size": 0}, {"batch": 0}, {"rank": 2, "processes": 2}, {"rank": -1}])
def test_impossible_numbers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="are no batches"):
        batches(**options)
    with pytest.raises(ValueError, match=r"balance should be within 0 and 1, not 1.5"):
        batches(balance=1.5)


def test_weights_follow_the_rarest_tag() -> None:
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.uint8)
    torch.testing.assert_close(
        picture_weights(labels, 1.0), torch.tensor([1 / 4, 1 / 4, 1 / 2, 1 / 2, 1, 1 / 6], dtype=torch.float64)
    )
    torch.testing.assert_close(picture_weights(labels, 0.5), picture_weights(labels, 1.0).sqrt())
    assert picture_weights(labels, 0.0).tolist() == [1] * 6


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_balance_decides_how_often_a_rare_class_is_seen(balance: float, share: float) -> None:
    labels = [[1, 0]] * 9 + [[0, 1]]
    pictures = labelled(noise(*[(2, 2)] * 10), labels)
    batch = batches(pictures, balance=balance, batch=2000, size=1, augmentation=STILL).batch(0)
    assert abs(batch.labels[:, 1].mean() - share) < 0.035
    counts = batch.indices.bincount(minlength=10)[:9].double()
    assert abs(counts / counts.mean() - 1).max() < 0.35


def test_crops_are_a_source_of_batches() -> None:
    sizes = [(20, 30), (30, 20), (15, 40), (24, 16)]
    pictures = noise(*sizes)
    crops = LabelledCrops(labelled(pictures))
    batch = Batches(crops, size=16, batch=40, seed=0, flip=False).batch(0)
    assert (batch.gt.shape, batch.gt.dtype, batch.lr) == ((40, 3, 16, 16), torch.uint8, None)
    places = set()
    for gt in batch.gt:
        found = [(i, *place) for i, x in enumerate(pictures) for place in windows(x, gt)]
        assert len(found) == 1
        places.add(found[0])
    assert {i for i, _, _ in places} == {0, 1, 3}  # the third is 15 pixels high
    assert len(places) > 25
    flipped = Batches(crops, size=16, batch=40, seed=0).batch(0).gt
    assert 10 < (flipped != batch.gt).flatten(1).any(1).sum() < 30
    with pytest.raises(ValueError, match="none of the 4 labelled pictures has 21 pixels a side"):
        Batches(crops, size=21, batch=1, seed=0).batch(0)


def windows(picture: Tensor, crop: Tensor) -> list[tuple[int, int]]:
    """Where a crop lies in a picture."""
    size = crop.shape[-1]
    if min(picture.shape[1:]) < size:
        return []
    parts = picture.unfold(1, size, 1).unfold(2, size, 1)  # (3, rows, columns, size, size)
    same = (parts == crop[:, None, None]).flatten(3).all(3).all(0)
    return [(top, left) for top, left in same.nonzero().tolist()]
