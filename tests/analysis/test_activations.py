"""Activation maps: whose they are, how they are compared, and the command."""

import csv
import io
from pathlib import Path

import pytest
import torch
from calling import analyze, assert_refused
from conditioned import conditioned, write_conditioned
from PIL import Image
from tiny_tagger import write_tagger
from torch import Tensor

from dacesr.analysis import activations as measuring
from dacesr.analysis.activations import (
    Activation,
    Way,
    activation_maps,
    activations,
    activations_csv,
    correlation,
    find_ways,
    summary,
)
from dacesr.analysis.subjects import load_subjects
from dacesr.checkpoint import load_extractor, save_restorer
from dacesr.conditioning import Guided, load_guided
from dacesr.config import SRVGGConfig
from dacesr.image import write
from dacesr.nets.baselines import SRVGGNetCompact


def picture(height: int = 14, width: int = 20, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def guided(tmp_path: Path) -> Guided:
    return load_guided(write_conditioned(tmp_path)).requires_grad_(False)


@pytest.fixture
def plain() -> Guided:
    torch.manual_seed(0)
    return Guided(SRVGGNetCompact(SRVGGConfig.model_validate({"num_feat": 6, "num_conv": 6, "scale": 2})).eval())


def titles(ways: list[Way]) -> list[tuple[str, str]]:
    return [(way.model, way.condition) for way in ways]


# --- ways


def test_each_condition_is_what_it_says(guided: Guided, tmp_path: Path) -> None:
    x, clean, other = picture(), picture(seed=2), picture(33, 40, seed=3)
    path = write_tagger(tmp_path / "brow.safetensors", seed=3)
    names = ["own", "clean", "none", "other", str(path)]
    ways = find_ways({"net": guided}, names, other=other)
    assert titles(ways) == [("net", name) for name in ("own", "clean", "none", "other", "brow")]
    seen = [way.see(x, clean) for way in ways]
    assert seen[2] is None
    brow = Guided(guided.net, load_extractor(path))
    for found, expected in zip(seen, (guided.condition(x), guided.condition(clean), None, guided.condition(other),
                                      brow.condition(x)), strict=True):  # fmt: skip
        torch.testing.assert_close(found, expected)
    maps = [activation_maps(way, x, clean)["RSSB 2"] for way in ways]
    for i, one in enumerate(maps):
        assert all((one - earlier).abs().max() > 1e-4 for earlier in maps[:i])
    assert ways[0].net is guided.net
    assert ways[2].net is not guided.net


def test_conditions_unless_some_are_named(guided: Guided, plain: Guided) -> None:
    free = Guided(conditioned(modulation="release"))
    subjects = {"net": guided, "plain": plain, "free": free}
    ways = find_ways(subjects)  # the bundled extractors don't fit the first
    assert titles(ways) == [("net", "own"), ("net", "none"), ("plain", ""), ("free", "")]
    assert [way.see(picture(), picture()) for way in ways[1:]] == [None] * 3
    ways = find_ways(subjects, other=picture())
    assert titles(ways)[:3] == [("net", "own"), ("net", "none"), ("net", "other")]
    ways = find_ways(subjects, ["own", "none"])
    assert titles(ways) == [("net", "own"), ("net", "none"), ("plain", ""), ("free", "none")]
    assert titles(find_ways(load_subjects(["light"]))) == [("light", "")]


def test_the_bundled_model_is_shown_as_in_the_paper() -> None:
    ways = find_ways(load_subjects(["default"]))
    assert [way.condition for way in ways] == ["lite-ram", "lite-dape", "own"]


def test_wrong_conditions_are_told(guided: Guided, plain: Guided, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plain: no condition is taken"):
        find_ways({"plain": plain}, ["own"])
    with pytest.raises(ValueError, match="plain: no condition is taken"):
        find_ways({"plain": plain}, other=picture())
    with pytest.raises(ValueError, match="needs another picture: give one with --other"):
        find_ways({"net": guided}, ["other"])
    with pytest.raises(ValueError, match="free: no extractor comes with it"):
        find_ways({"free": Guided(conditioned(modulation="release"))}, ["own"])
    with pytest.raises(ValueError, match="net takes conditions of 16 channels, and those of lite-ram have 512"):
        find_ways({"net": guided}, ["lite-ram"])
    with pytest.raises(ValueError, match="nowhere does not exist"):
        find_ways({"net": guided}, ["nowhere"])
    (tmp_path / "more").mkdir()
    same = [str(write_tagger(folder / "same.safetensors")) for folder in (tmp_path, tmp_path / "more")]
    with pytest.raises(ValueError, match="two extractors for net are called same"):
        find_ways({"net": guided}, same)


# --- maps and numbers


def test_maps_are_compared_with_the_clean_ones_and_the_first(guided: Guided, plain: Guided) -> None:
    x, clean = picture(), picture(seed=2)
    ways, steps = find_ways({"net": guided, "plain": plain}, ["own", "none"]), []
    found = activations(ways, {"noise": x, "clean": clean}, clean, stages=2, advance=steps.append)
    assert steps == [1] * 6
    assert [one[:4] for one in found] == [
        (version, model, condition, stage)
        for model, condition, stages in (
            ("net", "own", ("RSSB 1", "RSSB 2")),
            ("net", "none", ("RSSB 1", "RSSB 2")),
            ("plain", "", ("conv 3", "conv 6")),
        )
        for version in ("noise", "clean")
        for stage in stages
    ]
    by_place = {one[:4]: one for one in found}
    for one in found:
        reference = by_place["clean", *one[1:4]]
        expected = torch.corrcoef(torch.stack([one.values.flatten(), reference.values.flatten()]))[0, 1]
        assert one.correlation == pytest.approx(float(expected), abs=1e-5)
        first = by_place[one.version, one.model, "own" if one.model == "net" else "", one.stage].values
        away = (one.values - first).square().mean().sqrt() / first.std(correction=0)
        assert one.change == pytest.approx(float(away), abs=1e-5)
    assert all(one.change > 0.01 for one in found if one.condition == "none" and one.change is not None)


def test_correlation() -> None:
    a = torch.rand(5, 7)
    assert correlation(a, 3 * a + 100) == pytest.approx(1)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, torch.ones(5, 7)) is None


def example(condition: str, correlation: float | None, change: float | None, version: str = "blur") -> Activation:
    return Activation(version, "net", condition, "RSSB 1", torch.tensor([[0.0, 2.0]]), correlation, change)


def test_tables() -> None:
    numbers = (("own", 0.5, 0.0), ("own", 0.7, 0.0), ("none", None, 0.25), ("none", None, 0.5))
    found = [example(*each) for each in numbers]
    rows = list(csv.reader(io.StringIO(activations_csv(found))))
    assert rows[0] == ["degradation", "model", "condition", "stage", "mean", "std", "correlation_with_clean", "change"]
    assert rows[1] == ["blur", "net", "own", "RSSB 1", "1", "1", "0.5", "0"]
    assert rows[4] == ["blur", "net", "none", "RSSB 1", "1", "1", "", "0.5"]
    table = summary([*found, example("own", 1.0, 0.0, "clean")])
    assert table.head == ["model", "condition", "r, blur", "change"]
    assert table.rows == [["net", "own", "0.600", ""], ["net", "none", "", "0.5000"]]


def test_a_constant_map_has_no_correlation(monkeypatch: pytest.MonkeyPatch, plain: Guided) -> None:
    monkeypatch.setattr(measuring, "activation_maps", lambda *args, **kwargs: {"conv 1": torch.ones(3, 4)})
    (one,) = activations(find_ways({"plain": plain}), {"noise": picture()}, picture())
    assert (one.correlation, one.change) == (None, None)


# --- the command


def test_the_command(tmp_path: Path, plain: Guided) -> None:
    pytest.importorskip("matplotlib")
    photo, out, other = tmp_path / "photo.png", tmp_path / "out", tmp_path / "plain.safetensors"
    write(photo, picture(60, 80))
    save_restorer(other, plain.net)
    models = ("-n", write_conditioned(tmp_path), "-n", other)
    done = analyze(
        "activations", photo, "-o", out, *models, "--side", 24, "--stages", 2, "--other", photo, "--degradation", "jpeg"
    )
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["activations.csv", "activations.png"]
    rows = list(csv.DictReader(io.StringIO((out / "activations.csv").read_text())))
    shown = list(dict.fromkeys((row["degradation"], row["model"], row["condition"]) for row in rows))
    assert shown == [("jpeg", "net", name) for name in ("own", "none", "other")] + [("jpeg", "plain", "")]
    assert "r, jpeg" in done.stdout
    with Image.open(out / "activations.png") as image:
        assert min(image.size) > 300
    again = (out / "activations.png").read_bytes()
    analyze(
        "activations", photo, "-o", out, *models, "--side", 24, "--stages", 2, "--other", photo, "--degradation", "jpeg"
    )
    assert (out / "activations.png").read_bytes() == again


def test_a_wrong_call_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    photo = tmp_path / "photo.png"
    write(photo, picture(60, 80))
    net = write_conditioned(tmp_path)
    for args, words in (
        (("-n", net, "--condition", "other"), "--other PHOTO"),
        (("-n", net, "--condition", "lite-ram"), "16 channels"),
        (("-n", net, "--degradation", "rain"), "no degradation 'rain'"),
        (("-n", tmp_path / "none.pth"), "none.pth"),
    ):
        assert_refused(analyze("activations", photo, "-o", tmp_path / "out", *args), words)
    assert not (tmp_path / "out").exists()
