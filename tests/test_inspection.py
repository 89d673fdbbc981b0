"""Inspecting photographs: tags, severity, advice, and the command."""

import json
from pathlib import Path

import pytest
import torch
from recogniser import checks
from tiny_tagger import TAGS, write_tagger
from typer.testing import CliRunner

from dacesr import inspection, weightfiles
from dacesr.analysis.severity import HeldOut, SeverityHead
from dacesr.analysis.traces import traces
from dacesr.cli import app
from dacesr.image import ImageError, write
from dacesr.inspection import ADVICE, Inspector, sentences
from dacesr.pairing import checked
from dacesr.similarity import fingerprint
from dacesr.taggerfile import load_extractor
from dacesr.tensorfile import CheckpointError


def call(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(autouse=True)
def no_bundled_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "HEAD", tmp_path / "bundled.json")


@pytest.fixture
def taggers(tmp_path: Path) -> tuple[Path, Path]:
    """The reference and the extractor."""
    return write_tagger(tmp_path / "ram.safetensors"), write_tagger(tmp_path / "ree.safetensors", seed=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    write(tmp_path / "photo.png", checks(1)[0][None])
    return tmp_path / "photo.png"


def write_head(path: Path, taggers: tuple[Path, Path], severity: int) -> Path:
    """A head that finds every picture to be of one class."""
    reference, extractor = map(load_extractor, taggers)
    count = len(traces(reference, extractor, checks(1)[0]))
    SeverityHead(
        reference="ram",
        reference_hash=fingerprint(reference),
        extractor="ree",
        extractor_hash=fingerprint(extractor),
        selection="realesrgan, scale 2, ranked by ram",
        pictures=8,
        decay=0.03,
        mean=(0.0,) * count,
        scale=(1.0,) * count,
        weights=((0.0,) * count,) * 4,
        bias=tuple(2.0 if i + 1 == severity else 0.0 for i in range(4)),
        held_out=HeldOut(samples=1, accuracy=1.0, within_one=1.0, confusion=((0,) * 4,) * 4),
    ).save(path)
    return path


def test_tags_and_size_without_a_head(taggers, photo: Path) -> None:
    found = Inspector.load(str(taggers[1]))(photo)
    assert (found.file, found.width, found.height) == (str(photo), 64, 48)
    assert found.severity is found.probabilities is None
    assert found.advice == ADVICE[None]
    extractor = load_extractor(taggers[1])
    with torch.inference_mode():
        logits = extractor.recognise(checks(1)[0][None]).logits
    assert tuple(name for name, _ in found.tags) == extractor.names(logits)[0]
    probabilities = [probability for _, probability in found.tags]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(probability >= 0.5 for probability in probabilities)
    assert set(dict(found.tags)) <= set(TAGS)
    for name, probability in found.tags:
        assert probability == pytest.approx(logits[0, TAGS.index(name)].sigmoid().item(), abs=1e-4)


@pytest.mark.parametrize("severity", [1, 2, 3, 4])
def test_severity_decides_the_advice(taggers, photo: Path, tmp_path: Path, severity: int) -> None:
    head = write_head(tmp_path / "head.json", taggers, severity)
    found = Inspector.load(str(taggers[1]), reference=str(taggers[0]), severity=head)(photo)
    assert found.severity == severity
    assert found.probabilities is not None
    assert sum(found.probabilities) == pytest.approx(1)
    assert max(found.probabilities) == found.probabilities[severity - 1]
    assert found.advice == ADVICE[severity]


def test_advice_names_bundled_models_and_strengths() -> None:
    for advice in ADVICE.values():
        assert advice.model in weightfiles.bundled_names()
        assert advice.strength is None or checked(advice.strength) == advice.strength
        assert not advice.reason.endswith(".")


def test_the_bundled_head_is_used_where_it_fits(taggers, photo: Path, tmp_path: Path) -> None:
    write_head(tmp_path / "bundled.json", taggers, 3)
    assert Inspector.load(str(taggers[1]), reference=str(taggers[0]))(photo).severity == 3
    other = write_tagger(tmp_path / "other.safetensors", seed=9)
    assert Inspector.load(str(other), reference=str(taggers[0]))(photo).severity is None


def test_a_head_for_other_weights(taggers, tmp_path: Path) -> None:
    head = write_head(tmp_path / "head.json", taggers, 3)
    other = write_tagger(tmp_path / "other.safetensors", seed=9)
    with pytest.raises(CheckpointError, match=r"head.json was fitted for other weights than those of .* and .*other"):
        Inspector.load(str(other), reference=str(taggers[0]), severity=head)
    with pytest.raises(ValueError, match="fitted for other weights of ram and ree"):
        Inspector(load_extractor(taggers[1]), head=SeverityHead.load(head))


def test_a_picture_too_small(taggers, tmp_path: Path) -> None:
    write(tmp_path / "dot.png", torch.zeros(1, 3, 7, 30))
    with pytest.raises(ImageError, match=r"dot.png is too small to recognise anything: 30 x 7, below 8"):
        Inspector.load(str(taggers[1]))(tmp_path / "dot.png")


def test_sentences(taggers, photo: Path, tmp_path: Path) -> None:
    found = Inspector.load(str(taggers[1]))(photo)
    lines = sentences(found).splitlines()
    assert lines[0] == f"{photo}  64 x 48"
    assert lines[2:] == [
        "  severity  unknown: there is no severity head for this extractor",
        f"  advice    dacesr upscale -n dacesr-light: {ADVICE[None].reason}",
    ]
    head = write_head(tmp_path / "head.json", taggers, 4)
    lines = sentences(Inspector.load(str(taggers[1]), reference=str(taggers[0]), severity=head)(photo)).splitlines()
    assert lines[2] == "  severity  4 of 4 (1 mild to 4 severe: 0.10 0.10 0.10 0.71)"
    assert lines[3].startswith("  advice    dacesr upscale -n dacesr-light --strength 0.3: ")


def test_the_command(taggers, photo: Path, tmp_path: Path) -> None:
    result = call("inspect", photo, "--extractor", taggers[1])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{photo}  64 x 48\n  tags      ")
    head = write_head(tmp_path / "head.json", taggers, 2)
    more = ["--extractor", taggers[1], "--reference", taggers[0], "--severity", head]
    result = call("inspect", photo, tmp_path / "missing.png", "--json", *more)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"dacesr: {tmp_path / 'missing.png'}")
    (one,) = json.loads(result.stdout)
    assert one["severity"] == 2
    assert one["advice"] == ADVICE[2]._asdict()
    assert (one["width"], one["height"]) == (64, 48)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--extractor", "nothing.safetensors"), "nothing.safetensors does not exist"),
        (("--severity", "nothing.json"), "the severity head nothing.json cannot be read: No such file or directory"),
        (("--severity", "{photo}"), "is no severity head: "),
    ],
)
def test_calls_that_are_wrong(taggers, photo: Path, flags: tuple[str, ...], words: str) -> None:
    flags = tuple(flag.replace("{photo}", str(photo)) for flag in flags)
    result = call("inspect", photo, "--extractor", taggers[1], "--reference", taggers[0], *flags)
    assert result.exit_code == 2
    assert result.stderr.startswith("dacesr: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_fitting_by_the_command(taggers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dacesr.analysis import inputs
    from dacesr.train.ranking import rank_degradations

    (tmp_path / "album").mkdir()
    pictures = dict(zip("abcdefgh", checks(8), strict=True))
    for name, picture in pictures.items():
        write(tmp_path / "album" / f"{name}.png", picture[None])
    selection = tmp_path / "selection.json"
    rank_degradations(selection, load_extractor(taggers[0]), pictures, tagger="ram", scale=2, count=16)
    command = ["analyze", "severity", tmp_path / "album", "-o", tmp_path / "head.json"]
    command += ["--extractor", taggers[1], "--reference", taggers[0], "--per-class", "1"]
    result = call(*command, "--selection", selection)
    assert result.exit_code == 0, result.output
    assert "of 8 held-out pictures the class of " in result.stdout
    assert len(result.stdout.splitlines()) == 5
    photo = tmp_path / "album" / "a.png"
    shown = call("inspect", photo, "--extractor", taggers[1], "--reference", taggers[0], "--severity", command[4])
    assert "of 4 (1 mild to 4 severe: " in shown.stdout
    monkeypatch.setattr(inputs, "SELECTION", tmp_path / "none.json")
    result = call(*command)
    assert result.exit_code == 2
    assert result.stderr == "dacesr: no selection is bundled with this version: give one with --selection FILE\n"
