import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.featurefile import convert_features, load_dists, load_features, load_lpips, load_niqe
from dacesr.nets.features import TRUNKS, Features
from dacesr.tensorfile import CheckpointError

CAFFE_MEAN = torch.tensor([104.0, 117.0, 123.0]).reshape(3, 1, 1)  # BGR


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def torchvision_file(path: Path, name: str) -> dict[str, Tensor]:
    """A file such as torchvision's, with a classifier, of random weights."""
    tensors = {**Features(name=name).state_dict(), "classifier.1.weight": torch.rand(10, 5)}
    torch.save(tensors, path)
    return tensors


def keras_file(path: Path) -> dict[str, np.ndarray]:
    """A file laid out as the Keras one, of random weights; its arrays by layer."""
    h5py = pytest.importorskip("h5py")
    generator = np.random.default_rng(0)
    sizes = {"conv1": (3, 3, 64)}
    channels = 64
    for number, (squeeze, expand) in enumerate([(16, 64)] * 2 + [(32, 128)] * 2 + [(48, 192)] * 2 + [(64, 256)] * 2, 2):
        sizes[f"fire{number}/squeeze1x1"] = (1, channels, squeeze)
        sizes[f"fire{number}/expand1x1"] = (1, squeeze, expand)
        sizes[f"fire{number}/expand3x3"] = (3, squeeze, expand)
        channels = 2 * expand
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path, "w") as file:
        for number, (layer, (kernel, inputs, outputs)) in enumerate(sizes.items(), 1):
            weight = generator.standard_normal((kernel, kernel, inputs, outputs)) / kernel / inputs**0.5
            arrays[f"{layer}_W"] = weight.astype(np.float32)
            arrays[f"{layer}_b"] = generator.standard_normal(outputs).astype(np.float32)
            file[f"{layer}/uniform{number}"] = arrays[f"{layer}_W"]
            file[f"{layer}/{layer}_b"] = arrays[f"{layer}_b"]
    return arrays


def plain_squeezenet(arrays: dict[str, np.ndarray], x: Tensor) -> list[Tensor]:
    """The Keras network written out, on BGR from 0 to 255 minus the mean: conv1 and the fire modules 2, 3, ..."""

    def conv(layer: str, x: Tensor, **options) -> Tensor:
        weight = torch.from_numpy(arrays[f"{layer}_W"]).permute(3, 2, 0, 1)
        return F.relu(F.conv2d(x, weight, torch.from_numpy(arrays[f"{layer}_b"]), **options))

    maps = [conv("conv1", x.flip(1) * 255 - CAFFE_MEAN, stride=2)]
    for number in range(2, 10):
        x = F.max_pool2d(maps[-1], 3, 2, ceil_mode=True) if number in (2, 4, 6) else maps[-1]
        x = conv(f"fire{number}/squeeze1x1", x)
        maps.append(torch.cat([conv(f"fire{number}/expand1x1", x), conv(f"fire{number}/expand3x3", x, padding=1)], 1))
    return maps


def refusal(load, *arguments) -> str:
    """The one sentence that a file is refused with."""
    with pytest.raises(CheckpointError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- loading


@pytest.mark.parametrize("name", TRUNKS)
def test_files_of_torchvision_are_recognised(tmp_path, name):
    tensors = torchvision_file(tmp_path / "net.pth", name)
    for net in (load_features(tmp_path / "net.pth"), load_features(tmp_path / "net.pth", name)):
        assert net.name == name
        assert all(torch.equal(value, tensors[key]) for key, value in net.state_dict().items())
        assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("size", [(33, 46), (64, 64)])
def test_the_keras_file_computes_the_same_from_rgb(tmp_path, size):
    arrays = keras_file(tmp_path / "net.h5")
    net = load_features(tmp_path / "net.h5", "squeezenet")
    x = torch.rand(2, 3, *size)
    plain = plain_squeezenet(arrays, x)
    found = net(x)
    for tap, number in {"relu1": 1, "fire3": 3, "fire5": 5, "fire6": 6, "fire7": 7, "fire8": 8, "fire9": 9}.items():
        expected = plain[number - 1]
        torch.testing.assert_close(found[tap], expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-4)


def test_loading_leaves_the_random_numbers_alone(tmp_path):
    torchvision_file(tmp_path / "net.pth", "squeezenet")
    state = torch.get_rng_state()
    load_features(tmp_path / "net.pth")
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_converted_is_the_same_network(tmp_path):
    keras_file(tmp_path / "net.h5")
    convert_features(tmp_path / "net.h5", tmp_path / "net.safetensors")
    one, two = load_features(tmp_path / "net.h5"), load_features(tmp_path / "net.safetensors")
    assert one.name == two.name
    assert all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())
    with safetensors.safe_open(tmp_path / "net.safetensors", framework="pt") as file:
        assert file.metadata()["kind"] == "feature network"
        assert file.metadata()["source"] == "net.h5"
    assert (tmp_path / "net.safetensors").stat().st_size < 3e6


