"""Selections: ranking, classes, resuming, and drawing degradations from a file."""

import io
import json
from pathlib import Path

import pytest
import torch
from recogniser import EdgeRecogniser, checks
from rich.console import Console
from torch import Tensor
from typer.testing import CliRunner

from dacesr.checkpoint import save_tagger
from dacesr.cli import app
from dacesr.config import TaggerConfig
from dacesr.degradation.recipe import carry_out, degrade
from dacesr.image import write
from dacesr.nets.tagger import Tagger
from dacesr.similarity import CleanReference, jaccard, similarity
from dacesr.sources import sample_generator
from dacesr.train import ranking
from dacesr.train.ranking import member_seed, rank_degradations, sharp_pictures
from dacesr.train.selection import Selection, SelectionError

COUNT = 12
TINY = TaggerConfig(
    image_size=32, patch=4, embed_dim=8, depths=(2, 2), heads=(2, 4), window=4, width=6, tags=5, label_dim=4,
    head_dim=8, head_heads=2, head_mlp=8,
)  # fmt: skip


def pictures(count: int = 4) -> dict[str, Tensor]:
    return {f"{i}.png": picture for i, picture in enumerate(checks(count))}


def rank(path: Path, *, extractor: EdgeRecogniser | None = None, said: io.StringIO | None = None, **changes):
    """Rank twelve degradations of four pictures."""
    settings = {"tagger": "edges", "scale": 2, "count": COUNT, **changes}
    clean = settings.pop("pictures", pictures())
    console = Console(file=said or io.StringIO(), width=500)
    return rank_degradations(path, extractor or EdgeRecogniser(), clean, console=console, **settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection file."""
    path = tmp_path_factory.mktemp("selection") / "severe.json"
    assert rank(path) is not None
    return path


@pytest.fixture
def selection(made: Path) -> Selection:
    """What that file holds."""
    return Selection.load(made)


def stop_after(monkeypatch: pytest.MonkeyPatch, scores: int) -> None:
    """Let time run out once so many degradations have been scored."""
    clock = iter([0.0] * (scores + 1))
    monkeypatch.setattr(ranking.time, "monotonic", lambda: next(clock, 1e9))


def test_the_ranking_falls_and_is_cut_into_quarters(selection: Selection) -> None:
    members = selection.members()
    assert sorted(member.index for member in members) == list(range(COUNT))
    assert [member.severity for member in members] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    scores = [(member.score, member.cosine) for member in members]
    assert scores == sorted(scores, reverse=True)
    assert members[2].score >= selection.tau1 >= members[3].score
    assert members[8].score >= selection.tau2 >= members[9].score
    assert selection.tau1 > selection.tau2
    assert selection.members("mild") == selection.members(1) == members[:3]
    assert selection.members("severe") == selection.members(4) == members[9:]


def test_scores_are_the_mean_similarity(selection: Selection) -> None:
    """Recomputed with `degrade`'s own parts, one picture at a time."""
    extractor = EdgeRecogniser()
    for member in (selection.members()[0], selection.members()[-1]):
        assert member.seed == member_seed(0, member.index)
        found = []
        for place, picture in enumerate(checks(4)):
            drawn = selection.draw(member, *picture.shape[1:])
            small = carry_out(picture[None], [drawn], [sample_generator(member.seed, place)])
            clean, degraded = (extractor.names(extractor.recognise(x).logits)[0] for x in (picture[None], small))
            found.append(jaccard(clean, degraded))
        assert member.score == pytest.approx(sum(found) / 4)


def test_members_are_degradations_of_the_space(selection: Selection) -> None:
    x = checks(1)[0][None]
    for member in selection.members():
        _, (drawn,) = degrade(x, "realesrgan", [torch.Generator().manual_seed(member.seed)], 2)
        assert selection.draw(member, *x.shape[-2:]) == drawn
        assert member.vector == tuple(round(number, 4) for number in drawn.vector)
        assert member.description == str(selection.draw(member, 512, 512))
        assert member.description.startswith("realesrgan: ")


def test_given_thresholds(selection: Selection, tmp_path: Path) -> None:
    scores = [member.score for member in selection.members()]
    tau1, tau2 = (scores[1] + scores[2]) / 2, (scores[6] + scores[7]) / 2
    found = rank(tmp_path / "given.json", thresholds=(tau1, tau2))
    assert (found.tau1, found.tau2) == (tau1, tau2)
    assert {member.score > tau1 for member in found.members("mild")} == {True}
    assert {member.score < tau2 for member in found.members("severe")} == {True}
    middle = found.members(2) + found.members(3)
    assert all(tau2 <= member.score <= tau1 for member in middle)
    assert abs(len(found.members(2)) - len(found.members(3))) <= 1
    none = rank(tmp_path / "given.json", thresholds=(1.0, 0.0))
    with pytest.raises(ValueError, match="no degradation of the class severe"):
        none.members("severe")


def test_a_stopped_ranking_goes_on(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, said, extractor = tmp_path / "severe.json", io.StringIO(), EdgeRecogniser()
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert rank(path, said=said, max_minutes=1) is None
    assert "5 of 12 degradations are scored; the same command goes on" in said.getvalue()
    partial = tmp_path / "severe.json.partial"
    assert not path.exists()
    with partial.open("ab") as file:
        file.write(b"[5, 0.2")  # a line cut short
    assert rank(path, extractor=extractor) is not None
    assert len(extractor.batches) == 2 * (1 + 7)  # two sizes, of the clean pictures and for each that was missing
    assert path.read_bytes() == made.read_bytes()
    assert not partial.exists()


def test_a_finished_ranking_is_taken_up(made: Path, tmp_path: Path) -> None:
    path, extractor = tmp_path / "again.json", EdgeRecogniser()
    path.write_bytes(made.read_bytes())
    rank(path, extractor=extractor)
    assert extractor.batches == []
    assert path.read_bytes() == made.read_bytes()
    rank(path, extractor=extractor, count=COUNT + 4)
    assert len(extractor.batches) == 2 * (1 + 4)
    rank(tmp_path / "anew.json", count=COUNT + 4)
    assert path.read_bytes() == (tmp_path / "anew.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"scale": 4}, "scale 2, not 4"),
        ({"space": "level2"}, "space realesrgan, not level2"),
        ({"pictures": pictures(2)}, r"pictures 0.png, 1.png, 2.png, 3.png, not 0.png, 1.png"),
        ({"extractor": EdgeRecogniser(highest=0.3)}, "tagger_hash"),
    ],
)
def test_other_settings_are_refused(made: Path, tmp_path: Path, monkeypatch, changes, words) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes(made.read_bytes())
    with pytest.raises(SelectionError, match=f"copy.json was made with {words}"):
        rank(copy, **changes)
    assert copy.read_bytes() == made.read_bytes()
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        rank(tmp_path / "new.json", max_minutes=1)
    with pytest.raises(SelectionError, match=f"new.json.partial was made with {words}"):
        rank(tmp_path / "new.json", **changes)
    (tmp_path / "new.json.partial").write_text("{}\n")
    with pytest.raises(SelectionError, match=r"new\.json\.partial is damaged"):
        rank(tmp_path / "new.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": "level9"}, "no degradation space 'level9'; there are bicubic"),
        ({"count": 3}, "at least 4 degradations; got 3"),
        ({"thresholds": (0.2, 0.7)}, "tau2 the lower one"),
        ({"scale": 0}, "a scale of at least 1"),
        ({"pictures": {}}, "got 2 and 0"),
        ({"pictures": {"dot.png": torch.zeros(3, 1, 9)}}, "dot.png has 1 pixels a side, less than the scale 2"),
    ],
)
def test_impossible_rankings_are_told(tmp_path: Path, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        rank(tmp_path / "s.json", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_selection_comes_back_from_its_file(selection: Selection, tmp_path: Path) -> None:
    selection.save(tmp_path / "copy.json")
    assert Selection.load(tmp_path / "copy.json") == selection
    content = json.loads((tmp_path / "copy.json").read_text())
    assert content["format"] == 1
    assert content["settings"]["tagger"] == "edges"
    assert content["settings"]["pictures"] == list(pictures())
    assert len(content["ranked"]) == COUNT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(format=2), "format: Input should be 1"),
        (lambda c: c.pop("tau1"), "tau1: Field required"),
        (lambda c: c.update(ranked=[]), "ranked: Tuple should have at least 1"),
        (lambda c: c["ranked"][3].update(severity=5), "ranked.3.severity: "),
        (lambda c: c["ranked"][3].update(score="high"), "ranked.3.score: "),
        (lambda c: c["ranked"][3].update(color="red"), "ranked.3.color: Extra"),
        (lambda c: c["settings"].update(space="level9"), "no degradation space 'level9'"),
    ],
)
def test_files_that_are_no_selection(selection: Selection, tmp_path: Path, change, words) -> None:
    content = json.loads(selection.model_dump_json())
    change(content)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SelectionError, match=f"bad.json is no selection file: .*{words}") as caught:
        Selection.load(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match=r"none.json cannot be read: No such file"):
        Selection.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": 1, ')
    with pytest.raises(SelectionError, match=r"half.json is no selection file: .*Invalid JSON"):
        Selection.load(tmp_path / "half.json")


