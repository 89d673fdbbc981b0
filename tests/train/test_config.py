"""Training configs: those of the project load, and mistakes are one sentence that names file and field."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dacesr.checkpoint import KINDS
from dacesr.cli import app
from dacesr.nets.tagger import Tagger
from dacesr.train.config import ConfigError, RestorerTraining, load_config
from dacesr.train.recognition import ExtractorTraining, TaggerTraining
from dacesr.train.tasks import TRAININGS, Training

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("**/*.toml") if not path.stem.startswith("ablation_"))
COMMAND = ["train", "restorer"]


def kind_of(path: Path) -> type[Training]:
    """By the first word of a recipe's name."""
    word = path.stem.partition("_")[0]
    if word in ("dape", "ree", "ft1", "ft2"):
        return ExtractorTraining
    return TaggerTraining if word == "tagger" else RestorerTraining


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_loads_and_makes_its_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    config = load_config(path, training=kind_of(path))
    assert config.output == str(Path("out", "train", path.stem))
    if not isinstance(config, ExtractorTraining):  # which has that of its tagger
        with torch.device("meta"):
            made = Tagger if isinstance(config, TaggerTraining) else KINDS[config.network.kind].network
            net = made(config.network)  # type: ignore[arg-type]
        assert sum(parameter.numel() for parameter in net.parameters()) > 0
    assert "$" not in config.model_dump_json()
    assert type(config).model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("path", [path for path in CONFIGS if kind_of(path) is ExtractorTraining], ids=lambda p: p.stem)
def test_recipes_of_extractors_are_those_of_the_paper(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DACESR_DATA", "/data")
    config = load_config(path, training=ExtractorTraining)
    method, size = path.stem.split("_")
    assert (config.lora.r, config.lora.alpha) == (8, 1.0)
    assert config.data.members == {"dape": "all", "ree": "severe", "ft1": "severe", "ft2": "mild"}[method]
    assert (config.loss.embedding, config.loss.logits) == (1.0, 0.0 if method == "ree" else 1.0)
    assert config.init == (None if method == "dape" else f"out/train/dape_{size}/adapter")
    assert config.data.space == "realesrgan"
    if size == "ram":
        numbers = (config.iterations, config.data.batch, config.data.crop, config.data.scale, config.optimizer.lr)
        assert numbers == (300_000, 8, 512, 4, 1e-4)


def test_there_are_recipes_of_every_kind() -> None:
    assert "debug" in [path.stem for path in CONFIGS]
    assert {kind_of(path) for path in CONFIGS} == set(TRAININGS.values())


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


MISTAKES = {
    "iterations = 5\nrate = 1": ("mine.toml: rate: Extra inputs are not permitted",),
    "iterations = 5\n[data]\nflips = true": ("mine.toml: data.flips: Extra inputs",),
    "iterations = 5\n[discriminator.optimizer]\nbeta = 1": ("mine.toml: discriminator.optimizer.beta: Extra inputs",),
    "iterations = 5\n[network]\nwidth = 3": ("mine.toml: network.width: Extra inputs",),
    "iterations = 5\n[data]\nbatch = '8'": ("mine.toml: data.batch: Input should be a valid integer (got '8')",),
    "iterations = 0.5": ("mine.toml: iterations: ",),
    "seed = 1": ("mine.toml: iterations: Field required",),
    "iterations = 5\nseed = -1": ("mine.toml: seed: ", "(got -1)"),
    "iterations = 5\nema = 1.0": ("mine.toml: ema: ", "less than 1"),
    "iterations = 5\ndata = 3": ("mine.toml: data: ",),
    "iterations = 5\nnetwork = 'light'": ("mine.toml: network",),
    "iterations = 5\n[network]\npreset = 'huge'": ("mine.toml: network.kind", "light, base, large"),
    "iterations = 5\n[network]\npreset = ['light']": ("mine.toml: network.kind", "light, base, large"),
    "iterations = 5\n[network]\nkind = []": ("mine.toml: network.kind should be one of restorer, srvgg",),
    "iterations = 5\n[data.spaces]\nlevel9 = 1": ("mine.toml: data: ", "level1, level2", "not level9"),
    "iterations = 5\n[data]\nspaces = {}": ("mine.toml: data: ", "not none"),
    "iterations = 5\n[data]\npool = 4": ("mine.toml: data: ", "pool should be 0 or at least the batch of 8, not 4"),
    "iterations = 5\n[data]\ncrop = 30": ("mine.toml: ", "data.crop 30 should be a multiple of the scale 4"),
    "iterations = 5\n[data]\ncrop = 36\n[loss]\ngan = 0.1": ("mine.toml: ", "data.crop 36", "multiple of 8"),
    "iterations = 5\n[optimizer]\nschedule_minutes = 3": ("mine.toml: optimizer: ", "not with constant"),
    "iterations = 5\n[loss]\npixel = 0": ("mine.toml: loss: ", "should be above 0"),
    "iterations = 5\n[loss]\nperceptual = 1": ("mine.toml: ", "loss.features", "vgg19-dcbb9e9d.pth"),
    "iterations = 5\n[validation]\nlpips = 'a.pth'": ("mine.toml: ", "validation.lpips and validation.features"),
    "iterations = 5\n[data]\nfolders = ['$NO_SUCH/a']": ("mine.toml: $NO_SUCH/a needs", "variable NO_SUCH"),
    "iterations = 5\noutput = '${NO_SUCH}'": ("mine.toml: ${NO_SUCH} needs", "variable NO_SUCH"),
    "iterations 5": ("mine.toml is not TOML: ",),
    "iterations = 5\niterations = 6": ("mine.toml is not TOML: ",),
    "iterations = 5": ("data.folders should name at least one folder",),
    "iterations = 5\n[data]\nfolders = ['no/such/folder']": ("no/such/folder is not a folder",),
    "iterations = 5\ninit = 'no/such.pth'": ("no/such.pth",),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.items())
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*COMMAND, str(written(tmp_path, text))])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("dacesr: ")
    assert all(word in result.stderr for word in words), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    wrong = {tmp_path / "gone.toml": "does not exist: name a", tmp_path: "cannot be read: Is a directory"}
    for path, reason in wrong.items():
        result = CliRunner().invoke(app, [*COMMAND, str(path)])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"dacesr: {path} {reason}")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bytes\.toml is not TOML"):
        load_config(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batch", "--set takes key=value, as in data.batch=16; got 'batch'"),
        ("=3", "--set takes key=value"),
        ("data..batch=3", "--set takes key=value"),
        ("iterations.more=3", "--set iterations.more=3: iterations is no table of the config"),
        ("data.batch=many", "data.batch: Input should be a valid integer (got 'many')"),
        ("data.bath=3", "data.bath: Extra inputs"),
        ("network.preset=huge", "network.preset one of light, base, large"),
    ],
)
def test_a_bad_change_is_one_sentence(tmp_path: Path, change: str, words: str) -> None:
    result = CliRunner().invoke(app, [*COMMAND, str(written(tmp_path, "iterations = 5")), "--set", change])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert words in result.stderr


