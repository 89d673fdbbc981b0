"""RAM, the Recognize Anything Model (Zhang et al. 2023): what is in a picture, as tokens and as tags.

    b  pictures     t  tokens: one global, then g * g of a grid, row by row
    n  tags         c  channels

A Swin encoder; the mean of its grid goes before the grid; a projection makes the tokens that condition a restorer.
Every tag is a query that looks at the tokens (cross-attention and an MLP, layer by layer) and ends as one logit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import TaggerConfig
from dacesr.nets.features import MEAN, STD
from dacesr.nets.swin import Swin

__all__ = ["THRESHOLD", "Recognition", "Tagger", "TaggerConfig", "normalise"]

THRESHOLD = 0.68  # probability from which a tag is given, where a list of thresholds doesn't say more
RARE = -3.0  # logit of every tag before training: a picture has few of those that there are
EPS = 1e-12  # of the head's LayerNorms, as in BERT


class Recognition(NamedTuple):
    """What was seen: `tokens` (b, t, width) and `logits` (b, n)."""

    tokens: Tensor
    logits: Tensor


class CrossAttention(nn.Module):
    """Queries look at tokens."""

    def __init__(self, *, dim: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(source, dim), nn.Linear(source, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (b, n, c), tokens (b, t, source) -> (b, n, c)."""
        q, k, v = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, x), (self.key, tokens), (self.value, tokens))
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class HeadLayer(nn.Module):
    """Cross-attention, then an MLP, each with a residual that is normalised after it."""

    def __init__(self, *, config: TaggerConfig) -> None:
        super().__init__()
        dim = config.head_dim
        self.attn = CrossAttention(dim=dim, source=config.width, heads=config.head_heads)
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.fc1, self.fc2 = nn.Linear(dim, config.head_mlp), nn.Linear(config.head_mlp, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """x (b, n, c), tokens (b, t, source) -> (b, n, c)."""
        x = self.norm1(x + self.attn(x, tokens))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))


class Tagger(nn.Module):
    """Pictures to tokens and tags.

    Attributes:
        tag_names: A name for every logit.
        thresholds: (n,) probabilities from which a tag is given, fp32 on the CPU; not a part of the weights.
    """

    def __init__(
        self,
        config: TaggerConfig,
        *,
        tags: Sequence[str] | None = None,
        thresholds: Sequence[float] | Tensor | None = None,
    ) -> None:
        """Build it with random weights.

        Args:
            config: Its sizes.
            tags: Names, one for each of `config.tags`; their numbers unless given.
            thresholds: Probabilities, one for each tag; `THRESHOLD` unless given.

        Raises:
            ValueError: Another number of names or thresholds than of tags.
        """
        super().__init__()
        self.config = config
        self.encoder = Swin(config=config)
        self.image_proj = nn.Linear(config.stage_dim(len(config.depths) - 1), config.width)
        self.label_embed = nn.Parameter(torch.empty(config.tags, config.label_dim))
        self.wordvec_proj = nn.Linear(config.label_dim, config.head_dim)
        self.head = nn.ModuleList(HeadLayer(config=config) for _ in range(config.head_layers))
        self.fc = nn.Linear(config.head_dim, 1)
        self.name_tags(tags, thresholds)
        self.apply(_init)
        nn.init.normal_(self.label_embed)
        nn.init.constant_(self.fc.bias, RARE)

    def name_tags(self, tags: Sequence[str] | None, thresholds: Sequence[float] | Tensor | None = None) -> None:
        """Give names and thresholds to the logits; ValueError where their number is another."""
        count = self.config.tags
        names = tuple(str(i) for i in range(count)) if tags is None else tuple(tags)
        given = [THRESHOLD] * count if thresholds is None else thresholds
        limits = torch.as_tensor(given, dtype=torch.float32, device="cpu")
        if len(names) != count or limits.shape != (count,):
            raise ValueError(f"the tagger knows {count} tags; got {len(names)} names and {limits.numel()} thresholds")
        self.tag_names, self.thresholds = names, limits

    def embed(self, image: Tensor) -> Tensor:
        """(b, 3, s, s), ImageNet-normalised, sides multiples of the patch -> tokens (b, 1 + g * g, width)."""
        grid = self.encoder(image).flatten(1, 2)
        return self.image_proj(torch.cat([grid.mean(1, keepdim=True), grid], 1))

    def classify(self, tokens: Tensor) -> Tensor:
        """Tokens (b, t, width) -> logits (b, n)."""
        x = F.relu(self.wordvec_proj(self.label_embed)).expand(len(tokens), -1, -1)
        for layer in self.head:
            x = layer(x, tokens)
        return self.fc(x).squeeze(-1)

    def logits(self, image: Tensor) -> Tensor:
        """(b, 3, s, s), ImageNet-normalised -> logits (b, n)."""
        return self.classify(self.embed(image))

    def forward(self, image: Tensor) -> Recognition:
        """(b, 3, s, s), ImageNet-normalised -> tokens and logits."""
        tokens = self.embed(image)
        return Recognition(tokens, self.classify(tokens))

    def names(self, logits: Tensor) -> list[tuple[str, ...]]:
        """The tags of each picture whose probability reaches their threshold, the most probable first."""
        probabilities = logits.detach().float().sigmoid().cpu()
        order = probabilities.argsort(dim=1, descending=True, stable=True)
        given = (probabilities >= self.thresholds).gather(1, order)
        return [
            tuple(self.tag_names[i] for i in places[chosen].tolist())
            for places, chosen in zip(order, given, strict=True)
        ]


def normalise(x: Tensor) -> Tensor:
    """RGB (b, 3, h, w) in [0, 1] with ImageNet's mean and deviation taken out: what encoders are given."""
    mean, std = (torch.tensor(values, device=x.device, dtype=x.dtype).view(3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
