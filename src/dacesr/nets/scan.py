"""Selective scan of Mamba-1 (Gu and Dao 2023, arXiv 2312.00752, Eq. 2 and Algorithm 2).

For every channel d and state n, over tokens t:

    dt_t = softplus(delta_t + delta_bias)                      (softplus if asked for)
    h_t  = exp(dt_t * A) * h_(t-1) + dt_t * B_t * u_t           h_(-1) = 0
    y_t  = sum_n C_t * h_t + D * u_t
    out  = y_t * silu(z_t)                                     (if z is given)

Letters: b batch, d channels, l tokens, n states.
"""

from torch import Tensor
from torch.nn import functional as F


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
) -> tuple[Tensor, Tensor]:
    """The plain time loop: any dtype, any device, differentiable; arithmetic in fp32 at least."""
    dtype = u.dtype
    work = A.dtype if A.is_floating_point() and A.dtype.itemsize >= 4 else u.float().dtype
    u_, dt, B_, C_ = (x.to(work) for x in (u, delta, B, C))
    if delta_bias is not None:
        dt = dt + delta_bias.to(work)[:, None]
    if delta_softplus:
        dt = F.softplus(dt)
    A_ = A.to(work)
    h = u_.new_zeros(u.shape[0], u.shape[1], A.shape[1])  # (b, d, n)
    ys: list[Tensor] = []
    for t in range(u.shape[2]):
        decay = (dt[:, :, t, None] * A_).exp()
        h = decay * h + (dt[:, :, t] * u_[:, :, t])[..., None] * B_[:, None, :, t]
        ys.append((h * C_[:, None, :, t]).sum(-1))
    y = u_.new_zeros(u.shape) if not ys else __import__("torch").stack(ys, dim=2)
    if D is not None:
        y = y + D.to(work)[:, None] * u_
    if z is not None:
        y = y * F.silu(z.to(work))
    return y.to(dtype), h


def selective_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                   return_last_state=False, backend="auto"):
    """Provisional: the real dispatch replaces this within the hour."""
    out, last = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (out, last) if return_last_state else out