def test_changes_are_toml_or_bare_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/somewhere")
    changes = [
        *("data.batch=16", "data.folders=['$PLACE/a', 'b']", "optimizer.name=adamw", "data.flip=false"),
        *("network.preset=light", "network.depths=[1, 1]", "output=a b", "optimizer.lr = 1e-3"),
    ]
    config = load_config(written(tmp_path, "iterations = 5\n[data]\nbatch = 2\ncrop = 64"), changes)
    assert (config.data.batch, config.data.crop, config.data.flip) == (16, 64, False)
    assert config.data.folders == ("/somewhere/a", "b")
    assert (config.optimizer.name, config.optimizer.lr, config.output) == ("adamw", 1e-3, "a b")
    assert config.network.model_dump()["depths"] == (1, 1)


def test_networks_are_presets_with_changes_or_kinds(tmp_path: Path) -> None:
    srvgg = load_config(written(tmp_path, "iterations = 5\n[network]\nkind = 'srvgg'\nnum_conv = 3"))
    assert srvgg.network.kind == "srvgg"
    light = load_config(written(tmp_path, "iterations = 5"))
    assert light.network.model_dump()["embed_dim"] == 60
    base = load_config(written(tmp_path, "iterations = 5\n[network]\npreset = 'base'\nscan_order = 'alternate'"))
    assert (base.network.model_dump()["embed_dim"], base.network.model_dump()["scan_order"]) == (180, "alternate")


def test_the_discriminator_keeps_its_own_rate_when_another_field_is_given(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "iterations = 5\n[discriminator.optimizer]\nclip = 1.0"))
    assert (config.discriminator.optimizer.lr, config.discriminator.optimizer.clip) == (1e-4, 1.0)
    assert load_config(written(tmp_path, "iterations = 5")).discriminator.optimizer.lr == 1e-4


@pytest.mark.parametrize("missing", ["accelerate", "tensorboard"])
def test_a_missing_package_names_the_extra(tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from dacesr.cli import main; main()"
    call = [sys.executable, "-c", code, *COMMAND, str(written(tmp_path, "iterations = 5"))]
    done = subprocess.run(call, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == f'dacesr: training needs {missing}: pip install "dacesr[train]"\n'


def test_help_imports_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from dacesr.cli import main; main()"
    for args in (["--help"], ["train", "--help"], ["train", "restorer", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "train" in done.stdout
