"""`Upscaler`: a network, a device, a precision; pictures in, larger pictures out, in tiles that fit in memory."""

import copy
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dacesr.checkpoint import load_restorer
from dacesr.config import RestorerConfig
from dacesr.image import Picture, PictureWriter, open_picture
from dacesr.memory import free_bytes, is_out_of_memory
from dacesr.nets.restorer import Restorer
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


def choose_precision(device: torch.device) -> str:
    """What `auto` stands for: bf16 where the device computes in it faster than in fp32, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu":
        return "bf16" if {"avx512_bf16", "amx_bf16"} & _cpu_flags() else "fp32"
    return "fp32"


def choose_device() -> torch.device:
    """The best device at hand: CUDA, Apple's GPU, Intel's GPU, the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if torch.xpu.is_available():
        return torch.device("xpu")
    return torch.device("cpu")


def bytes_per_pixel(config: RestorerConfig, itemsize: int) -> int:
    """An upper estimate of what the network holds at once for each input pixel, in bytes: six token maps, the output.

    The mixer's and the head's wide tensors are those of a part only.
    """
    return math.ceil(1.2 * itemsize * (6 * config.embed_dim + 6 * config.scale**2))


class Upscaler:
    """A network ready to upscale tensors, arrays, PIL images and files.

    Attributes:
        name: What it was loaded from.
        scale: Output pixels per input pixel along each side.
        device: Where it runs.
        precision: `fp32`, `bf16` or `fp16`.
    """

    def __init__(
        self,
        net: Restorer,
        *,
        device: str | torch.device = "cpu",
        precision: Precision = "auto",
        name: str = "a network",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        """Take a network in fp32; `warn` receives sentences for the user (`warnings.warn` unless given).

        Raises:
            ValueError: An unknown precision or a device that is not there.
        """
        if precision not in ("auto", *DTYPES):
            raise ValueError(f"precision must be auto, {', '.join(DTYPES)}; got {precision!r}")
        self.name = name
        self.device = _device(device)
        self.scale: int = net.config.scale
        self.precision = choose_precision(self.device) if precision == "auto" else precision
        self._exact = net.eval()
        self._net = _converted(net, self.device, DTYPES[self.precision])
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
    ) -> "Upscaler":
        """Load weights and get ready.

        Args:
            model: Bundled name, file (ours or the authors'), or hub id `owner/name`.
            device: `cpu`, `cuda`, `cuda:1`, `mps`, ..., or `auto` for the best at hand.
            precision: `auto`, `fp32`, `bf16` or `fp16`; the scan computes in fp32 in any case.
            warn: Receives sentences for the user; `warnings.warn` unless given.

        Raises:
            CheckpointError: The weights are missing or of another kind (a ValueError; the sentence names them).
            ValueError: An unknown precision or a device that is not there.
        """
        return cls(load_restorer(model), device=device, precision=precision, name=os.fspath(model), warn=warn)

    def __call__(self, x: Any, tile: int | str = "auto", overlap: int = OVERLAP, strength: float | None = None) -> Any:
        """Upscale; what comes back is of the kind that went in.

        Args:
            x: Tensor (b, 3, h, w) in [0, 1]; PIL image; or uint8 or uint16 array (h, w), (h, w, 1) or (h, w, 3), RGB.
            tile: Longest side of a tile in input pixels, `auto` (from free memory) or 0 (the whole picture at once).
            overlap: Input pixels that a tile shares with the neighbour on each side; at most a third of a tile.
            strength: Only for models with two sets of weights, which this one is not; leave it out.

        Returns:
            The same kind, `scale` times as wide and high; tensors keep dtype and device and lie within [0, 1].

        Raises:
            ValueError: A kind, shape or number that is impossible.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        if strength is not None:
            raise ValueError(f"{self.name} has one set of weights, so there is no strength to choose")
        if isinstance(x, Tensor):
            return self._tensor(x, tile, overlap)
        if isinstance(x, np.ndarray):
            return self._array(x, tile, overlap)
        if type(x).__module__.split(".")[0] == "PIL":
            return self._pil(x, tile, overlap)
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
            side = math.isqrt(budget // bytes_per_pixel(self._net.config, itemsize)) // 16 * 16
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
            quality: 1 to 100 for JPEG, WebP and AVIF.
            strip_metadata: Keep only the colour profile.
            progress: Told (tiles done, tiles in all).

        Raises:
            ImageError: The picture cannot be decoded or the target not be written; the sentence names it.
            UpscaleError: Too little memory for any tile, or weights that give no numbers.
        """
        plan = self._plan(picture.height, picture.width, tile, overlap)
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
            for strip in plan.blend(self._outputs(plan, picture.region, overlap, progress)):
                writer.write_rows(strip.float().cpu())
            encoded = writer.finish()
            for sentence in (*picture.warnings, *writer.warnings):
                self._warn(sentence)
            return encoded

    def _plan(self, height: int, width: int, tile: int | str, overlap: int) -> TilePlan:
        size = self.tile_size(tile, overlap)
        return self._cut(height, width, size, overlap)

    def _cut(self, height: int, width: int, tile: int, overlap: int) -> TilePlan:
        overlap = min(overlap, tile // 3) if tile else overlap
        return TilePlan(height=height, width=width, scale=self.scale, tile=tile, overlap=overlap)

    def _outputs(
        self, plan: TilePlan, region: Callable[..., Tensor], overlap: int, progress: Progress | None = None
    ) -> Iterator[Tensor]:
        for number, (rows, columns) in enumerate(plan.tiles(), start=1):
            yield self._tile(region(columns.start, rows.start, columns.size, rows.size), overlap)
            if progress:
                progress(number, len(plan))

    def _tile(self, x: Tensor, overlap: int) -> Tensor:
        """Output of one tile in [0, 1]; where it does not fit in memory, of tiles half as long, and so from then on."""
        longest = max(x.shape[-2:])
        if not 0 < self._tile_limit < longest:
            output = self._run(x)
            if output is not None:
                return output
            self._tile_limit = max(longest // 2, SMALLEST_TILE)
            if longest <= SMALLEST_TILE:
                raise UpscaleError(f"there is too little memory on {self.device} even for {longest} x {longest} pixels")
            self._warn(f"too little memory for tiles of {longest} pixels: going on with {self._tile_limit}")
        plan = self._cut(x.shape[2], x.shape[3], self._tile_limit, overlap)
        return torch.cat(list(plan.blend(self._outputs(plan, _regions_of(x), overlap))), dim=2)

    @torch.no_grad()
    def _run(self, x: Tensor) -> Tensor | None:
        """The network on one tile, in fp32 again if it gives no numbers or black; None if memory runs out."""
        try:
            x = x.to(self.device)
            output = self._net(x).float()
            if self.precision != "fp32" and _is_broken(output, x):
                self._fall_back()
                output = self._net(x).float()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        if not _is_finite(output):
            raise UpscaleError(f"{self.name} gives values that are not numbers; its weights may be damaged")
        return output.clamp_(0, 1)

    def _fall_back(self) -> None:
        with self._lock:
            if self.precision != "fp32":
                self._warn(f"{self.precision} gave a black or broken tile: it is done again, and the rest, in fp32")
                self._net = _converted(self._exact, self.device, torch.float32)
                self.precision = "fp32"

    def _tensor(self, x: Tensor, tile: int | str, overlap: int) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape) < 1 or not x.is_floating_point():
            raise ValueError(f"a float tensor (b, 3, h, w) is needed, not {x.dtype} {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("the tensor holds values that are not numbers")
        plan = self._plan(x.shape[2], x.shape[3], tile, overlap)
        strips = plan.blend(self._outputs(plan, _regions_of(x.float()), overlap))
        return torch.cat(list(strips), dim=2).to(x)

    def _array(self, x: np.ndarray, tile: int | str, overlap: int) -> np.ndarray:
        full = {"uint8": 255, "uint16": 65535}.get(x.dtype.name)
        if full is None or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (1, 3)):
            raise ValueError(
                f"an array must be uint8 or uint16, (h, w), (h, w, 1) or (h, w, 3); got {x.dtype} {x.shape}"
            )
        values = torch.from_numpy(x.reshape(*x.shape[:2], -1).astype(np.float32) / full)
        rgb = values.permute(2, 0, 1)[None].expand(1, 3, -1, -1)
        output = self._tensor(rgb, tile, overlap)[0].permute(1, 2, 0)  # (h, w, 3)
        if x.ndim == 2 or x.shape[2] == 1:
            output = output.mean(2, keepdim=True)
        return output.mul(full).round().numpy().astype(x.dtype).reshape(*output.shape[:2], *x.shape[2:])

    def _pil(self, x: Any, tile: int | str, overlap: int) -> Any:
        """By way of a PNG in memory, so that alpha, 16 bits and gray are treated as in files."""
        from PIL import Image

        if x.mode not in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
            x = x.convert("RGBA" if "A" in x.getbands() or "a" in x.getbands() else "RGB")
        file = BytesIO()
        x.save(file, "PNG", compress_level=0)
        picture = open_picture(file.getvalue(), name="the PIL image")
        encoded = self.upscale(picture, None, format="png", tile=tile, overlap=overlap)
        assert encoded is not None  # no target was given
        return Image.open(BytesIO(encoded))


def _regions_of(x: Tensor) -> Callable[[int, int, int, int], Tensor]:
    return lambda left, top, width, height: x[:, :, top : top + height, left : left + width]


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return choose_device()
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {str(device)!r} is not available here") from error
    return chosen


def _converted(net: Restorer, device: torch.device, dtype: torch.dtype) -> Restorer:
    """A copy on a device, in half precision where that is asked for (the network keeps what must stay fp32)."""
    return copy.deepcopy(net).to(device=device, dtype=dtype).requires_grad_(False).eval()


def _is_finite(x: Tensor) -> bool:
    """As `x.isfinite().all()` in one pass: the extremes are NaN where any value is."""
    return all(math.isfinite(extreme) for extreme in x.aminmax())


def _is_broken(output: Tensor, x: Tensor) -> bool:
    """Not finite, or black where the input is not: what overflow in half precision looks like."""
    return not _is_finite(output) or bool(output.max() < 1 / 255 and x.max() > 8 / 255)


def _cpu_flags() -> set[str]:
    """What /proc/cpuinfo lists; empty elsewhere than on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
