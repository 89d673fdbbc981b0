"""How the released RAM and its LoRA call their tensors, and how we do."""

import math
import re
from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.nn import functional as F

IGNORED = (  # regular expressions: parts of the release that make captions, and what is computed from the sizes
    r"text_decoder\..*",
    r"tag_encoder\..*",
    r"tagging_head\.embeddings\..*",  # the tagging head has queries instead of words,
    r"tagging_head\.encoder\.layer\.\d+\.attention\..*",  # and no self-attention
    r".*\.relative_position_index",
    r".*\.attn_mask",
)
RENAMED = (  # regular expressions and what they become, one after the other
    (r"^visual_encoder\.patch_embed\.", "encoder.stem."),
    (r"^visual_encoder\.layers\.(\d+)\.downsample\.", r"encoder.merging.\1."),
    (r"^visual_encoder\.layers\.(\d+)\.blocks\.", r"encoder.stages.\1."),
    (r"^visual_encoder\.", "encoder."),
    (r"\.relative_position_bias_table$", ".bias"),
    (r"^tagging_head\.encoder\.layer\.(\d+)\.", r"head.\1."),
    (r"^(head\.\d+)\.crossattention\.self\.", r"\1.attn."),
    (r"^(head\.\d+)\.crossattention\.output\.dense", r"\1.attn.proj"),
    (r"^(head\.\d+)\.crossattention\.output\.LayerNorm", r"\1.norm1"),
    (r"^(head\.\d+)\.intermediate\.dense", r"\1.fc1"),
    (r"^(head\.\d+)\.output\.dense", r"\1.fc2"),
    (r"^(head\.\d+)\.output\.LayerNorm", r"\1.norm2"),
)


def our_names(names: Iterable[str]) -> dict[str, str]:
    """From the release's names of tensors or layers, less those that have no place here, to ours; `qkv` stays."""
    found = {}
    for name in names:
        new = re.sub(r"^vision_multi\.", "tagging_head.", name)
        if any(re.fullmatch(pattern, new) for pattern in IGNORED):
            continue
        for pattern, replacement in RENAMED:
            new = re.sub(pattern, replacement, new)
        found[name] = new
    return found


def our_tensors(tensors: Mapping[str, Tensor], window: int) -> dict[str, Tensor]:
    """The release's tensors under our names: q, k and v one by one, position tables for `window`."""
    found: dict[str, Tensor] = {}
    for name, new in our_names(tensors).items():
        tensor = tensors[name]
        if ".qkv." in new:
            for part, rows in zip("qkv", tensor.chunk(3), strict=False):
                found[new.replace(".qkv.", f".{part}.")] = rows
        elif name.endswith(".relative_position_bias_table"):
            found[new] = _table(tensor, window)
        else:
            found[new] = tensor
    return found


def _table(table: Tensor, window: int) -> Tensor:
    """A position table ((2 s - 1)^2, heads) for a window of s tokens, made one for a larger window.

    The release shrinks a window that is larger than its stage's grid; in our windows such a grid lies beside empty
    places, and pairs of its tokens are as far apart as before. Farther pairs get the value of the farthest.
    """
    side, wanted = math.isqrt(table.shape[0]), 2 * window - 1
    margin = (wanted - side) // 2
    if table.ndim != 2 or side**2 != table.shape[0] or side % 2 == 0 or margin < 1:
        return table
    square = table.unflatten(0, (side, side)).permute(2, 0, 1)[None]
    return F.pad(square.float(), (margin,) * 4, mode="replicate")[0].permute(1, 2, 0).flatten(0, 1)
