"""Whole files of weights in every container and of every kind, drawn here: the ones that mutants are made of."""

import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tests.tiny_tagger import write_tagger
from torch import Tensor

from dacesr.adapterfile import AdapterConfig, fingerprint, save_adapter
from dacesr.checkpoint import KINDS, save_restorer
from dacesr.conditioning import extractor_fields
from dacesr.config import RestorerConfig
from dacesr.image import write
from dacesr.nets.restorer import Restorer
from dacesr.taggerfile import load_tagger
from dacesr.tensorfile import sha256_of

SIZES: dict[str, dict[str, Any]] = {  # of each kind of network
    "restorer": {"embed_dim": 8, "depths": (1,), "head": "pixelshuffledirect", "scale": 2},
    "srvgg": {"num_feat": 4, "num_conv": 1, "scale": 2},
    "srresnet": {"num_feat": 4, "num_block": 1, "scale": 2},
    "edsr": {"num_feat": 4, "num_block": 1, "scale": 2},
    "rrdb": {"num_feat": 4, "num_block": 1, "num_grow_ch": 2, "scale": 4},
    "rlfn": {"num_feat": 4, "num_block": 1, "mid_feat": 4, "esa_feat": 2, "scale": 2},
    "swinir": {"embed_dim": 8, "depths": (1,), "heads": (2,), "window": 4, "head_dim": 4},
    "hat": {"embed_dim": 8, "depths": (1,), "heads": (2,), "window": 4, "conv_dim": 4, "squeeze_dim": 2, "head_dim": 4},
    "dasr": {"num_feat": 4, "num_block": 1, "num_expert": 2, "predictor_feat": 4, "num_param": 3, "scale": 2},
    "kdsr": {"num_feat": 4, "num_block": 1, "encoder_block": 1, "scale": 2},
}


class Weights(NamedTuple):
    """Files that belong together.

    Attributes:
        files: Name in the folder -> content.
        given: Which of them, or the folder ".", is given to the command.
        kind: "restorer", "tagger" or "adapter": what it is given as.
    """

    files: dict[str, bytes]
    given: str
    kind: str = "restorer"


