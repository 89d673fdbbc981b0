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
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
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


def test_what_pytorch_keeps_of_a_gpus_memory_is_free(monkeypatch):
    for name, value in (("mem_get_info", (100, 900)), ("memory_reserved", 500), ("memory_allocated", 200)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_bytes(torch.device("cuda")) == 400


def test_what_does_not_fit_is_none_and_other_errors_stay():
    def failing(error):
        def make():
            raise error

        return make

    assert memory.made_or_none(lambda: 3) == 3
    assert memory.made_or_none(failing(torch.OutOfMemoryError("CUDA out of memory"))) is None
    assert memory.made_or_none(failing(MemoryError())) is None
    for error in (RuntimeError("shapes do not fit"), ValueError("out of memory")):
        with pytest.raises(type(error)):
            memory.made_or_none(failing(error))
