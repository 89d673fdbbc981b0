"""Measurements of recognition: rows, means with their intervals, tables, inputs, and the command."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recogniser import EdgeRecogniser, checks
from rich.console import Console
from tiny_tagger import TAGS, write_tagger
from torch import Tensor
from typer.testing import CliRunner

from dacesr.analysis import examples, inputs
from dacesr.analysis.inputs import check_sizes, gather_pictures, load_extractors, load_selection
from dacesr.analysis.recognition import (
    Row,
    class_conditions,
    markdown,
    measure,
    rows_csv,
    summarise,
    summary_csv,
    sweep_conditions,
)
from dacesr.cli import app
from dacesr.degradation.sweeps import SWEEPS
from dacesr.image import write
from dacesr.similarity import CleanReference, jaccard
from dacesr.train.ranking import rank_degradations
from dacesr.train.selection import Selection

FEW = {"blur": SWEEPS["blur"]._replace(levels=(0.5, 3.0)), "noise": SWEEPS["noise"]._replace(levels=(30.0,))}


def pictures(count: int = 5) -> dict[str, Tensor]:
    return {f"{i}.png": picture for i, picture in enumerate(checks(count))}


def call(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def selection_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve ranked degradations, three a class."""
    path = tmp_path_factory.mktemp("selection") / "few.json"
    clean = {f"{i}.png": picture for i, picture in enumerate(checks(3))}
    rank_degradations(
        path, EdgeRecogniser(), clean, tagger="edges", scale=2, count=12, console=Console(file=io.StringIO())
    )
    return path


