"""The parts of a restorer's step: sources, degradation, targets, precision, and weights to start from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from dacesr.checkpoint import load_restorer
from dacesr.dataset import Batch, Mixture, Pairs, sample_generator
from dacesr.degradation import ops
from dacesr.degradation import recipe as degradation
from dacesr.image import imresize, read, write
from dacesr.nets import mamba
from dacesr.nets.baselines import BASELINES
from dacesr.nets.restorer import Restorer
from dacesr.train import restorer
from dacesr.train.config import ConfigError, DataConfig, RestorerTraining
from dacesr.train.loop import train
from dacesr.train.parts import make_source
from dacesr.train.restorer import RestorerTask
from dacesr.train.scenes import ruin
from train.conftest import PLAIN, Recipe, rows


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    return [sample_generator(0, first + i) for i in range(count)]


def task(config: RestorerTraining) -> RestorerTask:
    made = RestorerTask(config, Accelerator(cpu=True), lambda sentence: pytest.fail(sentence))
    made.start(0)
    return made


def pictures(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 32, 24, generator=torch.Generator().manual_seed(0))


# --- degradation


def test_spaces_are_drawn_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}

    def degrade(x: torch.Tensor, space: str, *_: object) -> tuple[torch.Tensor, list[object]]:
        counts[space] = counts.get(space, 0) + len(x)
        return x[..., ::4, ::4], []

    monkeypatch.setattr(degradation, "degrade", degrade)
    ruin(torch.zeros(3000, 3, 4, 4), {"level1": 1.0, "level3": 2.0, "bicubic": 0.5}, generators(3000), 4)
    expected = {"level1": 3000 / 3.5, "level3": 6000 / 3.5, "bicubic": 1500 / 3.5}
    assert counts == {name: pytest.approx(count, abs=80) for name, count in expected.items()}


def test_a_picture_is_ruined_regardless_of_its_neighbours() -> None:
    spaces = {"level1": 1.0, "bicubic": 1.0, "level3": 1.0}
    gt = pictures()
    whole = ruin(gt, spaces, generators(6), 4)
    assert whole.shape == (6, 3, 8, 6)
    for i in range(6):
        assert torch.equal(whole[i : i + 1], ruin(gt[i : i + 1], spaces, generators(1, i), 4))
    assert not torch.equal(whole, ruin(gt, spaces, generators(6, 6), 4))
    alone, _ = degradation.degrade(gt, "bicubic", generators(6), 4)
    assert torch.equal(ruin(gt, {"bicubic": 3.0}, generators(6), 4), alone)


# --- data


def data(**fields: object) -> DataConfig:
    return DataConfig.model_validate(fields)


def test_sources_that_cannot_be_are_refused(photos: Path, tmp_path: Path) -> None:
    wrong = {
        "data.folders should name at least one folder": {},
        "gone is not a folder": {"folders": [str(tmp_path / "gone")]},
        "holds no picture to train on": {"folders": [str(tmp_path)]},
        "list.txt cannot be read": {"folders": [str(photos)], "meta_info": "list.txt"},
        "data.lr_folder goes with one of data.folders": {"folders": [str(photos)] * 2, "lr_folder": str(photos)},
        "and without data.drawings": {"folders": [str(photos)], "lr_folder": str(photos), "drawings": 0.5},
    }
    for words, fields in wrong.items():
        with pytest.raises(ValueError, match=words):
            make_source(data(**fields), 4, pytest.fail)


def test_sources_are_mixtures_or_pairs(photos: Path) -> None:
    assert isinstance(make_source(data(folders=[str(photos)]), 4, pytest.fail), Mixture)
    pairs = make_source(data(folders=[str(photos)], lr_folder=str(photos)), 1, pytest.fail)
    assert isinstance(pairs, Pairs)


def test_pairs_train(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    for path in photos.iterdir():
        small = imresize(read(path)[..., : read(path).shape[-2] // 4 * 4, :], 0.25).clamp(0, 1)
        (tmp_path / "small").mkdir(exist_ok=True)
        write(tmp_path / "small" / path.name, small)
    folder = train(recipe("run", f"data.lr_folder={tmp_path / 'small'}", "loss.gan=0", "iterations=2"))
    assert len(rows(folder / "log.csv")) == 1
    made = task(recipe("run", f"data.lr_folder={tmp_path / 'small'}", "data.pool=0"))
    lr, gt, *_ = made._crops(0)
    made.close()
    assert (imresize(gt, 0.25) - lr).abs().mean() < 0.02


# --- targets


class Watch:
    """Takes the place of a loss and keeps what it was given."""

    def __init__(self) -> None:
        self.targets: list[torch.Tensor] = []

    def __call__(self, output: torch.Tensor, target: torch.Tensor, *_: object) -> torch.Tensor:
        self.targets.append(target)
        return (output - target).abs().mean()


def batch_of(config: RestorerTraining) -> Batch:
    made = task(config)
    batch = next(made._feed._read)
    made.close()
    return batch


@pytest.mark.parametrize("target", ["plain", "sharp"])
def test_a_sharp_target_is_the_usm_sharpened_truth(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    config = recipe("run", *PLAIN, f"loss.pixel_target={target}")
    gt = batch_of(config).gt.float() / 255
    watch = Watch()
    monkeypatch.setattr(restorer.losses, "pixel", watch)
    made = task(config)
    made.step(0)
    made.close()
    assert torch.equal(watch.targets[0], ops.usm_sharpen(gt) if target == "sharp" else gt)


@pytest.mark.parametrize("target", ["plain", "sharp"])
def test_the_judge_sees_the_target_of_its_own(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    config = recipe("run", *PLAIN, "loss.gan=0.1", f"loss.gan_target={target}")
    gt = batch_of(config).gt.float() / 255
    made = task(config)
    seen = []
    judge = made._judge
    monkeypatch.setattr(made, "_judge", lambda net, judged: (seen.extend(judged), judge(net, judged))[1])
    terms, updated = made.step(0).read()
    made.close()
    assert updated
    assert torch.equal(seen[0][1], ops.usm_sharpen(gt) if target == "sharp" else gt)
    assert {"judge_real", "judge_fake", "gan", "pixel"} < terms.keys()


def test_a_sharp_source_is_what_gets_degraded(recipe: Recipe) -> None:
    config = recipe("run", *PLAIN, "loss.sharp_source=true", "data.spaces={bicubic=1.0}")
    gt = batch_of(config).gt.float() / 255
    made = task(config)
    lr, plain, *_ = made._crops(0)
    made.close()
    assert torch.equal(plain, gt)
    expected, unlike = (degradation.degrade(x, "bicubic", generators(len(x)), 4)[0] for x in (ops.usm_sharpen(gt), gt))
    assert torch.equal(lr, expected)
    assert not torch.equal(lr, unlike)


def test_the_gan_leaves_no_gradient_of_the_restorer_in_the_judge(recipe: Recipe) -> None:
    made = task(recipe("run", *PLAIN, "loss.gan=1.0", "loss.pixel=0"))
    assert made.discriminator is not None
    lr, gt, *_ = made._crops(0)
    made.close()
    torch.stack(list(made._terms(made.restorer.model(lr), gt, gt).values())).sum().backward()
    assert all(parameter.grad is None for parameter in made.discriminator.net.parameters())
    assert all(parameter.requires_grad for parameter in made.discriminator.net.parameters())
    assert sum(p.grad.abs().sum().item() for p in made.restorer.net.parameters() if p.grad is not None) > 0


# --- networks


def test_weights_come_from_the_seed(recipe: Recipe) -> None:
    one, same, other = (task(recipe("run", f"seed={seed}")) for seed in (1, 1, 2))
    for made in (one, same, other):
        made.close()
    for name, tensor in one.restorer.net.state_dict().items():
        assert torch.equal(tensor, same.restorer.net.state_dict()[name])
    first = "conv_first.weight"
    assert not torch.equal(one.restorer.net.state_dict()[first], other.restorer.net.state_dict()[first])


def test_training_starts_from_given_weights(recipe: Recipe, bilinear: Restorer, bilinear_file: Path) -> None:
    made = task(recipe("run", f"init={bilinear_file}", "network.image_skip=bilinear"))
    made.close()
    for net in (made.restorer.net, made.restorer.average):
        assert all(torch.equal(net.state_dict()[name], value) for name, value in bilinear.state_dict().items())
    assert made.restorer.net.training


@pytest.mark.parametrize("change", ["network.embed_dim=12", "network.depths=[2]", "network={kind='srvgg'}"])
def test_weights_that_do_not_fit_are_one_sentence(recipe: Recipe, bilinear_file: Path, change: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^init: the weights of .*bilinear.safetensors do not fit the network"
    ) as info:
        task(recipe("run", f"init={bilinear_file}", change))
    assert "\n" not in str(info.value)


SMALL = {  # of every kind that is not ours
    "srvgg": "num_feat=8, num_conv=2",
    "srresnet": "num_feat=4, num_block=1",
    "edsr": "num_feat=4, num_block=1",
    "rrdb": "num_feat=4, num_block=1, num_grow_ch=4",
    "rlfn": "num_feat=4, num_block=1, mid_feat=4, esa_feat=2",
    "swinir": "embed_dim=6, depths=[1], heads=[2], window=4",
    "hat": "embed_dim=6, depths=[1], heads=[2], window=4, overlap=1, conv_dim=4, squeeze_dim=2",
    "dasr": "num_feat=4, num_block=1, num_expert=2, predictor_feat=4",
    "kdsr": "num_feat=8, num_block=1, encoder_block=1",
}


@pytest.mark.parametrize("kind", BASELINES)
def test_other_networks_train_too(recipe: Recipe, kind: str) -> None:
    change = f"network={{kind='{kind}', {SMALL[kind]}}}"
    config = recipe("run", *PLAIN, "iterations=2", "save_every=1", change)
    assert RestorerTraining.model_validate_json(config.model_dump_json()) == config  # as a run that goes on reads it
    folder = train(config)
    found = load_restorer(folder / "model.safetensors")
    assert found.config == config.network
    again = train(recipe("run", *PLAIN, "iterations=3", "save_every=1", change))  # goes on where it was
    later = load_restorer(again / "model.safetensors").state_dict()
    assert any(not torch.equal(value, later[name]) for name, value in found.state_dict().items())


def test_bf16_keeps_the_scan_in_fp32_and_stays_near(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, dtypes = mamba.selective_scan, set()

    def watched(*args: torch.Tensor, **options: Any) -> Any:
        dtypes.update((name, x.dtype) for name, x in zip("udABC", args, strict=False))
        return scan(*args, **options)

    terms = {}
    for precision in ("fp32", "bf16"):
        dtypes.clear()
        monkeypatch.setattr(mamba, "selective_scan", watched)
        made = task(recipe("run", f"precision={precision}"))
        made.step(0)  # a new network's head adds nothing
        found, updated = made.step(1).read()
        made.close()
        assert updated
        assert {kind for name, kind in dtypes if name != "u"} == {torch.float32}
        assert dict(dtypes)["u"] == (torch.bfloat16 if precision == "bf16" else torch.float32)
        assert all(parameter.dtype == torch.float32 for parameter in made.restorer.net.parameters())
        terms[precision] = found
    assert terms["bf16"] == pytest.approx(terms["fp32"], rel=0.02)
    assert terms["bf16"]["pixel"] != terms["fp32"]["pixel"]


def test_memory_format_changes_nothing_but_speed(recipe: Recipe) -> None:
    found = []
    for last in ("true", "false"):
        made = task(recipe("run", f"channels_last={last}"))
        found.append(made.step(0).read()[0])
        made.close()
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_perceptual_term_needs_its_file_and_counts(data: Path, recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"gone.pth does not exist"):
        task(recipe("run", "loss.perceptual=1.0", "loss.features=gone.pth"))
    features = data / "metrics" / "squeezenet_v1.1_keras.h5"
    found = {}
    for weight in (1.0, 2.0):
        made = task(recipe("run", f"loss.perceptual={weight}", f"loss.features={features}"))
        found[weight] = made.step(0).read()[0]["perceptual"]
        made.close()
    assert found[2.0] == pytest.approx(2 * found[1.0])
