"""HAT: the authors' numbers and sizes, its attention written out, and files as they released them."""

import pytest
import torch
from pydantic import ValidationError
from recorded import recorded
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from weights_by_name import fill

from dacesr.checkpoint import CheckpointError, load_restorer
from dacesr.config import explain
from dacesr.config.transformers import HATConfig
from dacesr.nets import windows
from dacesr.nets.hat import HAT


def small(**changes) -> HAT:
    sizes = {"embed_dim": 8, "depths": (2, 1), "heads": (2, 1), "window": 4, "overlap": 1, "conv_dim": 4}
    return fill(HAT(HATConfig(**(sizes | {"squeeze_dim": 3, "head_dim": 6, "scale": 2} | changes))))


# --- parity with the published implementation


@pytest.mark.parametrize(
    ("name", "sizes"), [("x2", {"scale": 2, "window": 8, "overlap": 2}), ("x4", {"scale": 4, "window": 16})]
)
def test_a_released_file_gives_the_recorded_outputs(name, sizes):
    tensors, pairs = recorded("hat", name)
    net = load_restorer({"params_ema": tensors})
    assert isinstance(net, HAT)
    body = {"embed_dim": 12, "depths": (2, 3), "heads": (2, 3), "conv_dim": 4, "squeeze_dim": 3}
    assert net.config == HATConfig(**body, **sizes)
    for x, y in pairs:
        with torch.no_grad():
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-4)
        torch.testing.assert_close(net(x).detach(), y, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, 20_772_507),  # published: 20.8 M, also Real-HAT
        ({"scale": 2}, 20_624_795),
        ({"depths": (6,) * 12, "heads": (6,) * 12}, 40_846_575),  # HAT-L
        ({"embed_dim": 144, "conv_dim": 6, "squeeze_dim": 6}, 9_621_183),  # HAT-S
    ],
)
def test_it_has_the_size_of_the_published_ones(changes, parameters):
    with torch.device("meta"):
        net = HAT(HATConfig(**changes))
    assert sum(value.numel() for value in net.parameters()) == parameters


def test_it_multiplies_as_often_as_its_formula_says():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:  # with gradients: no strips that overlap
        HAT(HATConfig())(torch.empty(1, 3, 64, 64))
    c, pixels, mlp = 180, 64 * 64, 2 * 2 * 180 * 180
    cab = 2 * 9 * c * 60
    hab = 3 * c * c + 2 * 256 * c + c * c + cab + mlp
    ocab = 3 * c * c + 2 * 576 * c + c * c + mlp
    body = 36 * hab + 6 * ocab + 7 * 9 * c * c + 9 * 3 * c
    head = 9 * (c * 64 + (1 + 4) * 64 * 256 + 16 * 64 * 3)
    gates = 36 * 2 * c * 6  # once for a picture
    assert counter.get_total_flops() == 2 * (pixels * (body + head) + gates)


# --- the parts, written out


def test_an_overlapping_attention_is_as_written_out_token_by_token():
    """Every token with all around its window; where that is no picture, keys and values are zero."""
    net = small(overlap=2, heads=(2, 2))
    ocab, s, o = net.layers[0].residual_group.overlap_attn, 4, 2
    x = torch.randn(96, 8)
    with torch.no_grad():
        y = ocab(x.clone(), windows.Grid.of(torch.empty(1, 8, 8, 12), s))
    q, k, v = ocab.qkv(ocab.norm1(x)).view(8, 12, 3, 2, 4).unbind(2)
    expected, nothing = torch.empty(8, 12, 8), torch.zeros(2, 4)
    for r, c in [(r, c) for r in range(8) for c in range(12)]:
        top, left = r // s * s - o, c // s * s - o
        seen = [(row, column) for row in range(top, top + 2 * s) for column in range(left, left + 2 * s)]
        inside = [0 <= row < 8 and 0 <= column < 12 for row, column in seen]
        keys = torch.stack([k[place] if there else nothing for place, there in zip(seen, inside, strict=True)])
        values = torch.stack([v[place] if there else nothing for place, there in zip(seen, inside, strict=True)])
        rows = [11 * (row - r - o + 1) + column - c - o + 1 for row, column in seen]  # may be negative
        logits = (keys * q[r, c]).sum(-1) / 2 + ocab.relative_position_bias_table[rows]
        expected[r, c] = torch.einsum("nh,nhd->hd", logits.softmax(0), values).flatten()
    out = x + ocab.proj(expected.view(96, 8))
    out = out + ocab.mlp.fc2(F.gelu(ocab.mlp.fc1(ocab.norm2(out))))
    torch.testing.assert_close(y, out.detach(), rtol=0, atol=1e-5)


def test_a_block_adds_its_convolutions_with_a_gate_for_each_channel():
    """What changes with the weight of the convolutions is that weight times the block written out."""
    block = small(conv_scale=1.0).layers[0].residual_group.blocks[0]
    torch.nn.init.zeros_(block.mlp.fc2.weight)
    x, grid = torch.randn(64, 8), windows.Grid.of(torch.empty(1, 8, 8, 8), 4)
    with torch.no_grad():
        with_convolutions = block(x.clone(), grid, shifted=False)
        block.conv_scale = 0.0
        without = block(x.clone(), grid, shifted=False)
        image = block.norm1(x).view(1, 8, 8, 8).permute(0, 3, 1, 2)
        first, _, second, gate = block.conv_block.cab
        image = F.conv2d(image, first.weight, first.bias, padding=1)
        image = F.conv2d(image * (1 + (image / 2**0.5).erf()) / 2, second.weight, second.bias, padding=1)
        squeeze, expand = gate.attention[1], gate.attention[3]
        hidden = (squeeze.weight[:, :, 0, 0] @ image.mean((0, 2, 3)) + squeeze.bias).clamp(min=0)
        image = image * (expand.weight[:, :, 0, 0] @ hidden + expand.bias).sigmoid().view(1, 8, 1, 1)
    expected = image.permute(0, 2, 3, 1).reshape(64, 8)
    torch.testing.assert_close(with_convolutions - without, expected, rtol=0, atol=1e-5)


# --- files


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layers.0.residual_group.blocks.0.conv_block.cab.0.weight", None, "lacks layers.0.residual_group.blocks.0"),
        ("layers.0.conv.weight", None, "missing: layers.0.conv.weight"),
        ("layers.1.residual_group.overlap_attn.proj.bias", torch.zeros(3), "of another shape"),
        ("layers.0.residual_group.overlap_attn.relative_position_bias_table", torch.zeros(400, 2), "of another shape"),
    ],
)
def test_a_file_that_is_no_hat_we_can_run_is_refused_in_one_sentence(name, value, said):
    tensors = recorded("hat", "x2")[0] | {name: value}
    with pytest.raises(CheckpointError) as caught:
        load_restorer({key: tensor for key, tensor in tensors.items() if tensor is not None})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"heads": (7,) * 6}, "heads"),
        ({"overlap": -1}, "overlap"),
        ({"head": "nearest+conv"}, "head"),
        ({"conv_scale": 2.0}, "conv_scale"),
        ({"group_end": "3conv"}, "group_end"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_the_field(changes, field):
    with pytest.raises(ValidationError) as caught:
        HATConfig(**changes)
    assert field in explain(caught.value)