@pytest.fixture
def selection(selection_file: Path) -> Selection:
    return Selection.load(selection_file)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Two extractors, three conditions, five pictures."""
    extractors = {"ram": EdgeRecogniser(), "other": EdgeRecogniser(highest=0.2)}
    return measure(extractors, pictures(), sweep_conditions(FEW))


def test_a_row_for_each_extractor_condition_and_picture(rows: list[Row]) -> None:
    assert len(rows) == 2 * 3 * 5
    assert [row[:5] for row in rows[:6]] == [("ram", "blur", 0.5, None, f"{i}.png") for i in range(5)] + [
        ("other", "blur", 0.5, None, "0.png")
    ]
    reference, clean = EdgeRecogniser(), pictures()
    for row in rows[5:10]:  # recomputed by hand, the other extractor against the reference
        blurred = SWEEPS["blur"].apply(clean[row.picture][None], 0.5, torch.Generator())
        other = EdgeRecogniser(highest=0.2)
        before = reference.names(reference.recognise(clean[row.picture][None]).logits)[0]
        assert row.jaccard == jaccard(before, other.names(other.recognise(blurred).logits)[0])


def test_measuring_is_repeatable_and_counts(rows: list[Row]) -> None:
    calls = []
    extractors = {"ram": EdgeRecogniser(), "other": EdgeRecogniser(highest=0.2)}
    again = measure(extractors, pictures(), sweep_conditions(FEW), advance=lambda: calls.append(1))
    assert again == rows
    assert len(calls) == 3
    other = measure(extractors, pictures(), sweep_conditions(FEW, seed=1))
    changed = {row.degradation for row, same in zip(other, rows, strict=True) if row != same}
    assert changed == {"noise"}


def test_class_conditions(selection: Selection) -> None:
    every = class_conditions(selection, per_class=None)
    assert [condition.member for condition in every] == [member.index for member in selection.ranked]
    assert [condition.level for condition in every] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    drawn = class_conditions(selection, per_class=2)
    assert [condition.level for condition in drawn] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert {one.member for one in drawn} < {one.member for one in every}
    assert [one.member for one in class_conditions(selection, per_class=2, seed=3)] != [one.member for one in drawn]
    x = checks(1)[0][None]
    assert drawn[0].degrade(x, torch.Generator().manual_seed(0)).shape == (1, 3, 24, 32)


def test_means_are_over_members_first_and_intervals_hold_them() -> None:
    rows = [
        Row(name, "class", 1.0, member, picture, value, value / 2)
        for name, extra in (("ram", 0.0), ("ree", 0.1))
        for member, picture, value in ((0, "a", 0.2 + extra), (1, "a", 0.4 + extra), (0, "b", 0.7 + extra))
    ]
    ram, ree = summarise(rows)
    assert ram.pictures == 2
    assert ram.jaccard.value == pytest.approx((0.3 + 0.7) / 2)
    assert (ram.jaccard.low, ram.jaccard.high) == pytest.approx((0.3, 0.7))  # of two pictures: either one twice
    assert ram.jaccard_gain == (0, 0, 0)
    assert ree.jaccard_gain == pytest.approx((0.1, 0.1, 0.1))  # every picture gains the same
    assert ree.cosine.value == pytest.approx(0.3)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    generator, covered = torch.Generator().manual_seed(0), 0
    for trial in range(200):
        values = torch.rand(60, generator=generator).tolist()
        rows = [Row("ram", "blur", 1.0, None, str(i), value, value) for i, value in enumerate(values)]
        mean = summarise(rows, seed=trial, resamples=400)[0].jaccard
        assert mean.low < mean.value < mean.high
        covered += mean.low <= 0.5 <= mean.high
    assert 180 <= covered <= 198


def test_intervals_depend_on_the_seed_alone(rows: list[Row]) -> None:
    assert summarise(rows) == summarise(rows)
    assert summarise(rows) != summarise(rows, seed=1)
    assert [one.jaccard.value for one in summarise(rows)] == [one.jaccard.value for one in summarise(rows, seed=1)]
    assert summarise([]) == []


def test_tables(rows: list[Row]) -> None:
    found = list(csv.DictReader(io.StringIO(rows_csv(rows))))
    assert len(found) == len(rows)
    assert found[0] | {"jaccard": "", "cosine": ""} == {
        **dict.fromkeys(("jaccard", "cosine", "member"), ""),
        "extractor": "ram",
        "degradation": "blur",
        "level": "0.5",
        "picture": "0.png",
    }
    assert [float(row["jaccard"]) for row in found] == [row.jaccard for row in rows]
    summaries = summarise(rows)
    lines = list(csv.DictReader(io.StringIO(summary_csv(summaries))))
    assert len(lines) == len(summaries) == 6
    assert float(lines[3]["jaccard_gain_low"]) == pytest.approx(summaries[3].jaccard_gain.low, abs=1e-6)
    text = markdown(summaries)
    assert "**blur (sigma in pixels): jaccard**\n\n| blur | ram | other |\n|---|---|---|\n| 0.5 | " in text
    assert "jaccard, difference to the reference**\n\n| blur | other |" in text
    assert text.count("\n| 30 | ") == 4
    assert markdown([]) == ""


def test_differences_that_are_sure_are_bold() -> None:
    rows = [
        Row(name, "blur", 1.0, None, str(i), value, 0.5 if name == "ram" else 0.5 + (-1) ** i * 0.1)
        for i in range(8)
        for name, value in (("ram", 0.5), ("ree", 0.7))
    ]
    text = markdown(summarise(rows))
    assert "| 1 | **+0.200** (+0.200 to +0.200) |" in text
    assert "| 1 | +0.000 (" in text


def test_nothing_to_measure_is_told() -> None:
    with pytest.raises(ValueError, match="no extractor to measure"):
        measure({}, pictures(), [])
    with pytest.raises(ValueError, match="no clean picture"):
        measure({"ram": EdgeRecogniser()}, {}, [])


def test_examples_are_the_pictures_with_most_tags(selection: Selection) -> None:
    extractors, clean = {"ram": EdgeRecogniser(), "ree": EdgeRecogniser(highest=0.2)}, pictures()
    conditions = examples.typical(class_conditions(selection, per_class=None), selection)
    assert [condition.level for condition in conditions] == [1, 2, 3, 4]
    middle = [selection.members(severity)[1].index for severity in (1, 2, 3, 4)]
    assert [condition.member for condition in conditions] == middle
    strips = examples.show(extractors, clean, conditions, reference="ram", count=2)
    most = sorted((len(tags) for tags in CleanReference.of(extractors["ram"], list(clean.values())).tags), reverse=True)
    assert [len(strip.clean) for strip in strips] == most[:2]
    for strip in strips:
        titles = [example.title for example in strip.examples]
        assert titles == ["clean", "class 1 (mild)", "class 2", "class 3", "class 4 (severe)"]
        assert strip.examples[0].tags["ram"] == strip.clean
        assert all(set(example.tags) == {"ram", "ree"} for example in strip.examples)
        assert strip.examples[1].picture.shape[1] * 2 == strip.examples[0].picture.shape[1]


def test_examples_without_a_selection() -> None:
    conditions = examples.typical(sweep_conditions(), None)
    assert [condition.level for condition in conditions] == [0.5, 1.5, 2.0, 3.0]
    assert examples.title(conditions[1]) == "blur, sigma 1.5"
    assert len(examples.typical(sweep_conditions(FEW), None)) == 4
    assert examples.typical([], None) == []


# --- inputs


def test_pictures_from_several_places(tmp_path: Path) -> None:
    for i, picture in enumerate(checks(4)):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        write(tmp_path / "ab"[i % 2] / f"{i // 2}.png", picture[None])
    found = gather_pictures([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "0.png"], images=5)
    others = [(tmp_path / name).as_posix() for name in ("b/0.png", "b/1.png", "a/0.png")]
    assert list(found) == ["0.png", "1.png", *others]
    assert len(gather_pictures([tmp_path], images=3)) == 3
    small = gather_pictures([tmp_path / "a"], images=1, shorter=24)["0.png"]
    assert small.shape == (3, 24, 32)
    torch.testing.assert_close(small * 255, (small * 255).round())
    assert gather_pictures([tmp_path / "a"], images=1, shorter=48)["0.png"].shape == (3, 48, 64)


def test_pictures_too_small_to_be_shrunk() -> None:
    check_sizes({"dot.png": torch.zeros(3, 16, 40)}, 2)
    with pytest.raises(ValueError, match=r"dot.png is 40 x 16 pixels; it takes 32 a side to shrink it by 4"):
        check_sizes({"dot.png": torch.zeros(3, 16, 40)}, 4)


def test_extractors_by_name(tmp_path: Path) -> None:
    one, two = write_tagger(tmp_path / "one.safetensors"), write_tagger(tmp_path / "two.safetensors", seed=2)
    found = load_extractors([str(one), f"second={two}"])
    assert list(found) == ["one", "second"]
    assert found["second"].tag_names == TAGS
    with pytest.raises(ValueError, match="two extractors are called one"):
        load_extractors([str(one), f"one={two}"])
    other = write_tagger(tmp_path / "other.safetensors", tags=TAGS[::-1])
    with pytest.raises(ValueError, match="other knows other tags than the reference one"):
        load_extractors([str(one), str(other)])


def test_bundled_extractors_are_in_the_figures_order(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(inputs, "recognition_names", lambda: ["lite-dape", "lite-extra", "lite-ram", "lite-ree"])
    monkeypatch.setattr(inputs, "load_extractor", lambda source: loaded.append(source) or EdgeRecogniser())
    assert list(load_extractors(None)) == loaded == ["lite-ram", "lite-dape", "lite-ree", "lite-extra"]
    monkeypatch.setattr(inputs, "recognition_names", list)
    with pytest.raises(ValueError, match="no extractor is bundled"):
        load_extractors([])


def test_selections(selection_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "SELECTION", tmp_path / "none.json")
    assert load_selection(None) is None
    with pytest.raises(ValueError, match=r"missing.json cannot be read"):
        load_selection(tmp_path / "missing.json")
    monkeypatch.setattr(inputs, "SELECTION", selection_file)
    found = load_selection(None, scale=3)
    assert found is not None
    assert found.settings.scale == 3
    assert found.ranked == Selection.load(selection_file).ranked


# --- the command


@pytest.fixture
def album(tmp_path: Path) -> Path:
    (tmp_path / "album").mkdir()
    for name, picture in pictures(3).items():
        write(tmp_path / "album" / name, picture[None])
    return tmp_path / "album"


def test_the_command(album: Path, selection_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    taggers = [write_tagger(tmp_path / f"{name}.safetensors", seed=i) for i, name in enumerate(("ram", "ree"))]
    out = tmp_path / "out"
    command = ["analyze", "recognition", album, "-o", out, "--selection", selection_file, "--per-class", "1"]
    result = call(*command, "--extractor", taggers[0], "--extractor", taggers[1])
    assert result.exit_code == 0, result.output
    names = ["classes.png", "rows.csv", "summary.csv", "summary.md", "sweeps.png", "tags.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert result.stdout.splitlines() == [str(out / name) for name in names]
    levels = sum(len(sweep.levels) for sweep in SWEEPS.values()) + 4
    assert len((out / "rows.csv").read_text().splitlines()) == 1 + levels * 2 * 3
    for name in names:
        if name.endswith("png"):
            with Image.open(out / name) as image:
                assert np.asarray(image.convert("L")).std() > 5  # something is drawn


def test_without_a_selection_the_classes_are_left_out(album: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(inputs, "SELECTION", tmp_path / "none.json")
    tagger = write_tagger(tmp_path / "ram.safetensors")
    result = call("analyze", "recognition", album, "-o", tmp_path / "out", "--extractor", tagger, "--images", "1")
    assert result.exit_code == 0, result.output
    assert result.stderr == "dacesr: no selection is bundled or given, so the four classes are left out\n"
    assert not (tmp_path / "out" / "classes.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"album": "missing"}, "missing"),
        ({"extractor": "nothing.safetensors"}, "nothing.safetensors does not exist"),
        ({"selection": "nothing.json"}, "the selection nothing.json cannot be read: No such file or directory"),
        ({"out": "file"}, "cannot be written: File exists"),
        ({"scale": 16}, "0.png is 64 x 48 pixels; it takes 128 a side to shrink it by 16"),
    ],
)
def test_calls_that_are_wrong(album, selection_file, tmp_path, changes, words) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    extractor = changes.get("extractor", write_tagger(tmp_path / "ram.safetensors"))
    where = [album.parent / changes.get("album", "album"), "-o", tmp_path / changes.get("out", "out")]
    more = ["--selection", changes.get("selection", selection_file), "--extractor", extractor]
    result = call("analyze", "recognition", *where, *more, "--scale", changes.get("scale", 2))
    assert result.exit_code == 2
    assert result.stderr.startswith("dacesr: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_figures_need_matplotlib(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = call("analyze", "recognition", album, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == 'dacesr: figures need matplotlib: pip install "dacesr[analysis]"\n'
