"""The runs that are killed: a folder of pictures, a training, and a folder on Ray."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.endurance.killing import hidden
from torch import Tensor
from torch.nn import functional as F

from dacesr.checkpoint import save_restorer
from dacesr.config import RestorerConfig
from dacesr.formats import FORMATS
from dacesr.image import ImageError, open_picture, write
from dacesr.nets.restorer import Restorer
from dacesr.train.state import load_state

CLOCK = ("seconds", "waiting")  # columns of the log that depend on it


def soft_picture(number: int, height: int, width: int) -> Tensor:
    """(1, 3, height, width) in [0, 1]."""
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(number))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


class FolderRun:
    """`dacesr upscale FOLDER --skip-existing`: small pictures of every format, some in subfolders."""

    name = "folder"
    modules: tuple[str, ...] = ()
    count = 48
    options: tuple[str, ...] = ("--skip-existing",)

    def prepare(self, folder: Path) -> None:
        """Write the pictures and weights."""
        net = Restorer(RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", image_skip="bilinear"))
        save_restorer(folder / "net.safetensors", net)
        endings = [format.extensions[0] for format in FORMATS.values()]
        for number in range(self.count):
            place = folder / "pictures" / ("sub" if number % 5 == 0 else "")
            place.mkdir(parents=True, exist_ok=True)
            write(place / f"{number}{endings[number % len(endings)]}", soft_picture(number, 60, 72 + number % 7))

    def arguments(self, output: Path) -> list[str]:
        """The command line."""
        call = ["upscale", "pictures", "-r", "-o", str(output), "-n", "net.safetensors", "--precision", "fp32"]
        return [*call, "-t", "48", "--overlap", "8", *self.options]

    def at_death(self, whole: Path, output: Path) -> list[str]:
        """Every output is the one of the whole run, byte for byte."""
        problems = []
        for path in (path for path in output.rglob("*") if path.is_file() and not _is_hidden(path, output)):
            expected = whole / path.relative_to(output)
            if not expected.is_file() or expected.read_bytes() != path.read_bytes():
                problems.append(f"{path} is not what it should be: {_damage(path)}")
        return problems

    def at_end(self, whole: Path, output: Path) -> list[str]:
        """All outputs are there and nothing else is."""
        missing = _names(whole) - _names(output)
        return [f"{name} is missing" for name in sorted(missing)] + hidden(output)


class RayRun(FolderRun):
    """The same on Ray, with a cluster of its own in every start."""

    name = "ray"
    count = 12
    options = ("--engine", "ray")

    def at_end(self, whole: Path, output: Path) -> list[str]:
        """All outputs are there; beside them only what the engine keeps to know what is done."""
        missing = _names(whole) - _names(output)
        return [f"{name} is missing" for name in sorted(missing)]


class TrainingRun:
    """`dacesr train restorer`: a tiny network with everything on."""

    name = "training"
    modules = (
        *("dacesr.train.loop", "dacesr.train.tasks", "dacesr.train.config", "dacesr.train.validation"),
        *("torch.utils.tensorboard", "accelerate"),
    )

    def prepare(self, folder: Path) -> None:
        """Write the pictures and the config."""
        (folder / "photos").mkdir()
        for number, size in enumerate([(64, 80), (48, 52), (70, 40)]):
            write(folder / "photos" / f"{number}.png", soft_picture(number, *size))
        (folder / "tiny.toml").write_text(CONFIG)

    def arguments(self, output: Path) -> list[str]:
        """The command line."""
        return ["train", "restorer", "tiny.toml", "--set", f"output={json.dumps(str(output))}"]

    def at_death(self, whole: Path, output: Path) -> list[str]:
        """What is there under its name can be read to the end."""
        problems = []
        for path in output.glob("*.safetensors"):
            problems += _try(path, load_file)
        if output.is_dir():
            problems += _try(output, load_state)
        for path in output.glob("images/*"):
            problems += [f"{path}: {_damage(path)}"] if _damage(path) else []
        for path in output.glob("config.json"):
            problems += _try(path, lambda path: json.loads(path.read_text()))
        return problems

    def at_end(self, whole: Path, output: Path) -> list[str]:
        """Weights, state and tables are those of the whole run, bit for bit."""
        problems = hidden(output)
        names = {path.name for path in whole.iterdir()}
        if names != {path.name for path in output.iterdir()}:
            problems.append(f"{output} holds {sorted(path.name for path in output.iterdir())}, not {sorted(names)}")
        expected, found = _tensors(whole), _tensors(output)
        if expected.keys() != found.keys():
            problems.append(f"{output} has other tensors")
        elif differ := [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])]:
            problems.append(f"{output} has other values: {differ[:3]}")
        for name in ("log.csv", "validation.csv"):
            if _rows(whole / name) != _rows(output / name):
                problems.append(f"{output / name} has other rows")
        return problems


RUNS = {run.name: run for run in (FolderRun(), TrainingRun(), RayRun())}

CONFIG = """
iterations = 12
seed = 3
accumulate = 2
ema = 0.9
precision = "fp32"
threads = 1
log_every = 2
save_every = 2

[network]
embed_dim = 8
depths = [1]
head = "pixelshuffledirect"

[data]
folders = ["photos"]
crop = 32
batch = 2
pool = 6
spaces = { level1 = 1.0, bicubic = 1.0 }

[optimizer]
lr = 1e-3
warmup = 2
schedule = "cosine"
clip = 1.0

[loss]
gan = 0.1

[discriminator]
width = 2

[validation]
every = 5
folder = "photos"
spaces = ["bicubic", "level1"]
limit = 1
crop = 32
images = 1
"""


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _names(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not _is_hidden(path, folder)}


def _damage(path: Path) -> str:
    """Why a picture cannot be decoded; empty where it can."""
    try:
        picture = open_picture(path)
        picture.region(0, 0, picture.width, picture.height)
    except ImageError as error:
        return str(error)
    return ""


def _try(path: Path, read: Any) -> list[str]:
    try:
        read(path)
    except Exception as error:
        return [f"{path} cannot be read: {error}"]
    return []


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Of the weights and of the last state."""
    found = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    for path in folder.glob("state-*/*.safetensors"):
        found |= load_file(path)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CLOCK} for row in csv.DictReader(file)]
