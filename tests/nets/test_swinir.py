"""SwinIR: the authors' numbers and sizes, its attention written out, and files as they released them."""

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, load_restorer
from dacesr.config import explain
from dacesr.config.transformers import SwinIRConfig
from dacesr.nets import windows
from dacesr.nets.swinir import SwinIR


def small(**changes) -> SwinIR:
    sizes = {"embed_dim": 8, "depths": (2, 1), "heads": (2, 1), "window": 4, "head_dim": 6, "scale": 2}
    return fill(SwinIR(SwinIRConfig(**(sizes | changes))))


# --- parity with the published implementation

RELEASES = {
    "classical": {"head": "pixelshuffle", "scale": 2, "group_end": "1conv", "head_dim": 64},
    "lightweight": {"head": "pixelshuffledirect", "scale": 3, "group_end": "1conv"},
    "real": {"head": "nearest+conv", "scale": 4, "group_end": "3conv", "head_dim": 64},
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_released_file_gives_the_recorded_outputs(name):
    tensors, pairs = recorded("swinir", name)
    net = load_restorer({"params": tensors})
    assert isinstance(net, SwinIR)
    assert net.config == SwinIRConfig(embed_dim=12, depths=(2, 3), heads=(2, 3), window=8, **RELEASES[name])
    for x, y in pairs:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


LARGE = {"embed_dim": 240, "depths": (6,) * 9, "heads": (8,) * 9, "group_end": "3conv"}
LIGHT = {"embed_dim": 60, "depths": (6,) * 4, "heads": (6,) * 4, "head": "pixelshuffledirect"}


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 11_715_559),  # Table II of DACESR: 11.72 M
        (LARGE, 28_013_059),
        ({"head": "pixelshuffle"}, 11_900_199),
        ({"head": "pixelshuffle", "scale": 3}, 11_937_127),
        ({"head": "pixelshuffle", "scale": 8}, 12_047_911),
        (LIGHT, 897_228 + 24 * 225 * 6),  # the paper's 897K leave out the tables of biases
    ],
)
def test_it_has_the_size_of_the_published_ones(changes, parameters):
    with torch.device("meta"):
        net = SwinIR(SwinIRConfig(**changes))
    assert sum(value.numel() for value in net.parameters()) == parameters


def test_it_multiplies_as_often_as_its_formula_says():
    config, pixels = SwinIRConfig(), 256 * 256
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # with gradients: no strips that overlap
        SwinIR(config)(torch.empty(1, 3, 256, 256))
    c, tokens = 180, 64
    block = 3 * c * c + 2 * tokens * c + c * c + 2 * 2 * c * c
    body = 36 * block + 6 * 9 * c * c + 9 * c * c + 9 * 3 * c
    head = 9 * (c * 64 + 4 * 64 * 64 + 16 * (64 * 64 + 64 * 64 + 64 * 3))
    assert counter.get_total_flops() == 2 * pixels * (body + head)
    assert round(pixels * (body + head) / 1e9) == 896


# --- attention within windows, written out for each token


def test_a_shifted_block_attends_as_written_out_token_by_token():
    """Every token with all of its window that were its neighbours before the shift, at their distance."""
    net = small(depths=(2,), heads=(2,))
    block, s = net.layers[0].residual_group.blocks[1], 4
    x = torch.randn(96, 8)
    grid = windows.Grid.of(torch.empty(1, 8, 8, 12), s)
    order = grid.orders[1]
    with torch.no_grad():
        y = block(x[order.places].clone(), order, grid.places)[windows.inverse(order.places)]
    q, k, v = block.attn.qkv(block.norm1(x)).view(8, 12, 3, 2, 4).unbind(2)
    expected = torch.empty(8, 12, 8)
    for r, c in [(r, c) for r in range(8) for c in range(12)]:
        rows, columns = neighbours(r, 8, s), neighbours(c, 12, s)
        for head in range(2):
            keys = [(row, column) for row in rows for column in columns]
            table = block.attn.relative_position_bias_table[:, head]
            logits = [
                q[r, c, head] @ k[row, column, head] / 2 + table[(r - row + s - 1) * (2 * s - 1) + c - column + s - 1]
                for row, column in keys
            ]
            values = torch.stack([v[row, column, head] for row, column in keys])
            expected[r, c, 4 * head : 4 * head + 4] = torch.stack(logits).softmax(0) @ values
    out = x + block.attn.proj(expected.view(96, 8))
    out = out + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(out))))
    torch.testing.assert_close(y, out.detach(), rtol=0, atol=1e-5)


def neighbours(place: int, side: int, s: int) -> list[int]:
    """Places along a side that share a window shifted by half with this one, without wrapping around."""
    window = (place + s // 2) // s
    return [other for other in range(side) if (other + s // 2) // s == window]


def test_it_starts_as_its_authors_start_it():
    torch.manual_seed(0)
    net = SwinIR(SwinIRConfig(embed_dim=60, depths=(2,), heads=(6,)))
    block = net.layers[0].residual_group.blocks[0]
    for drawn in (block.attn.qkv.weight, block.mlp.fc2.weight, block.attn.relative_position_bias_table):
        assert float(drawn.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not block.attn.qkv.bias.any()
    assert torch.equal(net.norm.weight, torch.ones(60))


# --- files


def changed(**changes) -> dict[str, torch.Tensor]:
    tensors = recorded("swinir", "classical")[0] | {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in tensors.items() if value is not None}


HEADLESS = {
    f"{name}__{kind}": None for name in ("conv_before_upsample__0", "upsample__0") for kind in ("weight", "bias")
}
TABLE = "layers__0__residual_group__blocks__0__attn__relative_position_bias_table"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (HEADLESS, "don't upscale"),
        ({"conv_first__weight": torch.zeros(12, 1, 3, 3)}, "1 channels, not RGB"),
        ({"conv_first__weight": None}, "lacks conv_first.weight"),
        ({TABLE: torch.zeros(226, 2)}, "226 rows, no square number"),
        ({TABLE: torch.zeros(225, 5)}, "should divide embed_dim 12"),
        ({"layers__0__residual_group__blocks__0__mlp__fc1__weight": torch.zeros(25, 12)}, "25 hidden channels"),
        ({"absolute_pos_embed": torch.zeros(1, 576, 12)}, "unexpected: absolute_pos_embed"),
        ({"layers__1__conv__weight": None}, "missing: layers.1.conv.weight"),
    ],
)
def test_a_file_that_is_no_swinir_we_can_run_is_refused_in_one_sentence(changes, said):
    with pytest.raises(CheckpointError) as caught:
        load_restorer(changed(**changes))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"heads": (6,)}, "heads"),
        ({"heads": (7,) * 6}, "heads"),
        ({"window": 1}, "window"),
        ({"scale": 5}, "scale"),
        ({"head": "none"}, "head"),
        ({"embed_dim": 2, "heads": (1,) * 6, "group_end": "3conv"}, "group_end"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_the_field(changes, field):
    with pytest.raises(ValidationError) as caught:
        SwinIRConfig(**changes)
    assert field in explain(caught.value)


def test_the_estimate_of_memory_grows_with_the_network():
    light, medium, large = (SwinIRConfig(**changes).bytes_per_pixel(4) for changes in (LIGHT, {}, LARGE))
    assert 1_000 < light < 3_000 < medium < large < 10_000
    assert SwinIRConfig().bytes_per_pixel(2) <= medium / 2 + 1
