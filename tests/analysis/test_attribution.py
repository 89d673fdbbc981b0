"""Local attribution maps: the path integral, networks whose answer is known, symmetry, causality; Gini and areas."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conditioned import conditioned, write_conditioned
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.analysis.attribution import (
    Attribution,
    above_below,
    attribute,
    detail,
    diffusion_index,
    gini,
    informative_area,
    on_path,
)
from dacesr.analysis.windows import Window
from dacesr.checkpoint import KINDS
from dacesr.conditioning import Guided, load_guided
from dacesr.config import NETWORKS, RestorerConfig
from dacesr.nets.restorer import Restorer

SMALL: dict[str, dict[str, Any]] = {
    "srvgg": {"num_feat": 8, "num_conv": 2},
    "rrdb": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "rlfn": {},
    "swinir": {"embed_dim": 12, "depths": (2,), "heads": (2,), "window": 4},
}


def picture(height: int = 16, width: int = 16, seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def restorer(**changes: object) -> Guided:
    """A random network of ours that takes no condition, whose head does something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Restorer(RestorerConfig(**{"embed_dim": 8, "depths": (1, 1), "head": "pixelshuffledirect", **changes}))
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return Guided(net).eval().requires_grad_(False)


def baseline(kind: str) -> Guided:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Guided(KINDS[kind].network(NETWORKS[kind].model_validate(SMALL[kind]))).eval().requires_grad_(False)


class Known(Guided):
    """A network of scale 1 made of a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        class Net(nn.Module):
            config = RestorerConfig(scale=1)

            def forward(self, x: Tensor) -> Tensor:
                return function(x)

        super().__init__(Net())  # pyright: ignore[reportArgumentType]


# --- the path integral


@pytest.mark.parametrize("kind", ["restorer", "alternate", *SMALL])
def test_parts_add_up_to_the_difference_of_detail(kind: str) -> None:
    guided = baseline(kind) if kind in SMALL else restorer(scan_order="alternate" if kind == "alternate" else "raster")
    found = attribute(guided, picture(), Window(24, 20, 8), steps=200, batch=20)
    assert abs(found.end - found.start) > 0.05 * found.end  # there is something to explain
    assert abs(float(found.signed.sum()) - (found.end - found.start)) < 0.02 * abs(found.end - found.start)


@pytest.mark.parametrize("through_condition", [False, True])
def test_parts_of_a_conditioned_network_add_up(tmp_path: Any, through_condition: bool) -> None:
    guided = load_guided(write_conditioned(tmp_path)).requires_grad_(False)
    x = picture()
    found = attribute(guided, x, Window(10, 10, 8), steps=200, batch=20, through_condition=through_condition)
    assert abs(float(found.signed.sum()) - (found.end - found.start)) < 0.02 * abs(found.end - found.start)
    assert (found.condition is None) == (not through_condition)
    condition = guided.condition(x)
    end = detail(guided.net(x, condition), Window(10, 10, 8))
    assert found.end == pytest.approx(float(end), rel=1e-6)
    blurred = on_path(x, 1.2, torch.zeros(1))
    start = detail(
        guided.net(blurred, guided.condition(blurred) if through_condition else condition), Window(10, 10, 8)
    )
    assert found.start == pytest.approx(float(start), rel=1e-6)
    if through_condition:
        assert found.condition is not None
        assert 0.001 < (found.condition_share or 0) < 0.9
        fixed = attribute(guided, x, Window(10, 10, 8), steps=200, batch=20)
        assert not torch.allclose(fixed.pixels, found.pixels, rtol=1e-2, atol=1e-6)  # the condition took the path too


def test_a_condition_that_does_nothing_has_no_part(tmp_path: Any) -> None:
    guided = load_guided(write_conditioned(tmp_path)).requires_grad_(False)
    assert guided.net.modulation is not None
    for parameter in guided.net.modulation.parameters():  # pyright: ignore[reportAttributeAccessIssue]
        parameter.zero_()
    found = attribute(guided, picture(), Window(10, 10, 8), steps=5, through_condition=True)
    assert found.condition_share == 0
    assert float(found.pixels.abs().sum()) > 0


def test_the_sum_converges_with_the_square_of_the_steps() -> None:
    guided = restorer()
    far, near = (attribute(guided, picture(), Window(24, 20, 8), steps=steps, batch=16).error for steps in (8, 64))
    assert near < far / 16  # by the ends of the steps instead of their middles: 8


def test_batches_change_nothing_and_progress_is_told() -> None:
    guided, told = restorer(), []
    one, many, all_ = (
        attribute(guided, picture(), Window(24, 20, 8), steps=10, batch=batch, advance=told.append)
        for batch in (1, 4, 10)
    )
    assert torch.allclose(one.pixels, many.pixels, atol=1e-6)
    assert torch.allclose(one.pixels, all_.pixels, atol=1e-6)
    assert told == [1] * 10 + [4, 4, 2] + [10]


def test_too_little_memory_makes_batches_smaller() -> None:
    sizes = []

    def greedy(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise MemoryError
        return x

    attribute(Known(greedy), picture(), Window(4, 4, 4), steps=5, batch=8)
    assert sizes == [1, 1, 5, 4, 2, 2, 1]

    def refuse(x: Tensor) -> Tensor:
        if x.requires_grad:
            raise MemoryError
        return x

    with pytest.raises(MemoryError):
        attribute(Known(refuse), picture(), Window(4, 4, 4), steps=5)


def as_the_authors(guided: Guided, x: Tensor, window: Window, sigma: float = 1.2, steps: int = 50) -> Tensor:
    """The map (h, w) by the authors' rule: gradients at the end of each step, kernels of 9 pixels, sigma + 1e-5."""

    def at(step: int) -> Tensor:
        places = torch.arange(-4.0, 5.0)
        kernel = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * (sigma * (1 - step / steps) + 1e-5) ** 2))
        padded = F.pad(x, (4,) * 4, mode="reflect")
        return F.conv2d(padded, (kernel / kernel.sum()).expand(3, 1, 9, 9), groups=3)

    total = torch.zeros_like(x)
    for step in range(1, steps + 1):
        point = at(step).requires_grad_()
        output = guided(point)
        down, right = output[..., 1:, :-1] - output[..., :-1, :-1], output[..., :-1, 1:] - output[..., :-1, :-1]
        size = (down**2 + right**2) ** 0.5
        size[..., window.y : window.y + window.size, window.x : window.x + window.size].sum().backward()
        assert point.grad is not None
        total += point.grad * (at(step) - at(step - 1))
    return total[0].sum(0).abs()


