"""What conditions a restorer: the extractor that it was trained with, which its file names.

The header of a conditioned checkpoint holds, beside what every file of ours has (`dacesr.ownfile`):

    extractor         bundled name, hub id, or name of a file in the checkpoint's folder
    extractor_sha256  of that file's bytes; an adapter knows its base by a hash of its own
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.adapterfile import adapter_weights
from dacesr.checkpoint import Network, load_extractor, load_restorer
from dacesr.config import ConditionKind, RestorerConfig
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.tensorfile import CheckpointError, read_header, sha256_of
from dacesr.weightfiles import RECOGNITION_ALIASES, beside, recognition_names, resolve

__all__ = ["EXTRACTOR_FIELDS", "Guided", "extractor_fields", "find_extractor", "load_guided", "look"]

EXTRACTOR_FIELDS = ("extractor", "extractor_sha256")
STRIP = 1 << 22  # pixels of a picture that are reduced at a time
LOOKED_AT = 512  # pixels that the shorter side keeps at least when a large picture is reduced for the extractor

Source = str | os.PathLike[str]


def extractor_fields(source: Source) -> dict[str, str]:
    """Header fields that name an extractor, for `save_restorer`'s `info`.

    Raises:
        CheckpointError: there is no such file.
    """
    path, text = resolve(source), os.fspath(source)
    name = RECOGNITION_ALIASES.get(text, text)
    if Path(text).is_file() or (name not in recognition_names() and "/" not in name):
        name = path.name
    return {"extractor": name, "extractor_sha256": sha256_of(adapter_weights(path))}


def find_extractor(
    source: Source, path: Path, net: nn.Module, extractor: Source | None = None
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
    header = read_header(path)
    named = header.get("extractor") if "dacesr_format" in header else None
    if extractor is None and named is None:
        if not config.learned_modulation:
            return None, None
        raise CheckpointError(f"{path} was trained with a condition and doesn't say by which extractor: name it")
    chosen = extractor if extractor is not None else _beside(source, path, named or "")
    if named is not None and sha256_of(adapter_weights(resolve(chosen))) != header.get("extractor_sha256"):
        raise CheckpointError(
            f"{os.fspath(chosen)} is not the extractor that {path} was trained with, {named} (its sha256 differs)"
        )
    found = load_extractor(chosen)
    wide = found.condition_dim(config.condition)
    if wide != config.condition_dim:
        raise CheckpointError(
            f"{path} takes conditions of {config.condition_dim} channels, and those of {os.fspath(chosen)} have {wide}"
        )
    return found, os.fspath(chosen)


def _beside(source: Source, path: Path, name: str) -> Source:
    """A file in the restorer's folder (on the hub too), else a bundled name or a hub id."""
    if Path(name).name == name and name not in ("", ".."):
        found = beside(source, path, name)
        if found.is_file():
            return found
        if name not in recognition_names():
            raise CheckpointError(f"{path} needs its extractor {name} beside it, or named by you")
    return name


def look(region: Callable[[int, int, int, int], Tensor], height: int, width: int) -> Tensor:
    """A picture as an extractor is given it: large ones are reduced first, by means of whole squares of pixels.

    Args:
        region: (left, top, width, height) in pixels -> (b, 3, height, width).
        height: of the picture.
        width: of the picture.

    Returns:
        (b, 3, h, w), the shorter side between 512 and 1023 pixels where it was longer; tiny pictures are repeated at
        their edges until there is something to recognise.
    """
    factor = max(1, min(height, width) // LOOKED_AT)
    rows = max(1, STRIP // width // factor) * factor
    strips = []
    for top in range(0, height, rows):
        strip = region(0, top, width, min(rows, height - top))
        strips.append(F.avg_pool2d(strip, factor, ceil_mode=True) if factor > 1 else strip)
    x = torch.cat(strips, dim=2)
    right, below = (max(0, SMALLEST - side) for side in (x.shape[3], x.shape[2]))
    return F.pad(x, (0, right, 0, below), mode="replicate") if right or below else x


class Guided(nn.Module):
    """A network that upscales together with the extractor that conditions it: whole pictures, as if it were one.

    Attributes:
        config: Of the network.
    """

    def __init__(self, net: Network, extractor: Extractor | None = None) -> None:
        """Take a network, and an extractor unless it takes no condition."""
        super().__init__()
        self.net, self.extractor = net, extractor
        self.config = net.config

    @torch.no_grad()
    def condition(self, x: Tensor) -> Tensor | None:
        """RGB (b, 3, h, w) in [0, 1] -> what the network is conditioned on, (b, t, width), or None."""
        if self.extractor is None:
            return None
        kind: ConditionKind = self.config.condition if isinstance(self.config, RestorerConfig) else "re"
        whole = look(lambda left, top, width, height: x[..., top : top + height, left : left + width], *x.shape[2:])
        return self.extractor.condition(whole, kind)

    def forward(self, x: Tensor) -> Tensor:
        """RGB (b, 3, h, w) in [0, 1] -> (b, 3, scale * h, scale * w); errors as the network's."""
        return self.net(x) if self.extractor is None else self.net(x, self.condition(x))


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
