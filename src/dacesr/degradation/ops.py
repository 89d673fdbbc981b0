"""Blur, resize, noise and sharpening on batches of pictures, on any device; JPEG is beside, in `jpeg.py`.

Pictures of one batch may have sizes of their own: `sizes` lists (height, width) of what is valid at the top left of a
common canvas, the rest is filling. Without `sizes` the canvas is the picture.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.degradation import kernels
from dacesr.degradation.canvas import Sizes, extend, largest, valid_sizes
from dacesr.degradation.jpeg import jpeg
from dacesr.device import has_fp64, has_triton
from dacesr.imresize import Mode, resize_matrices, upload

__all__ = ["extend", "filter2d", "gaussian_noise", "jpeg", "poisson_noise", "resize", "usm_sharpen"]

_GRAY = (0.2989, 0.5870, 0.1140)  # luma of the gray Poisson noise


def filter2d(x: Tensor, kernel: Tensor, sizes: Sizes | None = None, reach: Sequence[int] | None = None) -> Tensor:
    """Correlate every channel with a kernel; the edges are mirrored (without the edge pixel itself).

    A picture narrower than the kernel's reach is continued by its edge pixels instead.

    Args:
        x: (b, c, h, w).
        kernel: (k, k) for all pictures or (b, k, k), k odd.
        sizes: what of each canvas is valid.
        reach: how far each kernel goes from its centre, where zeros lie around it; k // 2 unless given.

    Returns:
        (b, c, h, w).

    Raises:
        ValueError: shapes that do not fit, or an even kernel.
    """
    b, c = x.shape[:2]
    k = kernel.shape[-1]
    if kernel.ndim not in (2, 3) or kernel.shape[-2] != k or k % 2 == 0 or kernel.shape[:-2] not in ((), (b,)):
        raise ValueError(f"the kernel should be (k, k) or ({b}, k, k) with k odd, not {tuple(kernel.shape)}")
    far = reach or [k // 2] * b
    if _is_for_triton(x, kernel):
        from dacesr.degradation.blur_triton import filter2d_triton

        return filter2d_triton(x, kernel.expand(b, k, k), valid_sizes(x, sizes), far)
    padded = extend(x, k // 2, sizes, far)
    weights = upload(kernel, x.device).to(x.dtype).expand(b, k, k)[:, None].expand(b, c, k, k).reshape(b * c, 1, k, k)
    return F.conv2d(padded.reshape(1, b * c, *padded.shape[-2:]), weights, groups=b * c).reshape(x.shape)


def _is_for_triton(x: Tensor, kernel: Tensor) -> bool:
    """Whether the kernel in Triton takes this blur: on CUDA, in fp32, without gradients."""
    differentiable = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
    fp32 = x.dtype == kernel.dtype == torch.float32
    return x.device.type == "cuda" and fp32 and not differentiable and has_triton()


def resize(x: Tensor, targets: Sizes, modes: Sequence[Mode], sizes: Sizes | None = None) -> Tensor:
    """Resize each picture to a size and in a mode of its own, without antialiasing (as `interpolate` does).

    Args:
        x: (b, c, h, w).
        targets: (height, width) of each result.
        modes: `area`, `bilinear`, `bicubic` or `nearest`, for each.
        sizes: what of each canvas is valid.

    Returns:
        (b, c, max height, max width); each result at the top left, zeros around it.

    Raises:
        ValueError: a side is below 1, or there is no such mode.
    """
    rows, columns = (matrices.to(x) for matrices in _resize_matrices(x, targets, modes, valid_sizes(x, sizes)))
    return rows[:, None] @ x @ columns[:, None].mT


def _resize_matrices(x: Tensor, targets: Sizes, modes: Sequence[Mode], sizes: Sizes) -> list[Tensor]:
    """Of the rows (b, target, height) and of the columns (b, target, width); of many pictures both are made at once."""
    made_on = x.device if has_fp64(x.device) else "cpu"
    before, after = ([[size[axis] for size in each] for axis in (0, 1)] for each in (sizes, targets))
    canvases = list(zip(largest(targets), x.shape[-2:], strict=True))
    if len(modes) == 1 or x.device.type == "cpu":
        return [resize_matrices(before[i], after[i], modes, canvases[i], made_on) for i in (0, 1)]
    canvas = max(rows for rows, _ in canvases), max(columns for _, columns in canvases)
    both = resize_matrices(before[0] + before[1], after[0] + after[1], [*modes, *modes], canvas, made_on)
    return [part[:, :rows, :columns] for part, (rows, columns) in zip(both.chunk(2), canvases, strict=True)]


def gaussian_noise(
    x: Tensor,
    sigma: Tensor,
    gray: Tensor,
    generators: Sequence[torch.Generator],
    sizes: Sizes | None = None,
) -> Tensor:
    """Add white Gaussian noise and clip to [0, 1].

    Args:
        x: (b, c, h, w) in [0, 1].
        sigma: (b,) standard deviation of each picture's noise, in the units of `x`.
        gray: (b,) bool, the same noise for all channels; it has to be waited for if it is on a GPU.
        generators: one per picture, on `x`'s device.
        sizes: what of each canvas is valid; the rest gets no noise.
    """
    valid = valid_sizes(x, sizes)
    drawn = [
        torch.randn((1 if alike else x.shape[1], *size), generator=generator, device=x.device)
        for size, alike, generator in zip(valid, gray.tolist(), generators, strict=True)
    ]
    return _noisy(x, _together(drawn, x), sigma)


def poisson_noise(
    x: Tensor,
    scale: Tensor,
    gray: Tensor,
    generators: Sequence[torch.Generator],
    sizes: Sizes | None = None,
) -> Tensor:
    """Add Poisson (shot) noise and clip to [0, 1]; no gradient flows through the noise.

    With vals = 2^ceil(log2(distinct 8-bit values of the picture)): noise = Poisson(x vals) / vals - x, times the scale
    (Real-ESRGAN's `generate_poisson_noise_pt`). The gray variant draws it on luma, the same for all channels.

    Args:
        x: (b, 3, h, w) in [0, 1].
        scale: (b,) factor of each picture's noise.
        gray: (b,) bool; it has to be waited for if it is on a GPU.
        generators: one per picture, on `x`'s device.
        sizes: what of each canvas is valid; the rest gets no noise and does not count for the distinct values.
    """
    valid, alike, inside = valid_sizes(x, sizes), gray.tolist(), _inside(x, sizes)
    base = x.detach()
    if any(alike):
        red, green, blue = (base[:, i, None] * weight for i, weight in enumerate(_GRAY))
        luma = red + green + blue
        base = luma.expand_as(x) if all(alike) else torch.where(_each(gray, x) > 0, luma, base)
    levels = base.mul(255).round().clamp(0, 255)
    vals = torch.exp2(torch.ceil(torch.log2(_distinct(levels, inside).to(x.dtype))))[:, None, None, None]
    base = levels / 255
    expected = base * vals
    drawn = [
        torch.poisson(rate[: 1 if same else None, :height, :width].contiguous(), generator=generator)
        for rate, same, (height, width), generator in zip(expected, alike, valid, generators, strict=True)
    ]
    noise = _together(drawn, x) / vals - base
    return _noisy(x, noise if inside is None else noise * inside, scale)


def _distinct(levels: Tensor, inside: Tensor | None) -> Tensor:
    """(b,) how many of the values 0 to 255 are found in each picture of (b, c, h, w); the filling sets a 257th flag."""
    index = levels.long()
    if inside is not None:
        index = index.masked_fill(~inside, 256)
    b = levels.shape[0]
    if b > 1:
        index = index + 257 * torch.arange(b, device=levels.device)[:, None, None, None]
    flags = torch.zeros(b * 257, dtype=torch.uint8, device=levels.device).index_fill_(0, index.flatten(), 1)
    return flags.view(b, 257)[:, :256].sum(1)


def _inside(x: Tensor, sizes: Sizes | None) -> Tensor | None:
    """(b, 1, h, w) True where a canvas is valid; None where all of each is."""
    if sizes is None or all(size == (x.shape[-2], x.shape[-1]) for size in sizes):
        return None
    ends = upload(torch.tensor(sizes), x.device)[:, :, None, None, None]
    rows = torch.arange(x.shape[-2], device=x.device)[:, None]
    return (rows < ends[:, 0]) & (torch.arange(x.shape[-1], device=x.device) < ends[:, 1])


def _together(parts: Sequence[Tensor], x: Tensor) -> Tensor:
    """Pictures (1 or c, its height, its width) at the top left of canvases like those of `x`, zeros around them."""
    canvas = x.new_zeros(x.shape)
    for place, part in zip(canvas, parts, strict=True):
        place[:, : part.shape[1], : part.shape[2]] = part
    return canvas


def _noisy(x: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """With level (b,) times the noise, clipped to [0, 1]."""
    return (x + noise * _each(level, x)).clamp(0, 1)


def _each(values: Tensor, x: Tensor) -> Tensor:
    """One value for each picture, (b, 1, 1, 1), as `x` is."""
    return upload(values, x.device).to(x.dtype)[:, None, None, None]


def usm_sharpen(x: Tensor, weight: float = 0.5, radius: int = 51, threshold: float = 10) -> Tensor:
    """Unsharp masking of what stands out, as Real-ESRGAN sharpens its ground truth.

    residual = x - blur(x); where |255 residual| > threshold, x + weight * residual clipped to [0, 1]; the mask is
    softened by the same Gaussian.

    Args:
        x: (b, 3, h, w) in [0, 1].
        weight: of the residual.
        radius: odd side of the Gaussian, whose sigma follows OpenCV's rule 0.3 ((radius - 1) / 2 - 1) + 0.8.
        threshold: of the residual, in 8-bit levels.

    Returns:
        (b, 3, h, w) in [0, 1].
    """
    sigma = 0.3 * ((radius - 1) / 2 - 1) + 0.8
    profile = kernels.gaussian(radius, sigma, sigma).sum(0)  # the kernel is the outer product of it

    def blur(image: Tensor) -> Tensor:
        return _filter_separably(image, profile)

    residual = x - blur(x)
    mask = blur(((residual.abs() * 255) > threshold).to(x))
    return mask * (x + weight * residual).clamp(0, 1) + (1 - mask) * x


def _filter_separably(x: Tensor, profile: Tensor) -> Tensor:
    """`filter2d` with the outer product of a symmetric profile (k,) of sum 1."""
    reach = len(profile) // 2
    padded = extend(x, reach, mirror=[reach] * x.shape[0])
    weights = upload(profile, x.device).to(x.dtype).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(padded, weights, groups=x.shape[1]), weights.mT, groups=x.shape[1])
