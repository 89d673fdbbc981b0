"""What is looked at of a photograph: the part around a window, in several versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dacesr.analysis.versions import check_versions, versions
from dacesr.analysis.windows import Window, cut_around, find_window
from dacesr.image import read


@dataclass(frozen=True)
class Look:
    """A part of a photograph.

    Attributes:
        picture: Name of the photograph.
        inputs: Versions of the part by name, (1, 3, h, w) in [0, 1] each.
        window: In pixels of the part's output.
        left, top: Of the part, in pixels of the photograph.
    """

    picture: str
    inputs: dict[str, Tensor]
    window: Window
    left: int = 0
    top: int = 0

    def place(self, scale: int) -> Window:
        """The window in pixels of the whole photograph's output."""
        return self.window._replace(x=self.window.x + self.left * scale, y=self.window.y + self.top * scale)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the part, in pixels of the photograph."""
        height, width = next(iter(self.inputs.values())).shape[-2:]
        return width, height

    @property
    def part(self) -> str:
        """Left edge, top edge, width and height of the part, in pixels of the photograph."""
        return ",".join(map(str, (self.left, self.top, *self.size)))


def look_at(
    photo: Path,
    degradations: Sequence[str],
    *,
    scale: int,
    side: int,
    window: Window | None = None,
    size: int | None = None,
    usual: int = 16,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Look:
    """Read a photograph and take the part around a window.

    Args:
        photo: File.
        degradations: Names of the versions; see `versions.versions`.
        scale: Output pixels per input pixel along each side.
        side: Of the part, in input pixels; 0 for the whole photograph.
        window: In output pixels of the whole photograph; the one with most detail unless given.
        size: Of a window that is found, in output pixels; `usual`, or less in a smaller part, unless given.
        usual: See there.
        seed: Of the degradations.
        device: Where the pixels go.

    Raises:
        ValueError: The photograph cannot be read or is too small, a degradation is unknown, or the window does not lie
            within the output or is larger than that of the part.
    """
    check_versions(degradations)
    picture = read(photo).to(device)
    if window is None:
        shorter = min(*picture.shape[-2:], side or max(picture.shape[-2:])) * scale
        window = find_window(picture, scale, size or min(usual, shorter))
    part = cut_around(picture, window, scale, side)
    return Look(photo.stem, versions(part.pixels, degradations, seed=seed), part.window, part.left, part.top)
