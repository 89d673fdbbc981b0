"""Pictures for where there are no photographs."""

import torch
from torch.nn import functional as F


def drawn(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(batch, 3, height, width) in [0, 1]: smooth areas, edges, grain; noise and JPEG find what photographs have."""
    generator = torch.Generator().manual_seed(seed)

    def waves(cells: int) -> torch.Tensor:
        coarse = torch.rand(batch, 3, cells, cells, generator=generator)
        return F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)

    edges = (waves(12) > 0.5).float()
    grain = torch.randn(batch, 3, height, width, generator=generator)
    return (0.6 * waves(5) + 0.25 * edges + 0.1 * waves(40) + 0.01 * grain).clamp(0, 1)
