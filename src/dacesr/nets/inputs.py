"""What the networks to compare with do to a picture before they look at it: check it, and enlarge it at the edges."""

import torch
from torch import Tensor


def check_image(x: Tensor) -> None:
    """ValueError unless `x` is (b, 3, h, w) of at least 1x1."""
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape) < 1:
        raise ValueError(f"the input must be (b, 3, h, w) with no empty side, not {tuple(x.shape)}")


def reflect_to(x: Tensor, height: int, width: int) -> Tensor:
    """Enlarge pictures at the right and bottom edge by reflection, without repeating the edge itself.

    Where one reflection isn't enough it goes on to and fro (`numpy.pad` with mode "reflect"); a single pixel repeats.

    Args:
        x: (b, c, h, w), h and w at least 1.
        height: at least h.
        width: at least w.

    Returns:
        (b, c, height, width); `x` itself where nothing is missing.
    """
    for dim, wanted in ((2, height), (3, width)):
        side = x.shape[dim]
        if side < wanted:
            period = max(1, 2 * (side - 1))
            place = torch.arange(wanted, device=x.device) % period
            x = x.index_select(dim, torch.minimum(place, period - place))
    return x
