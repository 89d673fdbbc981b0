"""States on disk: whole or not there."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dacesr.train import state
from dacesr.train.state import StateError, load_state, pack, save_state, saved_states, unpack

TENSORS = {f"t{i}": torch.full((5,), float(i)) for i in range(4)}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tensors = {**TENSORS, "last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    path = save_state(tmp_path, 12, tensors, {"means": {"a": 0.1}})
    assert path == tmp_path / "state-00000012"
    found = load_state(tmp_path)
    assert found is not None
    assert (found[0], found[2]) == (12, {"means": {"a": 0.1}})
    assert found[1].keys() == tensors.keys()
    assert all(torch.equal(found[1][name], tensor) for name, tensor in tensors.items())
    assert load_state(tmp_path / "none") is None


def test_only_the_newest_stays_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".state-00000001.part").mkdir()
    (tmp_path / "state-notes").mkdir()
    for iteration in (1, 2, 100_000_000):
        save_state(tmp_path, iteration, TENSORS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state-100000000", "state-notes"]


def test_files_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "SHARD", 48)
    tensors = {
        "a": torch.zeros(5),
        "b": torch.zeros(5),
        "large": torch.zeros(30),
        "c": torch.zeros(1),
        "d": TENSORS["t1"],
    }
    path = save_state(tmp_path, 1, tensors, {})
    from safetensors import safe_open

    held = []
    for number in range(3):
        with safe_open(path / f"{number}.safetensors", "pt") as file:
            held.append(sorted(file.keys()))
    assert held == [["a", "b"], ["large"], ["c", "d"]]
    assert json.loads((path / "state.json").read_text())["shards"] == 3
    assert state.SHARD < 16_000_000


@pytest.mark.parametrize("moment", ["first shard", "second shard", "state.json", "rename"])
def test_an_interrupted_save_leaves_the_older_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    save_state(tmp_path, 1, TENSORS, {"old": True})
    monkeypatch.setattr(state, "SHARD", 20)
    write, rename, written = state.write_whole, Path.rename, []

    def failing_write(path: Path, content: bytes) -> None:
        written.append(path.name)
        if {"first shard": "0.safe", "second shard": "1.safe"}.get(moment, moment) in path.name:
            path.write_bytes(content[:10])
            raise OSError(28, "No space left on device")
        write(path, content)

    def failing_rename(self: Path, target: Path) -> Path:
        if moment == "rename":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(state, "write_whole", failing_write)
    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(OSError, match=r"No space|Input/output"):
        save_state(tmp_path, 2, {name: tensor + 1 for name, tensor in TENSORS.items()}, {})
    assert written
    found = load_state(tmp_path)
    assert found is not None
    assert (found[0], found[2]) == (1, {"old": True})
    assert torch.equal(found[1]["t3"], TENSORS["t3"])
    monkeypatch.undo()
    save_state(tmp_path, 3, TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["state-00000003"]


def damage(folder: Path, how: str) -> None:
    if how == "cut":
        os.truncate(folder / "0.safetensors", 100)
    elif how == "missing":
        (folder / "0.safetensors").unlink()
    elif how == "no facts":
        (folder / "state.json").unlink()
    else:
        (folder / "state.json").write_text({"empty": "", "list": "[]", "bytes": '{"shards": 1}'}[how])


@pytest.mark.parametrize("how", ["cut", "missing", "no facts", "empty", "list", "bytes"])
def test_a_damaged_state_is_named_in_one_sentence(tmp_path: Path, how: str) -> None:
    damage(save_state(tmp_path, 5, TENSORS, {}), how)
    with pytest.raises(StateError, match=r"state-00000005 is damaged \(.*\): remove it to start the run again") as info:
        load_state(tmp_path)
    assert "\n" not in str(info.value)


def test_saved_states_are_sorted(tmp_path: Path) -> None:
    for name in ("state-00000010", "state-00000009", ".state-00000011.part"):
        (tmp_path / name).mkdir()
    assert [path.name for path in saved_states(tmp_path)] == ["state-00000009", "state-00000010"]


def test_nested_states_are_packed_and_unpacked() -> None:
    nested: dict[str, Any] = {
        "net": {"w": torch.rand(2), "b.c": torch.rand(1)},
        "optimizer": {0: {"step": torch.tensor(1.0), "lr": 0.1}, 1: {}},
        "pools": [{"0": torch.rand(3)}, {}],
        "none": None,
        "text": "a",
    }
    tensors: dict[str, torch.Tensor] = {}
    packed = json.loads(json.dumps(pack("task", nested, tensors)))
    assert len(tensors) == 4
    again = unpack(packed, tensors)
    assert again.keys() == nested.keys()
    assert again["net"]["b.c"] is nested["net"]["b.c"]
    assert list(again["optimizer"]) == [0, 1]
    assert again["optimizer"][0] == nested["optimizer"][0]
    assert again["pools"][0]["0"] is nested["pools"][0]["0"]
    assert (again["none"], again["text"]) == (None, "a")