def test_lpips_is_put_together(tmp_path):
    torchvision_file(tmp_path / "net.pth", "alexnet")
    weights = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate([64, 192, 384, 256, 256])}
    torch.save(weights, tmp_path / "alex.pth")
    network = load_lpips(tmp_path / "net.pth", tmp_path / "alex.pth")
    assert network.features.name == "alexnet"
    for weight, recorded in zip(network.weights.values(), weights.values(), strict=True):
        assert torch.equal(weight, recorded.flatten())


def lpips_file(path: Path, name: str) -> None:
    channels = Features(name=name).channels.values()
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}, path)


@pytest.mark.parametrize(
    ("name", "label"),
    [("alexnet", "LPIPS (AlexNet)"), ("vgg16", "LPIPS (VGG16)"), ("squeezenet", "LPIPS (SqueezeNet)")],
)
def test_lpips_of_torchvision_says_its_network(tmp_path, name, label):
    torchvision_file(tmp_path / "net.pth", name)
    convert_features(tmp_path / "net.pth", tmp_path / "net.safetensors")
    lpips_file(tmp_path / "lin.pth", name)
    for file in ("net.pth", "net.safetensors"):
        assert load_lpips(tmp_path / file, tmp_path / "lin.pth").label == label


def test_lpips_on_the_keras_file_says_that_it_is_another(tmp_path):
    keras_file(tmp_path / "net.h5")
    convert_features(tmp_path / "net.h5", tmp_path / "once.safetensors")
    convert_features(tmp_path / "once.safetensors", tmp_path / "twice.safetensors")
    net = load_features(tmp_path / "net.h5")
    header = {"name": "squeezenet", "source": "net.h5"}  # as files had it before they noted the origin
    safetensors.torch.save_file(net.state_dict(), tmp_path / "old.safetensors", metadata=header)
    lpips_file(tmp_path / "squeeze.pth", "squeezenet")
    for file in ("net.h5", "once.safetensors", "twice.safetensors", "old.safetensors"):
        network = load_lpips(tmp_path / file, tmp_path / "squeeze.pth")
        assert network.label == "LPIPS (SqueezeNet of Caffe, not the published one)"


def dists_file(path: Path) -> dict[str, Tensor]:
    tensors = {name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}
    torch.save(tensors, path)
    return tensors


def test_dists_is_put_together(tmp_path):
    convolutions = torchvision_file(tmp_path / "net.pth", "vgg16")
    tensors = dists_file(tmp_path / "weights.pt")
    network = load_dists(tmp_path / "net.pth", tmp_path / "weights.pt")
    assert (network.features.name, network.features.pooling, network.label) == ("vgg16", "l2", "DISTS")
    assert all(torch.equal(value, convolutions[key]) for key, value in network.features.state_dict().items())
    total = sum(tensors.values()).sum()
    torch.testing.assert_close(network.alpha, tensors["alpha"].flatten() / total)
    torch.testing.assert_close(network.beta, tensors["beta"].flatten() / total)
    assert not any(p.requires_grad for p in network.parameters())


def hub(monkeypatch, folders: dict[str, Path]) -> None:
    """A hub of these repositories, in the place of huggingface_hub's functions."""
    import huggingface_hub

    def info(repository, **_):
        siblings = [SimpleNamespace(rfilename=path.name) for path in folders[repository].iterdir()]
        return SimpleNamespace(siblings=siblings)

    monkeypatch.setattr(huggingface_hub, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, name: str(folders[repository] / name))


def test_hub_ids_stand_for_files(tmp_path, monkeypatch):
    folders = {f"someone/{name}": tmp_path / name for name in ("vgg16", "lpips", "dists")}
    for folder in folders.values():
        folder.mkdir()
    torchvision_file(tmp_path / "vgg16/vgg16.pth", "vgg16")
    lpips_file(tmp_path / "lpips/vgg.pth", "vgg16")
    dists_file(tmp_path / "weights.pt")
    safetensors.torch.save_file(torch.load(tmp_path / "weights.pt"), tmp_path / "dists/model.safetensors")
    hub(monkeypatch, folders)
    assert load_features("someone/vgg16").name == "vgg16"
    assert load_lpips("someone/vgg16", "someone/lpips").label == "LPIPS (VGG16)"
    one = load_dists("someone/vgg16", "someone/dists")
    two = load_dists(tmp_path / "vgg16/vgg16.pth", tmp_path / "weights.pt")
    assert torch.equal(one.alpha, two.alpha)
    assert "net.h5 does not exist; torchvision's" in refusal(load_features, "someone/net.h5")  # a file, not a hub id


def test_the_real_files_are_loaded(data):
    net = load_features(data / "metrics/squeezenet_v1.1_keras.h5")
    assert net.name == "squeezenet"
    parameters = load_niqe(data / "metrics/niqe_pris_params.npz")
    assert torch.linalg.eigvalsh(parameters.covariance).min() > 0
    network = load_lpips(data / "metrics/squeezenet_v1.1_keras.h5", data / "metrics/lpips_v0.1/squeeze.pth")
    assert all(weight.min() >= 0 for weight in network.weights.values())


# --- refusals


