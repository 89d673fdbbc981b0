"""Tuning with LoRA: what is trained, from where, on what, and what a run leaves."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from typer.testing import CliRunner

from dacesr import adapterfile
from dacesr.adapterfile import fingerprint, read_adapter
from dacesr.cli import app
from dacesr.dataset import sample_generator
from dacesr.image import write
from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Tagger, normalise
from dacesr.similarity import CleanReference
from dacesr.taggerfile import load_tagger, save_tagger
from dacesr.train.config import ConfigError, load_config
from dacesr.train.extractor import ExtractorTask, Student, with_lora
from dacesr.train.loop import _resume, train
from dacesr.train.ranking import rank_degradations
from dacesr.train.recognition import ExtractorTraining
from dacesr.train.ruin import Ruin
from dacesr.train.selection import Selection
from dacesr.train.state import saved_states
from train.conftest import rows
from train.tiny_taggers import assert_same, labelled_set, left, picture, small_tagger, tagger_file

RECIPE = """
iterations = 6
seed = 3
ema = 0.9
precision = "fp32"
threads = 1
log_every = 2
save_every = 2
tagger = "BASE"

[data]
source = "SHAPES"
crop = 32
batch = 4
scale = 2
selection = "SELECTION"

[loss]
embedding = 1.0
logits = 1.0

[lora]
r = 2

[optimizer]
lr = 1e-2

[validation]
every = 3
images = 6
"""
Recipe = Callable[..., ExtractorTraining]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tagger, labelled pictures, a selection and the recipe."""
    folder = tmp_path_factory.mktemp("extractor")
    shapes, base = labelled_set(folder), tagger_file(folder)
    pictures = {str(i): picture(i)[0][0] for i in range(4)}
    extractor, silent = Extractor(load_tagger(base)), Console(file=io.StringIO())
    path = folder / "selection.json"
    rank_degradations(path, extractor, pictures, tagger="small", scale=2, count=8, console=silent)
    text = RECIPE.replace("BASE", str(base)).replace("SHAPES", str(shapes)).replace("SELECTION", str(path))
    (folder / "tune.toml").write_text(text)
    return folder


@pytest.fixture
def recipe(place: Path, tmp_path: Path) -> Recipe:
    """Makes the recipe's config with changes, for a run in tmp_path / NAME."""
    return lambda name="run", *changes: load_config(
        place / "tune.toml", [*changes, f"output={tmp_path / name}"], ExtractorTraining
    )


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return train(load_config(place / "tune.toml", [f"output={folder}"], ExtractorTraining))


def task(config: ExtractorTraining) -> ExtractorTask:
    made = ExtractorTask(config, Accelerator(cpu=True), lambda sentence: pytest.fail(sentence))
    made.start(0)
    return made


def lora_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in net.named_parameters() if ".lora_" in name}


def images(seed: int = 5) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# --- what is trained


def test_a_new_lora_changes_nothing(recipe: Recipe) -> None:
    made = task(recipe())
    made.close()
    base = made._clean.tagger
    for net in (made.learner.net, made.learner.average):
        assert isinstance(net, Student)
        tokens, logits = net(normalise(images()), True)
        expected = base(normalise(images()))
        assert torch.equal(tokens, expected.tokens)
        assert torch.equal(logits, expected.logits)


def test_only_the_lora_gets_gradients_and_moves(recipe: Recipe) -> None:
    made = task(recipe("run", "iterations=2"))
    net = made.learner.net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    seen: set[str] = set()
    norm = made.learner.gradient_norm

    def watched() -> torch.Tensor:
        seen.update(name for name, parameter in net.named_parameters() if parameter.grad is not None)
        return norm()

    made.learner.gradient_norm = watched  # type: ignore[method-assign]
    for iteration in range(2):
        assert made.step(iteration).read()[1]
    made.close()
    names = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in names}
    assert layers == {"q", "v", "query", "key"}
    assert seen == names == lora_of(net).keys()
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == names
    assert made._fingerprint == fingerprint(made._clean.tagger) == fingerprint(small_tagger())


def test_the_base_is_in_memory_once(recipe: Recipe) -> None:
    made = task(recipe())
    made.close()
    base = {parameter.data_ptr() for parameter in made._clean.tagger.parameters()}
    for net in (made.learner.net, made.learner.average):
        others = {name for name, parameter in net.named_parameters() if parameter.data_ptr() not in base}
        assert others == lora_of(net).keys()
    assert not [name for name in made.learner.state_dict()["net"] if ".lora_" not in name]


