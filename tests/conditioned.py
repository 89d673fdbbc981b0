"""A network with a learned modulation and an extractor for it, both of a few kilobytes, that make pictures differ."""

from pathlib import Path

import torch
from tiny_tagger import CONFIG as TAGGER
from tiny_tagger import write_tagger

from dacesr.checkpoint import save_restorer
from dacesr.conditioning import extractor_fields
from dacesr.config import RestorerConfig
from dacesr.nets.restorer import Restorer

CONFIG = RestorerConfig(
    embed_dim=8,
    depths=(1, 1),
    head="pixelshuffledirect",
    scale=2,
    image_skip="bilinear",
    modulation="spatial",
    condition_dim=TAGGER.width,
)


def conditioned(seed: int = 0, **changes: object) -> Restorer:
    """One whose weights are random, those of the modulation too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Restorer(RestorerConfig(**{**CONFIG.model_dump(), **changes})).eval()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.startswith("upsample."):
                    parameter.add_(0.02 * torch.randn_like(parameter))
                elif name.startswith("modulation.") and parameter.ndim == 2:
                    parameter.add_(2 * torch.randn_like(parameter))
    return net


def write_conditioned(folder: Path, name: str = "net.safetensors", seed: int = 0) -> Path:
    """Write one and, beside it, the extractor that it names, `eye.safetensors`."""
    extractor = folder / "eye.safetensors"
    if not extractor.exists():
        write_tagger(extractor)
    save_restorer(folder / name, conditioned(seed), info={"description": "conditioned", **extractor_fields(extractor)})
    return folder / name
