"""The written record of a run: CSV tables that a resumed run continues, and tensorboard's events."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from dacesr.tensorfile import write_whole


class Table:
    """A CSV file that grows by rows; the columns are those of all rows so far."""

    def __init__(self, path: Path, *, until: int) -> None:
        """Go on with a file, less the rows of later iterations than `until`, which will come again; 0: start anew."""
        self._path = path
        self._rows: list[dict[str, Any]] = []
        if until and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self._rows = [row for row in csv.DictReader(file) if int(row["iteration"]) <= until]

    def values(self, *columns: str) -> set[tuple[Any, ...]]:
        """What the rows hold in some columns."""
        return {tuple(row[column] for column in columns) for row in self._rows}

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append rows; the file is whole at any time."""
        if not rows:
            return
        self._rows += [{key: _text(value) for key, value in row.items()} for row in rows]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in self._rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(self._path, text.getvalue().encode())


class Means:
    """Means of named values since they were last taken."""

    def __init__(self, sums: Mapping[str, float] | None = None, counts: Mapping[str, int] | None = None) -> None:
        """Start empty, or from what `state_dict` gave."""
        self._sums, self._counts = dict(sums or {}), dict(counts or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add one value each."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; forgets the values."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """For a resumed run."""
        return {"sums": self._sums, "counts": self._counts}


class Record:
    """The two tables and tensorboard's events of a run."""

    def __init__(self, folder: Path, *, until: int) -> None:
        """Go on with what the folder holds, up to an iteration."""
        self._steps = Table(folder / "log.csv", until=until)
        self._scores = Table(folder / "validation.csv", until=until)
        self._events = SummaryWriter(str(folder / "events"), purge_step=until + 1)

    @property
    def measured(self) -> set[tuple[str, str]]:
        """(model, space) of all scores so far."""
        return self._scores.values("model", "space")

    def step(self, iteration: int, values: Mapping[str, float]) -> None:
        """Log means of losses, rates, times."""
        self._steps.add({"iteration": iteration, **values})
        for name, value in values.items():
            self._events.add_scalar(f"train/{name}", value, iteration)

    def scores(self, rows: list[dict[str, Any]]) -> None:
        """Log a validation."""
        self._scores.add(*rows)
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float):
                    self._events.add_scalar(f"{name}/{row['space']}/{row['model']}", value, row["iteration"])

    def close(self) -> None:
        """Flush the events."""
        self._events.close()


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
