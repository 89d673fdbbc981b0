"""Methods on sets: scores that go on where they ended, and what makes them be measured again."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dacesr.evaluate import benchmark as module
from dacesr.evaluate.benchmark import Benchmark, Result
from dacesr.evaluate.measures import load_measures
from dacesr.evaluate.methods import Method, results_of
from dacesr.evaluate.sets import BenchmarkSet, find_sets
from dacesr.image import imresize, write
from dacesr.metrics import psnr

CPU = torch.device("cpu")
Run = Callable[..., tuple[list[Result], list[str]]]


class Enlarging:
    """Bicubic enlargement, brighter by some, that counts its calls on pictures of the sets."""

    def __init__(self, brighter: float = 0.0) -> None:
        self.brighter, self.calls = brighter, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += x.shape[-1] != module.WARM_UP
        return (imresize(x, 4) + self.brighter).clamp(0, 1)


@pytest.fixture
def sets(photos: Path) -> list[BenchmarkSet]:
    return find_sets(photos, spaces=["bicubic", "level1"])


@pytest.fixture
def run(tmp_path: Path, sets: list[BenchmarkSet]) -> Run:
    def run_benchmark(
        methods: Sequence[Method],
        names: Sequence[str] = ("psnr_y",),
        chosen: Sequence[BenchmarkSet] = sets,
        **more: bool,
    ) -> tuple[list[Result], list[str]]:
        measures, _ = load_measures(names, None, scale=4, device=CPU)
        console = Console(file=io.StringIO())
        work = Benchmark(
            methods=methods,
            sets=chosen,
            measures=measures,
            output=tmp_path / "out",
            device=CPU,
            console=console,
            **more,
        )
        return work.run(), work.failures

    return run_benchmark


def method(name: str, enlarge: Enlarging) -> Method:
    return Method(name, f"key of {name}", enlarge)


def test_scores_are_those_of_the_rounded_results(run: Run, sets: list[BenchmarkSet], tmp_path: Path) -> None:
    results, failures = run([method("plain", Enlarging()), method("bright", Enlarging(0.1))])
    assert failures == []
    assert [(one.method, one.version) for one in results] == [
        *(("plain", "bicubic"), ("bright", "bicubic"), ("plain", "level1"), ("bright", "level1")),
    ]
    for place, score in enumerate(results[3].scores):
        name, small, reference = sets[1].pair(place)
        expected = psnr(((imresize(small, 4) + 0.1).clamp(0, 1) * 255).round() / 255, reference)
        assert (score.picture, score.values["psnr_y"]) == (name, pytest.approx(float(expected), abs=1e-6))
        assert score.values["megapixels"] == pytest.approx(reference.shape[2] * reference.shape[3] / 1e6)
        assert score.values["seconds"] > 0
    rows = list(csv.DictReader((tmp_path / "out" / results[3].file).read_text().splitlines()))
    assert [row["picture"] for row in rows] == sets[1].names


def test_nothing_is_done_twice(run: Run) -> None:
    enlarge = Enlarging()
    first, _ = run([method("plain", enlarge)])
    assert enlarge.calls == 6
    again, _ = run([method("plain", enlarge)])
    assert enlarge.calls == 6
    for one, two in zip(first, again, strict=True):
        assert [score.picture for score in one.scores] == [score.picture for score in two.scores]
        for old, new in zip(one.scores, two.scores, strict=True):
            assert new.values == pytest.approx(old.values, abs=1e-6)


def test_a_run_that_was_stopped_goes_on(run: Run) -> None:
    stopping = Enlarging()

    def stop_after_four(x: torch.Tensor) -> torch.Tensor:
        if stopping.calls == 4:
            raise KeyboardInterrupt
        return stopping(x)

    with pytest.raises(KeyboardInterrupt):
        run([Method("plain", "key of plain", stop_after_four)])
    enlarge = Enlarging()
    run([method("plain", enlarge)])
    assert enlarge.calls == 2


def test_new_measures_are_added_to_what_is_known(run: Run) -> None:
    enlarge = Enlarging()
    run([method("plain", enlarge)])
    results, _ = run([method("plain", enlarge)], ["ssim_y"])
    assert enlarge.calls == 12
    assert {"psnr_y", "ssim_y"} <= set(results[0].scores[0].values)
    run([method("plain", enlarge)], ["psnr_y", "ssim_y"])
    assert enlarge.calls == 12


def test_scores_of_other_pictures_stay(run: Run, photos: Path, tmp_path: Path) -> None:
    enlarge = Enlarging()
    plain = method("plain", enlarge)
    run([plain])
    (first,), _ = run([plain], chosen=find_sets(photos, spaces=["level1"], limit=1))
    assert (enlarge.calls, len(first.scores)) == (6, 1)
    assert len((tmp_path / "out" / first.file).read_text().splitlines()) == 1 + 3
    run([plain])
    assert enlarge.calls == 6


def test_other_weights_pictures_or_code_are_measured_again(
    run: Run, photos: Path, sets: list[BenchmarkSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge = Enlarging()
    plain = method("plain", enlarge)
    run([plain])
    run([replace(plain, key="other weights")])
    assert enlarge.calls == 12
    run([plain], chosen=find_sets(photos, spaces=["level1"], seed=1))
    assert enlarge.calls == 15
    run([plain], chosen=sets[:1])
    assert enlarge.calls == 18  # the other weights' scores took their place
    monkeypatch.setattr(module, "code_version", lambda: "another version")
    run([plain], chosen=sets[:1])
    assert enlarge.calls == 21


def test_what_fails_is_named_and_the_rest_is_done(run: Run) -> None:
    def fail_on_the_second(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] == 13:
            raise ValueError("no memory")
        return imresize(x, 4)

    results, failures = run([Method("weak", "w", fail_on_the_second), method("plain", Enlarging())])
    assert failures == [f"weak on photos0 {version}, 1: no memory" for version in ("bicubic", "level1")]
    assert [len(one.scores) for one in results] == [2, 3, 2, 3]
    assert [one.wanted for one in results] == [3, 3, 3, 3]


def test_results_of_others(run: Run, sets: list[BenchmarkSet], tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    for place, name in enumerate(sets[0].names[:2]):
        (folder / "bicubic").mkdir(parents=True, exist_ok=True)
        write(folder / "bicubic" / f"{name}_x4.png", sets[0].pair(place)[2])
    write(folder / "bicubic" / f"{sets[0].names[2]}.png", torch.zeros(1, 3, 8, 8))
    theirs = results_of(folder)
    results, failures = run([theirs], chosen=sets[:1])
    assert [score.values["psnr_y"] for score in results[0].scores] == [float("inf")] * 2
    assert len(failures) == 1
    assert "different sizes" in failures[0]
    write(folder / "bicubic" / f"{sets[0].names[0]}_x4.png", torch.zeros_like(sets[0].pair(0)[2]))
    results, _ = run([theirs], chosen=sets[:1])
    assert results[0].scores[0].values["psnr_y"] < 30  # the file has changed, so it was measured again


def test_results_can_be_kept(run: Run, tmp_path: Path) -> None:
    enlarge = Enlarging(0.1)
    run([method("plain", enlarge)])
    known, _ = run([method("plain", enlarge)], save_pictures=True)
    assert enlarge.calls == 12
    assert len(list((tmp_path / "out/pictures/plain").rglob("*.png"))) == 6
    again, failures = run([results_of(tmp_path / "out/pictures/plain", "saved")])
    assert failures == []
    for old, new in zip(known, again, strict=True):
        assert [score.values["psnr_y"] for score in old.scores] == [score.values["psnr_y"] for score in new.scores]
