"""Scores of whole pictures, and the CSV files that keep them."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dacesr.dataset import ValidationSet
from dacesr.metrics import LPIPS, lpips, psnr, ssim
from dacesr.tensorfile import write_whole

SEED = 0  # of the degradations
PLACE = ("set", "space", "picture")  # columns that say what was measured; those of the measures follow

Block = tuple[str, str]
"""A set of pictures and the degradation space it was ruined in."""


class Score(NamedTuple):
    """What was measured on one picture: numbers by the names of the measures, without those that have none."""

    set: str
    space: str
    picture: str
    values: Mapping[str, float]

    @property
    def block(self) -> Block:
        """Where the picture belongs."""
        return self.set, self.space


class Judge:
    """Measures networks on degraded pictures, the same for all.

    Attributes:
        blocks: The sets in all spaces, and how many pictures each has.
    """

    def __init__(
        self,
        *,
        sets: Sequence[str],
        spaces: Sequence[str],
        scale: int,
        device: torch.device,
        limit: int | None = None,
        crop: int | None = None,
        network: LPIPS | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """List the pictures; they are degraded when they are first needed.

        Args:
            sets: Folders of sharp pictures.
            spaces: Degradation spaces.
            scale: Of the networks.
            device: Of the networks.
            limit: Use the first pictures of each set only.
            crop: Use the centre of pictures, at most so many pixels a side.
            network: LPIPS; left out unless given.
            warn: Takes sentences on skipped files.

        Raises:
            ValueError: A folder is missing or holds no picture.
        """
        self._device, self._lpips = device, network.to(device) if network else None
        self._sets = {
            (set_name(folder), space): ValidationSet(
                folder, space=space, seed=SEED, scale=scale, limit=limit, crop=crop, warn=warn
            )
            for folder in sets
            for space in spaces
        }
        self.blocks: dict[Block, int] = {block: len(pictures) for block, pictures in self._sets.items()}

    @torch.inference_mode()
    def measure(self, net: Callable[[Tensor], Tensor], block: Block, advance: Callable[[], None]) -> list[Score]:
        """Scores of all pictures of a block.

        Args:
            net: (1, 3, h, w) in [0, 1] -> (1, 3, scale * h, scale * w), on the judge's device.
            block: One of `blocks`.
            advance: Called after each picture.

        Raises:
            ValueError: No picture can be used, or they are too small for LPIPS.
        """
        scores = []
        for name, lr, gt in self._sets[block]:
            lr, gt = lr.to(self._device), gt.to(self._device)
            output = net(lr).float().clamp(0, 1)
            values = {"psnr_y": float(psnr(output, gt)), "ssim_y": float(ssim(output, gt))}
            if self._lpips is not None:
                values["lpips"] = float(lpips(output, gt, self._lpips))
            scores.append(Score(*block, name, values))
            advance()
        return scores


def set_name(folder: str) -> str:
    """What a set is called: its path below `$DACESR_DATA`, or as it is given."""
    path, data = Path(folder), os.environ.get("DACESR_DATA")
    return path.relative_to(data).as_posix() if data and path.is_relative_to(data) else path.as_posix()


# --- files


def write_scores(path: Path, scores: Iterable[tuple[Mapping[str, object], Score]]) -> None:
    """Write scores as CSV, whole or not at all.

    Args:
        path: The file.
        scores: Each with the columns that come before its own, the same for all.
    """
    listed = list(scores)
    columns = dict.fromkeys(name for before, _ in listed for name in before)
    measures = dict.fromkeys(name for _, score in listed for name in score.values)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *PLACE, *measures], lineterminator="\n")
    writer.writeheader()
    for before, score in listed:
        place = dict(zip(PLACE, score, strict=False))
        writer.writerow({**before, **place, **{name: f"{value:.6f}" for name, value in score.values.items()}})
    write_whole(path, text.getvalue().encode())


def read_scores(path: Path) -> list[tuple[dict[str, str], Score]]:
    """What `write_scores` wrote; nothing where there is no file.

    Raises:
        ValueError: It is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        first = head.index(PLACE[0])
        if tuple(head[first : first + len(PLACE)]) != PLACE or any(len(row) != len(head) for row in rows):
            raise ValueError("its columns are others")
        return [_parsed(row, head, first) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path} is no table of scores: remove it to measure again") from error


def _parsed(row: list[str], head: list[str], first: int) -> tuple[dict[str, str], Score]:
    last = first + len(PLACE)
    values = {name: float(text) for name, text in zip(head[last:], row[last:], strict=True) if text}
    chosen, space, picture = row[first:last]
    return dict(zip(head[:first], row[:first], strict=True)), Score(chosen, space, picture, values)
