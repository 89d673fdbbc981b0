"""dacesr's networks in spandrel, and so in the programs that load networks with it (chaiNNer, ComfyUI and others).

    import dacesr.spandrel_plugin
    dacesr.spandrel_plugin.install()
    model = spandrel.ModelLoader().load_from_file("dacesr-spandrel.safetensors")   # written by `save`

spandrel sees tensors only, and neither the header of a file nor the files beside it. So `save` puts all that a network
needs into the tensors: the network under `net.`, its extractor, if it has one, under `extractor.`, and what both are as
JSON in the bytes of `dacesr.header`. The condition is made within `forward(x)`, of what spandrel hands over.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dacesr.checkpoint import KINDS, load_restorer
from dacesr.conditioning import Guided, find_extractor
from dacesr.config import RestorerConfig, TaggerConfig
from dacesr.nets.extractor import SMALLEST, Extractor
from dacesr.nets.tagger import Tagger
from dacesr.onnxnetwork import OnnxNetwork
from dacesr.ownfile import FORMAT, check_fit, own_config
from dacesr.pairing import at_strength
from dacesr.tensorfile import CheckpointError, write_whole
from dacesr.weightfiles import resolve

__all__ = ["ID", "install", "save"]

ID = "DACESR"
HEADER = "dacesr.header"


def save(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    strength: float | None = None,
    extractor: str | os.PathLike[str] | None = None,
) -> None:
    """Write a network, with its extractor, as one file for spandrel; it appears whole or not at all.

    Args:
        source: As for `load_restorer`.
        destination: The file to write, *.safetensors.
        strength: Of a network with two sets of weights: 0 faithful to 1 crisp; its own unless given.
        extractor: As for `Upscaler.load`.

    Raises:
        CheckpointError: One of the two can't be loaded or doesn't fit.
        ValueError: Another ending, or an impossible strength.
        OSError: The file can't be written.
    """
    if Path(destination).suffix != ".safetensors":
        raise ValueError(f"the name of a file for spandrel ends in .safetensors, and {os.fspath(destination)} doesn't")
    path = resolve(source)
    net = load_restorer(path)
    if isinstance(net, OnnxNetwork):
        raise CheckpointError(f"{path} is an ONNX file: take the weights that it was made from")
    seeing, _ = find_extractor(source, path, net, extractor)
    net, _ = at_strength(source, path, net, strength)
    config = net.config
    if isinstance(config, RestorerConfig) and seeing is None:
        config = config.model_copy(update={"modulation": "none"})  # which is what a released one without is
    header = {"dacesr_format": str(FORMAT), "kind": config.kind, "config": config.model_dump_json()}
    if seeing is not None:
        header["extractor"] = seeing.tagger.config.model_dump_json()
    tensors = {key: value.contiguous() for key, value in Guided(net, seeing).state_dict().items()}
    tensors[HEADER] = torch.tensor(list(json.dumps(header).encode()), dtype=torch.uint8)
    write_whole(Path(destination), safetensors.torch.save(tensors))


def read(state: dict[str, Tensor]) -> Guided:
    """The network of a state dict that `save` wrote, with its weights.

    Raises:
        CheckpointError: The header can't be used, or tensors are missing, unexpected or of another shape.
    """
    name = "the file for spandrel"
    try:
        header = json.loads(bytes(state[HEADER].cpu().tolist()))
        seeing = header.pop("extractor", None)
        tagger = None if seeing is None else TaggerConfig.model_validate_json(seeing)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{name} has a header that can't be read") from error
    config = own_config(header, name, {kind: entry.config for kind, entry in KINDS.items()}, wanted="restorer")

    def make() -> Guided:
        return Guided(KINDS[config.kind].network(config), None if tagger is None else Extractor(Tagger(tagger)))

    blocks = config.block_count + (0 if tagger is None else tagger.block_count)
    check_fit(make, tensors_of(state), name, kind=config.kind, blocks=blocks)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers don't depend on what was loaded
        guided = make()
    guided.load_state_dict(tensors_of(state))
    return guided.eval()


def tensors_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without its header."""
    return {key: value for key, value in state.items() if key != HEADER}


def install(registry: Any = None) -> None:
    """Add dacesr's networks to a registry of spandrel; a second time nothing happens.

    Args:
        registry: A `spandrel.ArchRegistry`; spandrel's own, which all its loaders use, unless given.

    Raises:
        ImportError: spandrel is missing.
    """
    try:
        import spandrel  # pyright: ignore[reportMissingImports]
        from spandrel.util import KeyCondition  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("dacesr.spandrel_plugin needs the package spandrel: pip install spandrel") from error

    class DacesrArchitecture(spandrel.Architecture):
        """Files that `dacesr.spandrel_plugin.save` wrote."""

        def __init__(self) -> None:
            super().__init__(id=ID, name="DACESR", detect=KeyCondition.has_all(HEADER))

        def load(self, state_dict: dict[str, Tensor]) -> Any:
            guided = read(state_dict)
            scale, conditioned = guided.config.scale, guided.extractor is not None
            return spandrel.ImageModelDescriptor(
                guided,
                tensors_of(state_dict),
                architecture=self,
                purpose="Restoration" if scale == 1 else "SR",
                tags=[guided.config.kind, *(["conditioned"] if conditioned else [])],
                supports_half=False,
                supports_bfloat16=True,
                scale=scale,
                input_channels=3,
                output_channels=3,
                size_requirements=spandrel.SizeRequirements(minimum=SMALLEST if conditioned else 1),
                tiling=spandrel.ModelTiling.DISCOURAGED if conditioned else spandrel.ModelTiling.SUPPORTED,
            )

    known = spandrel.MAIN_REGISTRY if registry is None else registry
    if ID not in known:
        known.add(spandrel.ArchSupport.from_architecture(DacesrArchitecture()))
