"""Outputs recorded from a published implementation, and the file its authors would have released with such weights."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from weights_by_name import weights

FIXTURES = Path(__file__).parents[1] / "fixtures"
COMPUTED = ("relative_position_index", "relative_position_index_SA", "relative_position_index_OCA", "attn_mask")


def recorded(file: str, name: str) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
    """The tensors of a release, weights drawn by name and buffers of zeros, and its pairs of input and output."""
    with np.load(FIXTURES / f"{file}.npz") as arrays:
        found = {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}
    shapes = json.loads(found.pop("shapes").tobytes())
    tensors = {
        key: torch.zeros(shape) if key.rsplit(".", 1)[-1] in COMPUTED else weights(key, tuple(shape))
        for key, shape in shapes.items()
    }
    pairs = [tuple(torch.from_numpy(found[f"{side}{i}"]) for side in "xy") for i in range(len(found) // 2)]
    return tensors, pairs  # pyright: ignore[reportReturnType]
