"""Free memory and the errors that mean it ran out."""

import pytest
import torch

from dacesr import memory


def test_free_memory_is_within_a_containers_limit(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    free = memory.free_bytes(cpu)
    assert 1 << 20 < free < 1 << 50
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.free_bytes(cpu) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(cpu) > 2_000_000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_too_little_memory(error, expected):
    assert memory.is_out_of_memory(error) is expected


def test_a_real_allocation_failure_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value)
