"""Released files of the networks to compare with: sizes from shapes, names brought to ours."""

import math
import re

from dacesr.config import SRVGGConfig
from dacesr.shapes import Shapes, shape_of


def srvgg_config(shapes: Shapes) -> SRVGGConfig:
    """Hyper-parameters of a compact network: body.0 and every second entry are convolutions, PReLUs between them."""
    numbers = [int(place[1]) for name in shapes if (place := re.fullmatch(r"body\.(\d+)\.weight", name))]
    last = max(numbers)
    channels = shape_of(shapes, f"body.{last}.weight", 4)[0]
    scale = math.isqrt(channels // 3)
    if 3 * scale**2 != channels:
        raise ValueError(f"its last convolution gives {channels} channels, not three for each output pixel")
    if "body.1.weight" not in shapes:
        raise ValueError("it lacks body.1.weight, so its activation is not PReLU")
    return SRVGGConfig(
        num_feat=shape_of(shapes, "body.0.weight", 4)[0],
        num_conv=last // 2 - 1,
        scale=scale,  # pyright: ignore[reportArgumentType]
        activation="prelu",
    )
