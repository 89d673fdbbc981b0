"""Means, intervals, differences, tables and files of scores that were made up."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from dacesr.evaluate.benchmark import Result
from dacesr.evaluate.measures import load_measures
from dacesr.evaluate.results import COST, difference_tables, interval_tables, summarise, tables, write_report
from dacesr.evaluate.scores import Score
from dacesr.evaluate.tables import Cell

MEASURES, _ = load_measures(["psnr_y", "ssim_y"], None, scale=4, device=torch.device("cpu"))


def result(method: str, version: str, *values: float, seconds: float | None = None, wanted: int = 0) -> Result:
    timed = {} if seconds is None else {"seconds": seconds, "megapixels": 0.5}
    scores = [Score("Set", version, str(i), {"psnr_y": v, "ssim_y": v / 100, **timed}) for i, v in enumerate(values)]
    return Result(method, "Set", version, wanted or len(values), scores, f"scores/{method}/Set-{version}.csv")


RESULTS = [
    result("bicubic", "level1", 20.0, 30.0),
    result("ours", "level1", 21.0, 32.0, seconds=1.0),
    result("bicubic", "level2", 10.0, 10.0),
    result("ours", "level2", 9.0, seconds=2.0, wanted=2),
]


def test_means_and_intervals() -> None:
    means = {(mean.method, mean.version, mean.measure): mean for mean in summarise(RESULTS, MEASURES)}
    first = means["bicubic", "level1", "psnr_y"]
    assert (first.mean, first.low, first.high, first.pictures, first.wanted) == (25.0, 20.0, 30.0, 2, 2)
    assert first.file == "scores/bicubic/Set-level1.csv"
    assert means["ours", "level2", "psnr_y"][4:9] == (9.0, None, None, 1, 2)
    assert means["ours", "level1", COST].mean == 2.0
    assert means["ours", "level2", COST].mean == 4.0
    assert ("bicubic", "level1", COST) not in means


def test_a_table_has_the_main_measures_and_a_second_one_the_others() -> None:
    main, others = tables(summarise(RESULTS, MEASURES), MEASURES)
    assert main.title == others.title == "Set, 2 pictures"
    assert main.head == ["method", "level1\nPSNR-Y", "level2\nPSNR-Y", "s per\nmegapixel"]
    file = "scores/{}/Set-{}.csv".format
    assert main.rows[0] == [
        *(
            "bicubic",
            Cell("25.00", file("bicubic", "level1"), 2),
            Cell("10.00", file("bicubic", "level2"), 1),
            Cell(""),
        ),
    ]
    assert main.rows[1] == [
        *("ours", Cell("26.50", file("ours", "level1"), 1), Cell("9.00 (1)", file("ours", "level2"), 2), Cell("3.000")),
    ]
    assert others.head == ["method", "level1\nSSIM-Y", "level2\nSSIM-Y"]


def test_differences_are_over_the_pictures_that_both_have() -> None:
    (table,) = difference_tables(RESULTS, MEASURES, "bicubic")
    assert table.head == ["method", "level1\nPSNR-Y", "level1\nSSIM-Y", "level2\nPSNR-Y", "level2\nSSIM-Y"]
    (row,) = table.rows
    assert row[1] == "+1.50 [+1.00, +2.00] *"
    assert row[3] == "-1.00"  # of one picture
    with pytest.raises(ValueError, match="none of the methods bicubic, ours"):
        difference_tables(RESULTS, MEASURES, "theirs")


def test_equal_pictures_have_infinite_psnr_and_no_interval(tmp_path: Path) -> None:
    results = [result("a", "level1", math.inf, 30.0), result("b", "level1", math.inf, 31.0)]
    means = summarise(results, MEASURES)
    assert means[0][4:7] == (math.inf, None, None)
    assert interval_tables(means, MEASURES)[0].rows[0][1] == ""
    assert difference_tables(results, MEASURES, "a")[0].rows[0][1] == "+1.00"
    paths = write_report(tmp_path, "t", "T", tables(means, MEASURES), [], means, {"code": "1"})
    facts = json.loads(paths[3].read_text(), parse_constant=pytest.fail)
    assert (facts["means"][0]["mean"], facts["code"]) == (None, "1")


def test_files_hold_what_tables_show(tmp_path: Path) -> None:
    means = summarise(RESULTS, MEASURES)
    shown = tables(means, MEASURES)
    paths = write_report(tmp_path / "out", "table1", "Table I", shown, interval_tables(means, MEASURES), means, {})
    assert [path.name for path in paths] == ["table1.md", "table1.tex", "table1.csv", "table1.json"]
    markdown, latex, rows, facts = (path.read_text() for path in paths)
    assert "[**26.50**](scores/ours/Set-level1.csv)" in markdown
    assert "20.00 to 30.00" in markdown
    assert r"\textbf{26.50}" in latex
    listed = list(csv.DictReader(rows.splitlines()))
    assert {row["file"] for row in listed} == {result.file for result in RESULTS}
    assert [float(row["mean"]) for row in listed] == [mean["mean"] for mean in json.loads(facts)["means"]]
    assert not list((tmp_path / "out").glob(".*"))  # nothing temporary is left
