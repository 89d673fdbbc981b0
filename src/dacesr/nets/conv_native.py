"""Mamba's causal convolution and the SiLU behind it in C++ (`native/`), as the operator `dacesr::causal_conv_silu`.

One pass over the tokens forward and one backward, where PyTorch's weight gradient of a depth-wise convolution alone
takes as long as the selective scan's whole backward pass. Sums are fp32 whatever the inputs are.
"""

import torch
from torch import Tensor

from dacesr import _native
from dacesr.nets.conv_operator import make_differentiable
from dacesr.nets.scan_operator import packed, unit_stride

DTYPES = (torch.float32, torch.bfloat16)
MAX_TAPS: int = _native.MAX_TAPS


@torch.library.custom_op("dacesr::causal_conv_silu", mutates_args=(), device_types="cpu")
def conv_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (b, l, d), weight (d, taps), bias (d) -> (b, l, d) in x's type."""
    out = torch.empty(x.shape, dtype=x.dtype)
    threads = torch.get_num_threads()
    slices = _native.slices_for(x.shape[0], x.shape[2], threads)
    _native.conv_forward(unit_stride(x), packed(weight), packed(bias), out, slices, threads)
    return out


@torch.library.custom_op("dacesr::causal_conv_silu_backward", mutates_args=(), device_types="cpu")
def conv_backward_op(x: Tensor, weight: Tensor, bias: Tensor | None, dout: Tensor) -> list[Tensor]:
    """Return the gradients of x, weight and bias (unused where there is none)."""
    (b, _, d), taps = x.shape, weight.shape[1]
    dx, dweight, dbias = torch.empty(x.shape, dtype=x.dtype), torch.empty((b, d, taps)), torch.empty((b, d))
    threads = torch.get_num_threads()
    slices = _native.slices_for(b, d, threads)
    _native.conv_backward(
        unit_stride(x), packed(weight), packed(bias), unit_stride(dout), dx, dweight, dbias, slices, threads
    )
    return [dx, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(weight.dtype if bias is None else bias.dtype)]


make_differentiable(conv_op, conv_backward_op)


def causal_conv_silu_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU of a depth-wise convolution over the current and the taps - 1 previous tokens, on the CPU.

    Args:
        x: (b, l, d) in fp32 or bfloat16, l >= 1; read in place where the stride along d is 1.
        weight: (d, 1, taps), at most `MAX_TAPS`.
        bias: (d) or None.

    Returns:
        (b, l, d) in x's dtype.
    """
    return conv_op(x, weight.squeeze(1), bias)
