import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dacesr.config import TaggerConfig
from dacesr.nets.swin import Block, Swin

SMALL = TaggerConfig(
    image_size=32, patch=4, embed_dim=8, depths=(2, 2), heads=(2, 4), window=3, width=6, tags=5, label_dim=4,
    head_dim=8, head_heads=2, head_mlp=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def one_token_at_a_time(block: Block, x: Tensor) -> Tensor:
    """What a block's attention gives, without windows, rolls, filling or masks.

    Two tokens see each other if they lie in the same cell of a lattice of cells s wide, which begins in a shifted
    block s // 2 later.
    """
    attn, s = block.attn, block.window
    _, height, width, c = x.shape
    shift = s // 2 if block.shifted and max(height, width) > s else 0
    places = [(y, x) for y in range(height) for x in range(width)]
    result = torch.zeros_like(x)
    for y0, x0 in places:
        seen = [
            (y, x) for y, x in places if ((y - shift) // s, (x - shift) // s) == ((y0 - shift) // s, (x0 - shift) // s)
        ]
        keys = torch.stack([x[0, y, x1] for y, x1 in seen])
        q, k, v = attn.q(x[0, y0, x0]), attn.k(keys), attn.v(keys)
        rows = [(y0 - y + s - 1) * (2 * s - 1) + x0 - x1 + s - 1 for y, x1 in seen]
        parts = []
        for head, part in enumerate(range(0, c, c // attn.heads)):
            own = slice(part, part + c // attn.heads)
            scores = k[:, own] @ q[own] / (c // attn.heads) ** 0.5 + attn.bias[rows, head]
            parts.append(scores.softmax(0) @ v[:, own])
        result[0, y0, x0] = attn.proj(torch.cat(parts))
    return result


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), window=st.integers(1, 4), shifted=st.booleans())
def test_windows_and_masks_agree_with_attention_token_by_token(height, width, window, shifted):
    block = Block(config=SMALL.model_copy(update={"window": window}), stage=0, shifted=shifted)
    with torch.no_grad():
        block.attn.bias.normal_()
        x = torch.randn(1, height, width, 8)
        torch.testing.assert_close(block._attend(x), one_token_at_a_time(block, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (32, 32), (20, 36), (100, 12), (36, 4)])
def test_any_picture_that_the_patch_divides_has_half_its_grid_rounded_up(height, width):
    grid = Swin(config=SMALL)(torch.randn(2, 3, height, width))
    assert grid.shape == (2, -(-height // 8), -(-width // 8), 16)
    assert grid.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 33), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_other_pictures_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError, match="multiples of 4") as caught:
        Swin(config=SMALL)(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("size", [(32, 32), (28, 20)])
def test_a_picture_does_not_depend_on_the_others_of_its_batch(size):
    net = Swin(config=SMALL).eval()
    x = torch.randn(3, 3, *size)
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(picture[None]) for picture in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"stem": "conv"}, {"local_conv": True}])
def test_gradients_reach_every_parameter(changes):
    net = Swin(config=SMALL.model_copy(update=changes))
    net(torch.randn(2, 3, 40, 40)).square().mean().backward()
    still = {name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()}
    assert still <= {name for name, _ in net.named_parameters() if name.endswith("attn.k.bias")}  # softmax cancels it


def test_half_precision_keeps_close():
    net = Swin(config=SMALL).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        exact, rough = net(x), net.bfloat16()(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() < 0.05 * exact.norm()
