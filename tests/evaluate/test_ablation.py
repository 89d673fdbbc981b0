"""Whole ablations of tiny networks: what arms share, what is kept, what is done again, and what the tables say."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny_tagger import write_tagger
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.evaluate import ablation as module
from dacesr.evaluate.ablation import Ablating
from dacesr.evaluate.config import Ablation, load_ablation
from dacesr.evaluate.scores import Judge
from dacesr.tensorfile import sha256_of
from dacesr.train.config import RestorerTraining

RUN = CliRunner()
ONE_SEED = ("seeds = [0, 1]", "seeds = [0]")

Write = Callable[..., Path]


def run(ablation: Ablation, **asked: object) -> bool:
    return Ablating(ablation, Console(quiet=True)).run(**asked)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def first_losses(output: Path) -> set[str]:
    """Of all runs in the first iteration."""
    return {rows(path)[0]["pixel"] for path in output.glob("*/*/log.csv")}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often runs were trained and blocks measured."""
    counts = {"trained": 0, "measured": 0}
    train, measure = module.train, Judge.measure

    def counted_train(*args: object, **more: object) -> object:
        counts["trained"] += 1
        return train(*args, **more)  # type: ignore[arg-type]

    def counted_measure(self: Judge, *args: object) -> object:
        counts["measured"] += 1
        return measure(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train", counted_train)
    monkeypatch.setattr(Judge, "measure", counted_measure)
    return counts


def test_the_command_trains_measures_and_compares(tiny: Write, tmp_path: Path) -> None:
    result = RUN.invoke(app, ["evaluate", "ablation", str(tiny()), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert "Rate: PSNR-Y of 3 pictures" in result.stdout
    assert str(tmp_path / "out" / "ablation.md") in result.stdout
    scores = rows(tmp_path / "out" / "scores.csv")
    assert list(scores[0]) == ["arm", "seed", "set", "space", "picture", "psnr_y", "ssim_y"]
    assert len(scores) == 2 * 2 * 2 * 3  # arms, seeds, spaces, pictures

    def mean(arm: str, space: str) -> float:
        values = [float(row["psnr_y"]) for row in scores if (row["arm"], row["space"]) == (arm, space)]
        return sum(values) / len(values)

    facts = json.loads((tmp_path / "out" / "ablation.json").read_text())
    text = (tmp_path / "out" / "ablation.md").read_text()
    cells = dict(re.findall(r"^\| (plain|fast) \| (\d.*) \|$", text, re.MULTILINE))
    for place, space in enumerate(("bicubic", "level1")):
        difference = mean("fast", space) - mean("plain", space)
        found = facts["tables"]["Rate"]["psnr_y"][space]["fast"]
        assert found["mean"] == pytest.approx(mean("fast", space), abs=1e-9)
        assert found["difference"]["mean"] == pytest.approx(difference, abs=1e-9)
        assert found["difference"]["low"] <= difference <= found["difference"]["high"]
        assert cells["plain"].split(" | ")[place].startswith(f"{mean('plain', space):.3f} (")
        assert f"<br>{difference:+.3f} [" in cells["fast"].split(" | ")[place]
    assert facts["arms"]["fast"]["changes"] == "optimizer.lr=1e-2"
    assert (facts["arms"]["fast"]["iterations"], facts["arms"]["fast"]["seeds measured"]) == ("2", "0, 1")
    (size,) = {facts["arms"][arm]["parameters"] for arm in ("plain", "fast")}
    weights = load_file(tmp_path / "out" / "0" / "plain" / "model.safetensors")
    assert int(size.replace(",", "")) == sum(tensor.numel() for tensor in weights.values())


def test_arms_see_the_same_batches_and_start_from_the_same_weights(tiny: Write, tmp_path: Path) -> None:
    tagger = write_tagger(tmp_path / "tagger.safetensors")
    conditioned = f'"extractor={tagger}", "network.condition_dim=16", "network.modulation'
    arms = f"""plain = [], fast = ["optimizer.lr=1e-2"], re = [{conditioned}=spatial"],
        global = [{conditioned}=global", "network.modulate=add"]"""
    arms = " ".join(arms.split())
    path = tiny(
        ('plain = [], fast = ["optimizer.lr=1e-2"]', arms),
        ("crop = 32", "crop = 32\ncontext = [32, 40]\nsamples = 4"),
        ('"plain", "fast"', '"plain", "fast", "re", "global"'),
        ONE_SEED,
    )
    ablation = load_ablation(path, ["iterations=1", "optimizer.lr=1e-20"], tmp_path / "out")
    assert run(ablation)
    assert len(first_losses(tmp_path / "out")) == 1  # learned modulation starts as none
    start = load_file(tmp_path / "out" / "0" / "start.safetensors")
    for arm in ("plain", "re", "global"):
        weights = load_file(tmp_path / "out" / "0" / arm / "model.safetensors")
        assert start.keys() <= weights.keys()
        assert (start.keys() < weights.keys()) == (arm != "plain")
        assert all(torch.allclose(weights[name], tensor, atol=1e-12) for name, tensor in start.items())
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert all(f"\n| {arm} | " in text for arm in ("re", "global"))


def test_seeds_differ(tiny: Write, tmp_path: Path) -> None:
    ablation = load_ablation(tiny(), output=tmp_path)
    assert [training.seed for training in ablation.runs.values()] == [0, 0, 1, 1]
    assert [Path(training.output or "").relative_to(tmp_path).as_posix() for training in ablation.runs.values()] == [
        *("0/plain", "0/fast"),
        *("1/plain", "1/fast"),
    ]
    for seed in (0, 1):
        module._write_start(tmp_path / f"{seed}.safetensors", ablation.runs[seed, "plain"])
    one, other = (load_file(tmp_path / f"{seed}.safetensors") for seed in (0, 1))
    assert not torch.equal(one["conv_first.weight"], other["conv_first.weight"])


def test_a_stopped_ablation_goes_on(tiny: Write, tmp_path: Path, counted: dict[str, int]) -> None:
    whole, parts = (load_ablation(tiny(ONE_SEED), ["iterations=3"], tmp_path / name) for name in ("whole", "parts"))
    assert run(whole)
    assert counted == {"trained": 2, "measured": 4}
    assert not run(parts, max_minutes=1e-4)  # stops after a step
    assert not (tmp_path / "parts" / "ablation.md").exists()
    assert run(parts)
    for arm in ("plain", "fast"):
        one, other = (load_file(tmp_path / name / "0" / arm / "model.safetensors") for name in ("whole", "parts"))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole" / "scores.csv").read_bytes() == (tmp_path / "parts" / "scores.csv").read_bytes()


def test_nothing_is_done_twice(tiny: Write, tmp_path: Path, counted: dict[str, int]) -> None:
    path = tiny(ONE_SEED)
    assert run(load_ablation(path, output=tmp_path / "out"), arms=["fast"])
    assert counted == {"trained": 1, "measured": 2}
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "| plain | as the file | " in text
    assert re.search(r"^\| fast \| \d+\.\d+ \|", text, re.MULTILINE)
    assert run(load_ablation(path, output=tmp_path / "out"))
    assert run(load_ablation(path, output=tmp_path / "out"))
    assert counted == {"trained": 2, "measured": 4}
    assert run(load_ablation(path, ["ablation.crop=32"], tmp_path / "out"))
    assert counted == {"trained": 2, "measured": 8}

    plain, fast = (tmp_path / "out" / "0" / arm / "model.safetensors" for arm in ("plain", "fast"))
    before = sha256_of(fast)
    fast.write_bytes(plain.read_bytes())
    assert run(load_ablation(path, ["ablation.crop=32"], tmp_path / "out"))
    assert counted == {"trained": 2, "measured": 10}
    assert sha256_of(fast) != before
    scores = [{**row, "arm": ""} for row in rows(tmp_path / "out" / "scores.csv")]
    assert scores[: len(scores) // 2] == scores[len(scores) // 2 :]


def test_another_config_is_not_taken_for_the_same(tiny: Write, tmp_path: Path) -> None:
    path = tiny(ONE_SEED)
    assert run(load_ablation(path, output=tmp_path / "out"))
    changed = load_ablation(path, ["data.batch=3"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"out/0/plain holds a run of another config: remove it or choose another"):
        run(changed)
    assert Ablating(changed, Console(quiet=True)).scores() == {}
    weights = tmp_path / "out" / "0" / "plain" / "model.safetensors"
    with pytest.raises(ValueError, match="holds a run of another config"):
        run(load_ablation(path, [f"init={weights}"], tmp_path / "out"))
    assert run(load_ablation(path, ["threads=2", "log_every=5"], tmp_path / "out"))


def test_own_weights_to_start_from_stay(tiny: Write, tmp_path: Path) -> None:
    assert run(load_ablation(tiny(ONE_SEED), output=tmp_path / "first"), arms=["plain"])
    weights = tmp_path / "first" / "0" / "plain" / "model.safetensors"
    ablation = load_ablation(tiny(ONE_SEED), [f"init={weights}"], tmp_path / "second")
    assert {training.init for training in ablation.runs.values()} == {str(weights)}
    assert run(ablation, arms=["plain"])
    assert not (tmp_path / "second" / "0" / "start.safetensors").exists()


def test_another_network_starts_from_its_own_weights(tiny: Write, tmp_path: Path) -> None:
    path = tiny(("fast = [", 'wide = ["network.embed_dim=12"], fast = ['), ONE_SEED)
    runs = load_ablation(path, output=tmp_path).runs
    assert {arm: training.init is None for (_, arm), training in runs.items()} == {
        **dict.fromkeys(("plain", "fast"), False),
        "wide": True,
    }


def test_what_is_missing_is_named_before_training(tiny: Write, tmp_path: Path, counted: dict[str, int]) -> None:
    for arguments, words in (
        (["--arm", "slow"], "tiny.toml has no arm slow; there are plain, fast"),
        (["--set", 'ablation.sets=["no/such"]'], "no/such"),
        (["--set", "network.modulation=global", "--set", "extractor=no-such"], "no-such does not exist"),
    ):
        result = RUN.invoke(app, ["evaluate", "ablation", str(tiny()), "-o", str(tmp_path / "out"), *arguments])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1
        assert words in result.stderr
    assert counted["trained"] == 0


def test_runs_are_restorers(tiny: Write, tmp_path: Path) -> None:
    runs = load_ablation(tiny(), output=tmp_path).runs
    assert all(isinstance(training, RestorerTraining) for training in runs.values())
    assert runs[0, "fast"].optimizer.lr == 1e-2
    assert runs[0, "plain"].optimizer.lr == 1e-3


def test_table4_trains_and_shows_the_arms_of_its_table(tiny: Write, tmp_path: Path) -> None:
    config = tiny(('{ "Rate" = ["plain", "fast"] }', '{ "Table IV: rate" = ["fast"], "Table V" = ["plain"] }'))
    result = RUN.invoke(app, ["evaluate", "table4", str(config), "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    assert "Table IV: rate: PSNR-Y" in result.stdout
    assert "Table V" not in result.stdout
    assert sorted(path.name for path in (tmp_path / "out/0").iterdir()) == ["fast", "start.safetensors"]
    assert r"\caption{Table IV: rate" in (tmp_path / "out/ablation.tex").read_text()
    result = RUN.invoke(app, ["evaluate", "table6", str(config), "-o", str(tmp_path / "out")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "ablation.tables has no Table VI, only Table IV: rate, Table V" in result.stderr
