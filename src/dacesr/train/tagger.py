"""One step of training a tagger on labelled pictures, and the thresholds that it gives tags from."""

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.augmentation import Augmentation, LabelledBatch, LabelledBatches, evaluation_batches
from dacesr.featurefile import load_features
from dacesr.labelled import LabelledSet
from dacesr.losses import asymmetric
from dacesr.metrics import mean_average_precision
from dacesr.nets.features import Features
from dacesr.nets.tagger import Recognition, Tagger, normalise
from dacesr.taggerfile import load_tagger, save_tagger
from dacesr.train.config import ConfigError
from dacesr.train.recognition import LabelledConfig, TaggerTraining
from dacesr.train.task import PlainTask

TRUST = 10  # pictures with a tag at which its own threshold counts as much as the common one


class Student(nn.Module):
    """A tagger, and what reads a teacher's feature map off its tokens."""

    def __init__(self, tagger: Tagger, channels: int) -> None:
        """Channels of the teacher's map; 0: no teacher."""
        super().__init__()
        self.tagger = tagger
        self.reader = nn.Linear(tagger.config.width, channels) if channels else None

    def forward(self, image: Tensor) -> tuple[Recognition, Tensor | None]:
        """(b, 3, s, s), normalised -> what was seen, and the map (b, g * g, channels) read off the tokens."""
        seen = self.tagger(image)
        return seen, self.reader(seen.tokens[:, 1:]) if self.reader is not None else None


