"""The bundled weights: their cards, their size, and that they do what they are for."""

from pathlib import Path

import pytest
import torch

from dacesr import Upscaler
from dacesr.checkpoint import describe
from dacesr.conditioning import load_guided
from dacesr.degradation import recipe
from dacesr.image import imresize, read
from dacesr.metrics import psnr
from dacesr.weightfiles import DEFAULT_WEIGHTS, WEIGHTS, bundled_names

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = bundled_names()
MOST_BYTES = 60_000_000
CARD_TELLS = ("Data", "Recipe", "iterations", "Scores", "Limits", "Licence")


def test_the_default_is_bundled_with_its_fidelity_partner():
    assert DEFAULT_WEIGHTS in NAMES
    assert f"{DEFAULT_WEIGHTS}-fidelity" in NAMES


def test_the_default_is_conditioned_by_a_bundled_extractor():
    net = load_guided(DEFAULT_WEIGHTS)
    assert net.config.learned_modulation
    assert net.extractor is not None
    x = read(EXAMPLES / "portrait.jpg")[..., :64, :64]
    with torch.no_grad():
        own, other = net.net(x, net.condition(x)), net.net(x, net.condition(1 - x))
    assert (own - other).abs().max() > 1 / 255  # what is seen matters


def test_all_bundled_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_file_is_fp16_and_described(name):
    found = describe(name)
    assert "float16" in found.dtype
    assert found.metadata["description"]
    assert found.metadata["licence"] == "Apache-2.0"


def test_the_card_tells_what_a_user_needs_to_know():
    card = (WEIGHTS / f"{DEFAULT_WEIGHTS}.md").read_text("utf-8")
    assert not [topic for topic in CARD_TELLS if topic not in card]


@pytest.mark.parametrize(("space", "gain"), [("bicubic", 0.1), ("level2", 0.5), ("level3", 0.3)])
def test_fidelity_weights_come_nearer_to_the_truth_than_bicubic(space, gain):
    """On the examples, which no training has seen, made small again by each space's degradation."""
    net = load_guided(f"{DEFAULT_WEIGHTS}-fidelity")
    gains = []
    for name in ("house.jpg", "portrait.jpg", "still_life.jpg"):
        gt = read(EXAMPLES / name)
        gt = gt[..., : gt.shape[2] // 4 * 4, : gt.shape[3] // 4 * 4]
        lr, _ = recipe.degrade(gt, space, torch.Generator().manual_seed(0))
        with torch.no_grad():
            gains.append(float(psnr(net(lr).clamp(0, 1), gt) - psnr(imresize(lr, 4).clamp(0, 1), gt)))
    assert sum(gains) / len(gains) > gain, gains


def test_strength_goes_from_faithful_to_crisp():
    """The default sharpens: its output has more fine detail than that of the fidelity weights, in equal colours."""
    up = Upscaler.load("default", precision="fp32")
    x = read(EXAMPLES / "portrait.jpg")
    soft, between, crisp = (up(x, strength=strength) for strength in (0.0, 0.5, 1.0))
    detail = [float((y - imresize(imresize(y, 0.25), 4)).abs().mean()) for y in (soft, between, crisp)]
    assert detail[0] < detail[2]
    assert (soft.mean((2, 3)) - crisp.mean((2, 3))).abs().max() < 0.01
    assert not torch.equal(soft, between)
