"""Selective scan of Mamba-1 (Gu and Dao 2023, arXiv 2312.00752, Eq. 2 and Algorithm 2), behind one function.

For every channel d and state n, over tokens t:

    dt_t = softplus(delta_t + delta_bias)                      (softplus if asked for)
    h_t  = exp(dt_t * A) * h_(t-1) + dt_t * B_t * u_t          h_(-1) = 0 or initial_state
    y_t  = sum_n C_t * h_t + D * u_t
    out  = y_t * silu(z_t)                                     (if z is given)

Letters: b batch, d channels, l tokens, n states. Backends: `reference` (this file: the loop above, to read and to test
against), `chunked` (PyTorch operations in bounded memory, any device), `native` (C++, CPU), `triton` (CUDA), `mamba`
(the kernel of the package mamba-ssm, CUDA; only if asked for).
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.device import has_triton
from dacesr.nets.scan_chunked import selective_scan_chunked

try:
    from dacesr.nets import scan_native
except ImportError:  # installed without the compiled extension
    scan_native = None


_HAS_MAMBA = find_spec("mamba_ssm") is not None


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The plain time loop: any dtype, any device, differentiable; arithmetic in fp32, or fp64 where A is."""
    work = torch.promote_types(A.dtype, torch.float32)
    x, dt, A_, B_, C_ = (t.to(work) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        dt = dt + delta_bias.to(work)[:, None]
    if delta_softplus:
        dt = F.softplus(dt)
    h = x.new_zeros(u.shape[0], u.shape[1], A.shape[1])  # (b, d, n)
    if initial_state is not None:
        h = initial_state.to(work)
    ys: list[Tensor] = []
    for t in range(u.shape[2]):
        decay = torch.exp(dt[:, :, t, None] * A_)
        h = decay * h + (dt[:, :, t] * x[:, :, t])[..., None] * B_[:, None, :, t]
        ys.append((h * C_[:, None, :, t]).sum(-1))
    y = torch.stack(ys, dim=2)  # (b, d, l)
    if D is not None:
        y = y + D.to(work)[:, None] * x
    if z is not None:
        y = y * F.silu(z.to(work))
    return y.to(u.dtype), h


def _selective_scan_triton(*args: Tensor | bool | None) -> tuple[Tensor, Tensor]:
    from dacesr.nets import scan_triton

    return scan_triton.selective_scan_triton(*args)  # pyright: ignore[reportArgumentType]


def _selective_scan_mamba(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: None,
) -> tuple[Tensor, Tensor]:
    """mamba-ssm's kernel: channel-first, and u, delta, B, C and z of one type, here the widest of theirs."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn  # pyright: ignore[reportMissingImports]

    work = u.dtype
    for x in (delta, B, C):
        work = torch.promote_types(work, x.dtype)
    x, dt, B_, C_, gate = (None if t is None else t.to(work).contiguous() for t in (u, delta, B, C, z))
    skip, bias = (None if t is None else t.float() for t in (D, delta_bias))
    out, last = selective_scan_fn(x, dt, A.float(), B_, C_, skip, gate, bias, delta_softplus, return_last_state=True)
    return out.to(u.dtype), last


_BACKENDS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "triton": _selective_scan_triton,
    "mamba": _selective_scan_mamba,
    "chunked": selective_scan_chunked,
    "reference": selective_scan_reference,
}
if scan_native is not None:
    _BACKENDS = {"native": scan_native.selective_scan_native, **_BACKENDS}


def available_backends() -> list[str]:
    """Names that `selective_scan` accepts on this machine, besides `auto`; best first for each kind of device."""
    cuda = torch.cuda.is_available()
    there = {"triton": cuda and has_triton(), "mamba": cuda and _HAS_MAMBA}
    return [name for name in _BACKENDS if there.get(name, True)]


def _check_shapes(u: Tensor, A: Tensor, rows: dict[str, Tensor | None]) -> None:
    if u.ndim != 3 or A.ndim != 2 or A.shape[0] != u.shape[1] or min(u.shape[0], u.shape[2]) < 1:
        raise ValueError(f"u must be (b >= 1, d, l >= 1) and A (d, n); got {tuple(u.shape)} and {tuple(A.shape)}")
    (b, d, l), n = u.shape, A.shape[1]
    wanted = {
        "initial_state": (b, d, n),
        "B": (b, n, l),
        "C": (b, n, l),
        "delta": (b, d, l),
        "z": (b, d, l),
        "D": (d,),
        "delta_bias": (d,),
    }
    for name, x in rows.items():
        if x is not None and tuple(x.shape) != wanted[name]:
            raise ValueError(f"{name} must be {wanted[name]} to fit u {(b, d, l)} and A {(d, n)}; got {tuple(x.shape)}")


def _why_not(backend: str, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, z: Tensor | None) -> str | None:
    """What keeps `native`, `triton` or `mamba` from taking these inputs."""
    if backend == "native":
        if scan_native is None:
            return "the compiled extension dacesr._native is missing (reinstall dacesr with a C++ compiler at hand)"
        if u.device.type != "cpu":
            return f"it runs on the CPU and u is on {u.device}"
        most, dtypes = scan_native.MAX_STATES, scan_native.DTYPES
    else:
        if backend == "triton" and not has_triton():
            return "it needs the package triton (3.3 or newer), a C compiler and Python's headers, and one is missing"
        if backend == "mamba" and not _HAS_MAMBA:
            return "it needs the package mamba-ssm"
        if u.device.type != "cuda":
            return f"it runs on CUDA devices and u is on {u.device}"
        most, dtypes = 256, (torch.float32, torch.bfloat16, torch.float16)  # mamba-ssm's
        if backend == "triton":
            from dacesr.nets import scan_triton

            most, dtypes = scan_triton.MAX_STATES, scan_triton.DTYPES
    if A.shape[1] > most:
        return f"it takes up to {most} states and A has {A.shape[1]}"
    for x in (u, delta, A, B, C, z):
        if x is not None and x.dtype not in dtypes:
            return f"it takes float32, bfloat16 and float16 and one input is {x.dtype}"
    return None


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: Literal[False] = False,
    backend: str = "auto",
    initial_state: Tensor | None = None,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    return_last_state: Literal[True],
    backend: str = "auto",
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
    initial_state: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan with input-dependent step, input and output maps (see the head of this file).

    Args:
        u: input (b, d, l). Fastest where the memory is (b, l, d), as in `tokens.mT`; the same for delta and z.
        delta: step before bias and softplus (b, d, l).
        A: state matrix, one diagonal per channel (d, n), usually negative.
        B: input map (b, n, l). Fastest where the memory is (b, l, n); the same for C.
        C: output map (b, n, l).
        D: skip weight (d) or None.
        z: gate (b, d, l) or None.
        delta_bias: added to delta (d), or None.
        delta_softplus: whether the step is softplus(delta + delta_bias).
        return_last_state: also return the state after the last token.
        backend: `auto` (the best for these inputs) or one of `available_backends()`.
        initial_state: state before the first token (b, d, n), zero unless given; with the last state of one call a long
            sequence can be done in parts. No gradient flows into it.

    Returns:
        out (b, d, l) in u's dtype; with `return_last_state`, (out, state (b, d, n) in fp32, or fp64 where A is).

    Raises:
        ValueError: shapes that do not fit, or a backend that is unknown, missing or cannot take these inputs.
    """
    rows = {"delta": delta, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias, "initial_state": initial_state}
    _check_shapes(u, A, rows)
    if initial_state is not None and initial_state.requires_grad:
        raise ValueError("no gradient flows into initial_state: detach it")
    if backend == "auto":
        fast = "native" if u.device.type == "cpu" else "triton"
        backend = "chunked" if _why_not(fast, u, delta, A, B, C, z) else fast
    elif backend not in _BACKENDS and backend != "native":
        raise ValueError(
            f"unknown selective scan backend {backend!r}; available: auto, {', '.join(available_backends())}"
        )
    elif backend in ("native", "triton", "mamba") and (obstacle := _why_not(backend, u, delta, A, B, C, z)):
        raise ValueError(f"the {backend} selective scan cannot be used here: {obstacle}")
    elif backend == "mamba" and initial_state is not None:
        raise ValueError("the mamba selective scan begins with a state of zero")
    out, last = _BACKENDS[backend](u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state)
    return (out, last) if return_last_state else out
