"""A tagger of a few kilobytes in a file, with random weights that give some pictures some tags."""

from pathlib import Path

import torch

from dacesr.config import TaggerConfig
from dacesr.nets.tagger import Tagger
from dacesr.taggerfile import save_tagger

TAGS = ("sky", "sea", "tree", "house", "cat", "dog", "boat", "sun")
CONFIG = TaggerConfig(
    image_size=32,
    patch=4,
    embed_dim=8,
    depths=(1, 1),
    heads=(2, 2),
    window=4,
    width=16,
    tags=len(TAGS),
    label_dim=8,
    head_dim=8,
    head_layers=1,
    head_heads=2,
    head_mlp=16,
)


def write_tagger(path: Path, *, seed: int = 0, tags: tuple[str, ...] = TAGS) -> Path:
    """Write one; another seed than 0 changes the encoder a little."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        tagger = Tagger(CONFIG, tags=tags, thresholds=[0.5] * len(TAGS))
        with torch.no_grad():
            for parameter in tagger.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            tagger.fc.bias.fill_(0.02)
            if seed:
                torch.manual_seed(seed)
                for parameter in tagger.encoder.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
    save_tagger(path, tagger)
    return path