def test_degrading_by_members(selection: Selection) -> None:
    x = torch.stack(checks(6, ((48, 64),)))
    small = selection.degrade(x, "severe", [sample_generator(0, i) for i in range(6)])
    assert small.shape == (6, 3, 24, 32)
    for i in range(6):
        alone = selection.degrade(x[i : i + 1], "severe", [sample_generator(0, i)])
        assert torch.equal(alone[0], small[i])
    assert not torch.equal(selection.degrade(x, "severe", [sample_generator(1, i) for i in range(6)]), small)
    with pytest.raises(ValueError, match="no class 'hard' of degradations; there are all, mild, severe, 1, 2, 3, 4"):
        selection.degrade(x, "hard", [sample_generator(0, i) for i in range(6)])  # type: ignore[arg-type]


def test_every_member_of_a_class_is_drawn(selection: Selection, monkeypatch: pytest.MonkeyPatch) -> None:
    x, seen = checks(1)[0][None], []
    draw = Selection.draw
    monkeypatch.setattr(
        Selection, "draw", lambda self, member, *size: (seen.append(member), draw(self, member, *size))[1]
    )
    for choice in ("mild", 3, "all"):
        seen.clear()
        for i in range(80):
            selection.degrade(x, choice, [sample_generator(0, i)])
        assert set(seen) == set(selection.members(choice))


