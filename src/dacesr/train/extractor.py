"""One step of tuning a tagger on ruined pictures (DACESR Sec. III-C, Fig. 4): DAPE, REE, DAPE-FT-1 and DAPE-FT-2.

The frozen tagger looks at a sharp picture, the same tagger with a LoRA at the ruined one, and the second is to see what
the first does. Which of the four it is, the config says: its degradations, its terms, and where its LoRA starts.
"""

import copy
from collections.abc import Callable, Container
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from dacesr.adapterfile import AdapterConfig, fingerprint, is_adapter, merge, read_adapter, save_adapter
from dacesr.dataset import Batch, Batches
from dacesr.nets.extractor import Extractor
from dacesr.nets.tagger import Tagger
from dacesr.taggerfile import load_tagger
from dacesr.train.config import ConfigError
from dacesr.train.examination import Examination
from dacesr.train.recognition import ExtractorTraining
from dacesr.train.ruin import Ruin, open_source
from dacesr.train.task import PlainTask
from dacesr.weightfiles import resolve

TARGETS = ("q", "v", "query", "key")  # last names of the layers that a LoRA is for
ADAPTER = "adapter"  # folder that a run leaves
PREFIX = "base_model.model."  # that peft puts before the names of layers


class Student(nn.Module):
    """A tagger with a LoRA, as losses want it."""

    def __init__(self, tagger: Tagger) -> None:
        """Only keep it."""
        super().__init__()
        self.tagger = tagger

    def forward(self, image: Tensor, classify: bool) -> tuple[Tensor, Tensor | None]:
        """(b, 3, s, s), normalised -> tokens (b, t, width), and logits (b, n) if they are wanted."""
        tokens = self.tagger.embed(image)
        return tokens, self.tagger.classify(tokens) if classify else None


class ExtractorTask(PlainTask):
    """A frozen tagger, its LoRA, sharp pictures and their degradation."""

    def __init__(self, config: ExtractorTraining, accelerator: Accelerator, warn: Callable[[str], None]) -> None:
        """Build everything that the config names; weights are drawn from its seed.

        Raises:
            ValueError: A file or folder that the config names is missing or unfit, or peft is; the sentence says which.
        """
        self._config = config
        self._ruin = Ruin(config.data)
        self._clean = Extractor(_base(config)).to(accelerator.device)
        self._frozen = Student(self._clean.tagger)
        self._fingerprint = fingerprint(self._clean.tagger)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            student = Student(with_lora(self._clean.tagger, config))
        super().__init__(config, accelerator, name="extractor", net=student)
        self._batches = Batches(
            open_source(config.data, warn),
            size=config.data.crop,
            batch=config.data.batch,
            seed=config.seed,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        self._examination = None
        if accelerator.is_main_process:
            self._examination = Examination(config, self._clean, self._ruin, warn)

    def start(self, iteration: int) -> None:
        """Get ready for the steps from an iteration on."""
        self.waiting = self._batches.prefetch(iteration, self._config.iterations)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss of a batch, both of them means over all elements.

        The embedding's is the mean squared error between tokens (Eq. 7). The logits' is the binary cross-entropy of
        every tag with the probability that the frozen tagger gives it as a soft target, as SeeSR's training of DAPE has
        it, with weights of 1 both; it ends at the entropy of the targets, not at 0.
        """
        loss = self._config.loss
        classify = bool(loss.logits)
        sharp = batch.gt.to(self.device, non_blocking=True).float() / 255
        ruined = self._ruin(sharp, batch.generators)
        with torch.no_grad(), self.autocast():
            told = self._frozen(self._clean.prepare(sharp), classify)
        with self.autocast():
            tokens, logits = self.learner.model(self._clean.prepare(ruined), classify)
        found = {}
        if loss.embedding:
            found["embedding"] = loss.embedding * F.mse_loss(tokens.float(), told[0].float())
        if logits is not None and told[1] is not None:
            target = told[1].float().sigmoid()
            found["logits"] = loss.logits * F.binary_cross_entropy_with_logits(logits.float(), target)
        return found

    # --- what stays

    def validate(self, iteration: int, folder: Path, measured: Container[tuple[str, str]]) -> list[dict[str, Any]]:
        """What the averaged weights, and once the base, see in held-out pictures that are ruined."""
        if self._examination is None:
            return []
        return [
            *self._examination.run("base", self._clean.tagger, 0, measured),
            *self._examination.run("extractor", self._average, iteration),
        ]

    @property
    def _average(self) -> Tagger:
        return cast(Student, self.learner.average).tagger

    def export(self, folder: Path, iteration: int) -> None:
        """Write the averaged LoRA as the folder `adapter`, as peft has it."""
        lora = _peft().get_peft_model_state_dict(self._average)
        config = AdapterConfig(
            base=self._config.tagger,
            base_fingerprint=self._fingerprint,
            r=self._config.lora.r,
            alpha=self._config.lora.alpha,
            targets=TARGETS,
        )
        target, part = folder / ADAPTER, folder / f".{ADAPTER}.part"
        place = target if target.exists() else part  # each of its files is replaced as a whole
        info = {"name": folder.name, "iterations": str(iteration)}
        save_adapter(place, {f"{PREFIX}{name}": tensor for name, tensor in lora.items()}, config, info=info)
        if place == part:
            part.rename(target)


def with_lora(tagger: Tagger, config: ExtractorTraining) -> Tagger:
    """The same tagger, its weights shared, with a LoRA beside them: the config's `init`, or one that does nothing yet.

    Only the LoRA gets gradients, and that of the head only where the loss looks at logits.

    Raises:
        ValueError: The adapter cannot be read or is for another base, or peft is missing.
    """
    peft = _peft()
    net = copy.deepcopy(tagger, {id(parameter): parameter for parameter in tagger.parameters()})
    settings = peft.LoraConfig(r=config.lora.r, lora_alpha=config.lora.alpha, target_modules=list(TARGETS))
    peft.inject_adapter_in_model(settings, net)
    if config.init is not None:
        _start_from(net, tagger, config, config.init)
    if not config.loss.logits:
        net.head.requires_grad_(False)
    return net


def _start_from(net: Tagger, tagger: Tagger, config: ExtractorTraining, init: str) -> None:
    """Put an adapter's values into a tagger's LoRA."""
    adapter = read_adapter(resolve(init))
    merge(tagger.state_dict(), adapter, config.tagger)  # for what it says of one that doesn't fit
    scaling = config.lora.alpha / config.lora.r
    values: dict[str, Tensor] = {}
    for place, pair in adapter.pairs.items():
        values[f"{place}.lora_A.default.weight"] = pair.a
        values[f"{place}.lora_B.default.weight"] = pair.b * (pair.scaling / scaling)
    own = {name: tensor.shape for name, tensor in net.state_dict().items() if ".lora_" in name}
    if own != {name: tensor.shape for name, tensor in values.items()}:
        raise ConfigError(f"init: {init} is of another rank than lora.r {config.lora.r}, or for other layers")
    net.load_state_dict(values, strict=False)


def _base(config: ExtractorTraining) -> Tagger:
    if is_adapter(resolve(config.tagger)):
        raise ConfigError(
            f"tagger: {config.tagger} is an adapter: give its base as the tagger, and the adapter as init"
        )
    return load_tagger(config.tagger)


def _peft() -> ModuleType:
    """The package, which only this kind of training needs."""
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ConfigError(f'training an extractor needs {error.name}: pip install "dacesr[train]"') from error
    return peft
