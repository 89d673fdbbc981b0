"""An extractor of a few lines whose tags fade as pictures are ruined."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.nets.tagger import Recognition

SIDE = 64


class EdgeRecogniser(nn.Module):
    """Pictures of any size: a token for each of 4 x 4 cells, and tags `edges0`, `edges1`, ... for ever more detail.

    Attributes:
        tag_names: A name for every logit.
        batches: Shapes that were recognised.
    """

    def __init__(self, tags: int = 60, highest: float = 0.12) -> None:
        super().__init__()
        self.tag_names = tuple(f"edges{i}" for i in range(tags))
        self.register_buffer("levels", torch.linspace(0.002, highest, tags))
        self.batches: list[tuple[int, ...]] = []

    def recognise(self, x: Tensor) -> Recognition:
        self.batches.append(tuple(x.shape))
        small = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True).mean(1, keepdim=True)
        detail = F.conv2d(small, torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]), padding=1) / 4
        cells = [F.adaptive_avg_pool2d(part, 4) for part in (small, detail.abs(), small.square(), detail.relu())]
        tokens = torch.cat(cells, 1).flatten(2).mT
        assert isinstance(self.levels, Tensor)
        return Recognition(tokens, detail.abs().mean((1, 2, 3))[:, None] - self.levels)

    def names(self, logits: Tensor) -> list[tuple[str, ...]]:
        return [tuple(name for name, value in zip(self.tag_names, row, strict=True) if value > 0) for row in logits]


def checks(count: int, sizes: tuple[tuple[int, int], ...] = ((48, 64), (64, 48))) -> list[Tensor]:
    """Pictures (3, h, w) of soft shapes and fine texture, in 8-bit values."""
    pictures = []
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        size = sizes[i % len(sizes)]
        soft = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), size, mode="bicubic")
        fine = F.interpolate(torch.rand(1, 3, 24, 24, generator=generator), size, mode="nearest")
        pictures.append(((soft * 0.5 + fine * 0.5).clamp(0, 1)[0] * 255).round() / 255)
    return pictures
