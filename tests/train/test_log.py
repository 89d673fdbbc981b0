"""Tables that are continued, and means."""

from pathlib import Path

import pytest

from dacesr.train.log import Means, Record, Table


def test_a_table_grows_and_takes_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    table = Table(path, until=0)
    table.add()
    assert not path.exists()
    table.add({"iteration": 1, "loss": 0.123456789})
    table.add({"iteration": 2, "rate": 1e-4}, {"iteration": 3, "loss": 2.0})
    assert path.read_text().splitlines() == ["iteration,loss,rate", "1,0.123457,", "2,,0.0001", "3,2,"]
    assert table.values("iteration") == {(1,), (2,), (3,)}


def test_a_continued_table_forgets_what_will_come_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    Table(path, until=0).add(*({"iteration": i, "loss": float(i)} for i in range(5)))
    Table(path, until=2).add({"iteration": 3, "loss": 9.0})
    assert path.read_text().splitlines() == ["iteration,loss", "0,0", "1,1", "2,2", "3,9"]
    Table(path, until=0).add({"iteration": 1, "loss": 5.0})
    assert path.read_text().splitlines() == ["iteration,loss", "1,5"]


def test_means_are_taken_once_and_survive_a_resume() -> None:
    means = Means()
    means.add({"a": 1.0, "b": 0.1})
    again = Means(**means.state_dict())
    for each in (means, again):
        each.add({"a": 2.0})
        assert each.take() == {"a": 1.5, "b": 0.1}
        assert each.take() == {}


def test_a_record_writes_tables_and_events(tmp_path: Path) -> None:
    record = Record(tmp_path, until=0)
    record.step(5, {"loss": 0.5})
    record.scores([{"iteration": 0, "model": "bicubic", "space": "level1", "psnr_y": 25.0, "ssim_y": 0.5}])
    assert record.measured == {("bicubic", "level1")}
    record.close()
    assert (tmp_path / "validation.csv").read_text().splitlines()[1] == "0,bicubic,level1,25,0.5"
    assert Record(tmp_path, until=5).measured == {("bicubic", "level1")}
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    assert events.Tags()["scalars"] == ["train/loss", "psnr_y/level1/bicubic", "ssim_y/level1/bicubic"]
