"""What the measurements of a device are collected in, and how they are written: JSON, and a Markdown table."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpu_floors import Ceilings

UNITS = {"ms": 1e3, "s": 1.0, "MP/s": 1.0, "%": 100.0, "GB": 2**-30, "": 1.0}  # what a stored number is multiplied by


@dataclass
class Row:
    """One measured thing; seconds, bytes, shares and megapixels a second, as `unit` says.

    `target` is a bound of what is measured, or of its ratio to what was predicted (`times`).
    """

    part: str
    what: str
    unit: Literal["ms", "s", "MP/s", "%", "GB", ""]
    measured: float
    predicted: float | None = None
    target: float | None = None
    bound: Literal["at most", "at least", "times"] = "at most"
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Measured over predicted."""
        return self.measured / self.predicted if self.predicted else None

    @property
    def met(self) -> bool | None:
        """Whether the target is; None without one."""
        value = self.ratio if self.bound == "times" else self.measured
        if self.target is None or value is None:
            return None
        return value >= self.target if self.bound == "at least" else value <= self.target

    def cells(self) -> list[str]:
        """The row of the table."""
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        ratio = f"{self.ratio:.2f}" if self.ratio else ""
        return [self.what, self._shown(self.predicted), self._shown(self.measured), ratio, self._target(), met]

    def _shown(self, value: float | None) -> str:
        return "" if value is None else f"{value * UNITS[self.unit]:.4g} {self.unit}".strip()

    def _target(self) -> str:
        if self.target is None:
            return ""
        return f"{self.target:g} x predicted" if self.bound == "times" else f"{self.bound} {self._shown(self.target)}"


class Report:
    """Everything found so far; it is written again after each part, so that a run that is killed keeps it."""

    def __init__(self, json_file: Path, markdown_file: Path, minutes: float) -> None:
        """Make the folders of the files."""
        self._json, self._markdown = json_file, markdown_file
        self._end = time.monotonic() + minutes * 60
        self.reserved = 0.0  # seconds that later parts need
        for file in (json_file, markdown_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        self.log = json_file.with_name(f"{json_file.stem}.log")
        self.log.write_text("")
        self.machine: dict[str, Any] = {}
        self.ceilings: Ceilings | None = None
        self.rows: list[Row] = []
        self.facts: dict[str, Any] = {}  # by part, for the JSON alone
        self.texts: dict[str, str] = {}  # Markdown by heading
        self.errors: dict[str, str] = {}  # sentences by what failed
        self.seconds: dict[str, float] = {}

    def left(self) -> float:
        """Seconds until the time is up."""
        return self._end - time.monotonic()

    def note(self, text: str) -> None:
        """Add to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{text.rstrip()}\n")

    def add(self, row: Row) -> None:
        """Keep a row, and print it."""
        self.rows.append(row)
        print("  " + " | ".join(cell for cell in row.cells() if cell), flush=True)

    @contextmanager
    def guarded(self, what: str) -> Iterator[None]:
        """Record an exception, with its traceback in the log, and go on after the block."""
        try:
            yield
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            self.errors[what] = f"{type(error).__name__}: {first[0][:300] if first else 'no message'}"
            self.note(f"--- {what}\n{traceback.format_exc()}")
            print(f"  {what} FAILED: {self.errors[what]}", flush=True)

    def write(self) -> None:
        """Write both files."""
        rows = [{**asdict(row), "ratio": row.ratio, "met": row.met} for row in self.rows]
        content = {
            "machine": self.machine,
            "ceilings": self.ceilings._asdict() if self.ceilings else None,
            "rows": rows,
            **self.facts,
            "errors": self.errors,
            "seconds": self.seconds,
        }
        _replace(self._json, json.dumps(content, indent=1, default=str) + "\n")
        _replace(self._markdown, self._as_markdown())

    def _as_markdown(self) -> str:
        lines = [f"{name}: {value}  " for name, value in self.machine.items() if name != "summary"]
        if self.ceilings:
            copied, products, exponentials = (rate / 1e12 for rate in self.ceilings)
            lines.append(
                f"ceilings: {copied:.3g} TB/s copied, {products:.4g} TFLOP/s in bf16 products, "
                f"{exponentials:.3g} T exponentials/s"
            )
        for part in dict.fromkeys(row.part for row in self.rows):
            lines += ["", f"## {part}", "", *_table([row for row in self.rows if row.part == part])]
        for heading, text in self.texts.items():
            lines += ["", f"## {heading}", "", text]
        if self.errors:
            lines += ["", "## Not measured", "", *(f"- {what}: {sentence}" for what, sentence in self.errors.items())]
        spent = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return "\n".join([*lines, "", f"Time spent: {spent}", ""])


def _table(rows: list[Row]) -> list[str]:
    head = ["what", "predicted", "measured", "ratio", "target", "met"]
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * 6, *(row.cells() for row in rows))]


def _replace(file: Path, text: str) -> None:
    """Write a file that is whole at any time."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
