"""What a condition does: its parts, the network without it, and how far outputs are apart."""

import csv
import io
import math
from pathlib import Path

import pytest
import torch
from calling import analyze, assert_refused
from conditioned import conditioned, write_conditioned
from PIL import Image
from tiny_tagger import TAGS, write_tagger
from torch import Tensor

from dacesr.analysis.modulations import (
    BIAS,
    OF_CLEAN,
    TURNED,
    WITHOUT,
    examinations_csv,
    examine,
    modulation_effects,
    sentences,
    with_extractor,
    without_modulation,
)
from dacesr.analysis.modulations import (
    conditioned as checked,
)
from dacesr.checkpoint import load_extractor, save_restorer
from dacesr.conditioning import Guided, load_guided
from dacesr.image import write
from dacesr.nets.restorer import Restorer


def picture(height: int = 14, width: int = 20, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def tokens(count: int = 5, seed: int = 2) -> Tensor:
    return torch.randn(1, count, 16, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def guided(tmp_path: Path) -> Guided:
    return load_guided(write_conditioned(tmp_path)).requires_grad_(False)


@pytest.mark.parametrize("modulate", ["both", "add", "multiply"])
@pytest.mark.parametrize("modulation", ["spatial", "global"])
def test_without_modulation_is_a_modulation_of_zero(modulation: str, modulate: str) -> None:
    net, x = conditioned(modulation=modulation, modulate=modulate), picture()
    plain = without_modulation(net)
    assert isinstance(plain, Restorer)
    with torch.no_grad():
        own, found = net(x, tokens()), plain(x)
        assert not plain.training
        assert plain.conv_first.weight.data_ptr() == net.conv_first.weight.data_ptr()  # nothing is copied
        for parameter in net.modulation.parameters():  # pyright: ignore[reportOptionalMemberAccess]
            parameter.zero_()
        torch.testing.assert_close(found, net(x, tokens()), rtol=0, atol=0)
    assert (own - found).abs().max() > 0.01


def test_without_modulation_of_the_release_and_of_those_that_have_none() -> None:
    net, x = conditioned(modulation="release"), picture()
    with torch.no_grad():
        torch.testing.assert_close(without_modulation(net)(x), net(x), rtol=0, atol=0)
    plain = conditioned(modulation="none")
    assert without_modulation(plain) is plain


def known(modulation: str = "spatial", modulate: str = "both") -> Restorer:
    """One whose alpha is 1.5 and whose beta is -0.25, or one of the two, everywhere."""
    net = conditioned(modulation=modulation, modulate=modulate)
    with torch.no_grad():
        for projection in net.modulation.projections:  # pyright: ignore
            projection.weight.zero_()
            wide = projection.bias.numel()
            values = {"both": (0.5, -0.25), "add": (-0.25, -0.25), "multiply": (0.5, 0.5)}[modulate]
            projection.bias.copy_(torch.tensor(values).repeat_interleave(wide // 2))
    return net


@pytest.mark.parametrize("modulate", ["both", "add", "multiply"])
@pytest.mark.parametrize("modulation", ["spatial", "global"])
def test_alpha_beta_and_the_features_are_told(modulation: str, modulate: str) -> None:
    net, x = known(modulation, modulate), picture()
    output, effects = modulation_effects(net, x, tokens())
    with torch.no_grad():
        torch.testing.assert_close(output, net(x, tokens()), rtol=0, atol=0)
        first = net.layers[0](net.patch_embed((net.conv_first(x - net.mean)).permute(0, 2, 3, 1).flatten(1, 2)), 14, 20)
    assert [effect.stage for effect in effects] == ["RSSB 1", "RSSB 2"]
    for effect in effects:
        torch.testing.assert_close(effect.scale, torch.full((14, 20), 0.0 if modulate == "add" else 0.5))
        torch.testing.assert_close(effect.shift, torch.full((14, 20), 0.0 if modulate == "multiply" else 0.25))
    alpha = 1.0 if modulate == "add" else 1.5
    expected = (alpha * first[0]).square().mean(-1).sqrt().view(14, 20)
    torch.testing.assert_close(effects[0].features, expected)
    share = 0.0 if modulate == "multiply" else 0.25 / float(expected.square().mean().sqrt())
    assert effects[0].share == pytest.approx(share, rel=1e-5)


def test_the_release_has_maps_of_its_tokens() -> None:
    net, x = conditioned(modulation="release"), picture(4, 4)
    _, effects = modulation_effects(net, x, tokens())
    for effect in effects:
        torch.testing.assert_close(effect.scale, tokens()[0, 0].abs().view(4, 4))  # a value for each of 16 pixels
        torch.testing.assert_close(effect.shift, effect.scale)


def test_outputs_with_other_conditions(guided: Guided) -> None:
    x, clean, other = picture(), picture(seed=5), picture(30, 30, seed=6)
    steps: list[int] = []
    versions = {"clean": clean, "noise": x}
    found = examine(guided, versions, model="net", clean=clean, other=("cat.png", other), advance=steps.append)
    assert [one.version for one in found] == ["clean", "noise"]
    assert steps == [1, 1]
    first, second = found
    assert [change.name for change in first.changes] == [WITHOUT, BIAS, "cat.png's"]
    assert [change.name for change in second.changes] == [WITHOUT, BIAS, "cat.png's", OF_CLEAN]
    output = guided(x).clamp(0, 1)
    torch.testing.assert_close(second.output, output[0])
    assert second.tags == guided.extractor.tags(x)[0]  # pyright: ignore[reportOptionalMemberAccess]
    conditions = {
        BIAS: torch.zeros_like(guided.condition(x)),  # pyright: ignore
        "cat.png's": guided.condition(other),
        OF_CLEAN: guided.condition(clean),
    }
    for change in second.changes[1:]:
        away = 255 * (guided.net(x, conditions[change.name]).clamp(0, 1) - output).abs()[0].double()
        assert change.largest == pytest.approx(float(away.max()), rel=1e-5)
        assert change.mean == pytest.approx(float(away.mean()), rel=1e-5)
        assert change.psnr == pytest.approx(10 * math.log10(255**2 / float(away.square().mean())), rel=1e-5)
        torch.testing.assert_close(change.levels, away.mean(0).float())
        assert change.mean > 0.1


def test_without_another_picture_it_is_turned(guided: Guided) -> None:
    x = picture()
    (one,) = examine(guided, {"clean": x}, model="net", clean=x)
    turned = one.changes[-1]
    assert turned.name == TURNED
    away = 255 * (guided.net(x, guided.condition(x.rot90(2, (2, 3)))).clamp(0, 1) - guided(x).clamp(0, 1)).abs()
    assert turned.largest == pytest.approx(float(away.max()), rel=1e-4)


def test_what_changes_nothing_is_infinitely_close(guided: Guided) -> None:
    guided.net.load_state_dict(known().state_dict())  # the bias alone is all that its modulation has
    x = picture()
    (one,) = examine(guided, {"clean": x}, model="net", clean=x)
    without, *others = one.changes
    assert without.largest > 0.01
    assert [(change.psnr, change.largest, change.mean) for change in others] == [(math.inf, 0, 0)] * 2


def test_tables_and_sentences(guided: Guided) -> None:
    x = picture()
    found = examine(guided, {"clean": x}, model="net", clean=x)
    rows = list(csv.DictReader(io.StringIO(examinations_csv(found))))
    assert {(row["model"], row["degradation"]) for row in rows} == {("net", "clean")}
    values = {(row["what"], row["measure"]): row["value"] for row in rows}
    assert len(values) == len(rows) == 2 * 4 + 3 * 3
    effect, change = found[0].effects[1], found[0].changes[0]
    assert float(values["RSSB 2", "beta / (alpha * x)"]) == pytest.approx(effect.share, rel=1e-4)
    assert float(values[WITHOUT, "PSNR in dB"]) == pytest.approx(change.psnr, abs=1e-3)
    assert float(values[WITHOUT, "mean change in levels"]) == pytest.approx(change.mean, abs=1e-4)
    lines = sentences(found)
    assert len(lines) == 4
    assert set(lines[0].partition("tags: ")[2].split(", ")) <= {*TAGS, "none"}
    assert f"{change.mean:.3f} levels" in lines[1]


def test_another_extractor(guided: Guided, tmp_path: Path) -> None:
    x, path = picture(), write_tagger(tmp_path / "other.safetensors", seed=3)
    changed = with_extractor(guided, load_extractor(path), "net", str(path))
    assert changed.net is guided.net
    assert (changed(x) - guided(x)).abs().max() > 1e-4
    with pytest.raises(ValueError, match="net takes conditions of 16 channels, and those of lite-ram have 512"):
        with_extractor(guided, load_extractor("lite-ram"), "net", "lite-ram")


def test_networks_without_a_condition_are_told() -> None:
    with pytest.raises(ValueError, match="net takes no condition"):
        checked(Guided(conditioned(modulation="none")), "net")
    with pytest.raises(ValueError, match=r"net comes without an extractor.*--extractor"):
        checked(Guided(conditioned(modulation="release")), "net")


# --- the command


def test_the_command(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    write(photo, picture(60, 80))
    net = write_conditioned(tmp_path)
    args = ("-n", net, "--side", 24, "--degradation", "noise", "--degradation", "clean", "--other", photo)
    done = analyze("condition", photo, "-o", out, *args)
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["condition.csv", "condition.png"]
    assert "clean picture's" in done.stdout
    rows = list(csv.DictReader(io.StringIO((out / "condition.csv").read_text())))
    shown = dict.fromkeys((row["model"], row["degradation"]) for row in rows)
    assert list(shown) == [("net", "noise"), ("net", "clean")]
    with Image.open(out / "condition.png") as image:
        assert min(image.size) > 300


def test_a_wrong_call_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    photo, plain = tmp_path / "photo.png", tmp_path / "plain.safetensors"
    write(photo, picture(60, 80))
    save_restorer(plain, conditioned(modulation="none"))
    for args, words in (
        (("-n", plain), "plain takes no condition"),
        (("-n", plain, "--extractor", "lite-ram"), "plain takes no condition"),
        (("-n", write_conditioned(tmp_path), "--other", tmp_path / "none.png"), "none.png"),
        (("--degradation", "rain"), "no degradation 'rain'"),
    ):
        assert_refused(analyze("condition", photo, "-o", tmp_path / "out", *args), words)
    assert not (tmp_path / "out").exists()
