"""What a step of training a restorer sees: crops of pictures that were degraded, and recognised, as a whole.

A scene is a batch of samples: the ground truth, its small degraded version, and what an extractor makes of that. The
crop is a part of it, and its window says which, so that the condition fits what it is applied to.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.dataset import Batch, sample_generator
from dacesr.degradation import recipe
from dacesr.imresize import upload
from dacesr.nets.modulation import whole

Embed = Callable[[Tensor], Tensor]


class Crops(NamedTuple):
    """Of one step: `lr` (b, 3, s, s) and `gt` (b, 3, scale * s, scale * s) in [0, 1], float32.

    `condition` (b, t, width) is that of the pictures they come from, fp16, and `window` (b, 4) their place in them as
    (top, left, bottom, right) fractions, float32; both None without an extractor.
    """

    lr: Tensor
    gt: Tensor
    condition: Tensor | None = None
    window: Tensor | None = None


class Scenes:
    """Makes crops of batches."""

    def __init__(
        self,
        *,
        crop: int,
        scale: int,
        seed: int,
        degrade: Callable[[Tensor, Sequence[torch.Generator]], Tensor],
        embed: Embed | None,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
        device_bytes: int = 0,
    ) -> None:
        """Only keep the arguments.

        Args:
            crop: Sides of a crop of the ground truth in pixels.
            scale: Ratio of the sizes.
            seed: Decides where crops are.
            degrade: Ground truth (b, 3, h, w) in [0, 1] and a generator for each -> small pictures, multiples of 1/255.
            embed: Small pictures -> condition (b, t, width); None for none.
            device: Where all of this happens.
            rank: Number of this process.
            processes: Their number; crops are where those of one process with all samples would be.
            device_bytes: Memory of the device for the ground truth of batches that are kept.
        """
        self._crop, self._scale, self._seed = crop, scale, seed
        self._rank, self._processes = rank, processes
        self._degrade, self._embed, self._device = degrade, embed, device
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}  # uint8 small pictures, and their condition
        self._truth: dict[int, Tensor] = {}  # their uint8 ground truth
        self._room = device_bytes

    def complete(self, keep: int | None) -> bool:
        """Whether all of a batch is kept under this key, so that `crops` needs it no more."""
        return keep in self._truth

    def crops(self, batch: Batch | None, number: int, keep: int | None = None) -> Crops:
        """Degrade a batch, see what is in it, and crop each picture in a place of its own.

        Args:
            batch: As the data set makes it; None where it is `complete`.
            number: Of the step; it decides, with the seed, where the crops are.
            keep: Key under which the small pictures and their condition are kept for the next time, and the ground
                truth while there is room; None: they aren't.

        Raises:
            ValueError: There is no batch, and it is not complete.
        """
        lr, gt, condition = self._whole(batch, keep)
        lr, gt, window = self._cropped(lr, gt, number)
        return Crops(lr.float() / 255, gt.float() / 255, condition, None if condition is None else window)

    def _whole(self, batch: Batch | None, keep: int | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Small pictures, ground truth and condition of a batch, as far as possible those that are kept."""
        if keep is not None and keep in self._truth:
            lr, condition = self._kept[keep]
            return lr, self._truth[keep], condition
        if batch is None:
            raise ValueError(f"the batch {keep} is not kept and should be given")
        gt = batch.gt.to(self._device, non_blocking=True)
        found = None if keep is None else self._kept.get(keep)
        lr, condition = found or self._made(batch, gt)
        if keep is not None:
            self._kept[keep] = lr, condition
            if gt.nbytes <= self._room:
                self._room -= gt.nbytes
                self._truth[keep] = gt
        return lr, gt, condition

    @torch.no_grad()
    def _made(self, batch: Batch, gt: Tensor) -> tuple[Tensor, Tensor | None]:
        if batch.lr is not None:
            lr = batch.lr.to(self._device, non_blocking=True)
        else:
            lr = self._degrade(gt.float() / 255, batch.generators).mul(255).round().byte()
        condition = None if self._embed is None else self._embed(lr.float() / 255).half()
        return lr, condition

    def _cropped(self, lr: Tensor, gt: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Squares of the small pictures, the same of the ground truth, and their places as fractions."""
        count, _, height, width = lr.shape
        side, scale = self._crop // self._scale, self._scale
        if (height, width) == (side, side):
            return lr, gt, whole(lr.device).expand(count, 4)
        first = (number * self._processes + self._rank) * count
        generators = [sample_generator(self._seed, first + i) for i in range(count)]
        tops, lefts = (
            torch.cat([torch.randint(long - side + 1, (1,), generator=generator) for generator in generators])
            for long in (height, width)
        )
        sides = torch.tensor([height, width, height, width])
        window = torch.stack([tops, lefts, tops + side, lefts + side], 1) / sides
        places = upload(torch.stack([tops, lefts]), lr.device)
        small, large = squares(lr, places, side), squares(gt, scale * places, scale * side)
        return small, large, upload(window, lr.device)


def squares(pictures: Tensor, places: Tensor, side: int) -> Tensor:
    """Squares (b, c, side, side) of pictures (b, c, h, w), whose tops and lefts are `places` (2, b)."""
    if pictures.device.type == "cpu":  # where copying rows is faster than gathering
        corners = zip(pictures, *places.tolist(), strict=True)
        return torch.stack([picture[:, top : top + side, left : left + side] for picture, top, left in corners])
    return gathered(pictures, places, side)


def gathered(pictures: Tensor, places: Tensor, side: int) -> Tensor:
    """The same in one kernel, which reads `places` on the device."""
    everywhere = pictures.unfold(2, side, 1).unfold(3, side, 1)  # (b, 3, h - side + 1, w - side + 1, side, side)
    return everywhere[torch.arange(len(pictures), device=pictures.device), :, places[0], places[1]]


def ruin(gt: Tensor, spaces: dict[str, float], generators: Sequence[torch.Generator], scale: int) -> Tensor:
    """Degrade each picture (b, 3, h, w) in a space drawn with the given shares, from its own generator."""
    names, bounds = list(spaces), torch.tensor(list(spaces.values())).cumsum(0)
    places = [torch.rand((), generator=generator) * bounds[-1] for generator in generators]
    chosen = [names[min(int(torch.searchsorted(bounds, place, right=True)), len(names) - 1)] for place in places]
    lr = gt.new_empty(len(gt), 3, gt.shape[2] // scale, gt.shape[3] // scale)
    for space in dict.fromkeys(chosen):
        members = [i for i, name in enumerate(chosen) if name == space]
        index = upload(torch.tensor(members), gt.device)
        small, _ = recipe.degrade(gt.index_select(0, index), space, [generators[i] for i in members], scale)
        lr.index_copy_(0, index, small)
    return lr
