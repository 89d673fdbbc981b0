"""What conditions a restorer: the extractor that it was trained with, which its file names.

The header of a conditioned checkpoint holds, beside what every file of ours has (`dacesr.ownfile`):

    extractor         bundled name, hub id, or name of a file in the checkpoint's folder
    extractor_sha256  of that file's bytes; an adapter knows its base by a hash of its own
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.adapterfile import adapter_weights
from dacesr.checkpoint import Network, load_extractor, load_restorer
from dacesr.config import ConditionKind, NetworkConfig, RestorerConfig
from dacesr.imresize import upload
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.onnxnetwork import OnnxNetwork
from dacesr.tensorfile import CheckpointError, read_header, sha256_of
from dacesr.tiling import Tile
from dacesr.weightfiles import HUB_ID, RECOGNITION_ALIASES, beside, recognition_names, resolve

__all__ = [
    "EXTRACTOR_FIELDS",
    "Guided",
    "View",
    "check_extractor",
    "condition_of",
    "extractor_fields",
    "find_extractor",
    "given_together",
    "kind_of",
    "load_guided",
    "look",
    "region_of",
    "tags_in",
]

EXTRACTOR_FIELDS = ("extractor", "extractor_sha256")
STRIP = 1 << 22  # pixels of a picture that are reduced at a time
LOOKED_AT = 512  # pixels that a side keeps at least when a large picture is reduced for the extractor

Source = str | os.PathLike[str]
Region = Callable[[int, int, int, int], Tensor]
"""(left, top, width, height) in pixels -> (b, 3, height, width), RGB in [0, 1]."""


# --- which extractor


def extractor_fields(source: Source) -> dict[str, str]:
    """Header fields that name an extractor, for `save_restorer`'s `info`.

    Raises:
        CheckpointError: there is no such file.
    """
    path, text = resolve(source), os.fspath(source)
    name = path.name if Path(text).expanduser().exists() else RECOGNITION_ALIASES.get(text, text)
    return dict(zip(EXTRACTOR_FIELDS, (name, _digest(path)), strict=True))


def find_extractor(
    source: Source, path: Path, net: Network, extractor: Source | None = None
) -> tuple[Extractor | None, str | None]:
    """The extractor that a restorer needs, and its name.

    Args:
        source: what the user gave for the restorer: bundled name, path or hub id.
        path: the file that it stands for.
        net: the network in that file.
        extractor: the user's choice: bundled name, path or hub id; the header's unless given.

    Returns:
        Nothing where the network takes no condition, or is the release's and nobody names an extractor.

    Raises:
        CheckpointError: it is missing, another one than the restorer was trained with, or doesn't fit.
    """
    config = net.config
    if not isinstance(config, RestorerConfig) or config.modulation == "none":
        if extractor is not None:
            raise CheckpointError(f"{path} takes no condition, so there is nothing to do for the extractor {extractor}")
        return None, None
    header = net.file.header if isinstance(net, OnnxNetwork) else read_header(path)
    named = header.get("extractor") if "dacesr_format" in header else None
    if extractor is None and named is None:
        if config.learned_modulation:
            raise CheckpointError(f"{path} was trained with a condition and doesn't say by which extractor: name it")
        return None, None
    chosen = extractor if extractor is not None else _beside(source, path, named or "")
    if named is not None and _digest(resolve(chosen)) != header.get("extractor_sha256"):
        raise CheckpointError(
            f"{os.fspath(chosen)} is not the extractor that {path} was trained with, {named} (its sha256 differs)"
        )
    found = load_extractor(chosen)
    check_extractor(config, found, str(path), os.fspath(chosen))
    return found, os.fspath(chosen)


def check_extractor(
    config: NetworkConfig, extractor: Extractor | None, name: str, named: str = "its extractor"
) -> None:
    """Check that a network has the extractor that it needs and none that it doesn't.

    Args:
        config: of the network.
        extractor: what is there for it.
        name: of the network, for errors.
        named: the extractor's name, for errors.

    Raises:
        CheckpointError: it lacks one, takes no condition, or takes conditions of another width.
    """
    if not isinstance(config, RestorerConfig) or config.modulation == "none":
        if extractor is not None:
            raise CheckpointError(f"{name} takes no condition, so there is nothing to do for {named}")
    elif extractor is None:
        if config.learned_modulation:
            raise CheckpointError(f"{name} was trained with a condition, so it needs its extractor")
    elif (wide := extractor.condition_dim(config.condition)) != config.condition_dim:
        raise CheckpointError(
            f"{name} takes conditions of {config.condition_dim} channels, and those of {named} have {wide}"
        )


def _digest(path: Path) -> str:
    """SHA-256 of an extractor's file of tensors."""
    try:
        return sha256_of(adapter_weights(path))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read as an extractor: {error.strerror or error}") from error


def _beside(source: Source, path: Path, name: str) -> Source:
    """What a header names: a file in the restorer's folder (on the hub too), a bundled name, or a hub id."""
    if Path(name).name == name and name not in ("", ".."):
        found = beside(source, path, name)
        if found.exists():
            return found
        if name not in recognition_names():
            raise CheckpointError(f"{path} needs its extractor {name} beside it, or named by you")
    elif not re.fullmatch(HUB_ID, name):
        raise CheckpointError(f"{path} names {name!r} as its extractor, which must be a file in the same folder")
    return name


# --- what it sees


