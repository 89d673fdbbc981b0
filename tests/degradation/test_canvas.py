"""Pictures of different sizes on one canvas."""

import torch
from torch.nn import functional as F

from dacesr.degradation.canvas import extend, fit, largest, mirrors, valid_sizes


def test_extending_repeats_the_edge_of_each_picture():
    x = torch.arange(12.0).reshape(1, 1, 3, 4).expand(2, 1, 3, 4)
    found = extend(x, 1, [(3, 4), (2, 2)])
    assert found[1, 0].tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], *[[4, 4, 5, 5, 5, 5]] * 3]
    assert torch.equal(found[:1], F.pad(x[:1], (1,) * 4, mode="replicate"))
    assert extend(x, 0) is x


def test_mirroring_each_picture_that_is_wide_enough():
    x = torch.arange(15.0).reshape(1, 1, 3, 5).expand(2, 1, 3, 5)
    sizes = [(3, 5), (2, 3)]
    assert mirrors(sizes, [2, 2]) == [True, False]
    found = extend(x, 2, sizes, mirror=[2, 2])
    assert torch.equal(found[:1], F.pad(x[:1], (2,) * 4, mode="reflect"))
    assert torch.equal(found[1:, :, :6, :7], F.pad(x[1:, :, :2, :3], (2,) * 4, mode="replicate"))


def test_a_canvas_is_cut_and_filled():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert torch.equal(fit(x, 2, 3), x)
    assert fit(x, 3, 2).tolist() == [[[[0, 1], [3, 4], [0, 0]]]]
    assert largest([(3, 9), (7, 2)]) == (7, 9)
    assert valid_sizes(x, None) == [(2, 3)]
    assert valid_sizes(x, [(1, 1)]) == [(1, 1)]
