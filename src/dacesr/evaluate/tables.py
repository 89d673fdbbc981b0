"""Tables of results: on the terminal, and as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dacesr.tensorfile import write_whole

STYLES = ("", "bold", "underline")  # of the others, the best and the second best of a column
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


class Cell(NamedTuple):
    """A number as text.

    Attributes:
        text: What is shown; several lines where it has newlines.
        file: What it was computed from, relative to the folder of the table; None where there is no such file.
        rank: 1 for the best of its column, 2 for the second best, 0 for the others.
    """

    text: str
    file: str | None = None
    rank: int = 0


class Table(NamedTuple):
    """Cells under a title; the first columns hold names, the others numbers."""

    title: str
    head: list[str]
    rows: Sequence[Sequence[str | Cell]]
    names: int = 1


def ranks(values: Sequence[float | None], *, higher: bool) -> list[int]:
    """For each value of a column 1 if it is the best, 2 if it is the second best, else 0; equal values rank alike."""
    known = sorted({value for value in values if value is not None}, reverse=higher)
    places = {value: place for place, value in enumerate(known[:2], start=1)} if len(known) > 1 else {}
    return [0 if value is None else places.get(value, 0) for value in values]


def show(tables: Sequence[Table], notes: str = "") -> None:
    """Print tables, and below them what has to be known to read them."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=160)
    for table in tables:
        shown = RichTable(title=table.title, box=box.SIMPLE)
        for place, name in enumerate(table.head):
            shown.add_column(name, justify="left" if place < table.names else "right")
        for row in table.rows:
            cells = map(as_cell, row)
            shown.add_row(*(Text(cell.text, style=STYLES[cell.rank]) for cell in cells))
        console.print(shown, markup=False)
    console.print(notes, markup=False)


def as_markdown(table: Table) -> str:
    """The table under its title; best of a column bold, second in italics, and a link to what a number comes from."""
    rows = ["| " + " | ".join(_markdown(as_cell(part)) for part in row) + " |" for row in (table.head, *table.rows)]
    rule = "|---" * table.names + "|--:" * (len(table.head) - table.names) + "|"
    return "\n".join([f"## {table.title}", "", rows[0], rule, *rows[1:]])


def _markdown(cell: Cell) -> str:
    text = cell.text.replace("\n", "<br>").replace("|", r"\|")
    mark = ("", "**", "*")[cell.rank] if text else ""
    text = f"{mark}{text}{mark}"
    return f"[{text}]({cell.file.replace(' ', '%20')})" if cell.file and text else text


def as_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under a header as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def latex_file(tables: Sequence[Table]) -> str:
    """Tables as a file to include, with what it needs."""
    return "% needs \\usepackage{booktabs}\n" + "\n\n".join(map(as_latex, tables)) + "\n"


def as_latex(table: Table) -> str:
    r"""A `table` of booktabs; the best of a column is bold, the second underlined."""
    columns = "l" * table.names + "r" * (len(table.head) - table.names)
    head, *rows = (" & ".join(_latex(as_cell(part)) for part in row) + r" \\" for row in (table.head, *table.rows))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    lines += [r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines)


def _latex(cell: Cell) -> str:
    lines = [_escaped(line) for line in cell.text.split("\n")]
    text = lines[0] if len(lines) == 1 else r"\shortstack[r]{" + r" \\ ".join(lines) + "}"
    return ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")[cell.rank].format(text) if cell.rank else text


def _escaped(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def write_files(folder: Path, name: str, contents: Mapping[str, str]) -> list[Path]:
    """Write NAME.ENDING for each ending, whole or not at all, into a folder that is made if it is not there.

    Raises:
        OSError: A file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.{ending}": text for ending, text in contents.items()}
    for path, text in paths.items():
        write_whole(path, text.encode())
    return list(paths)


def as_cell(part: str | Cell) -> Cell:
    """A cell, also of plain text."""
    return Cell(part) if isinstance(part, str) else part
