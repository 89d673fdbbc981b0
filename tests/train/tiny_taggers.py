"""Tiny runs of taggers and extractors on labelled pictures made here."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from dacesr.config import TaggerConfig
from dacesr.image import write
from dacesr.nets.tagger import Tagger, normalise
from dacesr.taggerfile import save_tagger
from train.conftest import rows

TAGS = ("red", "striped", "dark")
SMALL = {
    "image_size": 32,
    "patch": 4,
    "stem": "conv",
    "embed_dim": 8,
    "depths": (2, 1),
    "heads": (2, 2),
    "window": 4,
    "local_conv": True,
    "width": 12,
    "label_dim": 8,
    "head_dim": 8,
    "head_heads": 2,
    "head_mlp": 16,
}


def picture(number: int) -> tuple[Tensor, list[str]]:
    """One of 48 x 40 pixels or of 40 x 48, and the tags that it shows."""
    generator = torch.Generator().manual_seed(number)
    shown = [tag for tag, on in zip(TAGS, (number % 2, number // 2 % 2, number // 4 % 2), strict=True) if on]
    size = (48, 40) if number % 3 else (40, 48)
    x = 0.5 + 0.05 * torch.randn(1, 3, *size, generator=generator)
    if "red" in shown:
        x[:, 0] += 0.3
        x[:, 1:] -= 0.2
    if "striped" in shown:
        x[..., ::4] += 0.3
        x[..., 1::4] += 0.3
    if "dark" in shown:
        x *= 0.4
    return x.clamp(0, 1), shown


def labelled_set(folder: Path, count: int = 48) -> Path:
    """A CSV with its pictures beside it; every fourth one is of the test split."""
    place = folder / "shapes"
    place.mkdir(parents=True, exist_ok=True)
    lines = ["file,split,tags"]
    for number in range(count):
        x, shown = picture(number)
        write(place / f"{number}.png", x)
        lines.append(f"{number}.png,{'test' if number % 4 == 3 else 'train'},{'|'.join(shown)}")
    (folder / "shapes.csv").write_text("\n".join(lines))
    return folder / "shapes.csv"


def small_tagger(seed: int = 0, *, tag_names: Sequence[str] = TAGS, **changes: object) -> Tagger:
    """Random weights, larger than those that training starts from; each tag is given to half of the pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tagger = Tagger(TaggerConfig.model_validate({**SMALL, "tags": len(tag_names), **changes}))
        for name, parameter in tagger.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            elif name == "fc.bias":
                torch.nn.init.zeros_(parameter)
        shown = torch.cat([F.interpolate(picture(number)[0], (32, 32)) for number in range(16)])
        tagger.name_tags(tag_names, tagger.eval().logits(normalise(shown)).sigmoid().median(0).values.detach())
    return tagger


def tagger_file(folder: Path, tag_names: Sequence[str] = TAGS, **changes: object) -> Path:
    """A file of `small_tagger`."""
    path = folder / "base.safetensors"
    save_tagger(path, small_tagger(tag_names=tag_names, **changes))
    return path


def left(folder: Path) -> dict[str, Tensor]:
    """All tensors of a run's last state and of what it wrote for use."""
    (state,) = folder.glob("state-*")
    found: dict[str, Tensor] = {}
    for path in (*state.glob("*.safetensors"), *folder.glob("*.safetensors"), *folder.glob("adapter/*.safetensors")):
        found |= {f"{path.parent.name}/{name}": tensor for name, tensor in load_file(path).items()}
    return found


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit the same tensors, and the same tables."""
    expected, got = ({name.split("/")[1]: tensor for name, tensor in left(folder).items()} for folder in (one, other))
    assert expected.keys() == got.keys()
    assert not [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])]
    for name in ("log.csv", "validation.csv"):
        assert rows(one / name) == rows(other / name)
        assert rows(one / name)
