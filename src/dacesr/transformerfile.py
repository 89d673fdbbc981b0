"""Released files of SwinIR and HAT: sizes from shapes, and what is computed left out."""

import math
import re
from typing import Any

from torch import Tensor

from dacesr.config.transformers import HATConfig, SwinIRConfig
from dacesr.shapes import Shapes, depths_of, shape_of

SWINIR_MARK = r"layers\.\d+\.residual_group\.blocks\.0\.attn\.relative_position_bias_table"
"""Matches HAT's too, so HAT is to be looked for first."""

HAT_MARK = r"layers\.\d+\.residual_group\.overlap_attn\.relative_position_bias_table"

_COMPUTED = re.compile(r"(.*\.)?(relative_position_index(_SA|_OCA)?|attn_mask)")
_BLOCK = "layers.0.residual_group.blocks.0."


def without_computed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a release without its buffers, which the networks compute for the size at hand."""
    return {name: tensor for name, tensor in tensors.items() if not _COMPUTED.fullmatch(name)}


def swinir_config(shapes: Shapes) -> SwinIRConfig:
    """Hyper-parameters of a released SwinIR that upscales."""
    return SwinIRConfig(
        **_body_config(shapes),
        **head_config(shapes),
        group_end="1conv" if "layers.0.conv.weight" in shapes else "3conv",
    )


def hat_config(shapes: Shapes) -> HATConfig:
    """Hyper-parameters of a released HAT."""
    body = _body_config(shapes)
    overlaps = "layers.0.residual_group.overlap_attn.relative_position_bias_table"
    return HATConfig(
        **body,
        **head_config(shapes),
        overlap=(_side(shapes, overlaps) + 1 - 2 * body["window"]) // 2,
        conv_dim=shape_of(shapes, _BLOCK + "conv_block.cab.0.weight", 4)[0],
        squeeze_dim=shape_of(shapes, _BLOCK + "conv_block.cab.3.attention.1.weight", 4)[0],
    )


def head_config(shapes: Shapes) -> dict[str, Any]:
    """The head, its width and the scale, of a network with one of `dacesr.nets.heads`."""
    if "conv_before_upsample.0.weight" not in shapes:
        return {"head": "pixelshuffledirect", "scale": math.isqrt(shape_of(shapes, "upsample.0.weight", 4)[0] // 3)}
    head_dim = shape_of(shapes, "conv_before_upsample.0.weight", 4)[0]
    if "conv_hr.weight" in shapes:
        steps = [name for name in shapes if re.fullmatch(r"conv_up\d\.weight", name)]
        return {"head": "nearest+conv", "head_dim": head_dim, "scale": 2 ** len(steps)}
    steps = [shape for name, shape in shapes.items() if re.fullmatch(r"upsample\.\d+\.weight", name)]
    return {
        "head": "pixelshuffle",
        "head_dim": head_dim,
        "scale": math.prod(math.isqrt(step[0] // head_dim) for step in steps),
    }


def _body_config(shapes: Shapes) -> dict[str, Any]:
    embed_dim, channels, *_ = shape_of(shapes, "conv_first.weight", 4)
    if channels != 3:
        raise ValueError(f"it takes pictures of {channels} channels, not RGB")
    if not {"conv_before_upsample.0.weight", "upsample.0.weight"} & shapes.keys():
        raise ValueError(
            "it lacks upsample.0.weight, as those do that remove noise or JPEG artefacts and don't upscale"
        )
    depths = depths_of(shapes, r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.")
    tables = [f"layers.{i}.residual_group.blocks.0.attn.relative_position_bias_table" for i in range(len(depths))]
    hidden = shape_of(shapes, _BLOCK + "mlp.fc1.weight", 2)[0]
    if hidden % embed_dim:
        raise ValueError(f"its MLP has {hidden} hidden channels, no multiple of {embed_dim}")
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "heads": tuple(shape_of(shapes, table, 2)[1] for table in tables),
        "window": (_side(shapes, tables[0]) + 1) // 2,
        "mlp_ratio": hidden // embed_dim,
    }


def _side(shapes: Shapes, table: str) -> int:
    """Relative positions along a side, from a table of biases."""
    rows = shape_of(shapes, table, 2)[0]
    side = math.isqrt(rows)
    if side**2 != rows:
        raise ValueError(f"its {table} has {rows} rows, no square number")
    return side