def weights() -> dict[str, Weights]:
    """By name."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        return {**_networks(Path(folder)), **_recognition(Path(folder)), **_hostile()}


def models(folder: Path) -> None:
    """Write a conditioned pair, `crisp.safetensors` and `soft.safetensors`, its extractor `eye.safetensors`, a network
    `release.safetensors` that takes any extractor or none, and a picture `photo.png`.
    """
    write_tagger(folder / "eye.safetensors")
    sizes = {**SIZES["restorer"], "image_skip": "bilinear", "modulation": "spatial", "condition_dim": 16}
    net = Restorer(RestorerConfig(**sizes))
    named = extractor_fields(folder / "eye.safetensors")
    save_restorer(folder / "soft.safetensors", net, info=named)
    sha = sha256_of(folder / "soft.safetensors")
    pair = {"fidelity": "soft.safetensors", "fidelity_sha256": sha, "strength": "0.5"}
    save_restorer(folder / "crisp.safetensors", net, info={**named, **pair, "name": "crisp", "licence": "none"})
    net = Restorer(RestorerConfig(**{**sizes, "modulation": "release"}))
    save_restorer(folder / "release.safetensors", net)
    write(folder / "photo.png", torch.rand(1, 3, 12, 15))


def _networks(folder: Path) -> dict[str, Weights]:
    found = {}
    for kind, sizes in SIZES.items():
        config, make = KINDS[kind]
        net = make(config.model_validate(sizes))
        save_restorer(folder / f"{kind}.safetensors", net)
        found[kind] = _one(folder / f"{kind}.safetensors")
        state = net.state_dict()
        if kind not in ("dasr", "kdsr"):
            found[f"{kind}.pth"] = Weights({"net.pth": _saved({"params": state})}, "net.pth")
        if kind in ("restorer", "srvgg"):
            found[f"{kind}.old"] = Weights({"net.pth": _saved(state, zipped=False)}, "net.pth")
        if kind == "restorer":
            save_restorer(folder / "half.safetensors", net, dtype=torch.float16, info={"name": "half"})
            found["half"] = _one(folder / "half.safetensors")
    param, content = _ncnn()
    for given in ("net.param", "net.bin"):
        found[f"ncnn.{given}"] = Weights({"net.param": param, "net.bin": content}, given)
    return found


def _recognition(folder: Path) -> dict[str, Weights]:
    models(folder)
    names = ("crisp.safetensors", "soft.safetensors", "eye.safetensors")
    together = {name: (folder / name).read_bytes() for name in names}
    found = {"pair": Weights(together, "crisp.safetensors"), "soft": Weights(together, "soft.safetensors")}
    eye = {"eye.safetensors": together["eye.safetensors"]}
    found["tagger"] = Weights(eye, "eye.safetensors", "tagger")
    tagger = load_tagger(folder / "eye.safetensors")
    settings = AdapterConfig(base="eye", base_fingerprint=fingerprint(tagger), r=2, alpha=3.0)
    added = _lora({name: value for name, value in tagger.state_dict().items() if name.endswith(".weight")}, settings)
    save_adapter(folder / "lora.safetensors", added, settings)
    save_adapter(folder / "lora", added, settings)
    lora = {"lora.safetensors": (folder / "lora.safetensors").read_bytes()}
    found["adapter"] = Weights({**eye, **lora}, "lora.safetensors", "tagger")
    found["merged"] = Weights({**eye, **lora}, "lora.safetensors", "adapter")
    inside = {path.name: path.read_bytes() for path in (folder / "lora").iterdir()}
    found["folder"] = Weights({**eye, **inside}, ".", "adapter")
    found["release"] = Weights({"ram.pth": _saved({"model": _release()})}, "ram.pth", "tagger")
    text = {
        "eye.tags.txt": "\n".join(tagger.tag_names).encode(),
        "eye.thresholds.txt": b"0.5\n" * len(tagger.tag_names),
    }
    found["labels"] = Weights({**eye, **text}, "eye.safetensors", "tagger")
    return found


def _lora(layers: Mapping[str, Tensor], settings: AdapterConfig) -> dict[str, Tensor]:
    found = {}
    for name, value in layers.items():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] in settings.targets:
            out, width = value.shape
            found[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(settings.r, width)
            found[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(out, settings.r)
    return found


def _release() -> dict[str, Tensor]:
    """What the sizes of a released RAM are read from, and no more."""
    shapes = {
        "visual_encoder.patch_embed.proj.weight": (8, 3, 4, 4),
        "visual_encoder.layers.0.blocks.0.attn.relative_position_bias_table": (49, 2),
        "visual_encoder.layers.0.blocks.0.mlp.fc1.weight": (32, 8),
        "image_proj.weight": (16, 8),
        "label_embed": (8, 8),
        "wordvec_proj.weight": (8, 8),
        "tagging_head.encoder.layer.0.crossattention.self.query.weight": (8, 8),
        "tagging_head.encoder.layer.0.intermediate.dense.weight": (16, 8),
    }
    return {name: torch.randn(shape) for name, shape in shapes.items()}


class _Code:
    """Unpickling it would run a command."""

    def __init__(self, function: Any, argument: Any) -> None:
        self.what = function, (argument,)

    def __reduce__(self) -> Any:
        return self.what


def _hostile() -> dict[str, Weights]:
    """Pickles that would run code, and tensors that claim far more numbers than they hold."""
    state = {"conv_first.weight": torch.zeros(4, 3, 3, 3)}
    touch = _Code(os.system, "touch executed")
    few = torch.zeros(1)
    contents: dict[str, Any] = {
        "command": {"params": state, "note": touch},
        "evaluated": {**state, "note": _Code(eval, "open('executed', 'w')")},
        "vast": {name: few.expand(*[4096] * value.ndim) for name, value in _restorer_state().items()},
        "wide": {name: few.expand(value.shape) for name, value in _restorer_state(embed_dim=4096, expand=16).items()},
        "meta": {name: value.to("meta") for name, value in _restorer_state().items()},
        "sparse": {name: value.to_sparse() for name, value in _restorer_state().items()},
        "complex": {name: value.to(torch.complex64) for name, value in _restorer_state().items()},
        "whole": {name: value.to(torch.int64) for name, value in _restorer_state().items()},
        "nested": {"a": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)},
        "nan": {name: value * torch.nan for name, value in _restorer_state().items()},
    }
    contents["loop"] = {}
    contents["loop"]["state_dict"] = contents["loop"]
    found = {}
    for name, content in contents.items():
        zipped = _saved(content)
        found[f"hostile.{name}"] = Weights({"net.pth": zipped}, "net.pth")
    found["hostile.old"] = Weights({"net.pth": _saved(contents["command"], zipped=False)}, "net.pth")
    return found


def _restorer_state(**changes: Any) -> dict[str, Tensor]:
    with torch.device("meta" if changes else "cpu"):
        net = Restorer(RestorerConfig(**{**SIZES["restorer"], **changes}))
    return net.state_dict()


def _one(path: Path) -> Weights:
    return Weights({path.name: path.read_bytes()}, path.name)


def _saved(content: Any, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _ncnn() -> tuple[bytes, bytes]:
    """A compact network of 4 features, as .param and .bin."""
    sizes = ((4, 3), (4, 4), (12, 4))
    lines, content = [], b""
    for number, (outputs, inputs) in enumerate(sizes):
        source, weights = f"act{number - 1}" if number else "in_1", outputs * inputs * 9
        lines.append(f"Convolution c{number} 1 1 {source} conv{number} 0={outputs} 1=3 4=1 5=1 6={weights}")
        content += (0x01306B47).to_bytes(4, "little") + torch.randn(weights).half().numpy().tobytes()
        content += torch.randn(outputs).numpy().tobytes()
        if number < 2:
            lines.append(f"PReLU p{number} 1 1 conv{number} act{number} 0={outputs}")
            content += torch.rand(outputs).numpy().tobytes()
    ends = (
        "PixelShuffle shuffle 1 1 conv2 shuffled 0=2",
        "Interp enlarge 1 1 in_0 enlarged 0=1 1=2.0 2=2.0",
        "BinaryOp add 2 1 shuffled enlarged output",
    )
    head = ("Input input 0 1 data", "Split split 1 2 data in_0 in_1")
    text = "\n".join(("7767517", f"{len(lines) + 5} 12", *head, *lines, *ends)) + "\n"
    return text.encode(), content