def region_of(x: Tensor) -> Region:
    """Regions of a tensor (b, 3, h, w)."""
    return lambda left, top, width, height: x[:, :, top : top + height, left : left + width]


def look(region: Region, height: int, width: int) -> Tensor:
    """A picture as an extractor is given it: large ones are reduced first, by means of whole blocks of pixels.

    Args:
        region: the picture's pixels.
        height: of the picture.
        width: of the picture.

    Returns:
        (b, 3, h, w): a side longer than 1023 pixels has 512 to 768, one below 8, too little to recognise anything, has
        8. An extractor makes a square of every picture, so the proportions don't matter.
    """
    down, across = (max(1, side // LOOKED_AT) for side in (height, width))
    rows = max(1, STRIP // width // down) * down
    strips = []
    for top in range(0, height, rows):
        strip = region(0, top, width, min(rows, height - top))
        reduced = F.avg_pool2d(strip, (down, across), ceil_mode=True) if down * across > 1 else strip
        strips.append(reduced)
    x = torch.cat(strips, dim=2)
    if min(x.shape[2:]) < SMALLEST:
        x = F.interpolate(x, (max(SMALLEST, x.shape[2]), max(SMALLEST, x.shape[3])), mode="nearest")
    return x


@torch.no_grad()
def condition_of(extractor: Extractor, region: Region, height: int, width: int, kind: ConditionKind = "re") -> Tensor:
    """What a restorer is conditioned on, from a whole picture.

    Args:
        extractor: what sees it.
        region: the picture's pixels.
        height: of the picture.
        width: of the picture.
        kind: see `Extractor.condition`.

    Returns:
        (b, t, width) on the extractor's device.
    """
    return extractor.condition(look(region, height, width).to(extractor.tagger.fc.weight.device), kind)


@torch.no_grad()
def tags_in(extractor: Extractor, condition: Tensor, kind: ConditionKind = "re") -> list[tuple[str, ...]]:
    """The tags in a condition of `condition_of`, for each picture the most probable first; the encoder runs no more."""
    return extractor.names(extractor.tagger.classify(condition) if kind == "re" else condition[:, 0])


class View(NamedTuple):
    """A part of a picture that is being worked on: where it lies, and what conditions the picture.

    Attributes:
        condition: Of the whole picture, or None.
        height, width: Of the whole picture, in pixels.
        top, left: Of the part.
    """

    condition: Tensor | None
    height: int
    width: int
    top: int = 0
    left: int = 0

    def tile(self, tile: Tile) -> "View":
        """The view of a tile of this part."""
        return self._replace(top=self.top + tile.rows.start, left=self.left + tile.columns.start)

    def window(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Where a part of `height` x `width` pixels lies: (top, left, bottom, right) as fractions of the picture."""
        bottom, right = self.top + height, self.left + width
        return self.top / self.height, self.left / self.width, bottom / self.height, right / self.width

    def through(self, net: Network, x: Tensor) -> Tensor:
        """The output of a network for the part's pixels, (b, 3, h, w)."""
        return net(x) if self.condition is None else net(x, self.condition, self.window(*x.shape[2:]))


def given_together(x: Tensor, views: Sequence[View]) -> tuple[Tensor, ...]:
    """What a network is given for parts of one picture, or of b pictures, at once; nothing waits for the device.

    Args:
        x: (parts * b, 3, h, w), first the first part of all pictures.
        views: Of each part, all with the same condition, (b, t, width), or None.

    Returns:
        `x` alone, or with conditions (parts * b, t, width) and windows (parts * b, 4), all on its device.
    """
    condition = views[0].condition
    if condition is None:
        return (x,)
    pictures = condition.shape[0]
    windows = torch.tensor([view.window(*x.shape[2:]) for view in views for _ in range(pictures)])
    return x, condition.to(x.device).repeat(len(views), 1, 1), upload(windows, x.device)


class Guided(nn.Module):
    """A network that upscales together with the extractor that conditions it: whole pictures, as if it were one.

    Attributes:
        config: Of the network.
    """

    def __init__(self, net: Network, extractor: Extractor | None = None) -> None:
        """Take a network and its extractor, if it takes a condition.

        Raises:
            CheckpointError: as `check_extractor`.
        """
        super().__init__()
        check_extractor(net.config, extractor, "the network")
        self.net, self.extractor = net, extractor
        self.config = net.config

    def condition(self, x: Tensor) -> Tensor | None:
        """RGB (b, 3, h, w) in [0, 1] -> what the network is conditioned on, (b, t, width), or None."""
        if self.extractor is None:
            return None
        return condition_of(self.extractor, region_of(x), x.shape[2], x.shape[3], kind_of(self.config))

    def forward(self, x: Tensor) -> Tensor:
        """RGB (b, 3, h, w) in [0, 1] -> (b, 3, scale * h, scale * w); errors as the network's."""
        return View(self.condition(x), x.shape[2], x.shape[3]).through(self.net, x)


def kind_of(config: NetworkConfig) -> ConditionKind:
    """What kind of condition a network takes, if it takes any."""
    return config.condition if isinstance(config, RestorerConfig) else "re"


def load_guided(source: Source) -> Guided:
    """Load a network that upscales, with its extractor if it has one.

    Args:
        source: file, bundled name or hub id; see `load_restorer`.

    Raises:
        CheckpointError: one of the two is missing or doesn't fit.
    """
    path = resolve(source)
    net = load_restorer(path)
    return Guided(net, find_extractor(source, path, net)[0]).eval()
