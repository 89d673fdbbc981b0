"""What is measured while an extractor trains: what it sees in ruined pictures of what the base sees in sharp ones."""

from collections.abc import Callable, Container, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Recognition, Tagger
from dacesr.similarity import embedding_cosine, jaccard
from dacesr.sources import sample_generator
from dacesr.train.recognition import ExtractorTraining
from dacesr.train.ruin import Ruin, held_out


class Examination:
    """Held-out pictures, ruined with fixed seeds, and what a frozen base sees in the sharp ones."""

    def __init__(self, config: ExtractorTraining, base: Extractor, ruin: Ruin, warn: Callable[[str], None]) -> None:
        """List the pictures; they are ruined when they are first needed.

        Raises:
            ValueError: There are none, or they are unfit; the sentence says which.
        """
        self._base, self._ruin = base, ruin
        self._seed, self._batch = config.validation.seed, config.data.batch
        self._sharp = held_out(config, warn)
        self._ruined: dict[str, list[Tensor]] = {}
        self._goal: Recognition | None = None

    @torch.inference_mode()
    def run(
        self, name: str, tagger: Tagger, iteration: int, measured: Container[tuple[str, str]] = ()
    ) -> list[dict[str, Any]]:
        """Measure a tagger.

        Args:
            name: Of it in the table.
            tagger: The base itself, or a version of it.
            iteration: Steps done.
            measured: (name, space) that the table holds already, which are left out.

        Returns:
            A row for each class of degradations: iteration, model, space; mean similarity of the tags (Eq. 1, 2), mean
            cosine and mean squared error of the embedding.
        """
        if self._goal is None:
            self._goal = self._look(self._base.tagger, self._sharp)
        goal, names = self._goal, self._base.tagger.names(self._goal.logits)
        rows = []
        for space in self._ruin.classes:
            if (name, space) in measured:
                continue
            seen = self._look(tagger, self._pictures(space))
            pairs = zip(names, tagger.names(seen.logits), strict=True)
            scores = {
                "jaccard": sum(jaccard(one, other) for one, other in pairs) / len(names),
                "cosine": embedding_cosine(goal.tokens, seen.tokens).mean().item(),
                "mse": F.mse_loss(seen.tokens, goal.tokens).item(),
            }
            rows.append({"iteration": iteration, "model": name, "space": space, **scores})
        return rows

    def _pictures(self, space: str) -> list[Tensor]:
        """The ruined pictures of a class, (3, h, w) each; picture i is a function of (seed, i)."""
        if space not in self._ruined:
            choice = self._ruin.classes[space]
            self._ruined[space] = [
                self._ruin(picture[None].to(self._device), [sample_generator(self._seed, place)], choice)[0]
                for place, picture in enumerate(self._sharp)
            ]
        return self._ruined[space]

    def _look(self, tagger: Tagger, pictures: Sequence[Tensor]) -> Recognition:
        """Tokens and logits of pictures of any sizes."""
        found = []
        for start in range(0, len(pictures), self._batch):
            part = pictures[start : start + self._batch]
            found.append(tagger(torch.cat([self._base.prepare(picture[None].to(self._device)) for picture in part])))
        return Recognition(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    @property
    def _device(self) -> torch.device:
        return self._base.tagger.fc.weight.device
