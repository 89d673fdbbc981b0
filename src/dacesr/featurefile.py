"""Files of feature networks and of the metrics that have parameters: recognised, loaded strictly, converted.

Read are torchvision's state dicts of VGG19, VGG16, AlexNet and SqueezeNet 1.1, the Keras file of SqueezeNet 1.1, and
the safetensors that `convert_features` makes of either: the convolutions in torchvision's names.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from dacesr.metrics import LPIPS, NiqeParameters
from dacesr.nets.features import MEAN, STD, TRUNKS, Conv, Features, Fire
from dacesr.ownfile import FORMAT
from dacesr.tensorfile import CheckpointError, read_tensors, write_whole

KIND = "feature network"
DOWNLOADS = "https://download.pytorch.org/models/"
TORCHVISION = {  # torchvision's files, by the name of the network
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg16": "vgg16-397923af.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "squeezenet": "squeezenet1_1-b8a52dc0.pth",
}
LPIPS_WEIGHTS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
CAFFE_MEAN = (104.0, 117.0, 123.0)  # BGR, 0 to 255: what SqueezeNet 1.1 was trained with, in Caffe


def load_features(path: str | os.PathLike[str], name: str | None = None) -> Features:
    """Load a feature network, on the CPU, frozen.

    Args:
        path: torchvision's .pth, the Keras .h5 of SqueezeNet 1.1, or a file of `convert_features`.
        name: "vgg19", "vgg16", "alexnet" or "squeezenet" if it must be that one; otherwise the file decides.

    Raises:
        CheckpointError: the file is missing (the sentence says where to get it), isn't of these networks, or is of
            another one than `name`.
        ValueError: there is no network of that name.
    """
    if name is not None and name not in TRUNKS:
        raise ValueError(f"a feature network is one of {', '.join(TRUNKS)}, not {name}")
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; {_where(name)}")
    tensors = _read_keras(path) if _is_hdf5(path) else read_tensors(path).tensors
    found = _detect(tensors)
    if found is None:
        first = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{path} holds none of the feature networks {', '.join(TRUNKS)} (its tensors: {first}, ...)"
        )
    if name not in (None, found):
        raise CheckpointError(f"{path} holds {found}, not {name}; {_where(name)}")
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = Features(name=found)
    net.load_state_dict({key: tensors[key] for key in net.state_dict()})  # not the classifier
    return net


def convert_features(source: str | os.PathLike[str], destination: str | os.PathLike[str]) -> None:
    """Write what `load_features` reads as our own safetensors: the convolutions alone, float32.

    Raises:
        CheckpointError: the source can't be loaded.
        OSError: the destination can't be written.
    """
    net = load_features(source)
    header = {"dacesr_format": str(FORMAT), "kind": KIND, "name": net.name, "source": Path(source).name}
    write_whole(Path(destination), safetensors.torch.save(net.state_dict(), metadata=header))


def load_lpips(features_path: str | os.PathLike[str], linear_path: str | os.PathLike[str]) -> LPIPS:
    """Load LPIPS v0.1: a feature network, and the weights of its channels.

    The weights were learned on torchvision's networks. Its SqueezeNet was trained anew, so the Keras file, which comes
    from Caffe, has other channels: its distance is close to one with equal weights in each map, good for comparing
    results of one's own, and not LPIPS as published.

    Args:
        features_path: VGG16, AlexNet or SqueezeNet, as for `load_features`.
        linear_path: the authors' vgg.pth, alex.pth or squeeze.pth.

    Raises:
        CheckpointError: either file can't be used, or they don't fit each other.
    """
    features = load_features(features_path)
    if features.name == "vgg19":
        raise CheckpointError(f"{features_path} holds vgg19, and LPIPS is defined on vgg16, alexnet and squeezenet")
    path = Path(linear_path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; LPIPS's weights are at {LPIPS_WEIGHTS}")
    tensors = read_tensors(path).tensors
    try:
        weights = {tap: tensors.pop(f"lin{place}.model.1.weight") for place, tap in enumerate(features.channels)}
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error.args[0]}, a weight of LPIPS on {features.name}") from error
    if tensors:
        raise CheckpointError(f"{path} has {', '.join(tensors)}, which LPIPS on {features.name} has not")
    try:
        return LPIPS(features=features, weights=weights)
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit {features_path}: {error}") from error


def load_niqe(path: str | os.PathLike[str]) -> NiqeParameters:
    """Load NIQE's natural picture model: an .npz with mu_pris_param (36) and cov_pris_param (36, 36).

    Raises:
        CheckpointError: the file is missing or holds something else.
    """
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as archive:
            mean = torch.from_numpy(archive["mu_pris_param"].astype(np.float64)).flatten()
            covariance = torch.from_numpy(archive["cov_pris_param"].astype(np.float64))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not an .npz with mu_pris_param and cov_pris_param of NIQE") from error
    if mean.shape != (36,) or covariance.shape != (36, 36):
        sizes = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise CheckpointError(f"{path} has NIQE parameters of {sizes}, which should be (36,) and (36, 36)")
    return NiqeParameters(mean, covariance)


def _where(name: str | None) -> str:
    """Where the weights of a network are to be had."""
    if name is None:
        return f"torchvision's weights of VGG19, VGG16, AlexNet and SqueezeNet are at {DOWNLOADS}"
    return f"torchvision's weights of {name} are at {DOWNLOADS}{TORCHVISION[name]}"


def _detect(tensors: Mapping[str, Tensor]) -> str | None:
    """The network whose convolutions have exactly the names and shapes of these."""
    found = {key: tuple(value.shape) for key, value in tensors.items() if key.startswith("features.")}
    for name in TRUNKS:
        with torch.device("meta"):
            wanted = {key: tuple(value.shape) for key, value in Features(name=name).state_dict().items()}
        if found == wanted:
            return name
    return None


# --- Keras


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    except OSError:
        return False  # read_tensors says what is wrong


def _read_keras(path: Path) -> dict[str, Tensor]:
    """SqueezeNet 1.1 in torchvision's names and order, its first convolution fitted to our normalisation."""
    try:
        import h5py
    except ImportError as error:
        raise CheckpointError(f'{path} is an HDF5 file, which needs h5py: pip install "dacesr[train]"') from error
    tensors: dict[str, Tensor] = {}
    try:
        with h5py.File(path, "r") as file:
            for ours, theirs in _keras_names().items():
                tensors[f"{ours}.weight"], tensors[f"{ours}.bias"] = _from_keras(_arrays(file[theirs]))
    except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged, or not the Keras file of SqueezeNet 1.1 ({error})") from error
    return tensors | _fit_input(tensors["features.0.weight"], tensors["features.0.bias"])


