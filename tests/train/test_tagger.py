"""Training a tagger: it learns, resumes, sets thresholds, and starts from one with other tags."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.nets.tagger import THRESHOLD, normalise
from dacesr.taggerfile import load_tagger
from dacesr.train.config import ConfigError, load_config
from dacesr.train.loop import train
from dacesr.train.recognition import TaggerTraining
from dacesr.train.state import saved_states
from dacesr.train.tagger import TaggerTask, thresholds
from train.conftest import rows
from train.tiny_taggers import SMALL, TAGS, assert_same, labelled_set, tagger_file

RECIPE = """
iterations = 6
seed = 3
ema = 0.9
precision = "fp32"
threads = 1
log_every = 2
save_every = 2

[network]
NETWORK

[data]
source = "SHAPES"
size = 24
batch = 8

[optimizer]
lr = 3e-3

[validation]
every = 3
"""

Recipe = Callable[..., TaggerTraining]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled pictures and the recipe."""
    folder = tmp_path_factory.mktemp("tagger")
    network = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SMALL.items())
    text = RECIPE.replace("NETWORK", network).replace("SHAPES", str(labelled_set(folder)))
    (folder / "learn.toml").write_text(text)
    return folder


@pytest.fixture
def recipe(place: Path, tmp_path: Path) -> Recipe:
    """Makes the recipe's config with changes, for a run in tmp_path / NAME."""
    return lambda name="run", *changes: load_config(
        place / "learn.toml", [*changes, f"output={tmp_path / name}"], TaggerTraining
    )


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return train(load_config(place / "learn.toml", [f"output={folder}"], TaggerTraining))


def task(config: TaggerTraining) -> TaggerTask:
    made = TaggerTask(config, Accelerator(cpu=True), lambda sentence: pytest.fail(sentence))
    made.start(0)
    return made


def test_it_learns_what_pictures_show(recipe: Recipe) -> None:
    changes = ["iterations=80", "log_every=20", "validation.every=80", "data.mixup=0", "data.jitter=0"]
    folder = train(recipe("run", *changes))
    losses = [float(row["tags"]) for row in rows(folder / "log.csv")]
    assert losses[-1] < 0.7 * losses[0]
    scores = {row["space"]: float(row["map"]) for row in rows(folder / "validation.csv")}
    assert scores["test"] > 0.75
    assert scores.keys() == {"val", "test"}


def test_a_run_stopped_at_every_step_ends_as_an_uninterrupted_one(whole: Path, place: Path, tmp_path: Path) -> None:
    call = ["train", "tagger", str(place / "learn.toml"), "--set", f"output={tmp_path / 'run'}"]
    for done in range(1, 7):
        result = CliRunner().invoke(app, [*call, "--max-minutes", "0"])
        assert result.exit_code == 0, result.stderr
        assert [path.name for path in saved_states(tmp_path / "run")] == [f"state-{done:08d}"]
    assert_same(whole, tmp_path / "run")


def test_a_run_leaves_a_tagger_with_tags_and_thresholds(whole: Path) -> None:
    found = load_tagger(whole / "model.safetensors")
    assert set(found.tag_names) == set(TAGS)
    assert not torch.equal(found.thresholds, torch.full((3,), THRESHOLD))
    with safe_open(whole / "model.safetensors", "pt") as file:
        assert file.metadata()["iterations"] == "6"
    assert [(row["iteration"], row["space"]) for row in rows(whole / "validation.csv")] == [
        *(("3", "val"), ("3", "test")),
        *(("6", "val"), ("6", "test")),
    ]


def test_thresholds_are_those_of_the_best_f1() -> None:
    probabilities = torch.tensor([[0.9], [0.8], [0.6], [0.3], [0.1]]).repeat(40, 1)
    labels = torch.tensor([[1.0], [1.0], [0.0], [0.0], [0.0]]).repeat(40, 1)
    assert thresholds(probabilities, labels).item() == pytest.approx(0.7, abs=0.01)


