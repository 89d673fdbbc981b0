"""What the names and shapes of tensors say of the network they belong to."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, eye, tensor

Shapes = Mapping[str, tuple[int, ...]]


def shape_of(shapes: Shapes, name: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there, with so many sides.

    Raises:
        ValueError: it is missing, or has another number of sides, or an empty one.
    """
    if name not in shapes:
        raise ValueError(f"it lacks {name}")
    if len(shapes[name]) != ndim or 0 in shapes[name]:
        raise ValueError(f"its {name} has the shape {shapes[name]}, which should have {ndim} sides, none of them 0")
    return shapes[name]


def shifts_mean(name: str, value: Tensor, mean: Sequence[float]) -> bool:
    """Whether a tensor is of a layer `sub_mean` or `add_mean` that subtracts or adds just this mean of RGB."""
    part = re.fullmatch(r"(sub|add)_mean\.(weight|bias)", name)
    if part is None:
        return False
    sign = -1 if part[1] == "sub" else 1
    usual = eye(3).view(3, 3, 1, 1) if part[2] == "weight" else sign * tensor(mean)
    return value.shape == usual.shape and bool((value.float() - usual).abs().max() < 1e-3)


def depths_of(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    """Blocks in each group, from a pattern that finds the group's and the block's number."""
    depths: dict[int, int] = {}
    for name in shapes:
        if place := re.match(pattern, name):
            group, block = int(place[1]), int(place[2])
            depths[group] = max(depths.get(group, 0), block + 1)
    if max(depths, default=0) >= len(shapes):
        raise ValueError(f"it has a group {max(depths)} and only {len(shapes)} tensors")
    return tuple(depths.get(group, 1) for group in range(max(depths, default=-1) + 1))
