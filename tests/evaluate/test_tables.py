"""Tables as text: every sign that could break Markdown or LaTeX, and the marks of the best."""

import pytest

from dacesr.evaluate.tables import Cell, Table, as_latex, as_markdown, ranks, show

TABLE = Table(
    "Set_5 & more, 5 pictures",
    ["method", "level1\nPSNR-Y"],
    [["a|b_c", Cell("27.5", "scores/a b/Set5.csv", 1)], ["50%", Cell("27.4", None, 2)], ["none", Cell("")]],
)


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ([1.0, 3.0, 2.0], True, [0, 1, 2]),
        ([1.0, 3.0, 2.0], False, [1, 0, 2]),
        ([3.0, 3.0, 2.0, None], True, [1, 1, 2, 0]),
        ([None, 3.0], True, [0, 0]),
        ([], True, []),
    ],
)
def test_ranks(values: list[float | None], higher: bool, expected: list[int]) -> None:
    assert ranks(values, higher=higher) == expected


def test_markdown_links_and_marks() -> None:
    assert as_markdown(TABLE).splitlines() == [
        "## Set_5 & more, 5 pictures",
        "",
        "| method | level1<br>PSNR-Y |",
        "|---|--:|",
        r"| a\|b_c | [**27.5**](scores/a%20b/Set5.csv) |",
        "| 50% | *27.4* |",
        "| none |  |",
    ]


def test_latex_escapes_and_marks() -> None:
    lines = as_latex(TABLE).splitlines()
    assert lines[2] == r"\caption{Set\_5 \& more, 5 pictures}"
    assert lines[3] == r"\begin{tabular}{lr}"
    assert lines[5] == r"method & \shortstack[r]{level1 \\ PSNR-Y} \\"
    assert lines[7:10] == [r"a|b\_c & \textbf{27.5} \\", r"50\% & \underline{27.4} \\", r"none &  \\"]
    assert as_latex(Table("~ ^ \\ {}", ["#"], [])).splitlines()[2] == (
        r"\caption{\textasciitilde{} \textasciicircum{} \textbackslash{} \{\}}"
    )


def test_the_terminal_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show([Table("T", ["a", "b"], [["x", "+0.1 [+0.0, +0.2]"]])], "notes [with] brackets")
    shown = capsys.readouterr().out
    assert "+0.1 [+0.0, +0.2]" in shown
    assert "notes [with] brackets" in shown