def _keras_names() -> dict[str, str]:
    """Our names of SqueezeNet's convolutions, and those in the Keras file, where the first fire module is number 2."""
    parts = {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
    names: dict[str, str] = {}
    fires = 1
    for place, layer in enumerate(TRUNKS["squeezenet"].layers):
        if isinstance(layer, Conv):
            names[f"features.{place}"] = "conv1"
        elif isinstance(layer, Fire):
            fires += 1
            names |= {f"features.{place}.{ours}": f"fire{fires}/{theirs}" for ours, theirs in parts.items()}
    return names


def _arrays(item: Any) -> list[np.ndarray]:
    """Every array in an HDF5 group, or the one that it is itself."""
    return [item[()]] if hasattr(item, "shape") else [array for part in item.values() for array in _arrays(part)]


def _from_keras(arrays: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Kernel (h, w, in, out) -> (out, in, h, w), and bias (out)."""
    bias, kernel = sorted(arrays, key=np.ndim)
    return torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias)


def _fit_input(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The first convolution for normalised RGB in place of BGR from 0 to 255 minus the mean.

    With x = mean + std * z, 255 x - caffe_mean is affine in z: its factors go into the weights, its constants into the
    bias. That is exact up to the border since this convolution doesn't pad.
    """
    mean, std, caffe_mean = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD, CAFFE_MEAN[::-1]))
    weight = weight.double().flip(1)
    shift = (255 * mean - caffe_mean).reshape(1, 3, 1, 1)
    return {
        "features.0.weight": (weight * (255 * std).reshape(1, 3, 1, 1)).float(),
        "features.0.bias": (bias.double() + (weight * shift).sum((1, 2, 3))).float(),
    }
