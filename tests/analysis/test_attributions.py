"""Attribution for several networks and inputs: the files, the figure, and the command."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import analyze
from conditioned import write_conditioned
from drawn import assert_nothing_cut

pytest.importorskip("matplotlib")

from dacesr.analysis import attributions
from dacesr.analysis.attribution import Attribution
from dacesr.analysis.attribution_plots import attribution_figure
from dacesr.analysis.attributions import Finding
from dacesr.analysis.looks import Look
from dacesr.analysis.subjects import load_subjects
from dacesr.analysis.windows import Window
from dacesr.checkpoint import save_restorer
from dacesr.nets.restorer import Restorer

AT = Window(10, 12, 8)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("networks")
    seeing = write_conditioned(folder)
    blind = folder / "blind.safetensors"
    net = Restorer(load_subjects([str(seeing)])["net"].config.model_copy(update={"modulation": "none"}))
    save_restorer(blind, net)
    return {"seeing": f"seeing={seeing}", "blind": str(blind)}


def findings(picture: str = "photo") -> list[Finding]:
    inputs = {name: torch.rand(1, 3, 12, 16) for name in ("clean", "blur")}
    found, look = [], Look(picture, inputs, AT, 5, 7)
    for place, (model, version) in enumerate(
        (m, v) for v in ("clean", "blur") for m in ("a", "a very long name, 25 letters")
    ):
        pixels = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(place)) - 0.5
        attribution = Attribution(pixels, None if place % 2 else pixels / 3, 1.0, 3.0)
        found.append(Finding(look, model, version, 2, 1.2, 50, attribution, torch.rand(3, 24, 32), 1.0))
    return found


def test_every_network_is_measured_on_every_input(networks: dict[str, str]) -> None:
    subjects = load_subjects(list(networks.values()))
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    told: list[int] = []
    inputs = {"clean": x, "dark": x / 2}
    look = Look("photo", inputs, AT)
    found = attributions.measure(subjects, look, steps=3, through_condition=True, advance=told.append)
    assert [(one.model, one.version) for one in found] == [
        ("seeing", "clean"), ("blind", "clean"), ("seeing", "dark"), ("blind", "dark"),
    ]  # fmt: skip
    assert [one.attribution.condition is None for one in found] == [False, True] * 2
    assert sum(told) == 12
    with torch.no_grad():
        assert torch.equal(found[2].output, subjects["seeing"](x / 2)[0].clamp(0, 1))
    assert found[0].output.shape == (3, 32, 32)


def test_tables() -> None:
    found = findings()
    rows = list(csv.DictReader(io.StringIO(attributions.attributions_csv(found))))
    assert [(row["model"], row["degradation"]) for row in rows] == [(one.model, one.version) for one in found]
    assert (rows[0]["window"], rows[0]["part"]) == ("20,26,8", "5,7,16,12")  # in the whole picture's pixels
    assert (rows[0]["sigma"], rows[0]["steps"]) == ("1.2", "50")
    assert float(rows[0]["di"]) == pytest.approx(found[0].attribution.di, rel=1e-5)
    assert float(rows[0]["di"]) == pytest.approx(100 * (1 - float(rows[0]["gini"])), rel=1e-4)
    assert float(rows[1]["sum"]) == pytest.approx(float(found[1].attribution.pixels.sum()), rel=1e-4)
    assert [row["condition_share"] for row in rows] == ["0.25", "", "0.25", ""]
    arrays = np.load(io.BytesIO(attributions.attributions_npz(found)))
    assert len(arrays.files) == 6
    assert np.array_equal(arrays["a/clean/pixels"], found[0].attribution.pixels.numpy())
    assert arrays["a/blur/condition"].shape == (3, 12, 16)


def test_the_table_has_means_over_pictures() -> None:
    one = findings()
    table = attributions.table(one)
    assert (table.title, table.head) == ("Diffusion index", ["model", "clean", "blur"])
    assert table.rows[0] == ["a", f"{one[0].attribution.di:.2f}", f"{one[2].attribution.di:.2f}"]
    nothing = Attribution(torch.zeros(3, 12, 16), None, 0, 0)
    flat = [each._replace(attribution=nothing) for each in findings("other")[:1]]
    more = [each._replace(attribution=one[3 - place].attribution) for place, each in enumerate(findings("third"))]
    table = attributions.table([*one, *flat, *more])
    assert table.title == "Diffusion index, mean of 3 pictures"
    low, high = sorted((one[0].attribution.di, one[3].attribution.di))
    assert table.rows[0][1] == f"{(low + high) / 2:.2f} ({low:.2f} to {high:.2f})"
    assert attributions.table(flat).rows == [["a", "none"]]


def test_sums_that_are_far_off_are_told() -> None:
    good, bad = (findings()[place] for place in (0, 1))
    total = float(good.attribution.signed.sum())
    good = good._replace(attribution=good.attribution._replace(start=0.0, end=total + 0.01 * abs(total)))
    bad = bad._replace(attribution=bad.attribution._replace(start=0.0, end=100.0))
    tiny = good._replace(
        attribution=good.attribution._replace(start=9e4, end=9e4 + 2 * total)
    )  # within fp32's own error
    (told,) = attributions.warnings([good, bad, tiny])
    assert told.startswith("a very long name, 25 letters on photo (clean): the parts add up to ")
    assert " and should to 100; " in told
    assert "more --steps" in told
    small = Look("small", {"clean": torch.rand(1, 3, 9, 9)}, AT)
    (told,) = attributions.warnings([good, good._replace(look=small)])
    assert "several sizes" in told


def test_the_figure_shows_every_map() -> None:
    found = findings()
    inputs = found[0].look.inputs
    figure = attribution_figure(found)
    assert len(figure.axes) == 2 * (2 + 2 * 3)
    words = [text.get_text() for text in figure.texts]
    assert f"a\nDI {found[0].attribution.di:.1f}" in words
    assert f"a very long name, 25 le…\nDI {found[1].attribution.di:.1f}" in words
    assert {"clean", "blur"} <= set(words)
    drawn = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    shown_inputs = [
        array for array in drawn if array is not None and np.array_equal(array, inputs["clean"][0].permute(1, 2, 0))
    ]
    assert len(shown_inputs) == 1
    shown = found[0].attribution.map
    maps = [array for array in drawn if array is not None and array.shape == (12, 16)]
    assert np.allclose(maps[0], ((shown / shown.max()) ** (1 / 3)).numpy(), atol=1e-6)
    assert_nothing_cut(figure)
    with pytest.raises(ValueError, match="there is no attribution map"):
        attribution_figure([])


def test_a_map_of_nothing_can_be_drawn() -> None:
    look = Look("photo", {"clean": torch.rand(1, 3, 12, 16)}, AT)
    nothing = findings()[0]._replace(look=look, attribution=Attribution(torch.zeros(3, 12, 16), None, 1, 1))
    figure = attribution_figure([nothing])
    assert "a\nDI none" in [text.get_text() for text in figure.texts]
    assert_nothing_cut(figure)


# --- the command


def call(*arguments: object) -> tuple[int, str, str]:
    done = analyze("attribution", *arguments)
    return done.exit_code, done.stdout, done.stderr


def test_the_command(networks: dict[str, str], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    names = [part for name in networks.values() for part in ("-n", name)]
    asked = ["--degradation", "clean", "--degradation", "noise=9", "--steps", "2", "--side", "24", "--size", "8"]
    code, told, _ = call(photos / "0.png", "-o", out, *names, *asked, "--condition", "attributed")
    assert code == 0
    files = ("attribution.csv", "attribution.md", "0_attribution.png", "0_attribution.npz")
    assert told.splitlines()[-4:] == [str(out / name) for name in files]
    assert sorted(path.name for path in out.iterdir()) == sorted(files)
    table = (out / "attribution.md").read_text()
    assert table.splitlines()[2] == "| model | clean | noise=9 |"
    rows = list(csv.DictReader(io.StringIO((out / "attribution.csv").read_text())))
    assert [(row["model"], row["degradation"]) for row in rows] == [
        ("seeing", "clean"), ("blind", "clean"), ("seeing", "noise=9"), ("blind", "noise=9"),
    ]  # fmt: skip
    assert np.load(out / "0_attribution.npz")["seeing/noise=9/condition"].shape == (3, 24, 24)
    window = [int(number) for number in rows[0]["window"].split(",")]
    assert window[2] == 8
    again = tmp_path / "again"
    at = ["--window", "20,20,8", "--side", "0", "--steps", "2"]
    assert call(photos / "1.png", photos / "2.png", "-o", again, "-n", networks["blind"], *at)[0] == 0
    one, other = csv.DictReader(io.StringIO((again / "attribution.csv").read_text()))
    assert (one["picture"], one["window"], one["degradation"]) == ("1", "20,20,8", "clean")
    assert (other["picture"], other["window"]) == ("2", "20,20,8")
    assert (again / "2_attribution.png").exists()
    assert np.load(again / "1_attribution.npz")["blind/clean/pixels"].shape == (3, 48, 52)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--window", "1,2"], "a window is x,y,size"),
        (["--window", "5000,0,8"], "5000,0,8 (x,y,size) does not lie within the output of 160 x 128 pixels"),
        (["--size", "500"], "does not lie within the output"),
        (["--degradation", "fog"], "there is no degradation 'fog'"),
        (["-n", "nothing"], "nothing does not exist"),
        (["--sigma", "0"], "should be positive"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_a_wrong_call(
    arguments: list[str], sentence: str, networks: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    code, _, told = call(photos / "0.png", "-o", tmp_path / "out", "-n", networks["blind"], *arguments)
    assert code == 2
    assert sentence in told.replace("\n", " ")
    assert not list(tmp_path.rglob("*.*"))


def test_pictures_that_cannot_be_looked_at(networks: dict[str, str], photos: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.png", tmp_path / "out"
    broken.write_bytes(b"no picture")
    given = ("-o", out, "-n", networks["blind"], "--steps", "1", "--side", "24")
    code, _, told = call(broken, *given)
    assert (code, "broken.png" in told) == (2, True)
    assert not out.exists()
    code, named, told = call(broken, photos / "0.png", photos / ".." / photos.name / "0.png", *given)
    assert (code, "broken.png" in told) == (1, True)
    assert str(out / "0_attribution.png") in named  # the others are done
    assert call(photos / "0.png", photos / "0.png", *given)[0] == 0
    (tmp_path / "0.png").write_bytes((photos / "0.png").read_bytes())
    code, _, told = call(photos / "0.png", tmp_path / "0.png", *given)
    assert (code, "is not the only picture called 0" in told) == (2, True)


def test_places_that_cannot_be_written(networks: dict[str, str], photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = ("-n", networks["blind"], "--steps", "1", "--side", "24")
    code, _, told = call(photos / "0.png", "-o", tmp_path / "file" / "out", *given)
    assert (code, "cannot be written" in told) == (2, True)
    (tmp_path / "out" / "attribution.csv").mkdir(parents=True)
    code, _, told = call(photos / "0.png", "-o", tmp_path / "out", *given)
    assert (code, f"{tmp_path / 'out' / 'attribution.csv'} cannot be written" in told.replace("\n", "")) == (2, True)


def test_too_little_memory(
    networks: dict[str, str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("dacesr.analysis.attributions.attribute", refuse)
    code, _, told = call(photos / "0.png", "-o", tmp_path / "out", "-n", networks["blind"])
    assert (code, told) == (1, "dacesr: there is too little memory: look at a smaller part\n")
