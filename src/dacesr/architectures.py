"""Which network a set of tensors is of: recognised by their names, its hyper-parameters read from their shapes."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from pydantic import ValidationError
from torch import Tensor

from dacesr.adaptivefile import DASR_MARK, KDSR_MARK, dasr_config, kdsr_config, rename_kdsr
from dacesr.baselinefile import (
    edsr_config,
    rename_edsr,
    rename_rrdb,
    rename_srresnet,
    rlfn_config,
    rrdb_config,
    srresnet_config,
    srvgg_config,
)
from dacesr.config import NetworkConfig, RestorerConfig, TaggerConfig, explain
from dacesr.shapes import Shapes, depths_of, shape_of
from dacesr.tensorfile import CheckpointError, TensorFile
from dacesr.transformerfile import HAT_MARK, SWINIR_MARK, hat_config, head_config, swinir_config, without_computed


def _restorer_config(shapes: Shapes) -> RestorerConfig:
    """Hyper-parameters of a released restorer; the release's modulation, which has no tensors of its own."""
    embed_dim = shape_of(shapes, "conv_first.weight", 4)[0]
    depths = depths_of(shapes, r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.")
    mixer = "layers.0.residual_group.blocks.0.mixer."
    inner_dim, state_dim = shape_of(shapes, mixer + "A_log", 2)
    rank = shape_of(shapes, mixer + "dt_proj.weight", 2)[1]
    return RestorerConfig(
        embed_dim=embed_dim,
        depths=depths,
        **head_config(shapes),
        group_end="1conv" if "layers.0.conv.weight" in shapes else "3conv",
        state_dim=state_dim,
        expand=inner_dim // embed_dim,
        conv_taps=shape_of(shapes, mixer + "conv1d.weight", 3)[2],
        dt_rank="auto" if rank == math.ceil(embed_dim / 16) else rank,
        modulation="release",
    )


def _tagger_config(shapes: Shapes) -> TaggerConfig:
    """Hyper-parameters of a released RAM; its last stage is one window, and a picture goes through 512 pixels."""
    swin = "visual_encoder."
    embed_dim, _, patch, _ = shape_of(shapes, swin + "patch_embed.proj.weight", 4)
    depths = depths_of(shapes, r"visual_encoder\.layers\.(\d+)\.blocks\.(\d+)\.")
    if not depths:
        raise ValueError("it lacks the blocks of visual_encoder")
    table = "layers.{}.blocks.0.attn.relative_position_bias_table"
    tables = [shape_of(shapes, swin + table.format(stage), 2) for stage in range(len(depths))]
    window = max((math.isqrt(rows) + 1) // 2 for rows, _ in tables)
    head = "vision_multi" if any(name.startswith("vision_multi.") for name in shapes) else "tagging_head"
    numbers = re.compile(rf"{head}\.encoder\.layer\.(\d+)\.crossattention\.")
    layers = {place[1] for name in shapes if (place := numbers.match(name))}
    tags, label_dim = shape_of(shapes, "label_embed", 2)
    return TaggerConfig.preset(
        "ram",
        image_size=patch * window << (len(depths) - 1),
        patch=patch,
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        window=window,
        mlp_ratio=shape_of(shapes, swin + "layers.0.blocks.0.mlp.fc1.weight", 2)[0] // embed_dim,
        width=shape_of(shapes, "image_proj.weight", 2)[0],
        tags=tags,
        label_dim=label_dim,
        head_dim=shape_of(shapes, "wordvec_proj.weight", 2)[0],
        head_layers=len(layers),
        head_mlp=shape_of(shapes, f"{head}.encoder.layer.0.intermediate.dense.weight", 2)[0],
    )


class Architecture(NamedTuple):
    """A kind of network.

    Attributes:
        name: How it is called.
        mark: Regular expression that matches the name of one of its tensors.
        config: Reads the sizes, from our names; None where it is known by name only.
        rename: From the names of any release to ours, without what is computed; None where they are the same.
    """

    name: str
    mark: str
    config: Callable[[Shapes], NetworkConfig | TaggerConfig] | None
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


RAM = "RAM tagger"
ARCHITECTURES = (
    Architecture("restorer", r"layers\.\d+\.residual_group\.blocks\.\d+\.mixer\.A_log", _restorer_config),
    Architecture("RLFN", r"block_1\.c1_r\.weight", rlfn_config),
    Architecture(
        "RRDB (ESRGAN)", r"(body\.0|RRDB_trunk\.0|1\.sub\.0)\.(rdb|RDB)1\.conv1(\.0)?\.weight", rrdb_config, rename_rrdb
    ),
    Architecture("DASR", DASR_MARK, dasr_config),
    Architecture("KDSR", KDSR_MARK, kdsr_config, rename_kdsr),
    Architecture("SRResNet", r"upconv1\.weight", srresnet_config, rename_srresnet),
    Architecture("EDSR", r"body\.0\.(body\.0|conv1)\.weight", edsr_config, rename_edsr),
    Architecture("SRVGGNetCompact (Real-ESRGAN)", r"body\.2\.weight", srvgg_config),
    Architecture("LoRA adapter", r".*\.lora_[AB](\..*)?", None),
    Architecture(RAM, r"(tagging_head|vision_multi)\..*", _tagger_config),
    Architecture("tagger", r"head\.\d+\.attn\.query\.weight", None),  # ours, whose config stands in the header
    Architecture("HAT", HAT_MARK, hat_config, without_computed),
    Architecture("SwinIR", SWINIR_MARK, swinir_config, without_computed),
    Architecture("VGG or AlexNet", r"features\.0\.weight", None),
)


def detect(names: Iterable[str]) -> Architecture | None:
    """The first architecture that a tensor's name speaks for."""
    listed = list(names)
    for architecture in ARCHITECTURES:
        if any(re.fullmatch(architecture.mark, name) for name in listed):
            return architecture
    return None


def renamed(file: TensorFile) -> TensorFile:
    """A released file with its tensors under our names; files of our own and unknown ones as they are."""
    architecture = None if "dacesr_format" in (file.metadata or {}) else detect(file.tensors)
    if architecture is None or architecture.rename is None:
        return file
    return replace(file, tensors=architecture.rename(file.tensors))


def released_config(
    architecture: Architecture, tensors: Mapping[str, Tensor], name: str
) -> NetworkConfig | TaggerConfig:
    """The config that the shapes of the tensors speak for.

    Args:
        architecture: what `detect` found; it must not be one that is known by name only.
        tensors: by name.
        name: of the file, for the error.

    Raises:
        CheckpointError: there is no such network.
    """
    if architecture.config is None:
        raise CheckpointError(f"{name} seems to hold {architecture.name} weights, which are known by name only")
    try:
        return architecture.config({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    except ValidationError as error:
        raise CheckpointError(f"{name} seems to hold a {architecture.name}, but with {explain(error)}") from error
    except ValueError as error:
        raise CheckpointError(f"{name} seems to hold a {architecture.name}, but {error}") from error
