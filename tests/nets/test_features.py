import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dacesr.nets.features import MEAN, STD, TRUNKS, Features

CHANNELS = {
    "vgg19": [64, 128, 256, 512, 512],
    "vgg16": [64, 128, 256, 512, 512],
    "alexnet": [64, 192, 384, 256, 256],
    "squeezenet": [64, 128, 256, 384, 384, 512, 512],
}
PARAMETERS = {"vgg19": 20024384, "vgg16": 14714688, "alexnet": 2469696, "squeezenet": 722496}  # of torchvision's trunks


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", TRUNKS)
def test_maps_have_the_names_channels_and_order_of_the_taps(name):
    net = Features(name=name)
    height, width = 67, 45
    maps = net(torch.rand(2, 3, height, width))
    assert list(maps) == list(net.channels) == list(net.weights) == list(net.trunk.taps)
    assert [m.shape[1] for m in maps.values()] == list(net.channels.values()) == CHANNELS[name]
    assert all(m.shape[0] == 2 for m in maps.values())
    assert all(weight > 0 for weight in net.weights.values())
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


def test_vgg19_is_read_before_its_relus_and_the_others_after():
    x = torch.rand(1, 3, 40, 40)
    assert all(m.min() < 0 for m in Features(name="vgg19")(x).values())
    for name in ("vgg16", "alexnet", "squeezenet"):
        assert all(m.min() == 0 for m in Features(name=name)(x).values())


def test_vgg19_taps_are_the_convolutions_of_the_paper():
    net = Features(name="vgg19")
    place, found = 0, {}
    for stage, count in enumerate((2, 2, 4, 4, 4), start=1):
        for number in range(1, count + 1):
            assert isinstance(net.features[place], nn.Conv2d)
            found[f"conv{stage}_{number}"] = place
            place += 2
        place += 1
    assert {name: tap.place for name, tap in net.trunk.taps.items()}.items() <= found.items()
    assert list(net.weights.values()) == [0.1, 0.1, 1, 1, 1]


def test_the_first_map_is_a_convolution_of_the_normalised_picture():
    net, x = Features(name="squeezenet"), torch.rand(1, 3, 20, 23)
    normal = (x - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    tensors = net.state_dict()
    expected = F.relu(F.conv2d(normal, tensors["features.0.weight"], tensors["features.0.bias"], stride=2))
    torch.testing.assert_close(net(x)["relu1"], expected)


@pytest.mark.parametrize("name", TRUNKS)
def test_the_smallest_picture_works_and_a_smaller_one_is_refused(name):
    net = Features(name=name)
    smallest = net.trunk.smallest
    assert all(m.numel() for m in net(torch.rand(1, 3, smallest, smallest)).values())
    with pytest.raises(ValueError, match=f"{smallest}x{smallest} pixels or more, not 50x{smallest - 1}"):
        net(torch.rand(1, 3, smallest - 1, 50))
    with pytest.raises((RuntimeError, ValueError)):  # the limit is no tighter than the layers'
        net.features(torch.rand(1, 3, smallest - 1, 50))


def test_frozen_in_eval_mode_and_differentiable_in_the_picture():
    net = Features(name="squeezenet")
    assert not any(p.requires_grad for p in net.parameters())
    nn.Sequential(net).train()
    assert not net.training
    x = torch.rand(1, 3, 24, 24, requires_grad=True)
    sum(m.square().mean() for m in net(x).values()).backward()
    assert x.grad is not None
    assert x.grad[..., :23, :23].abs().amin() > 0  # every pixel that the first convolution reaches


def test_state_dict_has_the_names_of_torchvision():
    names = Features(name="squeezenet").state_dict().keys()
    assert {"features.0.weight", "features.3.squeeze.bias", "features.12.expand3x3.weight"} <= names
    assert all(name.startswith("features.") for name in names)


def test_unknown_names_and_other_pictures_are_refused():
    with pytest.raises(ValueError, match="one of vgg19, vgg16, alexnet, squeezenet, not resnet"):
        Features(name="resnet")
    with pytest.raises(ValueError, match=r"not \(1, 1, 32, 32\)"):
        Features(name="squeezenet")(torch.rand(1, 1, 32, 32))