def test_without_logits_the_head_is_neither_run_nor_trained(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(recipe("run", "loss.logits=0"))
    monkeypatch.setattr(Tagger, "classify", lambda *_: pytest.fail("the head ran"))
    terms, updated = made.step(0).read()
    made.close()
    assert updated
    assert {"embedding", "lr", "gradient"} == terms.keys()
    assert not [name for name, p in made.learner.net.named_parameters() if p.requires_grad and "head" in name]


def test_the_terms_are_those_of_the_paper(recipe: Recipe) -> None:
    """Recomputed picture by picture, from the same draws."""
    made = task(recipe("run", "loss.logits=0.5", "loss.embedding=3"))
    batch = next(made.waiting)
    made.close()
    with torch.no_grad():
        for parameter in lora_of(made.learner.net).values():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    generators = [torch.Generator().set_state(each.get_state()) for each in batch.generators]
    found = made.terms(batch)
    student = made.learner.net
    assert isinstance(student, Student)
    embedding, logits = [], []
    for sharp, generator in zip(batch.gt.float() / 255, generators, strict=True):
        ruined = made._ruin(sharp[None], [generator])
        assert ruined.shape == (1, 3, 16, 16)
        told = made._clean.recognise(sharp[None])
        seen = student.tagger(made._clean.prepare(ruined))
        embedding.append((seen.tokens - told.tokens).square().mean())
        p, q = told.logits.sigmoid(), seen.logits.sigmoid()
        logits.append(-(p * q.log() + (1 - p) * (1 - q).log()).mean())
    assert found["embedding"].item() == pytest.approx(3 * torch.stack(embedding).mean().item(), rel=1e-4)
    assert found["logits"].item() == pytest.approx(0.5 * torch.stack(logits).mean().item(), rel=1e-4)


def test_tuning_brings_the_embeddings_together(recipe: Recipe) -> None:
    changes = ["data.members=severe", "lora.r=8", "lora.alpha=8.0", "optimizer.lr=1e-2", "data.batch=8"]
    made = task(recipe("run", "iterations=30", *changes))
    batch = made._batches.batch(0)

    def distance() -> float:
        again = batch._replace(generators=[torch.Generator().set_state(each.get_state()) for each in batch.generators])
        with torch.no_grad():
            return float(made.terms(again)["embedding"])

    before = distance()
    for iteration in range(30):
        made.step(iteration)
    made.close()
    assert distance() < 0.8 * before


def test_bf16_stays_near(recipe: Recipe) -> None:
    terms = {}
    for precision in ("fp32", "bf16"):
        made = task(recipe("run", f"precision={precision}"))
        found = {name: value.detach() for name, value in made.terms(next(made.waiting)).items()}
        assert made.step(1).read()[1]
        made.close()
        assert all(value.dtype == torch.float32 for value in found.values())
        terms[precision] = {name: float(found[name]) for name in ("embedding", "logits")}
    assert terms["bf16"] == pytest.approx(terms["fp32"], rel=0.05)
    assert terms["bf16"] != terms["fp32"]


# --- what a run leaves


def test_a_run_leaves_tables_a_state_and_the_adapter(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {"config.json", "log.csv", "validation.csv", "adapter", "events", "state-00000006"}
    assert {path.name for path in (whole / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert list(rows(whole / "log.csv")[0]) == ["iteration", "embedding", "logits", "lr", "gradient", "skipped"]
    scores = [(row["iteration"], row["model"], row["space"]) for row in rows(whole / "validation.csv")]
    classes = ["class1", "class2", "class3", "class4"]
    expected = [("0", "base"), ("3", "extractor"), ("6", "extractor")]
    assert scores == [(iteration, model, space) for iteration, model in expected for space in classes]


def test_a_state_holds_no_weight_of_the_base(whole: Path, recipe: Recipe) -> None:
    names = [name for name in left(whole) if name.startswith("state-")]
    trained = lora_of(with_lora(small_tagger(), recipe()))
    assert len([name for name in names if ".lora_" in name]) == 2 * len(trained)
    assert not [name for name in names if ".lora_" not in name and ".optimizer." not in name]


def test_the_adapter_merged_is_the_tuned_tagger(whole: Path, place: Path) -> None:
    """By our merge, by peft, and unmerged, with the averaged weights."""
    peft = pytest.importorskip("peft")
    config = load_config(place / "tune.toml", [f"output={whole}"], ExtractorTraining)
    made = task(config)
    made.close()
    _resume(made, whole)
    average = made.learner.average
    assert isinstance(average, Student)
    x = normalise(images())
    unmerged, merged = average.tagger(x), load_tagger(whole / "adapter")(x)
    assert (unmerged.tokens - small_tagger()(x).tokens).abs().max() > 1e-4
    torch.testing.assert_close(merged, unmerged, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(load_tagger(place / "base.safetensors", lora=whole / "adapter")(x), merged)
    theirs = peft.PeftModel.from_pretrained(load_tagger(place / "base.safetensors"), str(whole / "adapter"))
    torch.testing.assert_close(theirs(x), merged, rtol=1e-5, atol=1e-5)
    adapter = read_adapter(whole / "adapter")
    assert adapter.fingerprint == fingerprint(small_tagger())
    assert adapter.base == str(place / "base.safetensors")


def test_a_run_stopped_at_every_step_ends_as_an_uninterrupted_one(whole: Path, place: Path, tmp_path: Path) -> None:
    call = ["train", "extractor", str(place / "tune.toml"), "--set", f"output={tmp_path / 'run'}"]
    for done in range(1, 7):
        result = CliRunner().invoke(app, [*call, "--max-minutes", "0"])
        assert result.exit_code == 0, result.stderr
        assert [path.name for path in saved_states(tmp_path / "run")] == [f"state-{done:08d}"]
    assert_same(whole, tmp_path / "run")


def test_a_run_killed_while_it_writes_leaves_no_half_adapter(
    whole: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own = adapterfile.write_own

    def killed(*_: object, **__: object) -> None:
        raise Killed

    config = recipe("run")
    assert config.output is not None
    monkeypatch.setattr(adapterfile, "write_own", killed)
    with pytest.raises(Killed):
        train(config)
    assert not Path(config.output, "adapter").exists()
    monkeypatch.setattr(adapterfile, "write_own", write_own)
    assert_same(whole, train(config))


def test_the_same_rows_as_the_protocol_gives(whole: Path, place: Path) -> None:
    """The base's, recomputed with `similarity`."""
    extractor = Extractor(load_tagger(place / "base.safetensors"))
    held = [i for i in range(48) if i % 4 == 3]
    pictures = [picture(held[i * 12 // 6])[0][0] for i in range(6)]
    pictures = [(x * 255).round() / 255 for x in pictures]
    reference = CleanReference.of(extractor, pictures)
    selection = Selection.load(place / "selection.json")
    for severity in (1, 4):
        degraded = [selection.degrade(x[None], severity, [sample_generator(0, i)])[0] for i, x in enumerate(pictures)]
        found = reference.compare(extractor, degraded)
        (row,) = (
            row
            for row in rows(whole / "validation.csv")
            if (row["model"], row["space"]) == ("base", f"class{severity}")
        )
        assert float(row["jaccard"]) == pytest.approx(found.jaccard.mean().item(), abs=1e-5)
        assert float(row["cosine"]) == pytest.approx(found.cosine.mean().item(), abs=1e-3)


# --- where it starts, and on what


def test_tuning_goes_on_from_an_adapter(whole: Path, recipe: Recipe) -> None:
    init, x = f"init={whole / 'adapter'}", normalise(images())
    merged = load_tagger(whole / "adapter")(x)
    for name, changes in {"same": [init], "other": [init, "lora.alpha=4.0"], "tokens": [init, "loss.logits=0"]}.items():
        made = task(recipe(name, *changes))
        made.close()
        for net in (made.learner.net, made.learner.average):
            assert isinstance(net, Student)
            torch.testing.assert_close(net.tagger(x), merged, rtol=1e-5, atol=1e-5)
    folder = train(recipe("tokens", init, "loss.logits=0", "iterations=2"))
    expected, got = read_adapter(whole / "adapter").pairs, read_adapter(folder / "adapter").pairs
    same = {place for place in expected if torch.equal(expected[place].b, got[place].b)}
    assert same == {place for place in expected if place.startswith("head.")}


def test_every_picture_has_a_degradation_of_its_own(place: Path, recipe: Recipe) -> None:
    x = picture(5)[0][..., :32, :32].expand(4, -1, -1, -1)
    data = recipe("run").data
    for config in (data.model_copy(update={"members": "severe"}), data.model_copy(update={"selection": None})):
        ruin = Ruin(config)
        small = ruin(x, [sample_generator(0, i) for i in range(4)])
        assert len({tuple(each.flatten().tolist()) for each in small}) == 4
        assert torch.equal(ruin(x[:1], [sample_generator(0, 2)])[0], small[2])


def test_the_members_asked_for_are_drawn(place: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[object] = []
    degrade = Selection.degrade
    monkeypatch.setattr(
        Selection, "degrade", lambda self, x, choice, each: (chosen.append(choice), degrade(self, x, choice, each))[1]
    )
    for members in ("all", "mild", "severe"):
        made = task(recipe("run", f"data.members={members}"))
        made.step(0)
        made.close()
        assert made._examination is not None
        assert set(made._examination._ruin.classes.values()) == {1, 2, 3, 4}
    assert chosen == ["all", "mild", "severe"]


def test_a_folder_and_a_space_train_too(place: Path, tmp_path: Path) -> None:
    for split, numbers in {"train": range(8), "test": range(8, 12)}.items():
        (tmp_path / "set" / split).mkdir(parents=True)
        for number in numbers:
            write(tmp_path / "set" / split / f"{number}.png", picture(number)[0])
    text = (place / "tune.toml").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("selection"))
    (tmp_path / "free.toml").write_text(text)
    changes = [f"data.source={tmp_path / 'set'}", "data.space=level2", "iterations=2", f"output={tmp_path / 'run'}"]
    folder = train(load_config(tmp_path / "free.toml", changes, ExtractorTraining))
    assert [(row["model"], row["space"]) for row in rows(folder / "validation.csv")] == [
        ("base", "level2"),
        ("extractor", "level2"),
    ]
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "1.png", picture(1)[0])
    made = task(
        load_config(
            tmp_path / "free.toml",
            [*changes, f"validation.source={tmp_path / 'other'}", "validation.crop=30"],
            ExtractorTraining,
        )
    )
    made.close()
    assert made._examination is not None
    assert [tuple(x.shape) for x in made._examination._sharp] == [(3, 30, 30)]


# --- what goes wrong


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["tagger=gone.safetensors"], "gone.safetensors does not exist"),
        (["tagger=ADAPTER"], "tagger: .*adapter is an adapter: give its base as the tagger, and the adapter as init"),
        (["init=gone"], "gone does not exist"),
        (["init=BASE"], "base.safetensors"),
        (["init=ADAPTER", "lora.r=4"], "init: .*adapter is of another rank than lora.r 4"),
        (["init=ADAPTER", "tagger=OTHER"], "adapter is an adapter for another base"),
        (["data.source=gone.csv"], "gone.csv cannot be read"),
        (["data.selection=gone.json"], "the selection gone.json cannot be read"),
        (["data.scale=3"], "data.scale is 3, and .*selection.json was made with a scale of 2"),
        (["data.members=hard"], "data.members: "),
        (["data.space=level9"], "data: .*space should be one of bicubic"),
        (["data.crop=12"], "data: .*crop 12 should be at least 8 times the scale 2"),
        (["loss.embedding=0", "loss.logits=0"], "loss: .*one of embedding and logits should be above 0"),
        (["validation.source=EMPTY"], "empty holds no picture to measure on"),
        (["data.crop=44"], "none of the 30 labelled pictures has 44 pixels a side"),
    ],
)
def test_a_mistake_is_one_sentence(whole: Path, place: Path, tmp_path: Path, changes: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.safetensors"
    save_tagger(other, small_tagger(1))
    names = {
        "ADAPTER": whole / "adapter",
        "BASE": place / "base.safetensors",
        "OTHER": other,
        "EMPTY": tmp_path / "empty",
    }
    call = ["train", "extractor", str(place / "tune.toml"), "--set", f"output={tmp_path / 'run'}"]
    for change in changes:
        key, _, value = change.partition("=")
        call += ["--set", f"{key}={names.get(value, value)}"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("dacesr: ")
    assert re.search(words, result.stderr), result.stderr
    assert not (tmp_path / "run" / "adapter").exists()


def test_members_take_a_selection(place: Path, tmp_path: Path) -> None:
    text = (place / "tune.toml").read_text().replace("selection = ", "members = 'mild' #")
    (tmp_path / "free.toml").write_text(text)
    with pytest.raises(ConfigError, match="members mild takes a selection"):
        load_config(tmp_path / "free.toml", [], ExtractorTraining)


def test_pictures_too_small_to_measure_on_are_named(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    write(tmp_path / "small" / "dot.png", torch.zeros(1, 3, 15, 40))
    with pytest.raises(ConfigError, match=r"dot.png is too small to recognise anything at 1/2 of its size"):
        task(recipe("run", f"validation.source={tmp_path / 'small'}"))


def test_a_missing_peft_names_the_extra(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'training an extractor needs peft: pip install "dacesr\[train\]"'):
        task(recipe())


def test_a_dry_run_tells_and_writes_nothing(place: Path, tmp_path: Path) -> None:
    call = ["train", "extractor", str(place / "tune.toml"), "--dry-run", "--set", f"output={tmp_path / 'run'}"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.stderr
    assert list(tmp_path.iterdir()) == []
    assert json.loads(result.stdout[: result.stdout.index("\nextractor: ")])["lora"] == {"r": 2, "alpha": 1.0}
    assert "s per iteration" in result.stdout
