"""Released files of DASR and KDSR: sizes from shapes, and layers that only shift the mean left out."""

import math
import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dacesr.config.adaptive import DASRConfig, KDSRConfig
from dacesr.shapes import Shapes, shape_of, shifts_mean
from dacesr.tensorfile import CheckpointError, TensorFile, read_tensors

DASR_MARK = r"MappingNet\.0\.weight"
"""Its other tensors have the names of an SRResNet, so DASR is to be looked for first."""

KDSR_MARK = r"E_st\.compress\.0\.weight"

_PREDICTOR = 10  # the last convolution of DASR's predictor


def dasr_config(shapes: Shapes) -> DASRConfig:
    """Hyper-parameters of a DASR, from the tensors of both of its files."""
    if "conv_first.weight" not in shapes:
        raise ValueError("it lacks conv_first.weight: it is the predictor alone, which belongs with net_g.pth")
    experts, num_feat, *_ = shape_of(shapes, "conv_first.weight", 5)
    scale = 4
    if "upconv2.weight" not in shapes:
        scale = math.isqrt(shape_of(shapes, "upconv1.weight", 5)[1] // num_feat)
    return DASRConfig.model_validate(
        {
            "num_feat": num_feat,
            "num_block": _count(shapes, r"body\.(\d+)\.conv1\.weight"),
            "num_expert": experts,
            "predictor_feat": shape_of(shapes, "ConvNet.0.weight", 4)[0],
            "num_param": shape_of(shapes, f"ConvNet.{_PREDICTOR}.weight", 4)[0],
            "scale": scale,
        }
    )


def with_dasr_predictor(file: TensorFile, path: Path) -> TensorFile:
    """A file of DASR's network together with that of its predictor, as the release has two; others as they are.

    Args:
        file: What was read from `path`.
        path: Of the network, such as net_g.pth: the predictor is beside it, as net_p.pth.

    Raises:
        CheckpointError: There is no such file beside it, or it can't be read.
    """
    first = file.tensors.get("conv_first.weight")
    if first is None or first.ndim != 5 or any(re.fullmatch(DASR_MARK, name) for name in file.tensors):
        return file
    partner = path.with_name(path.name.replace("net_g", "net_p"))
    if partner == path or not partner.exists():
        raise CheckpointError(
            f"{path} holds DASR without its predictor: put that beside it, as net_g.pth and net_p.pth"
        )
    return replace(file, tensors={**file.tensors, **read_tensors(partner).tensors})


def rename_kdsr(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a release without the two layers that shift the mean.

    They are left out only where they do what our network does without; a file with others, such as the classic models
    whose white is 255, is refused as it has tensors too many.
    """
    mean = KDSRConfig.model_validate({}).rgb_mean
    ours = "G."  # prefix of the network's tensors, beside the estimator's
    return {
        name: value
        for name, value in tensors.items()
        if not (name.startswith(ours) and shifts_mean(name.removeprefix(ours), value, mean))
    }


def kdsr_config(shapes: Shapes) -> KDSRConfig:
    """Hyper-parameters of a KDSR, the student."""
    num_feat = shape_of(shapes, "G.head.0.weight", 4)[0]
    steps = [shape[0] for name, shape in shapes.items() if re.fullmatch(r"G\.tail\.0\.\d+\.weight", name)]
    return KDSRConfig.model_validate(
        {
            "num_feat": num_feat,
            "num_block": _count(shapes, r"G\.body\.0\.body\.(\d+)\.conv1\.weight"),
            "encoder_block": sum(re.fullmatch(r"E_st\.E\.\d+\.body\.0\.weight", name) is not None for name in shapes),
            "scale": math.prod(math.isqrt(channels // num_feat) for channels in steps),
        }
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """Numbered blocks, from a pattern that finds the number: one more than the highest."""
    return max((int(place[1]) for name in shapes if (place := re.fullmatch(pattern, name))), default=-1) + 1