def test_severe_members_leave_less_on_other_pictures_too(selection: Selection) -> None:
    extractor, others = EdgeRecogniser(), checks(40)[20:]
    clean = CleanReference.of(extractor, others)
    means = []
    for choice in ("mild", "severe"):

        def degrade(x: Tensor, generator: torch.Generator, choice=choice) -> Tensor:
            return selection.degrade(x, choice, [generator])

        means.append(similarity(clean, {"it": extractor}, others, degrade)["it"].jaccard.mean().item())
    assert means[0] > means[1] + 0.1


def test_sharp_pictures_of_a_folder(tmp_path: Path) -> None:
    for i, picture in enumerate(checks(9)):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        write(tmp_path / "ab"[i % 2] / f"{i}.png", picture[None])
    every = sharp_pictures(tmp_path)
    assert list(every) == [f"a/{i}.png" for i in range(0, 9, 2)] + [f"b/{i}.png" for i in range(1, 9, 2)]
    assert torch.equal(every["b/3.png"], checks(4)[3])
    assert list(sharp_pictures(tmp_path, 3)) == ["a/0.png", "a/6.png", "b/3.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture"):
        sharp_pictures(tmp_path / "empty")


def test_sharp_pictures_of_a_labelled_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = ["file,split,tags"]
    for i, picture in enumerate(checks(6)):
        write(tmp_path / "set" / f"{i}.png", picture[None])
        rows.append(f"{i}.png,{'test' if i % 3 == 0 else 'train'},sea")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    assert list(sharp_pictures(tmp_path / "set.csv")) == ["1.png", "2.png", "4.png", "5.png"]
    found = sharp_pictures(tmp_path / "set.csv", split="test")
    assert list(found) == ["0.png", "3.png"]
    torch.testing.assert_close(found["3.png"], checks(4)[3])


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, picture in pictures(3).items():
        write(tmp_path / "photos" / name, picture[None])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tagger = Tagger(TINY, tags=list("abcde"), thresholds=[0.5] * 5)
    model = str(tmp_path / "tagger.safetensors")
    save_tagger(model, tagger)
    output = tmp_path / "out" / "severe.json"
    call = ["train", "selection", str(tmp_path / "photos"), "-o", str(output), "--extractor", model]
    call += ["--count", "8", "--images", "2", "--scale", "2", "--space", "level3", "--seed", "7"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "class 4: 2 with" in result.output
    found = Selection.load(output)
    assert len(found.members("mild")) == 2
    assert found.settings.pictures == ("0.png", "1.png")
    assert (found.settings.space, found.settings.scale, found.settings.seed) == ("level3", 2, 7)
    assert found.settings.tagger == model
    for change, words in (
        (["--seed", "8"], "severe.json was made with seed 7, not 8"),
        (["--tau1", "0.7"], "--tau1 and --tau2 go together"),
        (["--extractor", str(tmp_path / "none.safetensors")], "none.safetensors"),
        (["--split", "test"], "photos holds no sub-folder"),
    ):
        result = CliRunner().invoke(app, [*call, *change])
        assert result.exit_code == 2
        assert words in result.output
        assert result.output.count("\n") == 1
