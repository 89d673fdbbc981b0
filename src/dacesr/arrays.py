"""Arrays and PIL images, enlarged by what works on tensors and on picture files."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dacesr.image import Picture, open_picture

FULL = {"uint8": 255, "uint16": 65535}  # types of arrays, and what is white in them
PIL_MODES = ("1", "L", "LA", "RGB", "RGBA", "P", "I;16")  # those that a PNG holds as they are


def enlarge_array(x: np.ndarray, enlarge: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Enlarge an array.

    Args:
        x: uint8 or uint16, (h, w), (h, w, 1) or (h, w, 3), RGB.
        enlarge: RGB (1, 3, h, w) in [0, 1] -> the same, larger.

    Returns:
        The same kind; where there is one channel, the mean of the three.

    Raises:
        ValueError: another kind of array.
    """
    full = FULL.get(x.dtype.name)
    if full is None or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (1, 3)):
        raise ValueError(f"an array must be uint8 or uint16, (h, w), (h, w, 1) or (h, w, 3); got {x.dtype} {x.shape}")
    values = torch.from_numpy(x.reshape(*x.shape[:2], -1).astype(np.float32) / full)
    output = enlarge(values.permute(2, 0, 1)[None].expand(1, 3, -1, -1))[0].permute(1, 2, 0)  # (h, w, 3)
    if x.ndim == 2 or x.shape[2] == 1:
        output = output.mean(2, keepdim=True)
    return output.mul(full).round().numpy().astype(x.dtype).reshape(*output.shape[:2], *x.shape[2:])


def enlarge_pil(x: Any, enlarge: Callable[[Picture], bytes]) -> Any:
    """Enlarge a PIL image by way of a PNG in memory, so that alpha, 16 bits and gray are treated as in files.

    Args:
        x: the image.
        enlarge: an opened picture -> an encoded one.
    """
    from PIL import Image

    if x.mode not in PIL_MODES:
        x = x.convert("RGBA" if "A" in x.getbands() or "a" in x.getbands() else "RGB")
    file = BytesIO()
    x.save(file, "PNG", compress_level=0)
    return Image.open(BytesIO(enlarge(open_picture(file.getvalue(), name="the PIL image"))))