@pytest.mark.parametrize("kind", ["restorer", "rlfn"])
def test_the_authors_rule_gives_nearly_the_same_map(kind: str) -> None:
    guided = baseline(kind) if kind in SMALL else restorer()
    window = Window(24, 20, 8)
    ours, theirs = attribute(guided, picture(), window).map, as_the_authors(guided, picture(), window)
    assert float((ours - theirs).norm() / theirs.norm()) < 0.02
    assert diffusion_index(ours) == pytest.approx(diffusion_index(theirs), rel=0.005)


# --- answers that can be written down


def test_a_linear_network_on_a_ramp() -> None:
    """Channels y = M x, M positive, on a picture that rises to the right and is constant downwards.

    All differences are positive then, and the detail of a row is y at the window's right end less y at its left end.
    So each pixel of these two columns has (x - x') times the sum of its column of M, and no other pixel has a part.
    """
    mix = torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.9, 0.1], [0.2, 0.4, 0.6]])
    guided = Known(lambda x: torch.einsum("oi,bihw->bohw", mix, x))
    rise = torch.linspace(0.2, 1, 20).square()
    x = (rise.expand(1, 3, 20, 20) * torch.tensor([1.0, 0.6, 0.8]).view(1, 3, 1, 1)).contiguous()
    window = Window(6, 5, 8)
    found = attribute(guided, x, window, sigma=1.5, steps=7)
    change = (x - on_path(x, 1.5, torch.zeros(1)))[0] * mix.sum(0).view(3, 1, 1)
    expected = torch.zeros_like(change)
    expected[:, 5:13, 14], expected[:, 5:13, 6] = change[:, 5:13, 14], -change[:, 5:13, 6]
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(found.pixels, expected, atol=1e-6)
    assert float(found.signed.sum()) == pytest.approx(found.end - found.start, abs=1e-5)


