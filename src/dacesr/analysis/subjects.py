"""The networks that an analysis looks into, each with the extractor that conditions it, if one does."""

from collections.abc import Sequence

import torch
from torch import nn

from dacesr.checkpoint import KINDS, Network, resolve
from dacesr.conditioning import Guided, load_guided
from dacesr.config import RestorerConfig
from dacesr.evaluate.methods import named, short_name, with_strength
from dacesr.evaluate.networks import find_networks
from dacesr.pairing import find_pair

RANDOM = "random:"


def load_subjects(names: Sequence[str], *, device: str | torch.device = "cpu") -> dict[str, Guided]:
    """Networks by the names that figures give them.

    Args:
        names: A bundled name, file or hub id; `MODEL@0.5` for a strength of a pair (its own unless given);
            `random:NETWORK` for a network as `dacesr evaluate table2` names them with random weights, the same in
            every run; `NAME=` before any of these for another name.
        device: Where they go.

    Returns:
        In fp32 and eval mode, without gradients of their weights.

    Raises:
        ValueError: One can't be loaded, two have one name, or their scales differ.
    """
    found: dict[str, Guided] = {}
    for text in names:
        name, source = named(text)
        name = name or (source if source.startswith(RANDOM) else short_name(source))
        if name in found:
            raise ValueError(f"two models are called {name}: give one another name, as in NAME={source}")
        found[name] = load_subject(source).to(device)
    scales = {name: guided.config.scale for name, guided in found.items()}
    if len(set(scales.values())) > 1:
        listed = ", ".join(f"{name} {scale}" for name, scale in scales.items())
        raise ValueError(f"models that are compared should enlarge alike, and their scales are {listed}")
    return found


def load_subject(source: str) -> Guided:
    """One network as `load_subjects` names them, on the CPU."""
    if source.startswith(RANDOM):
        return _frozen(Guided(random_network(source.removeprefix(RANDOM))))
    model, strength = with_strength(source)
    guided = load_guided(model)
    pair = find_pair(model, resolve(model), guided.net)
    if pair is not None:
        guided.net = pair.at(pair.strength if strength is None else strength)
    elif strength is not None:
        raise ValueError(f"{model} has one set of weights, so there is no strength to choose")
    return _frozen(guided)


def random_network(name: str) -> Network:
    """A network of a preset, kind or file (see `evaluate.networks.find_networks`) with random weights, seed 0.

    Convolutions are as PyTorch draws them: ours starts at plain enlargement otherwise (`nets.restorer`), which shows
    nothing. It takes no condition.
    """
    config = find_networks([name])[name]
    if isinstance(config, RestorerConfig):
        config = config.model_copy(update={"modulation": "none"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = KINDS[config.kind].network(config)
        for module in net.modules():
            if isinstance(net.config, RestorerConfig) and isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return net


def _frozen(guided: Guided) -> Guided:
    return guided.eval().requires_grad_(False)
