"""Released files of the networks to compare with: sizes from shapes, names brought to ours."""

import math
import re
from typing import Any

from torch import Tensor

from dacesr.config import EDSRConfig, RLFNConfig, RRDBConfig, SRResNetConfig, SRVGGConfig
from dacesr.shapes import Shapes, shape_of, shifts_mean

Tensors = dict[str, Tensor]


# --- SRVGGNetCompact


def srvgg_config(shapes: Shapes) -> SRVGGConfig:
    """Hyper-parameters of a compact network: body.0 and every second entry are convolutions, PReLUs between them."""
    numbers = [int(place[1]) for name in shapes if (place := re.fullmatch(r"body\.(\d+)\.weight", name))]
    last = max(numbers)
    scale = _step(shapes, f"body.{last}.weight", 3)
    if "body.1.weight" not in shapes:
        raise ValueError("it lacks body.1.weight, so its activation is not PReLU")
    return SRVGGConfig(
        num_feat=shape_of(shapes, "body.0.weight", 4)[0],
        num_conv=last // 2 - 1,
        scale=scale,  # pyright: ignore[reportArgumentType]
        activation="prelu",
    )


# --- SRResNet


def rename_srresnet(tensors: Tensors) -> Tensors:
    """Names of BasicSR from those of its first version, which are ESRGAN's."""
    return _renamed(tensors, (r"recon_trunk\.", "body."), (r"HRconv\.", "conv_hr."))


def srresnet_config(shapes: Shapes) -> SRResNetConfig:
    """Hyper-parameters of an SRResNet: one convolution before a pixel shuffle, or two of them for x4."""
    sizes = _sizes(shapes)
    scale = 4 if "upconv2.weight" in shapes else _step(shapes, "upconv1.weight", sizes["num_feat"])
    return SRResNetConfig.model_validate({**sizes, "scale": scale})


# --- EDSR


def rename_edsr(tensors: Tensors) -> Tensors:
    """Names of BasicSR from those of the authors' PyTorch release, whose layers that shift the mean are left out.

    They are left out only where they do what our network does without; a file with others is refused as it has tensors
    too many.
    """
    if "head.0.weight" not in tensors:
        return tensors
    names = _renamed(
        tensors,
        (r"head\.0\.", "conv_first."),
        (r"body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
        (r"body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
        (r"body\.\d+\.(weight|bias)", r"conv_after_body.\1"),
        (r"tail\.0\.", "upsample."),
        (r"tail\.1\.", "conv_last."),
    )
    shifts = [name for name in names if re.fullmatch(r"(sub|add)_mean\.(weight|bias)", name)]
    config = EDSRConfig.model_validate({})
    mean = [config.img_range * value for value in config.rgb_mean]
    usual = all(shifts_mean(name, names[name], mean) for name in shifts)
    return {name: value for name, value in names.items() if not (usual and name in shifts)}


def edsr_config(shapes: Shapes) -> EDSRConfig:
    """Hyper-parameters of an EDSR; those that have no tensors are as in the published ones of its size."""
    sizes = _sizes(shapes)
    steps = [name for name in shapes if re.fullmatch(r"upsample\.\d+\.weight", name)]
    scale = math.prod(_step(shapes, name, sizes["num_feat"]) for name in steps)
    res_scale = 0.1 if sizes["num_feat"] >= 256 else 1.0  # Lim et al. 2017, Sec. 3.3
    return EDSRConfig.model_validate({**sizes, "scale": scale, "res_scale": res_scale})


# --- RRDB


def rename_rrdb(tensors: Tensors) -> Tensors:
    """Names of BasicSR from either of ESRGAN's: those with RRDB_trunk, and the older ones that are numbers."""
    if "conv_first.weight" in tensors:
        return _renamed(
            tensors,
            (r"RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
            (r"trunk_conv\.", "conv_body."),
            (r"upconv(\d)\.", r"conv_up\1."),
            (r"HRconv\.", "conv_hr."),
        )
    numbers = sorted({int(place[1]) for name in tensors if (place := re.fullmatch(r"(\d+)\.(weight|bias)", name))})
    ours = ["conv_first", *(f"conv_up{number}" for number in range(1, len(numbers) - 2)), "conv_hr", "conv_last"]
    return _renamed(
        tensors,
        (r"1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\.", r"body.\1.rdb\2.\3."),
        (r"1\.sub\.\d+\.(weight|bias)", r"conv_body.\1"),
        *((rf"{number}\.(weight|bias)", rf"{name}.\1") for number, name in zip(numbers, ours, strict=False)),
    )


def rrdb_config(shapes: Shapes) -> RRDBConfig:
    """Hyper-parameters of an RRDBNet: pixels that become channels show in the first convolution."""
    channels = shape_of(shapes, "conv_first.weight", 4)[1]
    unshuffle = math.isqrt(channels // 3)
    if 3 * unshuffle**2 != channels:
        raise ValueError(f"its first convolution takes {channels} channels, not three for each pixel of a square")
    doublings = sum(re.fullmatch(r"conv_up\d+\.weight", name) is not None for name in shapes)
    if 2**doublings % unshuffle:
        raise ValueError(f"it makes a picture smaller: {unshuffle} pixels a side become channels, and {2**doublings}")
    return RRDBConfig.model_validate(
        {
            **_sizes(shapes),
            "num_grow_ch": shape_of(shapes, "body.0.rdb1.conv1.weight", 4)[0],
            "scale": 2**doublings // unshuffle,
            "unshuffle": unshuffle,
        }
    )


# --- RLFN


def rlfn_config(shapes: Shapes) -> RLFNConfig:
    """Hyper-parameters of an RLFN; the range is that of its training."""
    blocks = [int(place[1]) for name in shapes if (place := re.match(r"block_(\d+)\.", name))]
    return RLFNConfig.model_validate(
        {
            "num_feat": shape_of(shapes, "conv_1.weight", 4)[0],
            "num_block": max(blocks),
            "mid_feat": shape_of(shapes, "block_1.c1_r.weight", 4)[0],
            "esa_feat": shape_of(shapes, "block_1.esa.conv1.weight", 4)[0],
            "scale": _step(shapes, "upsampler.0.weight", 3),
        }
    )


# --- what they share


def _renamed(tensors: Tensors, *changes: tuple[str, str]) -> Tensors:
    """Tensors with the first pattern that begins a name replaced; other names stay."""
    return {_new_name(name, changes): value for name, value in tensors.items()}


def _new_name(name: str, changes: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in changes:
        if found := re.match(pattern, name):
            return found.expand(ours) + name[found.end() :]
    return name


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """Channels and blocks of a network with a first convolution and a body of numbered blocks."""
    blocks = [int(place[1]) for name in shapes if (place := re.match(r"body\.(\d+)\.", name))]
    return {"num_feat": shape_of(shapes, "conv_first.weight", 4)[0], "num_block": max(blocks, default=-1) + 1}


def _step(shapes: Shapes, name: str, channels: int) -> int:
    """By how much a pixel shuffle after this convolution enlarges, if that leaves so many channels."""
    given = shape_of(shapes, name, 4)[0]
    step = math.isqrt(given // channels)
    if step**2 * channels != given:
        raise ValueError(f"its {name} gives {given} channels, not {channels} for each pixel of a square")
    return step
