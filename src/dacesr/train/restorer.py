"""One step of training a restorer (DACESR Sec. III-D, Eq. 8): stage 1 is L1, stage 2 adds perceptual and GAN terms.

What a stage is made of is all in the config.
"""

import contextlib
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from dacesr import losses
from dacesr.checkpoint import Network, save_restorer
from dacesr.conditioning import Guided, extractor_fields
from dacesr.config import RestorerConfig
from dacesr.dataset import Batches, PairPool
from dacesr.degradation import ops
from dacesr.featurefile import load_features
from dacesr.memory import free_bytes
from dacesr.nets.discriminator import UNetDiscriminator
from dacesr.nets.features import Features
from dacesr.train.config import RestorerTraining
from dacesr.train.feed import Feed
from dacesr.train.learner import Learner
from dacesr.train.parts import make_extractor, make_network, make_source
from dacesr.train.recorded import Part, Recorded
from dacesr.train.scenes import Crops, Scenes, ruin
from dacesr.train.task import Outcome, autocast, mean_of_processes
from dacesr.train.validation import Validation


class RestorerTask:
    """A restorer, its discriminator if there is one, their data and losses.

    Attributes:
        learners: What is trained, by name.
    """

    def __init__(self, config: RestorerTraining, accelerator: Accelerator, warn: Callable[[str], None]) -> None:
        """Build everything that the config names; weights are drawn from its seed.

        Raises:
            ValueError: A file or folder that the config names is missing or unfit; the sentence says which.
        """
        self._config, self._accelerator, self._warn = config, accelerator, warn
        self._device = accelerator.device
        self._single_gpu = self._device.type == "cuda" and accelerator.num_processes == 1
        self._recording = self._single_gpu and config.cuda_graph
        self._recorded: Recorded | None = None
        self._autocast = autocast(config.precision, self._device, cached=not self._recording)
        self._memory = torch.channels_last if config.channels_last else torch.contiguous_format
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = make_network(config)
            discriminator = UNetDiscriminator(width=config.discriminator.width) if config.loss.gan else None
        self.restorer = self._learner(net, config.optimizer, config.ema)
        self.discriminator = None
        self.learners = {"restorer": self.restorer}
        if discriminator is not None:
            self.discriminator = self._learner(discriminator, config.discriminator.optimizer, 0.0)
            self.learners["discriminator"] = self.discriminator
        self._features = self._load_features()
        self._extractor = make_extractor(config, self._device)
        self._named = {} if config.extractor is None else extractor_fields(config.extractor)
        self._feed = Feed(*self._data(warn), device=self._device, ahead=self._single_gpu)
        self._pool = None
        if config.data.pool:
            self._pool = PairPool(config.data.pool, seed=config.seed + accelerator.process_index)
        self.validation = None
        if config.validation.folder and accelerator.is_main_process:
            self.validation = Validation(config.validation, config.network.scale, self._device, self._autocast, warn)

    # --- data

    def _data(self, warn: Callable[[str], None]) -> tuple[Batches, Scenes]:
        """What is read, and what makes crops of it."""
        config, accelerator = self._config, self._accelerator
        batches = Batches(
            make_source(config.data, config.network.scale, warn),
            size=config.data.context or config.data.crop,
            batch=config.data.batch,
            seed=config.seed,
            samples=config.data.samples,
            multiple=config.network.scale,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
            flip=config.data.flip,
            transpose=config.data.transpose,
            pinned=self._single_gpu,
        )
        room = int(config.data.device_gb * 2**30)
        scenes = Scenes(
            crop=config.data.crop,
            scale=config.network.scale,
            seed=config.seed + 1,
            degrade=self._degraded,
            embed=self._embedded if self._extractor else None,
            device=self._device,
            rank=accelerator.process_index,
            processes=accelerator.num_processes,
            device_bytes=min(room, free_bytes(self._device) // 2) if self._single_gpu else 0,
        )
        return batches, scenes

    def start(self, iteration: int) -> None:
        """Get ready for the steps from an iteration on."""
        times = self._config.accumulate
        self._feed.start(iteration * times, self._config.iterations * times)

    def close(self) -> None:
        """Let go of what prepares batches."""
        self._feed.close()

    def waited(self) -> float:
        """Seconds that steps have waited for their crops, since this was last asked."""
        return self._feed.waited()

    def _crops(self, number: int) -> Crops:
        """What the next batch gives to train on, after its exchange with the pool."""
        crops = self._feed.crops(number)
        if self._pool is not None:
            held = self._pool.exchange(number, *(tensor for tensor in crops if tensor is not None))
            crops = Crops(*held)
        lr, gt = (x.contiguous(memory_format=self._memory) for x in crops[:2])
        return crops._replace(lr=lr, gt=gt)

    def _degraded(self, gt: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        source = ops.usm_sharpen(gt) if self._config.loss.sharp_source else gt
        return ruin(source, self._config.data.spaces, generators, self._config.network.scale)

    def _embedded(self, lr: Tensor) -> Tensor:
        assert self._extractor is not None
        assert isinstance(self._config.network, RestorerConfig)
        with self._autocast():
            return self._extractor.condition(lr, self._config.network.condition)

    def _part(self, number: int) -> Part:
        """The next batch with all that the losses want of it."""
        lr, gt, condition, window = self._crops(number)
        loss = self._config.loss
        wanted = "sharp" in (loss.pixel_target, loss.perceptual_target, loss.gan_target)
        sharp = ops.usm_sharpen(gt).contiguous(memory_format=self._memory) if wanted else None
        return Part(lr, gt, sharp, condition, window)

    # --- one step

    def step(self, iteration: int) -> Outcome:
        """Gradients of one iteration, and the updates if all are finite.

        With one process and CUDA nothing here waits for the device, which itself calls the updates off.

        Returns:
            Loss terms (means over all processes), rate and norm by name, and whether the updates were made.
        """
        times = self._config.accumulate
        terms = self._gradients([self._part(iteration * times + part) for part in range(times)])
        terms = mean_of_processes(terms, self._accelerator)
        norms = {name: learner.gradient_norm() for name, learner in self.learners.items()}
        finite = torch.stack([*terms.values(), *norms.values()]).isfinite().all()
        off = None
        if self._single_gpu:
            off = 1 - finite.float()
        elif not finite:
            for learner in self.learners.values():
                learner.forget()
            return Outcome(terms, False)
        rates = {name: learner.update(iteration, off) for name, learner in self.learners.items()}
        return Outcome({**terms, "lr": rates["restorer"], "gradient": norms["restorer"]}, finite)

    def _gradients(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Leave the gradients of a step in its networks, by a recording if there is one; the loss terms."""
        if self._recording and self._recorded is None:
            try:
                with self._feed.quiet():
                    self._recorded = Recorded(self._work, parts, [learner.net for learner in self.learners.values()])
            except RuntimeError as error:
                self._recording = False
                self._warn(f"the step cannot be recorded as a CUDA graph and runs as it is: {_first_line(error)}")
        return self._work(parts) if self._recorded is None else self._recorded(parts)

    def _work(self, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Forward, losses and backward of both networks, kernel by kernel; the loss terms."""
        terms: dict[str, Tensor] = {}
        judged: list[tuple[Tensor, Tensor]] = []  # outputs and the GAN's real pictures
        for number, (lr, gt, sharp, condition, window) in enumerate(parts):
            sharp = gt if sharp is None else sharp
            with self._alone(self.restorer, number < len(parts) - 1):
                with self._autocast():
                    guided = condition is not None
                    output = self.restorer.model(lr, condition, window) if guided else self.restorer.model(lr)
                found = self._terms(output.float(), gt, sharp)
                (torch.stack(list(found.values())).sum() / len(parts)).backward()
            _add(terms, found, len(parts))
            judged.append((output.detach(), sharp if self._config.loss.gan_target == "sharp" else gt))
        if self.discriminator is not None:
            terms |= self._judge(self.discriminator, judged)
        return terms

    def _terms(self, output: Tensor, gt: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the restorer's loss."""
        loss = self._config.loss
        targets = {"plain": gt, "sharp": sharp}
        found: dict[str, Tensor] = {}
        if loss.pixel:
            found["pixel"] = loss.pixel * losses.pixel(output, targets[loss.pixel_target])
        with self._autocast():
            if self._features is not None:
                distance = losses.perceptual(output, targets[loss.perceptual_target], self._features)
                found["perceptual"] = loss.perceptual * distance
            if self.discriminator is not None:
                self.discriminator.net.requires_grad_(False)
                found["gan"] = loss.gan * losses.gan(self.discriminator.net(output), real=True)
                self.discriminator.net.requires_grad_(True)
        return found

    def _judge(self, judge: Learner, judged: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Gradients of the discriminator; its two terms."""
        terms: dict[str, Tensor] = {}
        for part, (output, truth) in enumerate(judged):
            with self._alone(judge, part < len(judged) - 1):
                with self._autocast():
                    logits = judge.model(torch.cat([truth, output.to(truth)]))
                for_real, for_fake = logits.chunk(2)
                real, fake = losses.gan(for_real, real=True), losses.gan(for_fake, real=False)
                ((real + fake) / len(judged)).backward()
            _add(terms, {"judge_real": real, "judge_fake": fake}, len(judged))
        return terms

    def _alone(self, learner: Learner, wanted: bool) -> contextlib.AbstractContextManager[None]:
        """Without exchange of gradients between processes, where more batches are to come before the step."""
        return self._accelerator.no_sync(learner.model) if wanted else contextlib.nullcontext()

    # --- what stays

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the config."""
        state: dict[str, Any] = {name: learner.state_dict() for name, learner in self.learners.items()}
        state["extractor"] = self._named
        if self._pool is not None:
            state["pools"] = gather_object([self._pool.state_dict()])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; ValueError where it is of a run with another extractor."""
        if state.get("extractor", {}) != self._named:
            raise ValueError(f"the run was conditioned by {state.get('extractor')}, and now by {self._named}")
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])
        if self._pool is not None and self._accelerator.process_index < len(state["pools"]):
            self._pool.load_state_dict(state["pools"][self._accelerator.process_index])

    def validate(self, iteration: int, folder: Path, measured: Container[tuple[str, str]]) -> list[dict[str, Any]]:
        """Measure the averaged weights, and what to compare with unless that was measured; rows for the table."""
        if self.validation is None:
            return []
        net = Guided(cast(Network, self.restorer.average), self._extractor)
        return [*self.validation.compare(measured), *self.validation.run(net, iteration, folder)]

    def export(self, folder: Path, iteration: int) -> None:
        """Write the averaged weights as `model.safetensors`."""
        info = {"name": folder.name, "iterations": str(iteration), **self._named}
        average = cast(Network, self.restorer.average)
        save_restorer(folder / "model.safetensors", average, info=info)

    def _learner(self, net: torch.nn.Module, config: Any, ema: float) -> Learner:
        net = net.to(device=self._device)
        if self._config.channels_last:
            net = convert_conv2d_weight_memory_format(net, torch.channels_last)
        return Learner(
            net,
            config=config,
            iterations=self._config.iterations,
            ema=ema,
            accelerator=self._accelerator,
            fused=self._single_gpu,
        )

    def _load_features(self) -> Features | None:
        loss = self._config.loss
        if not loss.perceptual:
            return None
        assert loss.features is not None  # the config has been checked
        return load_features(loss.features).to(self._device)


def _add(terms: dict[str, Tensor], found: Mapping[str, Tensor], parts: int) -> None:
    """Add the terms of one of so many parts of a step to their mean."""
    for name, value in found.items():
        share = value.detach() / parts
        terms[name] = terms[name] + share if name in terms else share


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
