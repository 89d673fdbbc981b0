"""What is measured while a restorer trains: PSNR-Y, SSIM and LPIPS per degradation space, and pictures to look at."""

import contextlib
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.conditioning import load_guided
from dacesr.dataset import ValidationSet
from dacesr.featurefile import load_lpips
from dacesr.image import imresize, write
from dacesr.metrics import lpips, psnr, ssim
from dacesr.train.config import ConfigError, ValidationConfig

GAP = 8  # pixels between the pictures of a grid
RESTORER = "restorer"  # what the network in training is called in the table


class Bicubic(nn.Module):
    """Enlarges bicubically: what a network has to beat."""

    def __init__(self, *, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 3, scale * h, scale * w), never in the precision of an autocast."""
        with torch.autocast(x.device.type, enabled=False):
            return imresize(x, self.scale)


class Validation:
    """Measures networks on pictures degraded with fixed seeds."""

    def __init__(
        self,
        config: ValidationConfig,
        scale: int,
        device: torch.device,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]],
        warn: Callable[[str], None],
    ) -> None:
        """List the pictures and load what measures them.

        Raises:
            ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
        """
        assert config.folder is not None  # without a folder there is no validation
        self._config, self._scale, self._device, self._autocast = config, scale, device, autocast
        self.sets = {
            space: ValidationSet(
                config.folder,
                space=space,
                seed=config.seed,
                scale=scale,
                limit=config.limit,
                crop=config.crop,
                warn=warn,
            )
            for space in config.spaces
        }
        self._lpips = None
        if config.features is not None and config.lpips is not None:
            self._lpips = load_lpips(config.features, config.lpips).to(device)
        self._others: dict[str, nn.Module] = {"bicubic": Bicubic(scale=scale)}
        for source in config.compare:
            other = load_guided(source)
            if other.config.scale != scale:
                raise ConfigError(f"validation.compare: {source} enlarges x{other.config.scale}, the restorer x{scale}")
            name = Path(source).stem
            taken = name == RESTORER or name in self._others
            self._others[source if taken else name] = other.to(device).requires_grad_(False)

    def compare(self, measured: Container[tuple[str, str]] = ()) -> list[dict[str, Any]]:
        """Measure what the restorer is compared with, at iteration 0, and let go of it.

        Args:
            measured: (model, space) that a table holds already, which are left out.

        Returns:
            Rows as those of `run`.
        """
        rows = []
        for space, pictures in self.sets.items():
            for name, other in self._others.items():
                if (name, space) not in measured:
                    rows.append({"iteration": 0, "model": name, "space": space, **self._measure(other, pictures)[0]})
        self._others = {}
        return rows

    def run(self, net: nn.Module, iteration: int, folder: Path) -> list[dict[str, Any]]:
        """Measure a network and write grids of pictures into `images/`.

        Returns:
            A row for each space: iteration, model, space, psnr_y, ssim_y, lpips (if it can be measured).
        """
        rows = []
        for space, pictures in self.sets.items():
            scores, shown = self._measure(net, pictures)
            rows.append({"iteration": iteration, "model": RESTORER, "space": space, **scores})
            if shown:
                (folder / "images").mkdir(exist_ok=True)
                write(folder / "images" / f"{space}-{iteration:08d}.png", _grid(shown))
        return rows

    @torch.no_grad()
    def _measure(self, net: nn.Module, pictures: ValidationSet) -> tuple[dict[str, float], list[list[Tensor]]]:
        """Mean scores, and for the first pictures what was, what came out, and what should be."""
        training = net.training
        net.eval()
        scores: dict[str, list[float]] = {}
        shown: list[list[Tensor]] = []
        for _, lr, gt in pictures:
            lr, gt = lr.to(self._device), gt.to(self._device)
            with self._autocast():
                output = net(lr)
            output = output.float().clamp(0, 1)
            found = {"psnr_y": psnr(output, gt), "ssim_y": ssim(output, gt)}
            if self._lpips is not None:
                found["lpips"] = lpips(output, gt, self._lpips)
            for name, value in found.items():
                scores.setdefault(name, []).append(float(value))
            if len(shown) < self._config.images:
                shown.append([imresize(lr, self._scale).clamp(0, 1).cpu(), output.cpu(), gt.cpu()])
        net.train(training)
        return {name: sum(values) / len(values) for name, values in scores.items()}, shown


def _grid(rows: list[list[Tensor]]) -> Tensor:
    """Pictures (1, 3, h, w) of a row side by side, rows below one another, on white."""
    width = max(sum(image.shape[-1] + GAP for image in row) for row in rows)
    strips = []
    for row in rows:
        height = max(image.shape[-2] for image in row) + GAP
        padded = [F.pad(image, (0, GAP, 0, height - image.shape[-2]), value=1.0) for image in row]
        strip = torch.cat(padded, dim=-1)
        strips.append(F.pad(strip, (0, width - strip.shape[-1]), value=1.0))
    return torch.cat(strips, dim=-2)