def test_the_threshold_of_a_rare_tag_is_near_the_common_one() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, 2, generator=generator) < torch.tensor([0.5, 0.005])).float()
    probabilities = 0.2 + 0.4 * labels
    probabilities[:, 1] = 0.02 + 0.05 * labels[:, 1]
    common, rare = thresholds(probabilities, labels).tolist()
    assert common == pytest.approx(0.4, abs=0.05)
    assert 0.1 < rare < common


def test_training_starts_from_given_weights(recipe: Recipe, tmp_path: Path) -> None:
    """With the same tags from all of them, with others from all but the tags' embeddings."""
    made = task(recipe())
    made.close()
    tags = made._batches._pictures.tags
    same, other = tmp_path / "same", tmp_path / "other"
    for folder, names in ((same, tags), (other, ("sea", "sky"))):
        folder.mkdir()
        tagger_file(folder, tag_names=names)
    started = {}
    for folder in (same, other):
        made = task(recipe(folder.name, f"init={folder / 'base.safetensors'}"))
        made.close()
        started[folder] = made.learner.net.tagger
        assert made.learner.net.tagger.tag_names == tags
    x = normalise(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    bases = {folder: load_tagger(folder / "base.safetensors") for folder in started}
    torch.testing.assert_close(started[same](x), bases[same](x))
    torch.testing.assert_close(started[other].embed(x), bases[other].embed(x))
    assert torch.equal(started[other].head[1].fc1.weight, bases[other].head[1].fc1.weight)
    assert started[other].label_embed.shape[0] == 3


def test_a_teacher_is_learnt_from(recipe: Recipe, data: Path) -> None:
    features = data / "metrics" / "squeezenet_v1.1_keras.h5"
    changes = [f"teacher.features={features}", "teacher.size=32", "iterations=30", "log_every=10"]
    losses = [float(row["teacher"]) for row in rows(train(recipe("run", *changes)) / "log.csv")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.source=gone.csv", "gone.csv cannot be read"),
        ("data.source=EMPTY", "empty holds no sub-folder of pictures"),
        ("data.files=gone.tar", "gone.tar, which should hold the files of .*shapes.csv, does not exist"),
        ("data.minimum=1000", "shapes.csv has no tag that 1000 training pictures or more have"),
        ("data.size=30", "data.size 30 should be a multiple of the patch 4"),
        ("data.batches=3", "data.batches: Extra inputs"),
        ("init=gone.safetensors", "gone.safetensors does not exist"),
        ("init=BASE", "init: the weights of .*base.safetensors do not fit the network of the config"),
        ("teacher.features=gone.h5", "gone.h5"),
        ("network.preset=huge", "network.preset should be one of ram, lite"),
        ("network.heads=[2]", "network.*heads"),
    ],
)
def test_a_mistake_is_one_sentence(place: Path, tmp_path: Path, change: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    names = {"EMPTY": tmp_path / "empty", "BASE": tagger_file(tmp_path, width=16)}
    key, _, value = change.partition("=")
    call = ["train", "tagger", str(place / "learn.toml"), "--set", f"output={tmp_path / 'run'}"]
    result = CliRunner().invoke(app, [*call, "--set", f"{key}={names.get(value, value)}"])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("dacesr: ")
    assert re.search(words, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


def test_damaged_pictures_are_skipped_with_a_sentence(place: Path, tmp_path: Path, recipe: Recipe) -> None:
    source = labelled_set(tmp_path, 16)
    (tmp_path / "shapes" / "1.png").write_bytes(b"no picture")
    said: list[str] = []
    made = TaggerTask(recipe("run", f"data.source={source}"), Accelerator(cpu=True), said.append)
    made.close()
    assert [sentence for sentence in said if "1.png" in sentence and "skipped" in sentence]


def test_a_run_of_another_network_is_one_sentence(whole: Path, place: Path, recipe: Recipe) -> None:
    config = recipe("run", "network.head_mlp=8").model_copy(update={"output": str(whole)})
    with pytest.raises(ConfigError, match="holds a run of another network or config: choose another output"):
        train(config)
