"""Means, differences and tables of scores that were made up."""

import pytest

from dacesr.evaluate.comparison import as_json, compare, tabulate
from dacesr.evaluate.scores import Score
from dacesr.evaluate.tables import Table


def measured(*values: float, lpips: float | None = None) -> list[Score]:
    others = {} if lpips is None else {"lpips": lpips}
    return [Score("set", "level1", str(i), {"psnr_y": value, **others}) for i, value in enumerate(values)]


SCORES = {
    (0, "a"): measured(20.0, 30.0),
    (1, "a"): measured(22.0, 32.0),
    (0, "b"): measured(21.0, 31.0),
    (1, "b"): measured(22.0, 34.0),
}


def test_means_and_differences() -> None:
    first, second = compare(SCORES, ["a", "b"], "level1", "psnr_y").values()
    assert (first.pictures, first.mean, first.by_seed) == (2, 26.0, {0: 25.0, 1: 27.0})
    assert (first.difference, first.difference_by_seed) == (None, {})
    assert (second.mean, second.by_seed) == (27.0, {0: 26.0, 1: 28.0})
    assert second.difference == (1.0, 0.5, 1.5)  # pictures' differences, over seeds: 0.5 and 1.5
    assert second.difference_by_seed == {0: 1.0, 1: 1.0}
    assert second.difference is not None
    assert second.difference.clear


def test_differences_are_over_the_seeds_that_both_have() -> None:
    scores = {key: found for key, found in SCORES.items() if key != (0, "a")}
    second = compare(scores, ["a", "b"], "level1", "psnr_y")["b"]
    assert second.mean == 27.0
    assert second.difference == (1.0, 0.0, 2.0)
    assert second.difference_by_seed == {1: 1.0}


def test_arms_without_scores_are_left_out() -> None:
    assert list(compare(SCORES, ["c", "b"], "level1", "psnr_y")) == ["b"]
    assert compare(SCORES, ["c", "b"], "level1", "psnr_y")["b"].difference is None
    assert tabulate("T", {}, ["a", "b"], ["level1"]) == []


def test_other_pictures_cannot_be_compared() -> None:
    scores = {**SCORES, (1, "b"): measured(22.0)}
    with pytest.raises(ValueError, match="seed 1 of b was measured on other pictures"):
        compare(scores, ["a", "b"], "level1", "psnr_y")


def test_a_table_for_each_metric_that_was_measured() -> None:
    (table,) = tabulate("Table IV", SCORES, ["a", "b"], ["level1"])
    assert table == Table(
        "Table IV: PSNR-Y of 2 pictures",
        ["arm", "level1"],
        [
            ["a", "26.000 (25.000 to 27.000)"],
            ["b", "27.000 (26.000 to 28.000)\n+1.000 [+0.500, +1.500] *\nseeds +1.000, +1.000"],
        ],
    )
    scores = {(0, "a"): measured(20.0, 30.0, lpips=0.2), (0, "b"): measured(19.0, 31.0, lpips=0.1)}
    pixels, features = tabulate("T", scores, ["a", "b"], ["level1"])
    assert pixels.rows[1] == ["b", "25.000\n+0.000 [-1.000, +1.000]"]
    assert features.title == "T: LPIPS of 2 pictures"
    assert features.rows == [["a", "0.2000"], ["b", "0.1000\n-0.1000 [-0.1000, -0.1000] *"]]


def test_json_holds_all_that_tables_say() -> None:
    facts = as_json(SCORES, ["a", "b"], ["level1"])
    assert facts["psnr_y"]["level1"]["a"]["mean"] == 26.0
    assert facts["psnr_y"]["level1"]["b"]["difference"] == {"mean": 1.0, "low": 0.5, "high": 1.5}
    assert facts["lpips"]["level1"] == {}