class TaggerTask(PlainTask):
    """A tagger, its labelled pictures, and a teacher if there is one."""

    def __init__(self, config: TaggerTraining, accelerator: Accelerator, warn: Callable[[str], None]) -> None:
        """Build everything that the config names; weights are drawn from its seed.

        Raises:
            ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
        """
        self._config = config
        pictures = open_split(config.data, "train", warn)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            tagger = _network(config, pictures.tags)
            self._teacher, self._taught = _load_teacher(config, accelerator.device)
            student = Student(tagger, self._teacher.channels[self._taught] if self._teacher else 0)
        super().__init__(config, accelerator, name="tagger", net=student)
        self._batches = LabelledBatches(
            pictures,
            size=config.data.size,
            batch=config.data.batch,
            seed=config.seed,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
            balance=config.data.balance,
            augmentation=augmentation(config.data),
        )
        self._judged: dict[str, LabelledSet] = {}
        if accelerator.is_main_process:
            self._judged = {name: held for name in ("val", "test") if (held := _held_out(config.data, name, warn))}
        self._thresholds: Tensor | None = None

    def start(self, iteration: int) -> None:
        """Get ready for the steps from an iteration on."""
        self.waiting = self._batches.prefetch(iteration, self._config.iterations)

    def terms(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """The weighted terms of the loss of a batch."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        if alpha := self._config.data.mixup:
            share = float(torch.distributions.Beta(alpha, alpha).sample())
            images, labels = (torch.lerp(x.flip(0), x, share) for x in (images, labels))
        with self.autocast():
            seen, told = self.learner.model(normalise(images))
        loss = self._config.loss
        found = {
            "tags": asymmetric(
                seen.logits.float(),
                labels,
                gamma_negative=loss.gamma_negative,
                gamma_positive=loss.gamma_positive,
                margin=loss.margin,
            )
        }
        if told is not None:
            found["teacher"] = self._config.teacher.weight * F.mse_loss(told.float(), self._lesson(images, told))
        return found

    @torch.no_grad()
    def _lesson(self, images: Tensor, told: Tensor) -> Tensor:
        """The teacher's map (b, g * g, channels) on the grid of the tokens, each place with mean 0 and deviation 1."""
        assert self._teacher is not None
        side = self._config.teacher.size
        with self.autocast():
            shown = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
            seen = self._teacher(shown)[self._taught].float()
        grid = round(told.shape[1] ** 0.5)
        seen = F.interpolate(seen, size=(grid, grid), mode="bilinear", antialias=True).flatten(2).transpose(1, 2)
        return F.layer_norm(seen, seen.shape[-1:])

    # --- what stays

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the config."""
        return {**super().state_dict(), "thresholds": self._thresholds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state)
        self._thresholds = state["thresholds"]

    def validate(self, iteration: int, folder: Path, measured: Container[tuple[str, str]]) -> list[dict[str, Any]]:
        """Mean average precision of the averaged weights on the held-out pictures and the test split; thresholds."""
        rows = []
        for name, pictures in self._judged.items():
            probabilities, labels = self._judge(pictures)
            if name == "val" or self._thresholds is None:
                self._thresholds = thresholds(probabilities, labels)
            given = probabilities >= self._thresholds
            scores = {
                "map": mean_average_precision(probabilities, labels).item(),
                "f1": (2 * (given * labels).sum() / (given.sum() + labels.sum()).clamp(min=1)).item(),
            }
            rows.append({"iteration": iteration, "model": "tagger", "space": name, **scores})
        return rows

    @torch.inference_mode()
    def _judge(self, pictures: LabelledSet) -> tuple[Tensor, Tensor]:
        """Probabilities and labels (n, tags) of a set, with the averaged weights, at the network's own input size."""
        tagger = cast(Student, self.learner.average).tagger.eval()
        seen, labels = [], []
        batches = evaluation_batches(pictures, size=tagger.config.image_size, batch=self._config.validation.batch)
        for batch in batches:
            seen.append(tagger.logits(normalise(batch.images.to(self.device))).sigmoid().cpu())
            labels.append(batch.labels)
        tagger.train(tagger is cast(Student, self.learner.net).tagger)
        return torch.cat(seen), torch.cat(labels)

    def export(self, folder: Path, iteration: int) -> None:
        """Write the averaged weights as `model.safetensors`, with tags and thresholds."""
        tagger = cast(Student, self.learner.average).tagger
        tagger.name_tags(tagger.tag_names, self._thresholds)
        save_tagger(folder / "model.safetensors", tagger, info={"name": folder.name, "iterations": str(iteration)})


def open_split(data: LabelledConfig, split: str, warn: Callable[[str], None]) -> LabelledSet:
    """A split of the config's labelled set.

    Raises:
        ValueError: It is missing or empty.
    """
    return LabelledSet.open(
        data.source, split=split, files=data.files, minimum=data.minimum, validation_share=data.held_out, warn=warn
    )


def augmentation(data: LabelledConfig) -> Augmentation:
    """How the config lets pictures vary."""
    return Augmentation(
        area=data.area,
        aspect=data.aspect,
        brightness=data.jitter,
        contrast=data.jitter,
        saturation=data.jitter,
        gray=data.grayscale,
    )


def thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(tags,): the probability from which F1 over some pictures is best.

    Each tag's own optimum is drawn, in logits, towards that of all tags together, the more the fewer pictures have it.

    Args:
        probabilities: (n, tags).
        labels: (n, tags), 0 or 1.
    """
    common = torch.logit(_best_f1(probabilities.reshape(-1, 1), labels.reshape(-1, 1)), eps=1e-6)
    own = torch.logit(_best_f1(probabilities, labels), eps=1e-6)
    support = labels.sum(0)
    return torch.lerp(common, own, support / (support + TRUST)).sigmoid()


def _best_f1(probabilities: Tensor, labels: Tensor) -> Tensor:
    """For each column the midpoint between the last probability that is worth giving and the next one."""
    ordered, order = probabilities.sort(0, descending=True)
    hits = labels.gather(0, order).cumsum(0)
    given = torch.arange(1, len(labels) + 1, device=labels.device)[:, None]
    best = (2 * hits / (given + labels.sum(0))).argmax(0, keepdim=True)
    following = ordered.gather(0, (best + 1).clamp(max=len(labels) - 1))
    return ((ordered.gather(0, best) + following) / 2)[0]


def _held_out(data: LabelledConfig, split: str, warn: Callable[[str], None]) -> LabelledSet | None:
    """A split to measure on, if the set has it."""
    try:
        return open_split(data, split, warn)
    except ValueError as error:
        warn(f"nothing is measured on the split {split}: {error}")
        return None


def _load_teacher(config: TaggerTraining, device: torch.device) -> tuple[Features | None, str]:
    """The teacher and the name of its last map."""
    if config.teacher.features is None:
        return None, ""
    teacher = load_features(config.teacher.features).to(device)
    return teacher, list(teacher.channels)[-1]


def _network(config: TaggerTraining, tags: tuple[str, ...]) -> Tagger:
    """The config's network for the data's tags; from `init` all but the tags' embeddings, where those are others."""
    net = Tagger(config.network.model_copy(update={"tags": len(tags)}), tags=tags)
    if config.init is None:
        return net
    start = load_tagger(config.init)
    weights = start.state_dict()
    if start.tag_names != tags:
        weights["label_embed"] = net.label_embed.detach()
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"init: the weights of {config.init} do not fit the network of the config") from error
    return net
