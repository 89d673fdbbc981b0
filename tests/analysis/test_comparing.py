"""Methods on the same places of pictures: pixels, scores, failures, and `dacesr analyze compare`."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calling import analyze
from click.testing import Result
from comparisons import comparison, flat, noise
from hypothesis import given
from hypothesis import strategies as st

from dacesr.analysis import comparing
from dacesr.analysis.comparing import Comparer, find_measures, gather_photos, printable, sheet_name
from dacesr.analysis.views import INPUT, REFERENCE, as_bytes, plan_views
from dacesr.analysis.windows import Window, find_window
from dacesr.evaluate.measures import load_measures
from dacesr.evaluate.methods import Method, find_methods, find_results, results_of
from dacesr.evaluate.sets import find_sets
from dacesr.image import imresize, read, write
from dacesr.metrics import psnr

CPU = torch.device("cpu")
Build = Callable[..., Comparer]


def enlarge(x: torch.Tensor) -> torch.Tensor:
    return imresize(x, 4).clamp(0, 1)


def brighter(x: torch.Tensor) -> torch.Tensor:
    return (imresize(x, 4) + 0.1).clamp(0, 1)


def fail_on_wide_ones(x: torch.Tensor) -> torch.Tensor:
    if x.shape[-1] > 13:
        raise ValueError("no memory")
    return enlarge(x)


PLAIN, BRIGHT = Method("plain", "p", enlarge), Method("bright", "b", brighter)


@pytest.fixture
def build() -> Build:
    def comparer(*methods: Method, measured: tuple[str, ...] = ("psnr_y",), **more: Any) -> Comparer:
        measures = load_measures(measured, None, scale=4, device=CPU)[0]
        more.setdefault("warn", lambda sentence: None)
        return Comparer(methods=methods or (PLAIN, BRIGHT), measures=measures, scale=4, device=CPU, **more)

    return comparer


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DACESR_DATA", raising=False)


def test_scores_are_those_of_evaluation(photos: Path, bilinear_file: Path, build: Build) -> None:
    methods = find_methods(["bicubic", str(bilinear_file)], scale=4, device="cpu", precision="fp32", tile=0)
    comparer = build(*methods, degradations=["bicubic", "level2"], seed=3)
    found = list(comparer.run(gather_photos([photos], sharp=True)))
    assert [one.title for one in found] == [f"{name}, {space}" for name in "012" for space in ("bicubic", "level2")]
    for chosen in find_sets(photos, spaces=["bicubic", "level2"], seed=3):
        for place in range(3):
            name, small, sharp = chosen.pair(place)
            one = next(one for one in found if (one.name, one.degradation) == (name, chosen.version))
            for method in methods:
                result = (method.enlarge(small) * 255).round() / 255
                assert one.scores[method.name] == {"psnr_y": float(psnr(result, sharp))}
                assert np.array_equal(one.views[0].pictures[method.name], as_bytes(result))
            assert np.array_equal(one.views[0].pictures[INPUT], as_bytes(small))
            assert np.array_equal(one.views[0].pictures[REFERENCE], as_bytes(sharp))
            assert np.array_equal(one.whole, as_bytes(sharp))
            assert one.size == tuple(sharp.shape[-2:])


def test_windows_are_found_in_the_input_or_given(photos: Path, build: Build) -> None:
    (photo,) = gather_photos([photos / "0.png"], sharp=True)
    small = imresize(read(photo.path), 0.25)
    (found,) = build(degradations=["bicubic"]).run([photo])
    assert found.windows == (find_window((small * 255).round() / 255, 4, 32),)  # half of the shorter side
    (found,) = build(degradations=["bicubic"], size=24).run([photo])
    assert found.windows[0].size == 24
    given_ones = [Window(3, 5, 20), Window(40, 33, 11), Window(3, 5, 20)]
    (found,) = build(degradations=["bicubic"], windows=given_ones).run([photo])
    assert found.windows == tuple(given_ones[:2])
    for window in found.windows:
        crops = found.crops(window)
        assert list(crops) == [INPUT, "plain", "bright", REFERENCE]
        rows, columns = (slice(start, start + window.size) for start in (window.y, window.x))
        assert np.array_equal(crops[REFERENCE], as_bytes(read(photo.path))[rows, columns])
        repeated = found.views[0].pictures[INPUT].repeat(4, 0).repeat(4, 1)
        assert np.array_equal(crops[INPUT], repeated[rows, columns])


def test_pictures_without_references_are_the_input(photos: Path, build: Build) -> None:
    found = list(build().run(gather_photos([photos], sharp=False)))
    assert [one.title for one in found] == ["0", "1", "2"]
    assert [one.size for one in found] == [(256, 320), (192, 208), (280, 160)]
    for one in found:
        assert one.scores == {"plain": {}, "bright": {}}
        assert one.heads == []
        assert list(one.views[0].pictures) == [INPUT, "plain", "bright"]
        assert np.array_equal(one.whole, as_bytes(read(photos / f"{one.name}.png")))


def test_references_in_a_folder(photos: Path, tmp_path: Path, build: Build) -> None:
    folder = tmp_path / "HR"
    folder.mkdir()
    sharp = torch.rand(1, 3, 258, 323, generator=torch.Generator().manual_seed(1))
    write(folder / "0.tiff", sharp)  # a few pixels more, as of sets that are not cropped
    write(folder / "1.png", sharp)
    comparer = build(reference=folder)
    (found,) = comparer.run(gather_photos([photos], sharp=False))
    kept = read(folder / "0.tiff")[..., :256, :320]
    assert np.array_equal(found.whole, as_bytes(kept))
    assert found.scores["plain"]["psnr_y"] == float(psnr((enlarge(read(photos / "0.png")) * 255).round() / 255, kept))
    assert comparer.failures == [
        f"1: its reference {folder / '1.png'} has 323 x 258 pixels, and 208 x 192, 4 times its own, are needed",
        f"2: {folder} holds no picture of that name",
    ]


def test_what_fails_is_named_and_the_rest_is_done(photos: Path, tmp_path: Path, build: Build) -> None:
    for path in photos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no picture")
    told: list[str] = []
    comparer = build(Method("weak", "w", fail_on_wide_ones), PLAIN, degradations=["bicubic"], warn=told.append)
    found = {one.name: one for one in comparer.run(gather_photos([tmp_path], sharp=True))}
    assert list(found) == ["0", "1", "2"]
    assert (list(found["0"].scores), found["0"].failed) == (["plain"], ["weak"])
    assert (list(found["1"].scores), found["1"].failed) == (["weak", "plain"], [])
    assert comparer.failures[0] == "weak on 0, bicubic: no memory"
    assert "bad.png" in comparer.failures[1]
    assert len(comparer.failures) == 2
    assert told == comparer.failures
    alone = build(Method("weak", "w", fail_on_wide_ones), degradations=["bicubic"])
    assert [one.name for one in alone.run(gather_photos([photos], sharp=True))] == ["1", "2"]


def test_windows_that_do_not_fit_and_pictures_that_are_too_small(photos: Path, tmp_path: Path, build: Build) -> None:
    comparer = build(windows=[Window(250, 0, 70)])
    assert [one.name for one in comparer.run(gather_photos([photos], sharp=False))] == ["0"]
    assert (
        comparer.failures[0] == "1: the window 250,0,70 (x,y,size) does not lie within the output of 208 x 192 pixels"
    )
    write(tmp_path / "dot.png", torch.zeros(1, 3, 1, 5))
    comparer = build()
    assert list(comparer.run(gather_photos([tmp_path], sharp=False))) == []
    assert comparer.failures == ["dot: 5 x 1 pixels are too few to look for detail in"]


def test_results_of_others(photos: Path, tmp_path: Path, build: Build) -> None:
    folder = tmp_path / "theirs" / "bicubic"
    folder.mkdir(parents=True)
    write(folder / "0_x4.png", torch.full((1, 3, 64, 80), 0.4))
    write(folder / "1_x4.png", torch.zeros(1, 3, 64, 80))
    comparer = build(results_of(tmp_path / "theirs"), PLAIN, degradations=["bicubic"])
    found = list(comparer.run(gather_photos([photos], sharp=True)))
    assert np.array_equal(found[0].views[0].pictures["theirs"], flat((102, 102, 102), 64, 80))
    assert [one.failed for one in found] == [[], ["theirs"], ["theirs"]]
    assert comparer.failures == [
        "theirs on 1, bicubic: the result has 80 x 64 pixels, not 52 x 48",
        f"theirs on 2, bicubic: {folder} holds no file for the picture 2",
    ]


def test_calls_that_are_wrong(photos: Path, tmp_path: Path, build: Build) -> None:
    for message, wrong in (
        ("leave out one of the two", {"degradations": ["bicubic"], "reference": photos}),
        ("no degradation space 'fog'", {"degradations": ["fog"]}),
        ("is not a folder", {"reference": photos / "0.png"}),
    ):
        with pytest.raises(ValueError, match=message):
            build(**wrong)
    with pytest.raises(ValueError, match="cannot be called HR"):
        build(Method("HR", "h", enlarge))
    with pytest.raises(ValueError, match="none does not exist"):
        gather_photos([tmp_path / "none"], sharp=True)
    for sharp in (False, True):
        with pytest.raises(ValueError, match="holds no picture"):
            gather_photos([tmp_path], sharp=sharp)


def test_pictures_of_one_name_are_told_apart(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.png").write_bytes((photos / "1.png").read_bytes())
    found = gather_photos([photos, other, photos / "1.png"], sharp=True)
    assert [photo.name for photo in found] == ["0", "1", "2", "other/1"]
    assert [photo.set for photo in found] == [photos.name] * 3 + ["other"]
    one = comparison({"a": noise(0, 40, 40)}, windows=[Window(0, 0, 8)], name="a/b")
    assert sheet_name(one, []) == "a_b_level1_sheet.png"
    assert sheet_name(one, ["a_b_level1_sheet.png"]) == "a_b_level1_2_sheet.png"


def test_names_are_made_printable() -> None:
    assert printable("a\nb\x1b[31m\udcff é") == "a�b�[31m� é"


def test_measures_that_are_usual(tmp_path: Path) -> None:
    found, told = find_measures(None, tmp_path, reference=True, scale=4, device=CPU)
    assert list(found) == ["psnr_y"]
    assert len(told) == 1
    assert told[0].startswith("left out: lpips needs")
    found, told = find_measures(None, tmp_path, reference=False, scale=4, device=CPU)
    assert list(found) == []
    assert told[0].startswith("left out: niqe needs")
    assert list(find_measures(["ssim_y"], None, reference=True, scale=4, device=CPU)[0]) == ["ssim_y"]
    with pytest.raises(ValueError, match="ssim_y compares with sharp pictures"):
        find_measures(["ssim_y"], None, reference=False, scale=4, device=CPU)


def test_measures_whose_files_are_there(data: Path) -> None:
    assert list(find_measures(None, data / "metrics", reference=True, scale=4, device=CPU)[0]) == ["psnr_y", "lpips_s"]
    assert list(find_measures(None, data / "metrics", reference=False, scale=4, device=CPU)[0]) == ["niqe"]


@st.composite
def places(draw: st.DrawFn) -> tuple[list[Window], int, int, int]:
    scale = draw(st.integers(1, 4))
    height, width = (scale * draw(st.integers(4, 60)) for _ in range(2))
    windows = []
    for _ in range(draw(st.integers(1, 4))):
        size = draw(st.integers(2, min(height, width)))
        windows.append(Window(draw(st.integers(0, width - size)), draw(st.integers(0, height - size)), size))
    return list(dict.fromkeys(windows)), height, width, scale


@given(places(), st.integers(100, 8000))
def test_parts_hold_all_windows_and_no_more_than_the_limit(
    place: tuple[list[Window], int, int, int], limit: int
) -> None:
    windows, height, width, scale = place
    views = plan_views(windows, height, width, scale=scale, limit=limit)
    assert sorted(window for view in views for window in view.windows) == sorted(windows)
    for view in views:
        assert view.left % scale == view.top % scale == view.width % scale == view.height % scale == 0
        assert 0 <= view.left < view.left + view.width <= width
        assert 0 <= view.top < view.top + view.height <= height
        for window in view.windows:
            assert view.left <= window.x < window.x + window.size <= view.left + view.width
            assert view.top <= window.y < window.y + window.size <= view.top + view.height
        rim = 2 * scale  # to the next pixels of the input
        (largest, *others) = sorted((window.size for window in view.windows), reverse=True)
        assert (view.width - rim) * (view.height - rim) <= (limit if others else max(limit, largest**2))
    if height * width <= limit:
        assert [(view.width, view.height) for view in views] == [(width, height)]


def test_of_large_outputs_only_a_part_is_kept(photos: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MOST", 3000)
    (found,) = build(windows=[Window(100, 120, 20), Window(300, 10, 12)]).run(
        gather_photos([photos / "0.png"], sharp=False)
    )
    assert len(found.views) == 2
    whole = as_bytes(enlarge(read(photos / "0.png")))
    for window in found.windows:
        rows, columns = (slice(start, start + window.size) for start in (window.y, window.x))
        assert np.array_equal(found.crops(window)["plain"], whole[rows, columns])
    assert sum(picture.nbytes for view in found.views for picture in view.pictures.values()) < 45_000


def test_less_is_kept_of_each_of_many(photos: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "BUDGET", 120_000)
    monkeypatch.setattr(comparing, "LEAST", 2000)
    found = list(build(size=32).run(gather_photos([photos], sharp=False)))
    assert all(9_000 < view.width * view.height < 11_500 for one in found for view in one.views)


# --- the command


def call(*arguments: object) -> Result:
    return analyze("compare", *arguments)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.usefixtures("_no_data")
def test_the_command_writes_sheets_a_page_and_scores(photos: Path, bilinear_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    options = ("--space", "bicubic", "--space", "level1", "--device", "cpu", "--window", "4,8,16")
    done = call(photos, "-o", out, "-n", "bicubic", "-n", f"net={bilinear_file}", *options)
    assert done.exit_code == 0, done.stderr
    sheets = [f"{name}_{space}_sheet.png" for name in "012" for space in ("bicubic", "level1")]
    assert done.stdout.splitlines() == [str(out / name) for name in (*sheets, "compare.html", "scores.csv")]
    assert sorted(path.name for path in out.iterdir()) == sorted((*sheets, "compare.html", "scores.csv"))
    found = rows(out / "scores.csv")
    assert list(found[0]) == ["picture", "degradation", "method", "psnr_y"]
    assert [(row["picture"], row["degradation"], row["method"]) for row in found[:4]] == [
        *(("0", "bicubic", "bicubic"), ("0", "bicubic", "net"), ("0", "level1", "bicubic"), ("0", "level1", "net")),
    ]
    (chosen,) = find_sets(photos, spaces=["bicubic"])
    _, small, sharp = chosen.pair(0)
    expected = psnr((imresize(small, 4).clamp(0, 1) * 255).round() / 255, sharp)
    assert float(found[0]["psnr_y"]) == pytest.approx(float(expected), abs=1e-6)
    text = (out / "compare.html").read_text("utf-8")
    assert "bicubic, net; enlarged 4 times; degraded with seed 0" in text
    assert str(tmp_path) not in text  # pages are passed on


@pytest.mark.usefixtures("_no_data")
def test_the_command_leaves_pictures_alone_where_they_are(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for path in photos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert call(tmp_path, "-o", tmp_path, "-n", "bicubic").exit_code == 0
    for path in photos.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "0_sheet.png").is_file()


@pytest.mark.usefixtures("_no_data")
def test_exit_codes(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder, out = tmp_path / "theirs", tmp_path / "out"
    folder.mkdir()
    write(folder / "0.png", torch.zeros(1, 3, 256, 320))
    done = call(photos, "-o", out, "-n", "bicubic", "-n", f"theirs={folder}")
    assert done.exit_code == 1
    assert [line for line in done.stderr.splitlines() if "theirs" in line] == [
        f"dacesr: theirs on {name}: {folder} holds no file for the picture {name}" for name in "12"
    ]
    assert [row["method"] for row in rows(out / "scores.csv")] == ["bicubic", "theirs", "bicubic", "bicubic"]
    for wrong, message in (
        (("--window", "1,2"), "a window is x,y,size"),
        (("--tile", "x"), "--tile must be auto, 0 or a positive number; got x"),
        (("--space", "fog"), "no degradation space 'fog'"),
        (("-n", "nothing"), "nothing does not exist"),
        (("--measure", "lpips"), "lpips needs"),
        (("--reference", str(tmp_path / "none")), "is not a folder"),
    ):
        done = call(photos, "-o", tmp_path / "other", *(wrong if "-n" in wrong else (*wrong, "-n", "bicubic")))
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "other").exists()
    done = call(photos / "0.png", "-o", tmp_path / "other", "-n", "bicubic", "--window", "5000,0,8")
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, "dacesr: nothing was written")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("_no_data")
def test_a_page_does_not_grow_without_bound(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("dacesr.analysis.comparing.PAGE", 2 * (256 * 320 + 192 * 208))  # input and bicubic of two
    done = call(photos, "-o", tmp_path, "-n", "bicubic")
    assert done.exit_code == 0
    assert done.stderr.splitlines()[-1].startswith("dacesr: the page holds the first 2 of 3 comparisons")
    text = (tmp_path / "compare.html").read_text("utf-8")
    assert [f'"title":"{name}"' in text for name in "012"] == [True, True, False]
    assert (tmp_path / "2_sheet.png").is_file()
    assert len(rows(tmp_path / "scores.csv")) == 3


def test_a_folder_of_results_is_listed_once(
    build: Build, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("0", (256, 320)), ("1", (192, 208)), ("2", (280, 160))):
        write(tmp_path / f"{name}.png", torch.zeros(1, 3, *size))
    calls = []

    def counted(*arguments: object) -> dict[str, Path | str]:
        calls.append(arguments)
        return find_results(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("dacesr.analysis.comparing.find_results", counted)
    comparer = build(results_of(tmp_path, "theirs"))
    assert len(list(comparer.run(gather_photos([photos], sharp=False)))) == 3
    assert len(calls) == 1
