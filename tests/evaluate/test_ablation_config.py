"""Ablation configs: those of the project load, and mistakes are one sentence that names file and field."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dacesr.checkpoint import KINDS
from dacesr.evaluate.config import load_ablation
from dacesr.train.config import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("ablation_*.toml"))

Write = Callable[..., Path]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_ablation_loads_and_makes_its_networks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    ablation = load_ablation(path)
    assert ablation.output == Path("out", "evaluate", path.stem)
    assert len({training.iterations for training in ablation.runs.values()}) == 1
    for (_, arm), training in ablation.runs.items():
        assert (training.extractor is None) == (arm == "none")
        with torch.device("meta"):
            KINDS[training.network.kind].network(training.network)


def test_the_ablations_are_those_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    tables = load_ablation(next(path for path in CONFIGS if path.stem == "ablation_light")).tables
    assert {title.partition(":")[0]: arms for title, arms in tables.items()} == {
        "Table IV": ("none", "re", "global", "le"),
        "Table V": ("ram", "dape", "re"),
        "Table VI": ("re", "multiply", "add"),
        "Release against spatial": ("release", "re"),
    }


MISTAKES = {
    ("[ablation]", "[ablations]"): "tiny.toml: ablation: the table is missing",
    ("seeds = [0, 1]", "seed = 0"): "tiny.toml: ablation.seed: Extra inputs are not permitted",
    ("seeds = [0, 1]", "seeds = []"): "tiny.toml: ablation.seeds: ",
    ("seeds = [0, 1]", "seeds = [1, 1]"): "ablation: Value error, seeds should be named once each",
    ("seeds = [0, 1]", "limit = 0"): "tiny.toml: ablation.limit: ",
    ("seeds = [0, 1]", "lpips = 'a.pth'"): "ablation: Value error, lpips and features go together",
    ('"level1"]', '"level9"]'): "ablation: Value error, spaces should be some of bicubic, ",
    ('["plain", "fast"] }', '["plain", "slow"] }'): "tables: 'Rate' should name some of plain, fast, not slow",
    ('["plain", "fast"] }', "[] }"): "tables: 'Rate' should name some of plain, fast, not none",
    ("plain = []", "'a/b' = []"): "tiny.toml: ablation.arms.a/b",
    ("plain = []", "plain = 3"): "tiny.toml: ablation.arms.plain: ",
    (
        "optimizer.lr=1e-2",
        "optimizer.rate=1",
    ): "tiny.toml: ablation.arms.fast: optimizer.rate: Extra",
    ("optimizer.lr=1e-2", "network.width=1"): "tiny.toml: ablation.arms.fast: network.width: Extra",
    ("optimizer.lr=1e-2", "optimizer"): "tiny.toml: ablation.arms.fast: --set takes key=value",
    ("optimizer.lr=1e-2", "seed=5"): "tiny.toml: ablation.arms.fast changes seed, which all arms share",
    ("optimizer.lr=1e-2", "iterations=9"): "tiny.toml: ablation.arms.fast changes iterations, which all arms share",
    ("optimizer.lr=1e-2", "network.scale=2"): "ablation.arms.fast changes network.scale, which all arms share",
    ("batch = 2", "batch = 0"): "tiny.toml: data.batch: ",
    ("sets = [", "sets = ['$NO_SUCH', "): "tiny.toml: $NO_SUCH needs the environment variable NO_SUCH",
}


@pytest.mark.parametrize(("change", "words"), MISTAKES.items())
def test_a_mistake_is_one_sentence(
    tiny: Write, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], words: str
) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ConfigError) as caught:
        load_ablation(tiny(change))
    assert words in str(caught.value)
    assert "tiny.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_changes_reach_all_arms_and_the_table(tiny: Write) -> None:
    ablation = load_ablation(tiny(), ["data.batch=3", "ablation.seeds=[7]", "ablation.limit=2"])
    assert {training.data.batch for training in ablation.runs.values()} == {3}
    assert list(ablation.runs) == [(7, "plain"), (7, "fast")]
    assert ablation.config.limit == 2


def test_without_tables_all_arms_are_compared_with_the_first(tiny: Write) -> None:
    assert load_ablation(tiny(('{ "Rate" = ["plain", "fast"] }', "{}"))).tables == {"Arms": ("plain", "fast")}


def test_the_folder_is_chosen_by_the_user_the_file_or_its_name(tiny: Write) -> None:
    assert load_ablation(tiny()).output == Path("out", "evaluate", "tiny")
    assert load_ablation(tiny(), ["output=here"]).output == Path("here")
    assert load_ablation(tiny(), ["output=here"], "there").output == Path("there")