def test_a_missing_file_is_named_and_where_to_get_it(tmp_path):
    message = refusal(load_features, tmp_path / "none.pth", "vgg19")
    assert "none.pth does not exist" in message
    assert "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth" in message
    assert "https://download.pytorch.org/models/" in refusal(load_features, tmp_path / "none.pth")
    torchvision_file(tmp_path / "net.pth", "alexnet")
    assert "PerceptualSimilarity" in refusal(load_lpips, tmp_path / "net.pth", tmp_path / "alex.pth")
    assert "none.npz does not exist" in refusal(load_niqe, tmp_path / "none.npz")


def test_another_network_is_named(tmp_path):
    path = tmp_path / "net.pth"
    torchvision_file(path, "squeezenet")
    message = refusal(load_features, path, "vgg19")
    assert "net.pth holds squeezenet, not vgg19" in message
    assert "vgg19-dcbb9e9d.pth" in message
    torch.save({"features.0.weight": torch.rand(64, 3, 3, 3), "features.1.weight": torch.rand(64)}, path)
    assert "holds none of the feature networks vgg19, vgg16" in refusal(load_features, path)
    assert "is a folder" in refusal(load_features, tmp_path)
    with pytest.raises(ValueError, match="not resnet"):
        load_features(path, "resnet")


def test_other_and_damaged_hdf5_files_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["block1_conv1/kernel"] = np.zeros((3, 3, 3, 64))
    assert "other.h5 is damaged, or not the Keras file" in refusal(load_features, tmp_path / "other.h5")
    keras_file(tmp_path / "net.h5")
    content = (tmp_path / "net.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    assert "cut.h5 is damaged" in refusal(load_features, tmp_path / "cut.h5")


def test_without_h5py_the_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert 'pip install "dacesr[train]"' in refusal(load_features, tmp_path / "net.h5")


def test_lpips_weights_of_another_network_are_refused(tmp_path):
    torchvision_file(tmp_path / "alexnet.pth", "alexnet")
    weights = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate([64, 128, 256, 512, 512])}
    torch.save(weights, tmp_path / "vgg.pth")
    assert "vgg.pth does not fit" in refusal(load_lpips, tmp_path / "alexnet.pth", tmp_path / "vgg.pth")
    torch.save({**weights, "lin5.model.1.weight": torch.rand(1, 9, 1, 1)}, tmp_path / "more.pth")
    assert "has lin5.model.1.weight" in refusal(load_lpips, tmp_path / "alexnet.pth", tmp_path / "more.pth")
    torch.save({"lin0.model.1.weight": torch.rand(1, 64, 1, 1)}, tmp_path / "less.pth")
    assert "lacks lin1.model.1.weight" in refusal(load_lpips, tmp_path / "alexnet.pth", tmp_path / "less.pth")
    torchvision_file(tmp_path / "vgg19.pth", "vgg19")
    assert "vgg16, alexnet and squeezenet" in refusal(load_lpips, tmp_path / "vgg19.pth", tmp_path / "vgg.pth")


def test_what_is_not_dists_is_refused(tmp_path):
    torchvision_file(tmp_path / "vgg16.pth", "vgg16")
    torchvision_file(tmp_path / "vgg19.pth", "vgg19")
    dists_file(tmp_path / "weights.pt")
    torch.save({"alpha": torch.rand(1, 1475, 1, 1)}, tmp_path / "half.pt")
    torch.save({"alpha": torch.rand(1, 9, 1, 1), "beta": torch.rand(1, 1475, 1, 1)}, tmp_path / "few.pt")
    assert "vgg19.pth holds vgg19, not vgg16" in refusal(load_dists, tmp_path / "vgg19.pth", tmp_path / "weights.pt")
    assert "half.pt lacks beta, a weight of DISTS" in refusal(load_dists, tmp_path / "vgg16.pth", tmp_path / "half.pt")
    message = refusal(load_dists, tmp_path / "vgg16.pth", tmp_path / "few.pt")
    assert "few.pt can't be used: DISTS has 1475 weights alpha and as many beta, not 9 and 1475" in message
    message = refusal(load_dists, tmp_path / "vgg16.pth", tmp_path / "none.pt")
    assert "none.pt does not exist; DISTS's weights are at https://github.com/dingkeyan93/DISTS" in message


def test_niqe_parameters_are_checked(tmp_path):
    np.savez(tmp_path / "a.npz", mu_pris_param=np.zeros((1, 36)))
    np.savez(tmp_path / "b.npz", mu_pris_param=np.zeros((1, 36)), cov_pris_param=np.zeros((3, 3)))
    np.save(tmp_path / "c.npy", np.zeros(3))
    (tmp_path / "d.npz").write_text("no archive")
    assert "mu_pris_param and cov_pris_param" in refusal(load_niqe, tmp_path / "a.npz")
    assert "(36,) and (3, 3)" in refusal(load_niqe, tmp_path / "b.npz")
    assert "c.npy is not an .npz" in refusal(load_niqe, tmp_path / "c.npy")
    assert "d.npz is not an .npz" in refusal(load_niqe, tmp_path / "d.npz")
