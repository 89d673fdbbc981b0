"""The bundled recognition networks: what they are, and that they see what they are said to see."""

from pathlib import Path

import pytest
import torch

from dacesr.adapterfile import read_adapter
from dacesr.augmentation import evaluation_batches
from dacesr.checkpoint import load_extractor, load_tagger
from dacesr.degradation import recipe
from dacesr.image import read
from dacesr.labelled import LabelledSet
from dacesr.metrics import mean_average_precision
from dacesr.nets.tagger import normalise
from dacesr.similarity import embedding_cosine, fingerprint
from dacesr.sources import sample_generator
from dacesr.train.selection import Selection
from dacesr.weightfiles import RECOGNITION, WEIGHTS, recognition_names

FOLDER = WEIGHTS / RECOGNITION
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ADAPTERS = ("lite-dape", "lite-ft1", "lite-ft2", "lite-ree")
MOST_BYTES = 15_000_000


def test_a_tagger_and_its_four_adapters_are_bundled_and_small() -> None:
    assert recognition_names() == sorted(("lite-ram", *ADAPTERS))
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES


def test_the_card_tells_what_a_user_needs_to_know() -> None:
    card = (FOLDER / "lite.md").read_text("utf-8")
    assert not [topic for topic in ("Data", "Recipe", "iterations", "Scores", "Limits", "Licence") if topic not in card]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_for_the_bundled_tagger_and_changes_what_it_sees(name: str) -> None:
    assert read_adapter(FOLDER / f"{name}.safetensors").base == "lite-ram"
    x = read(EXAMPLES / "house.jpg")
    tuned, base = load_extractor(name), load_extractor("lite-ram")
    assert tuned.tag_names == base.tag_names
    assert 0.5 < float(embedding_cosine(tuned.embed(x), base.embed(x))) < 0.999


def test_lite_is_the_real_embedding_extractor_in_fp32() -> None:
    x = torch.rand(2, 3, 97, 61, generator=torch.Generator().manual_seed(0))
    tokens = load_extractor("lite").embed(x)
    assert tokens.shape == (2, 145, 512)
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens, load_extractor("lite-ree").embed(x))


def test_the_selection_was_made_with_the_bundled_tagger() -> None:
    selection = Selection.load("lite")
    assert selection.settings.tagger_hash == fingerprint(load_extractor("lite-ram"))
    assert [len(selection.members(severity)) for severity in (1, 2, 3, 4)] == [250] * 4


def test_the_tuned_extractor_stays_nearer_to_the_sharp_picture_on_ruined_examples() -> None:
    """Severe degradations of three pictures that no training has seen."""
    base, tuned, selection = load_extractor("lite-ram"), load_extractor("lite"), Selection.load("lite")
    for number, name in enumerate(("house.jpg", "portrait.jpg", "still_life.jpg")):
        sharp = torch.nn.functional.interpolate(read(EXAMPLES / name), (192, 192), mode="bilinear", antialias=True)
        ruined = selection.degrade(
            sharp.expand(4, -1, -1, -1), "severe", [sample_generator(number, i) for i in range(4)]
        )
        goal = base.embed(sharp).expand(4, -1, -1)
        near, far = (embedding_cosine(goal, net.embed(ruined)).mean() for net in (tuned, base))
        assert near > far + 0.03, name


def test_a_ruined_picture_keeps_some_of_its_tags() -> None:
    """A bright sky over a house, made small by the standard degradations."""
    x = read(EXAMPLES / "house.jpg")
    ruined, _ = recipe.degrade(x[..., : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4], "level2", sample_generator(0, 0))
    net = load_extractor("lite")
    assert set(net.tags(x)[0]) & set(net.tags(ruined)[0])


def test_mean_average_precision_on_the_test_split_is_what_the_card_says(data: Path) -> None:
    pictures = LabelledSet.open(data / "labelled" / "corel5k.csv", split="test", minimum=50)
    tagger = load_tagger("lite-ram")
    assert pictures.tags == tagger.tag_names
    with torch.inference_mode():
        batches = evaluation_batches(pictures, size=tagger.config.image_size, batch=32)
        scores = torch.cat([tagger.logits(normalise(batch.images)) for batch in batches])
    assert mean_average_precision(scores, pictures.labels) == pytest.approx(0.432, abs=0.002)