def test_an_enlarging_linear_network_sees_what_is_under_the_window() -> None:
    class Nearest(nn.Module):
        config = RestorerConfig(scale=4)

        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=4, mode="nearest")

    found = attribute(Guided(Nearest()), picture(), Window(20, 12, 8), steps=3)  # pyright: ignore[reportArgumentType]
    rows, columns = found.map.nonzero().unbind(1)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (3, 5, 5, 7)


def test_the_end_of_the_path_is_the_picture_and_its_start_is_blurred() -> None:
    x = picture()
    start, middle, end = on_path(x, 1.2, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(end, x[0])
    places = torch.arange(-5, 6).double()
    kernel = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.2**2))
    kernel = (kernel / kernel.sum()).float().expand(3, 1, 11, 11)
    assert torch.allclose(start, F.conv2d(F.pad(x, (5,) * 4, mode="reflect"), kernel, groups=3)[0], atol=1e-6)
    assert (start - x[0]).square().sum() > (middle - x[0]).square().sum() > 0


def test_detail_is_the_sum_of_gradient_magnitudes() -> None:
    x = picture(9, 9)
    expected = 0.0
    for channel in range(3):
        for i in range(2, 6):
            for j in range(3, 7):
                here = x[0, channel, i, j]
                expected += math.hypot(x[0, channel, i + 1, j] - here, x[0, channel, i, j + 1] - here)
    assert float(detail(x, Window(3, 2, 4))) == pytest.approx(expected, rel=1e-5)
    flat = torch.full((1, 3, 9, 9), 0.5, requires_grad=True)
    detail(flat, Window(3, 2, 4)).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.zeros_like(flat))  # and no NaN
    assert detail(x, Window(4, 4, 5)).isfinite()  # to the very edge


# --- what must hold for any network


def test_a_transposed_picture_has_a_transposed_map() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        kernels = [torch.randn(*shape) / 4 for shape in ((6, 3, 5, 5), (3, 6, 3, 3))]
    first, second = (kernel + kernel.transpose(2, 3) for kernel in kernels)  # see rows and columns alike
    guided = Known(lambda x: F.conv2d(F.conv2d(x, first, padding=2).tanh(), second, padding=1))
    x = picture(18, 14)
    one = attribute(guided, x, Window(4, 7, 5), steps=6)
    other = attribute(guided, x.transpose(2, 3).contiguous(), Window(7, 4, 5), steps=6)
    assert torch.allclose(one.pixels.transpose(1, 2), other.pixels, atol=1e-5)
    assert not torch.allclose(one.map, attribute(guided, x, Window(7, 4, 5), steps=6).map, atol=1e-3)


def test_a_raster_scan_sees_nothing_below_but_by_convolution() -> None:
    window = Window(28, 24, 8)  # input rows 6 and 7
    x = picture(20, 16)
    raster = attribute(restorer(), x, window, steps=4)
    reach = 1 + 1 + 1 + 1 + 1 + 1  # the pixel beyond the window; first conv, two groups, body, head
    assert float(raster.map[8 + reach :].sum()) == 0
    assert float(raster.map[0].sum()) > 0
    assert diffusion_index(raster.map) > 1
    both = attribute(restorer(scan_order="alternate"), x, window, steps=4)
    assert float(both.map[8 + reach :].sum()) > 0


def test_what_is_wrong_is_told(tmp_path: Any) -> None:
    guided = restorer()
    with pytest.raises(ValueError, match=r"one picture .* not \(2, 3, 16, 16\)"):
        attribute(guided, picture().repeat(2, 1, 1, 1), Window(0, 0, 8))
    with pytest.raises(ValueError, match=r"60,0,8 .* does not lie within the output of 64 x 64"):
        attribute(guided, picture(), Window(60, 0, 8))
    for wrong in ({"sigma": 0.0}, {"steps": 0}, {"batch": 0}):
        with pytest.raises(ValueError, match="should be positive"):
            attribute(guided, picture(), Window(0, 0, 8), **wrong)
    with pytest.raises(ValueError, match="takes no condition"):
        attribute(guided, picture(), Window(0, 0, 8), through_condition=True)
    with pytest.raises(ValueError, match="trained with a condition"):
        Guided(conditioned())


