"""Files of feature networks and of the metrics that have parameters: recognised, loaded strictly, converted.

Read are torchvision's state dicts of VGG19, VGG16, AlexNet and SqueezeNet 1.1, the Keras file of SqueezeNet 1.1, and
the safetensors that `convert_features` makes of either: the convolutions in torchvision's names. Wherever a file of
weights is expected, a hub id (`owner/name`) stands for the one in that repository.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from dacesr.metrics import DISTS, LPIPS, NiqeParameters
from dacesr.nets.features import MEAN, STD, TRUNKS, Conv, Features, Fire, Origin, Pooling
from dacesr.ownfile import FORMAT
from dacesr.tensorfile import CheckpointError, read_tensors, write_whole
from dacesr.weightfiles import HUB_ID, resolve

KIND = "feature network"
DOWNLOADS = "https://download.pytorch.org/models/"
TORCHVISION = {  # torchvision's files, by the name of the network
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg16": "vgg16-397923af.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "squeezenet": "squeezenet1_1-b8a52dc0.pth",
}
LPIPS_WEIGHTS = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
DISTS_WEIGHTS = "https://github.com/dingkeyan93/DISTS/tree/master/DISTS_pytorch"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
KERAS_ENDINGS = (".h5", ".hdf5")
CAFFE_MEAN = (104.0, 117.0, 123.0)  # BGR, 0 to 255: what SqueezeNet 1.1 was trained with, in Caffe


def load_features(path: str | os.PathLike[str], name: str | None = None, *, pooling: Pooling = "max") -> Features:
    """Load a feature network, on the CPU, frozen.

    Args:
        path: torchvision's .pth, the Keras .h5 of SqueezeNet 1.1, a file of `convert_features`, or a hub id.
        name: "vgg19", "vgg16", "alexnet" or "squeezenet" if it must be that one; otherwise the file decides.
        pooling: as `Features` has it.

    Raises:
        CheckpointError: the file is missing (the sentence says where to get it), isn't of these networks, or is of
            another one than `name`.
        ValueError: there is no network of that name.
    """
    if name is not None and name not in TRUNKS:
        raise ValueError(f"a feature network is one of {', '.join(TRUNKS)}, not {name}")
    path = _file(path, _where(name))
    tensors, origin = _read_convolutions(path)
    found = _detect(tensors)
    if found is None:
        first = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{path} holds none of the feature networks {', '.join(TRUNKS)} (its tensors: {first}, ...)"
        )
    if name not in (None, found):
        raise CheckpointError(f"{path} holds {found}, not {name}; {_where(name)}")
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        net = Features(name=found, pooling=pooling, origin=origin)
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
    header["origin"] = net.origin
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
    path = _file(linear_path, f"LPIPS's weights are at {LPIPS_WEIGHTS}")
    names = {tap: f"lin{place}.model.1.weight" for place, tap in enumerate(features.channels)}
    tensors = _exactly(path, list(names.values()), f"LPIPS on {features.name}")
    try:
        return LPIPS(features=features, weights={tap: tensors[name] for tap, name in names.items()})
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit {features_path}: {error}") from error


def load_dists(features_path: str | os.PathLike[str], weights_path: str | os.PathLike[str]) -> DISTS:
    """Load DISTS: VGG16, and the weights of its channels' texture (alpha) and structure (beta).

    Args:
        features_path: VGG16, as for `load_features`.
        weights_path: the authors' weights.pt, with alpha and beta (1, 1475, 1, 1).

    Raises:
        CheckpointError: either file can't be used.
    """
    features = load_features(features_path, "vgg16", pooling="l2")
    path = _file(weights_path, f"DISTS's weights are at {DISTS_WEIGHTS}")
    tensors = _exactly(path, ["alpha", "beta"], "DISTS")
    try:
        return DISTS(features=features, alpha=tensors["alpha"], beta=tensors["beta"])
    except ValueError as error:
        raise CheckpointError(f"{path} can't be used: {error}") from error


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


def _file(source: str | os.PathLike[str], where: str) -> Path:
    """The file that a path or a hub id stands for.

    Raises:
        CheckpointError: there is none; the sentence ends in `where` it is to be had.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    hub = isinstance(source, str) and re.fullmatch(HUB_ID, source) and path.suffix not in KERAS_ENDINGS
    if hub and not path.parent.is_dir():
        return resolve(source)
    raise CheckpointError(f"{path} does not exist; {where}")


def _exactly(path: Path, names: list[str], owner: str) -> dict[str, Tensor]:
    """The tensors of a file that holds these and no others.

    Raises:
        CheckpointError: it lacks one, has another, or can't be read.
    """
    tensors = read_tensors(path).tensors
    if lacking := [name for name in names if name not in tensors]:
        raise CheckpointError(f"{path} lacks {lacking[0]}, a weight of {owner}")
    if more := [name for name in tensors if name not in names]:
        raise CheckpointError(f"{path} has {', '.join(more)}, which {owner} has not")
    return tensors


def _read_convolutions(path: Path) -> tuple[dict[str, Tensor], Origin]:
    """Tensors in torchvision's names, and where they were trained.

    Raises:
        CheckpointError: the file can't be read.
    """
    if _is_hdf5(path):
        return _read_keras(path), "caffe"
    file = read_tensors(path)
    header = file.metadata or {}
    # files of before `origin` was noted say what they were made of
    keras = header.get("origin") == "caffe" or Path(header.get("source", "")).suffix in KERAS_ENDINGS
    return file.tensors, "caffe" if keras else "torchvision"


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
