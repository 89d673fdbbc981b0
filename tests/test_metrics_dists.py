"""DISTS: the authors' numbers, the formula written out, and what it owes to whoever measures with it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.metrics import DISTS, dists
from dacesr.nets.features import Features

CHANNELS = [3, 64, 128, 256, 512, 512]


def drawn(seed: int) -> tuple[DISTS, Tensor, Tensor]:
    """A network of random weights and two pictures, all from one sequence of numbers, as recorded ones had them."""
    random = np.random.RandomState(seed)
    features = Features(name="vgg16", pooling="l2")
    tensors = {}
    for key, value in features.state_dict().items():
        scale = np.sqrt(2 / value[0].numel()) if key.endswith("weight") else 0.1
        tensors[key] = torch.from_numpy(random.standard_normal(tuple(value.shape)) * scale).float()
    features.load_state_dict(tensors)
    alpha, beta = (torch.from_numpy(random.random_sample((1, 1475, 1, 1))).float() for _ in range(2))
    a = torch.from_numpy(random.random_sample((2, 3, 35, 50))).float()
    b = (a + torch.from_numpy(0.2 * random.standard_normal((2, 3, 35, 50))).float()).clamp(0, 1)
    b[1] = b[1].flip(-1)
    return DISTS(features=features, alpha=alpha, beta=beta), a, b


@pytest.fixture(scope="module")
def case() -> tuple[DISTS, Tensor, Tensor]:
    return drawn(0)


def plain(network: DISTS, a: Tensor, b: Tensor) -> float:
    """The distance of two pictures (3, h, w) written out, channel by channel."""
    tensors = {key: value.double() for key, value in network.features.state_dict().items()}
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    hanning = np.hanning(5)[1:-1]
    window = np.outer(hanning, hanning) / np.outer(hanning, hanning).sum()

    def maps(x: np.ndarray) -> list[np.ndarray]:
        found, place = [x], 0
        y = torch.from_numpy((x - mean) / std)[None]
        for stage, count in enumerate((2, 2, 3, 3, 3)):
            if stage:
                padded = np.pad(y[0].numpy() ** 2, ((0, 0), (1, 1), (1, 1)))
                rows, columns = range(0, y.shape[2], 2), range(0, y.shape[3], 2)
                sums = [[(padded[:, i : i + 3, j : j + 3] * window).sum((1, 2)) for j in columns] for i in rows]
                y = torch.from_numpy(np.sqrt(np.array(sums).transpose(2, 0, 1) + 1e-12))[None]
                place += 1
            for _ in range(count):
                key = f"features.{place}"
                y = F.conv2d(y, tensors[f"{key}.weight"], tensors[f"{key}.bias"], padding=1).clamp(min=0)
                place += 2
            found.append(y[0].numpy())
        return found

    similarity, place = 0.0, 0
    alpha, beta = network.alpha.double().numpy(), network.beta.double().numpy()
    for one, two in zip(maps(a.double().numpy()), maps(b.double().numpy()), strict=True):
        for p, q in zip(one, two, strict=True):
            covariance = (p * q).mean() - p.mean() * q.mean()
            texture = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)
            structure = (2 * covariance + 1e-6) / (p.var() + q.var() + 1e-6)
            similarity += alpha[place] * texture + beta[place] * structure
            place += 1
    assert place == 1475
    return 1 - similarity


def test_the_authors_program_gives_the_same_numbers(case):
    # DISTS_pt.py of DISTS_pytorch 0.1 in float64, on VGG16, alpha and beta of these weights
    network, a, b = case
    torch.testing.assert_close(dists(a, b, network), torch.tensor([0.033630595, 0.086279958]), atol=2e-7, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (23, 18)])
def test_it_is_the_formula(case, size):
    network, a, b = case
    a, b = (x[..., : size[0], : size[1]] for x in (a, b))
    expected = [plain(network, one, two) for one, two in zip(a, b, strict=True)]
    assert dists(a, b, network).tolist() == pytest.approx(expected, abs=5e-7)


def test_equal_pictures_are_at_0_and_their_order_does_not_matter(case):
    network, a, b = case
    assert dists(a, a, network).tolist() == [0, 0]
    torch.testing.assert_close(dists(a, b, network), dists(b, a, network), atol=1e-7, rtol=0)
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert dists(flat, flat, network).item() == 0
    assert 0 < dists(flat, a[:1, :, :32, :32], network).item() <= 1


def test_a_batch_is_its_pictures_one_by_one(case):
    network, a, b = case
    together = dists(a, b, network)
    assert (together.shape, together.dtype) == ((2,), torch.float32)
    alone = torch.cat([dists(a[i : i + 1], b[i : i + 1], network) for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-7, rtol=0)


def test_values_outside_are_clamped_by_the_metric_alone(case):
    network, a, b = case
    wide = 2 * b - 0.5
    assert torch.equal(dists(a, wide, network), dists(a, wide.clamp(0, 1), network))
    assert not torch.equal(network(a, wide), network(a, wide.clamp(0, 1)))


def test_gradients_reach_both_pictures_and_not_the_network(case):
    network = case[0]
    a, b = (x[..., :20, :20].clone().requires_grad_() for x in case[1:])
    network(a, b).sum().backward()
    for x in (a, b):
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.train().parameters())
    assert not dists(a, b, network).requires_grad


def test_sizes_that_it_cannot_compare_are_named(case):
    network, a, _ = case
    for measure in (network, lambda a, b: dists(a, b, network)):
        with pytest.raises(ValueError, match="different sizes can't be compared: 50x35 and 49x35"):
            measure(a, a[..., :49])
        with pytest.raises(ValueError, match="vgg16 takes 16x16 pixels or more, not 50x15"):
            measure(a[..., :15, :], a[..., :15, :])


def test_its_parts_must_fit():
    weights = {"alpha": torch.rand(1475), "beta": torch.rand(1475)}
    with pytest.raises(ValueError, match="vgg16 with l2 pooling, not vgg16 with max"):
        DISTS(features=Features(name="vgg16"), **weights)
    with pytest.raises(ValueError, match="not squeezenet with l2"):
        DISTS(features=Features(name="squeezenet", pooling="l2"), **weights)
    with pytest.raises(ValueError, match="1475 weights alpha and as many beta, not 1475 and 3"):
        DISTS(features=Features(name="vgg16", pooling="l2"), alpha=weights["alpha"], beta=torch.rand(3))


def test_all_channels_count_once(case):
    network = case[0]
    assert network.channels == CHANNELS
    assert (network.alpha.sum() + network.beta.sum()).item() == pytest.approx(1, abs=1e-6)
