"""`Upscaler`: a network, a device, a precision; pictures in, larger pictures out, in tiles that fit in memory."""

import copy
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dacesr.checkpoint import Network, load_restorer, resolve
from dacesr.device import choose_precision, find_device
from dacesr.image import Picture, PictureWriter, open_picture
from dacesr.memory import free_bytes, is_out_of_memory
from dacesr.pairing import Pair, checked, find_pair
from dacesr.tiling import TilePlan

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Progress = Callable[[int, int], None]  # tiles done, tiles in all

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OVERLAP = 32  # input pixels that neighbouring tiles share
SMALLEST_TILE = 32
LARGEST_TILE = 1024
TILE_BUDGET = 320 << 20  # bytes that a tile's tensors may take on the CPU, however much is free


class UpscaleError(RuntimeError):
    """The network cannot do it: too little memory for any tile, or weights that give no numbers."""


class _Running(NamedTuple):
    """A network as it runs: a copy on the device, and its precision."""

    net: Network
    precision: str


@dataclass
class _Weights:
    """The network of one strength: in fp32 on the CPU, and as it runs."""

    strength: float | None
    exact: Network
    running: _Running


class Upscaler:
    """A network ready to upscale tensors, arrays, PIL images and files.

    Attributes:
        name: What it was loaded from.
        scale: Output pixels per input pixel along each side.
        device: Where it runs.
        precision: `fp32`, `bf16` or `fp16`.
        strength: What is used where a call does not say; None where the model has one set of weights.
    """

    def __init__(
        self,
        net: Network,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        name: str = "a network",
        warn: Callable[[str], None] | None = None,
        pair: Pair | None = None,
        strength: float | None = None,
    ) -> None:
        """Take a network in fp32, and the pair it is part of, if it is; the rest is as for `load`.

        Raises:
            ValueError: An unknown precision, a device that is not there, an impossible strength.
        """
        if precision not in ("auto", *DTYPES):
            raise ValueError(f"precision must be auto, {', '.join(DTYPES)}; got {precision!r}")
        self.name = name
        self.device = find_device(device)
        self.scale: int = net.config.scale
        self.precision = choose_precision(self.device) if precision == "auto" else precision
        self._exact = net.eval()
        self._pair = pair
        self._weights: _Weights | None = None  # of the last strength
        self.strength = pair.strength if pair else None
        self.strength = self._chosen(strength)
        self._warn = warn or (lambda sentence: warnings.warn(sentence, RuntimeWarning, stacklevel=2))
        self._lock = threading.Lock()
        self._tile_limit = 0  # set once a larger tile did not fit in memory

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "default",
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        warn: Callable[[str], None] | None = None,
        strength: float | None = None,
    ) -> "Upscaler":
        """Load weights and get ready.

        Args:
            model: Bundled name, file (see `dacesr.checkpoint.load_restorer`), or hub id `owner/name`.
            device: `cpu`, `cuda`, `cuda:1`, `mps`, ..., or `auto` for the best at hand.
            precision: `auto`, `fp32`, `bf16` or `fp16`; the scan computes in fp32 in any case.
            warn: Receives sentences for the user; `warnings.warn` unless given.
            strength: For calls that do not say; see there.

        Raises:
            CheckpointError: The weights are missing or of another kind (a ValueError; the sentence names them).
            ValueError: An unknown precision, a device that is not there, an impossible strength.
        """
        path = resolve(model)
        net = load_restorer(path)
        pair = find_pair(model, path, net)
        name = os.fspath(model)
        return cls(net, device=device, precision=precision, name=name, warn=warn, pair=pair, strength=strength)

    def prepare(self) -> None:
        """Make the weights ready, which the first call does otherwise.

        Raises:
            CheckpointError: The partner of the weights is needed, and missing or does not fit them.
        """
        self._weights_at(None)

    def __call__(self, x: Any, tile: int | str = "auto", overlap: int = OVERLAP, strength: float | None = None) -> Any:
        """Upscale; what comes back is of the kind that went in.

        Args:
            x: Tensor (b, 3, h, w) in [0, 1]; PIL image; or uint8 or uint16 array (h, w), (h, w, 1) or (h, w, 3), RGB.
            tile: Longest side of a tile in input pixels, `auto` (from free memory) or 0 (the whole picture at once).
            overlap: Input pixels that a tile shares with the neighbour on each side; at most a third of a tile.
            strength: For models with two sets of weights: 0 faithful to 1 crisp; the model's own unless given.

        Returns:
            The same kind, `scale` times as wide and high; tensors keep dtype and device and lie within [0, 1].

        Raises:
            ValueError: A kind, shape or number that is impossible; a strength where there is one set of weights.
            CheckpointError: The partner of the weights is missing or does not fit them.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        if isinstance(x, Tensor):
            return self._tensor(x, tile, overlap, strength)
        if isinstance(x, np.ndarray):
            return self._array(x, tile, overlap, strength)
        if type(x).__module__.split(".")[0] == "PIL":
            return self._pil(x, tile, overlap, strength)
        raise ValueError(f"a tensor, a numpy array or a PIL image is needed, not {type(x).__name__}")

    def tile_size(self, tile: int | str, overlap: int) -> int:
        """The tile in input pixels that `auto`, 0 or a number stands for now.

        Raises:
            ValueError: `tile` is neither, or the overlap is negative.
        """
        if tile != "auto" and not (isinstance(tile, int) and tile >= 0):
            raise ValueError(f"tile must be auto, 0 or a positive number of pixels; got {tile!r}")
        if overlap < 0:
            raise ValueError(f"overlap must not be negative; got {overlap}")
        if isinstance(tile, str):
            budget = free_bytes(self.device) // 2
            if self.device.type == "cpu":
                budget = min(budget, TILE_BUDGET)
            itemsize = DTYPES[self.precision].itemsize
            side = math.isqrt(budget // self._exact.config.bytes_per_pixel(itemsize)) // 16 * 16
            tile = max(SMALLEST_TILE, 3 * overlap, min(LARGEST_TILE, side))
        return tile

    def upscale(
        self,
        picture: Picture,
        target: Path | None,
        *,
        format: str | None = None,
        size: tuple[int, int] | None = None,
        tile: int | str = "auto",
        overlap: int = OVERLAP,
        strength: float | None = None,
        quality: int | None = None,
        strip_metadata: bool = False,
        progress: Progress | None = None,
    ) -> bytes | None:
        """Upscale an opened picture to a file, row of tiles by row of tiles, with alpha and metadata.

        Args:
            picture: From `dacesr.image.open_picture`.
            target: File to write; None returns the encoded bytes instead.
            format: Key of `dacesr.formats.FORMATS`; the picture's own unless given.
            size: Final (width, height); the network's `scale` times the picture's unless given.
            tile: As for a call.
            overlap: As for a call.
            strength: As for a call.
            quality: 1 to 100 for JPEG, WebP and AVIF.
            strip_metadata: Keep only the colour profile.
            progress: Told (tiles done, tiles in all).

        Raises:
            ImageError: The picture cannot be decoded or the target not be written; the sentence names it.
            ValueError, CheckpointError: As for a call.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        plan = self._plan(picture.height, picture.width, tile, overlap)
        weights = self._weights_at(strength)
        with PictureWriter(
            picture,
            target,
            format=format or picture.format,
            width=picture.width * self.scale,
            height=picture.height * self.scale,
            final_size=size,
            quality=quality,
            strip_metadata=strip_metadata,
        ) as writer:
            if progress:
                progress(0, len(plan))
            for strip in plan.blend(self._outputs(weights, plan, picture.region, overlap, progress)):
                writer.write_rows(strip.float().cpu())
            encoded = writer.finish()
            for sentence in (*picture.warnings, *writer.warnings):
                self._warn(sentence)
            return encoded

    def _chosen(self, strength: float | None) -> float | None:
        if strength is None:
            return self.strength
        if self._pair is None:
            raise ValueError(f"{self.name} has one set of weights, so there is no strength to choose")
        return checked(strength)

    def _weights_at(self, strength: float | None) -> _Weights:
        """The weights of a strength, made or from last time; a call keeps what it got, whatever others ask for."""
        strength = self._chosen(strength)
        with self._lock:
            if self._weights is None or self._weights.strength != strength:
                exact = self._exact if self._pair is None or strength is None else self._pair.at(strength)
                self._weights = _Weights(strength, exact, _running(exact, self.device, self.precision))
            return self._weights

    def _plan(self, height: int, width: int, tile: int | str, overlap: int) -> TilePlan:
        size = self.tile_size(tile, overlap)
        return self._cut(height, width, size, overlap)

    def _cut(self, height: int, width: int, tile: int, overlap: int) -> TilePlan:
        overlap = min(overlap, tile // 3) if tile else overlap
        return TilePlan(height=height, width=width, scale=self.scale, tile=tile, overlap=overlap)

    def _outputs(
        self,
        weights: _Weights,
        plan: TilePlan,
        region: Callable[..., Tensor],
        overlap: int,
        progress: Progress | None = None,
    ) -> Iterator[Tensor]:
        for number, (rows, columns) in enumerate(plan.tiles(), start=1):
            yield self._tile(weights, region(columns.start, rows.start, columns.size, rows.size), overlap)
            if progress:
                progress(number, len(plan))

    def _tile(self, weights: _Weights, x: Tensor, overlap: int) -> Tensor:
        """Output of one tile in [0, 1]; where it does not fit in memory, of tiles half as long, and so from then on."""
        longest = max(x.shape[-2:])
        if not 0 < self._tile_limit < longest:
            output = self._run(weights, x)
            if output is not None:
                return output
            self._tile_limit = max(longest // 2, SMALLEST_TILE)
            if longest <= SMALLEST_TILE:
                raise UpscaleError(f"there is too little memory on {self.device} even for {longest} x {longest} pixels")
            self._warn(f"too little memory for tiles of {longest} pixels: going on with {self._tile_limit}")
        plan = self._cut(x.shape[2], x.shape[3], self._tile_limit, overlap)
        return torch.cat(list(plan.blend(self._outputs(weights, plan, _regions_of(x), overlap))), dim=2)

    @torch.no_grad()
    def _run(self, weights: _Weights, x: Tensor) -> Tensor | None:
        """The network on one tile, in fp32 again if it gives no numbers or black; None if memory runs out."""
        try:
            x = x.to(self.device)
            running = weights.running
            output = running.net(x).float()
            if running.precision != "fp32" and _is_broken(output, x):
                output = self._fall_back(weights).net(x).float()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        if not _is_finite(output):
            raise UpscaleError(f"{self.name} gives values that are not numbers; its weights may be damaged")
        return output.clamp_(0, 1)

    def _fall_back(self, weights: _Weights) -> _Running:
        with self._lock:
            if self.precision != "fp32":
                self._warn(f"{self.precision} gave a black or broken tile: it is done again, and the rest, in fp32")
                self.precision = "fp32"
            if weights.running.precision != "fp32":
                weights.running = _running(weights.exact, self.device, "fp32")
            return weights.running

    def _tensor(self, x: Tensor, tile: int | str, overlap: int, strength: float | None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape) < 1 or not x.is_floating_point():
            raise ValueError(f"a float tensor (b, 3, h, w) is needed, not {x.dtype} {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("the tensor holds values that are not numbers")
        plan = self._plan(x.shape[2], x.shape[3], tile, overlap)
        strips = plan.blend(self._outputs(self._weights_at(strength), plan, _regions_of(x.float()), overlap))
        return torch.cat(list(strips), dim=2).to(x)

    def _array(self, x: np.ndarray, tile: int | str, overlap: int, strength: float | None) -> np.ndarray:
        full = {"uint8": 255, "uint16": 65535}.get(x.dtype.name)
        if full is None or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (1, 3)):
            raise ValueError(
                f"an array must be uint8 or uint16, (h, w), (h, w, 1) or (h, w, 3); got {x.dtype} {x.shape}"
            )
        values = torch.from_numpy(x.reshape(*x.shape[:2], -1).astype(np.float32) / full)
        rgb = values.permute(2, 0, 1)[None].expand(1, 3, -1, -1)
        output = self._tensor(rgb, tile, overlap, strength)[0].permute(1, 2, 0)  # (h, w, 3)
        if x.ndim == 2 or x.shape[2] == 1:
            output = output.mean(2, keepdim=True)
        return output.mul(full).round().numpy().astype(x.dtype).reshape(*output.shape[:2], *x.shape[2:])

    def _pil(self, x: Any, tile: int | str, overlap: int, strength: float | None) -> Any:
        """By way of a PNG in memory, so that alpha, 16 bits and gray are treated as in files."""
        from PIL import Image

        if x.mode not in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
            x = x.convert("RGBA" if "A" in x.getbands() or "a" in x.getbands() else "RGB")
        file = BytesIO()
        x.save(file, "PNG", compress_level=0)
        picture = open_picture(file.getvalue(), name="the PIL image")
        encoded = self.upscale(picture, None, format="png", tile=tile, overlap=overlap, strength=strength)
        assert encoded is not None  # no target was given
        return Image.open(BytesIO(encoded))


def _regions_of(x: Tensor) -> Callable[[int, int, int, int], Tensor]:
    return lambda left, top, width, height: x[:, :, top : top + height, left : left + width]


def _running(net: Network, device: torch.device, precision: str) -> _Running:
    """A copy on a device, in half precision where that is asked for (the network keeps what must stay fp32)."""
    copied = copy.deepcopy(net).to(device=device, dtype=DTYPES[precision]).requires_grad_(False).eval()
    return _Running(copied, precision)


def _is_finite(x: Tensor) -> bool:
    """As `x.isfinite().all()` in one pass: the extremes are NaN where any value is."""
    return all(math.isfinite(extreme) for extreme in x.aminmax())


def _is_broken(output: Tensor, x: Tensor) -> bool:
    """Not finite, or black where the input is not: what overflow in half precision looks like."""
    return not _is_finite(output) or bool(output.max() < 1 / 255 and x.max() > 8 / 255)
