"""A network that upscales in an ONNX file, for use wherever one of ours is: dacesr's own files, and those of others.

Ours take `image` (1, 3, h, w) and, where they take a condition, `condition` (1, t, width) and `window` (1, 4), as
`dacesr.nets.restorer.Restorer` does. Of others only networks are taken that are given RGB (b, 3, h, w) in [0, 1] and
nothing else, and give RGB enlarged by a whole number.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dacesr.config import NetworkConfig, OnnxConfig, RestorerConfig
from dacesr.memory import is_out_of_memory
from dacesr.nets.inputs import check_image, reflect_to
from dacesr.onnxfile import OnnxFile, read_onnx, run, session
from dacesr.ownfile import own_config, own_kind
from dacesr.tensorfile import CheckpointError

__all__ = ["INPUTS", "OnnxNetwork", "load_onnx"]

INPUTS = ("image", "condition", "window")
LARGEST_SCALE = 16
LARGEST_SIDE = 1 << 14  # pixels
PROBE = 64  # pixels a side of the picture that shows what a foreign network does
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Window = tuple[float, float, float, float] | Tensor


class OnnxNetwork(nn.Module):
    """Runs in onnxruntime, in the file's own precision; it has no weights to move, and gives no gradients.

    Attributes:
        config: Of the network.
        file: Where it is from.
        size: (height, width) that it takes; None where it takes any.
    """

    def __init__(self, file: OnnxFile, config: NetworkConfig) -> None:
        """Start a network.

        Raises:
            CheckpointError: Its inputs are not those of a network of this config.
        """
        super().__init__()
        self.file, self.config = file, config
        self._sessions = {"cpu": session(file, torch.device("cpu"))}
        inputs = self._sessions["cpu"].get_inputs()
        self._names = [given.name for given in inputs]
        conditioned = isinstance(config, RestorerConfig) and config.modulation != "none"
        first = inputs[0] if inputs else None
        if first is None or len(inputs) != (3 if conditioned else 1) or not _is_picture(first):
            listed = ", ".join(f"{given.name} {given.type} {given.shape}" for given in inputs)
            raise CheckpointError(f"{file.path} does not take a picture (1, 3, height, width) alone, but: {listed}")
        self._dtype = DTYPES[first.type]
        height, width = first.shape[2:]
        self.size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxNetwork":
        """Itself: it never changes."""
        return self

    @torch.no_grad()
    def forward(self, x: Tensor, condition: Tensor | None = None, window: Window | None = None) -> Tensor:
        """Upscale, one picture after another.

        Args:
            x: (b, 3, h, w), RGB in [0, 1]; with a `size`, no larger than that: it is filled up by reflection.
            condition: (b, t, width), where the network takes one.
            window: As for `dacesr.nets.restorer.Restorer`.

        Returns:
            (b, 3, scale * h, scale * w), dtype and device of `x`; not clamped.

        Raises:
            CheckpointError: The network gives something else than the picture enlarged by its scale.
            ValueError: `x` is larger or of another shape, lacks its condition, or gradients are wanted.
            MemoryError: Memory ran out.
        """
        check_image(x)
        height, width = x.shape[2:]
        if x.requires_grad:
            raise ValueError(f"{self.file.path} is an ONNX file, which gives no gradients: take the weights it is of")
        if self.size and (height > self.size[0] or width > self.size[1]):
            raise ValueError(
                f"{self.file.path} takes pictures of {self.size[1]} x {self.size[0]} pixels, not {width} x {height}: "
                "larger ones are done in tiles by Upscaler"
            )
        if (condition is not None) != (len(self._names) > 1):
            raise ValueError(f"{self.file.path} takes {', '.join(self._names)}: give a condition where it takes one")
        scale = self.config.scale
        wanted = (1, 3, *(scale * side for side in self.size or (height, width)))
        outputs = [self.picture(x, number, condition, window) for number in range(len(x))]
        if made := next((tuple(output.shape) for output in outputs if output.shape != wanted), None):
            raise CheckpointError(f"{self.file.path} should make {wanted} of a picture, and made {made}")
        return torch.cat(outputs)[..., : height * scale, : width * scale].to(x)

    def picture(self, x: Tensor, number: int, condition: Tensor | None, window: Window | None) -> Tensor:
        """What the network makes of one of the pictures, whatever its shape, in fp32."""
        height, width = self.size or x.shape[2:]
        image = reflect_to(x[number : number + 1].float(), height, width)
        values = [image]
        if condition is not None:
            places = torch.as_tensor((0.0, 0.0, 1.0, 1.0) if window is None else window).reshape(-1, 4)
            top, left, bottom, right = places[number % len(places)].tolist()
            down, across = height / x.shape[2], width / x.shape[3]  # the window of what was filled up
            stretched = (top, left, top + (bottom - top) * down, left + (right - left) * across)
            values += [condition[number : number + 1].float(), torch.tensor([stretched])]
        feed = {
            name: np.ascontiguousarray(value.cpu().numpy(), self._dtype)
            for name, value in zip(self._names, values, strict=True)
        }
        output = run(self._session(x.device), feed, self.file.path)[0]
        if not isinstance(output, np.ndarray) or output.dtype.kind != "f":
            raise CheckpointError(f"{self.file.path} gives something else than a picture of floating-point numbers")
        return torch.from_numpy(output.astype(np.float32, copy=False))

    def _session(self, device: torch.device) -> Any:
        key = "cpu" if device.type != "cuda" else str(device)
        if key not in self._sessions:
            self._sessions[key] = session(self.file, device)
        return self._sessions[key]


def _is_picture(given: Any) -> bool:
    """Whether an input is RGB pictures, one at a time or any number, of any size or of one."""
    shape = given.shape
    if given.type not in DTYPES or len(shape) != 4 or shape[1] not in (3, None) or isinstance(shape[1], str):
        return False
    sides = {isinstance(side, int) for side in shape[2:]}
    if not all(1 <= side <= LARGEST_SIDE for side in shape[2:] if isinstance(side, int)):
        return False
    return len(sides) == 1 and (not isinstance(shape[0], int) or shape[0] == 1)


def load_onnx(path: Path, kinds: Mapping[str, type[NetworkConfig]]) -> OnnxNetwork:
    """Load a network that upscales.

    Args:
        path: The file.
        kinds: Configs of the networks of ours that will do, by kind.

    Raises:
        CheckpointError: One sentence: the file is damaged, holds another kind of network, or onnxruntime is missing.
    """
    file = read_onnx(path)
    if own_kind(file.header, str(path)) is None:
        return _foreign(file)
    return OnnxNetwork(file, own_config(file.header, str(path), kinds, wanted="restorer"))


def _foreign(file: OnnxFile) -> OnnxNetwork:
    """A network of others, whose scale is found by showing it a grey picture."""
    net = OnnxNetwork(file, OnnxConfig(scale=1))  # until it is known
    height, width = net.size or (PROBE, PROBE)
    try:
        output = net.picture(torch.full((1, 3, height, width), 0.5), 0, None, None)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise CheckpointError(f"{file.path} needs more memory for {width} x {height} pixels than there is") from error
    shape = tuple(output.shape)
    scale = shape[-1] // width if shape else 0
    if not 1 <= scale <= LARGEST_SCALE or shape != (1, 3, scale * height, scale * width):
        raise CheckpointError(
            f"{file.path} does not enlarge RGB pictures by a whole number: it makes {shape} of {(1, 3, height, width)}"
        )
    if output.max() > 4:
        raise CheckpointError(f"{file.path} seems to compute with values of 0 to 255, and pictures here are in [0, 1]")
    net.config = OnnxConfig(scale=scale)
    return net
