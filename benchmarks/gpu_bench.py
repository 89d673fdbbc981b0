"""What every part of the measurements of a device gets: the device, its rates, networks and pictures to work on."""

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from drawing import drawn
from gpu_floors import Ceilings
from gpu_report import Report
from gpu_timing import Timer

from dacesr.image import write
from dacesr.nets.restorer import Restorer, RestorerConfig

Preset = Literal["light", "base"]

TINY: dict[str, Any] = {"embed_dim": 8, "depths": (1,), "state_dim": 4, "head_dim": 4}
PHOTOGRAPHS = 24  # pictures that are made where none are given


@dataclass
class Bench:
    """A run of the measurements.

    Attributes:
        quick: Tiny sizes, to try every line without a GPU.
        folder: For files of its own.
    """

    timer: Timer
    ceilings: Ceilings
    report: Report
    quick: bool
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.timer.device

    def presets(self) -> list[Preset]:
        """Networks to measure."""
        return ["base"] if self.quick else ["base", "light"]

    def network(self, preset: Preset) -> Restorer:
        """A network with random weights everywhere, in fp32 on the CPU (a fresh one has zeros in its head)."""
        torch.manual_seed(0)
        net = Restorer(self.config(preset)).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.01)
        return net

    def config(self, preset: Preset) -> RestorerConfig:
        """Its config."""
        return RestorerConfig(**TINY) if self.quick else RestorerConfig.preset(preset)

    def photographs(self) -> Path:
        """A folder of sharp pictures: those of $DACESR_DATA, or some that are made here."""
        given = Path(os.environ.get("DACESR_DATA", "/nowhere"), "photos", "train")
        if given.is_dir() and not self.quick:
            return given
        made = self.folder / "photographs"
        if not made.exists():
            made.mkdir()
            height, width = (48, 64) if self.quick else (768, 1024)
            for number in range(2 if self.quick else PHOTOGRAPHS):
                write(made / f"{number}.jpg", drawn(1, height, width, number), quality=95)
        return made

    def release(self) -> None:
        """Give memory back that nothing holds any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
