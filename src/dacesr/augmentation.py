"""Batches of labelled pictures: augmented for a tagger's training, whole for its evaluation, or crops to degrade."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.background import prefetch
from dacesr.labelled import LabelledSet
from dacesr.sources import Sample, sample_generator

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of R, G, B
_DRAWS = 10  # random numbers a sample


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How pictures vary in training; `Augmentation.none()` leaves them whole and as they are.

    Attributes:
        area: Least and largest share of the picture's area that a crop has.
        aspect: Least and largest ratio of its width to its height, over that of the picture; what reaches beyond
            the picture is cut off. (Crops are squashed to squares, as whole pictures are in evaluation.)
        flip: Mirror every other picture left to right.
        brightness: Factor of all values, from 1 - brightness to 1 + brightness.
        contrast: Factor of differences from the mean luma, likewise.
        saturation: Factor of differences from each pixel's luma, likewise.
        gray: Probability that a picture becomes gray.
    """

    area: tuple[float, float] = (0.3, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    gray: float = 0.05

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: A number is impossible; the sentence names the field.
        """
        for field, (least, largest), limit in (("area", self.area, 1), ("aspect", self.aspect, math.inf)):
            if not 0 < least <= largest <= limit or math.isinf(largest):
                raise ValueError(f"{field} should be a rising pair of positive numbers, not {(least, largest)}")
        for field in ("brightness", "contrast", "saturation", "gray"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} should be within 0 and 1, not {getattr(self, field)}")

    @classmethod
    def none(cls) -> "Augmentation":
        """Whole pictures as they are."""
        return cls(area=(1, 1), aspect=(1, 1), flip=False, brightness=0, contrast=0, saturation=0, gray=0)


class LabelledBatch(NamedTuple):
    """`images` float32 (b, 3, size, size) in [0, 1], `labels` float32 (b, tags), `indices` int64 (b,) into the set."""

    images: Tensor
    labels: Tensor
    indices: Tensor


class LabelledBatches:
    """Augmented batches for training; a batch is a function of (seed, iteration, rank).

    As in `dataset.Batches`, sample j has the index (iteration * processes + rank) * batch + j and a generator of its
    own, so that two processes with b samples each see together what one process with 2 b sees.
    """

    def __init__(
        self,
        pictures: LabelledSet,
        *,
        size: int,
        batch: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        balance: float = 0.5,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Weigh the pictures.

        Args:
            pictures: What is drawn from, with replacement.
            size: Sides of the images in pixels.
            batch: Samples a batch, in this process.
            seed: Any integer.
            rank: Number of this process.
            processes: Their number.
            balance: 0 draws pictures uniformly, 1 so that each weighs 1 / (pictures with its rarest tag); between,
                that to the power of `balance`.
            augmentation: How pictures vary; the default of `Augmentation` unless given.

        Raises:
            ValueError: A number is impossible.
        """
        if min(size, batch) < 1 or not 0 <= rank < processes:
            raise ValueError(f"size {size}, batch {batch}, rank {rank} of {processes} processes are no batches")
        self._pictures = pictures
        self._size, self._batch, self._seed = size, batch, seed
        self._rank, self._processes = rank, processes
        self._bounds = picture_weights(pictures.labels, balance).cumsum(0)
        self._augmentation = augmentation or Augmentation()

    def batch(self, iteration: int) -> LabelledBatch:
        """The batch of an iteration."""
        first = (iteration * self._processes + self._rank) * self._batch
        generators = [sample_generator(self._seed, first + j) for j in range(self._batch)]
        draws = torch.stack([torch.rand(_DRAWS, dtype=torch.float64, generator=each) for each in generators])
        places = torch.searchsorted(self._bounds, draws[:, 0] * self._bounds[-1], right=True)
        indices = places.clamp(max=len(self._pictures) - 1)
        images = torch.empty(self._batch, 3, self._size, self._size)
        for image, index, drawn in zip(images, indices.tolist(), draws[:, 1:6].tolist(), strict=True):
            image.copy_(_crop(self._pictures.pictures[index], self._size, self._augmentation, drawn))
        _vary_colour(images, self._augmentation, draws[:, 6:].float())
        return LabelledBatch(images, self._pictures.labels[indices].float(), indices)

    def prefetch(self, start: int, end: int, ahead: int = 2) -> Iterator[LabelledBatch]:
        """Batches start to end - 1 in order, made in a background thread; see `background.prefetch`."""
        return prefetch(self.batch, start, end, ahead)


class LabelledCrops:
    """Square crops of labelled pictures at their own size: a `Source` for `dataset.Batches`, which flips them.

    The sample's generator is left ready for the degradation's draws. Pictures smaller than a crop are not drawn.
    """

    paired = False

    def __init__(self, pictures: LabelledSet) -> None:
        """Only keep the set; its labels are not used."""
        self._pictures = pictures.pictures
        self._fitting: dict[int, list[int]] = {}  # by size

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """Draw a picture, uniformly among those with at least `size` pixels a side, then a position, uniformly.

        Raises:
            ValueError: No picture is large enough.
        """
        if size not in self._fitting:
            self._fitting[size] = [i for i, x in enumerate(self._pictures) if min(x.shape[1:]) >= size]
        fitting = self._fitting[size]
        if not fitting:
            raise ValueError(f"none of the {len(self._pictures)} labelled pictures has {size} pixels a side")
        picture = self._pictures[fitting[_below(len(fitting), generator)]]
        top, left = (_below(side - size + 1, generator) for side in picture.shape[1:])
        return Sample(picture[:, top : top + size, left : left + size], None)


def evaluation_batches(pictures: LabelledSet, *, size: int, batch: int = 64) -> Iterator[LabelledBatch]:
    """Every picture once, in order, squashed to `size` x `size` pixels (bilinear, antialiased)."""
    for first in range(0, len(pictures), batch):
        indices = torch.arange(first, min(first + batch, len(pictures)))
        images = torch.stack([_resize(pictures.pictures[i], size) for i in indices.tolist()])
        yield LabelledBatch(images, pictures.labels[indices].float(), indices)


def picture_weights(labels: Tensor, balance: float) -> Tensor:
    """How often pictures are drawn, in relation: (largest over a picture's tags of 1 / pictures with the tag)^balance.

    A picture without tags weighs as one with a tag that all have.

    Args:
        labels: (n, tags), 0 or 1.
        balance: Within 0 (uniform) and 1.

    Returns:
        (n,) float64, positive.

    Raises:
        ValueError: `balance` is not within 0 and 1.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance should be within 0 and 1, not {balance}")
    labels = labels.double()
    rarity = labels / labels.sum(0).clamp(min=1)  # 0 where the picture lacks the tag
    return rarity.amax(1).clamp(min=1 / len(labels)) ** balance


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _crop(picture: Tensor, size: int, augmentation: Augmentation, drawn: list[float]) -> Tensor:
    """A random part of a picture, (3, size, size) float32; `drawn` are area, aspect, top, left and flip in [0, 1)."""
    height, width = picture.shape[1:]
    (least, largest), (narrow, wide) = augmentation.area, augmentation.aspect
    area = least + (largest - least) * drawn[0]
    aspect = narrow * (wide / narrow) ** drawn[1]
    rows = min(max(round(height * math.sqrt(area / aspect)), 1), height)
    columns = min(max(round(width * math.sqrt(area * aspect)), 1), width)
    top, left = int(drawn[2] * (height - rows + 1)), int(drawn[3] * (width - columns + 1))
    image = _resize(picture[:, top : top + rows, left : left + columns], size)
    return image.flip(-1) if augmentation.flip and drawn[4] < 0.5 else image


def _resize(picture: Tensor, size: int) -> Tensor:
    values = picture[None].float().div_(255)
    return F.interpolate(values, (size, size), mode="bilinear", antialias=True)[0]


def _vary_colour(images: Tensor, augmentation: Augmentation, drawn: Tensor) -> None:
    """Change brightness, contrast and saturation in place, in this order; `drawn` (b, 4) in [0, 1)."""
    strengths = drawn.new_tensor([augmentation.brightness, augmentation.contrast, augmentation.saturation])
    if not strengths.any() and augmentation.gray == 0:
        return
    factors = 1 + strengths * (2 * drawn[:, :3] - 1)
    factors[:, 2] = torch.where(drawn[:, 3] < augmentation.gray, 0, factors[:, 2])
    brightness, contrast, saturation = factors.reshape(-1, 3, 1, 1, 1).unbind(1)
    images.mul_(brightness).clamp_(max=1)
    weights = images.new_tensor(_LUMA).reshape(1, 3, 1, 1)
    mean = (images.mean((2, 3), keepdim=True) * weights).sum(1, keepdim=True)
    images.sub_(mean).mul_(contrast).add_(mean)
    luma = (images * weights).sum(1, keepdim=True)
    images.sub_(luma).mul_(saturation).add_(luma).clamp_(0, 1)
