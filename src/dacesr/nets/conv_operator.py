"""What the causal convolution's operators for the CPU and for CUDA share: tracing, and how they are differentiated.

Both take x (b, l, d), weight (d, taps), bias (d) or None and return SiLU of the convolution; the operators of the
backward pass take the gradient of that besides and return the gradients of the three.
"""

from typing import Any

from torch import Tensor


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


def _fake_gradients(x: Tensor, weight: Tensor, bias: Tensor | None, dout: Tensor) -> list[Tensor]:
    like = weight if bias is None else bias
    return [x.new_empty(x.shape), weight.new_empty(weight.shape), like.new_empty(x.shape[2])]


def make_differentiable(conv: Any, backward: Any) -> None:
    """Tell PyTorch what the operators `conv` and `backward` return, and that the second differentiates the first."""

    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        dx, dweight, dbias = backward(x, weight, bias, dout)
        return dx, dweight, None if bias is None else dbias

    conv.register_fake(_fake)
    backward.register_fake(_fake_gradients)
    conv.register_autograd(differentiate, setup_context=setup_context)