# --- numbers of a map


def test_gini() -> None:
    assert gini(torch.full((4, 5), 0.3)) == pytest.approx(0, abs=1e-12)
    one = torch.zeros(8)
    one[3] = 7
    assert gini(one) == pytest.approx(7 / 8)
    values = torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    by_pairs = (values[:, None] - values).abs().sum() / (2 * 40**2 * values.mean())
    assert gini(values) == pytest.approx(float(by_pairs), rel=1e-9)
    assert gini(values * 1e-9) == pytest.approx(gini(values), rel=1e-9)
    assert diffusion_index(values) == pytest.approx(100 * (1 - float(by_pairs)), rel=1e-9)
    assert math.isnan(gini(torch.zeros(3)))
    with pytest.raises(ValueError, match="none is negative"):
        gini(torch.tensor([1.0, -0.1]))
    with pytest.raises(ValueError, match="none is negative"):
        gini(torch.zeros(0))


def test_above_and_below_a_window() -> None:
    values = torch.zeros(8, 6)
    values[0, 2], values[3, 1], values[6, 5], values[7, 0] = 1, 5, 2, 2
    assert above_below(values, Window(4, 8, 8), 4) == pytest.approx((0.1, 0.4))  # rows 2 and 3 are the window's
    assert above_below(values, Window(4, 9, 4), 4) == pytest.approx((0.1, 0.4))  # which it only touches
    assert all(math.isnan(share) for share in above_below(torch.zeros(8, 6), Window(4, 8, 8), 4))


def test_the_informative_area_is_a_kernel_density() -> None:
    values = torch.rand(7, 9, generator=torch.Generator().manual_seed(2)).pow(4)
    weights = (values / values.sum()).double().flatten()
    places = torch.cartesian_prod(torch.arange(7), torch.arange(9)).double()
    mean = (weights[:, None] * places).sum(0)
    effective = 1 / weights.square().sum()
    spread = ((places - mean) * weights[:, None]).T @ (places - mean) / (1 - 1 / effective)  # as scipy's gaussian_kde
    spread = spread * effective ** (-2 / 6) + torch.eye(2).double() / 12
    offsets = places[:, None] - places
    density = torch.exp(-0.5 * torch.einsum("abi,ij,abj->ab", offsets, spread.inverse(), offsets)) @ weights
    assert torch.allclose(informative_area(values), (density / density.max()).view(7, 9), atol=1e-9)
    point = torch.zeros(12, 10)
    point[8, 3] = 0.5
    area = informative_area(point)
    assert divmod(int(area.argmax()), 10) == (8, 3)
    assert float(area[8, 6]) < 1e-6


def test_a_map_takes_the_sign_away_after_the_channels_are_summed() -> None:
    pixels, condition = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    pixels[:, 0, 0] = torch.tensor([1.0, -3.0, 0.5])
    condition[:, 0, 1] = torch.tensor([0.5, 0.0, 0.0])
    found = Attribution(pixels, condition, 1.0, 0.5)
    assert torch.allclose(found.map, torch.tensor([[1.5, 0.5], [0.0, 0.0]]))
    assert found.di == diffusion_index(found.map)
    assert found.condition_share == pytest.approx(0.5 / 5)
    assert found.error == pytest.approx(abs(-1.0 + 0.5) / 0.5)
    assert Attribution(pixels, None, 1.0, 0.5).condition_share is None


def test_rounding_alone_is_no_map() -> None:
    """A flat picture stays what it is along the path, so nothing comes from anywhere."""
    found = attribute(restorer(), torch.full((1, 3, 16, 16), 0.5), Window(24, 20, 8), steps=4)
    assert found.empty
    assert math.isnan(found.di)
    assert math.isnan(found.error)
    assert found.start == pytest.approx(found.end, rel=1e-5)
    assert not attribute(restorer(), picture(), Window(24, 20, 8), steps=4).empty
