"""A Triton kernel that does nothing but exponentials, for their rate."""

# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
# (the types of Triton describe a kernel's Python function, not its launch)

import torch
import triton
import triton.language as tl
from gpu_timing import Timer

BLOCK, UNROLLED, TURNS = 1024, 16, 64
BLOCKS_A_MULTIPROCESSOR = 128


@triton.jit
def many_exponentials(out, turns, BLOCK: tl.constexpr, UNROLLED: tl.constexpr):
    """x <- 2^-x, UNROLLED * turns times for each element, all in registers; one store at the end."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = (place % 1000).to(tl.float32) / 1000.0
    for _ in range(turns):
        for _ in tl.static_range(UNROLLED):
            x = tl.exp2(-x)
    tl.store(out + place, x)


def exponentials(timer: Timer) -> float:
    """Exponentials a second, of all multiprocessors together."""
    blocks = BLOCKS_A_MULTIPROCESSOR * torch.cuda.get_device_properties(timer.device).multi_processor_count
    out = torch.empty(blocks * BLOCK, device=timer.device)

    def run(_: int) -> None:
        many_exponentials[(blocks,)](out, TURNS, BLOCK=BLOCK, UNROLLED=UNROLLED, num_warps=4)

    return out.numel() * UNROLLED * TURNS / timer.alone(run, 10).median
