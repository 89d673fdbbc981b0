"""The steps that degradations are made of, as records with the numbers that were drawn."""

from dataclasses import dataclass
from typing import Literal

from dacesr.degradation import kernels
from dacesr.imresize import Mode


@dataclass(frozen=True)
class Blur(kernels.Shape):
    """A kernel that every channel is correlated with."""

    def __str__(self) -> str:
        """For people."""
        if self.family == "sinc":
            return f"sinc {self.size}, cutoff {self.cutoff:.2f}"
        beta = f", beta {self.beta:.2f}" if self.beta else ""
        if self.sigma_x == self.sigma_y:
            return f"{self.family} blur {self.size}, sigma {self.sigma_x:.2f}{beta}"
        sigmas = f"{self.sigma_x:.2f} x {self.sigma_y:.2f} at {self.theta:.2f}"
        return f"{self.family} blur {self.size}, sigma {sigmas}{beta}"


@dataclass(frozen=True)
class Resize:
    """A plain resize, without antialiasing, to a size in pixels."""

    mode: Mode
    height: int
    width: int

    def __str__(self) -> str:
        """For people."""
        return f"{self.mode} to {self.width} x {self.height}"


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's antialiased bicubic by a whole factor, rounded to 8 bits on the way as on uint8 pictures."""

    factor: int

    def __str__(self) -> str:
        """For people."""
        return f"MATLAB bicubic by 1/{self.factor}"


@dataclass(frozen=True)
class Noise:
    """Noise: `level` is sigma in 8-bit levels for Gaussian noise, a factor of the physical amount for Poisson."""

    kind: Literal["gaussian", "poisson"]
    level: float
    gray: bool

    def __str__(self) -> str:
        """For people."""
        return f"{'gray ' if self.gray else ''}{self.kind} noise {self.level:.2f}"


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression, 4:2:0, of a quality from 1 to 100."""

    quality: int

    def __str__(self) -> str:
        """For people."""
        return f"JPEG {self.quality}"


Step = Blur | Resize | Bicubic | Noise | Jpeg


@dataclass(frozen=True)
class Degradation:
    """All that was drawn for one picture.

    Attributes:
        space: Name of the space.
        level: The space that `dasr` chose; otherwise the space itself.
        steps: What is done to the picture, in order.
        vector: DASR's 33 numbers (see `dacesr.degradation.spaces`), all 0 for spaces that have none.
    """

    space: str
    level: str
    steps: tuple[Step, ...]
    vector: tuple[float, ...]

    def __str__(self) -> str:
        """For people, on one line."""
        chosen = self.space if self.level == self.space else f"{self.space} ({self.level})"
        return f"{chosen}: {', '.join(map(str, self.steps))}"
