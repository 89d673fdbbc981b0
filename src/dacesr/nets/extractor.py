"""The embedding extractor: a frozen tagger that takes pictures of any size (REE, Fig. 4, once its LoRA is merged)."""

from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.config import ConditionKind
from dacesr.nets.tagger import Recognition, Tagger, normalise

__all__ = ["SMALLEST", "Extractor"]

SMALLEST = 8  # pixels a side of a picture in which there is something to recognise


class Extractor(nn.Module):
    """Whole pictures to tokens and tags.

    What goes in are RGB pictures (b, 3, h, w) in [0, 1] of any size from 8 x 8 on; what comes out has their dtype,
    whatever the extractor's own precision.
    """

    def __init__(self, tagger: Tagger) -> None:
        """Take a tagger over: it is put into eval mode, and its weights get no gradients any more."""
        super().__init__()
        self.tagger = tagger.eval().requires_grad_(False)

    @property
    def tag_names(self) -> tuple[str, ...]:
        """A name for every logit."""
        return self.tagger.tag_names

    def prepare(self, x: Tensor) -> Tensor:
        """Resized to what the tagger was trained on (bilinear, antialiased; RAM: by way of 512) and normalised.

        Args:
            x: RGB (b, 3, h, w) in [0, 1].

        Returns:
            (b, 3, s, s) with ImageNet's mean and deviation taken out, in the tagger's precision.

        Raises:
            ValueError: another shape, or a side below 8 pixels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"an extractor takes RGB pictures (b, 3, h, w); got {tuple(x.shape)}")
        height, width = x.shape[2:]
        if min(height, width) < SMALLEST:
            raise ValueError(f"the picture is too small to recognise anything: {width} x {height}, below {SMALLEST}")
        x = x.float()
        for side in (*self.tagger.config.resize, self.tagger.config.image_size):
            if x.shape[2:] != (side, side):
                x = F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
        return normalise(x).to(self.tagger.fc.weight.dtype)

    def embed(self, x: Tensor) -> Tensor:
        """RGB (b, 3, h, w) in [0, 1] -> tokens (b, 1 + g * g, width), token 0 global; errors as for `prepare`."""
        return self.tagger.embed(self.prepare(x)).to(x.dtype)

    def condition(self, x: Tensor, kind: ConditionKind = "re") -> Tensor:
        """What a restorer is conditioned on (Table IV).

        Args:
            x: RGB (b, 3, h, w) in [0, 1].
            kind: `re`, the representation embedding: all tokens; `le`, the logits embedding: one token of logits.

        Returns:
            (b, 1 + g * g, width), or (b, 1, n).

        Raises:
            ValueError: as for `prepare`.
        """
        return self.embed(x) if kind == "re" else self.recognise(x).logits.unsqueeze(1)

    def condition_dim(self, kind: ConditionKind = "re") -> int:
        """Channels of a token of `condition`."""
        return self.tagger.config.width if kind == "re" else self.tagger.config.tags

    def recognise(self, x: Tensor) -> Recognition:
        """RGB (b, 3, h, w) in [0, 1] -> tokens and logits (b, n); errors as for `prepare`."""
        tokens, logits = self.tagger(self.prepare(x))
        return Recognition(tokens.to(x.dtype), logits.to(x.dtype))

    def tags(self, x: Tensor) -> list[tuple[str, ...]]:
        """RGB (b, 3, h, w) in [0, 1] -> the tags of each picture, the most probable first; errors as for `prepare`."""
        return self.names(self.recognise(x).logits)

    def names(self, logits: Tensor) -> list[tuple[str, ...]]:
        """Logits (b, n) -> the tags of each picture, the most probable first."""
        return self.tagger.names(logits)

    def forward(self, x: Tensor) -> Tensor:
        """As `embed`."""
        return self.embed(x)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, also as a part of a network that is trained."""
        return super().train(False)
