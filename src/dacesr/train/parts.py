"""What a restorer's training is made of, by its config: pictures, network, extractor."""

from collections.abc import Callable

import torch

from dacesr.checkpoint import KINDS, Network, load_extractor, load_restorer, resolve
from dacesr.conditioning import extractor_fields
from dacesr.config import RestorerConfig
from dacesr.dataset import Mixture, Pairs, Photographs, Source
from dacesr.drawings import Drawings
from dacesr.nets.extractor import Extractor
from dacesr.tensorfile import read_header
from dacesr.train.config import ConfigError, DataConfig, RestorerTraining


def make_source(config: DataConfig, scale: int, warn: Callable[[str], None]) -> Source:
    """What the config's folders and shares make.

    Raises:
        ValueError: A folder is missing or empty, or shares that cannot be.
    """
    cache = int(config.cache_gb * 2**30)
    if config.lr_folder is not None:
        if len(config.folders) != 1 or config.drawings:
            raise ConfigError("data.lr_folder goes with one of data.folders and without data.drawings")
        return Pairs(
            config.folders[0], config.lr_folder, scale=scale, meta_info=config.meta_info, cache_bytes=cache, warn=warn
        )
    if not config.folders and not config.drawings:
        raise ConfigError("data.folders should name at least one folder of sharp pictures")
    parts: list[tuple[Source, float]] = []
    if config.folders and config.drawings < 1:
        photographs = Photographs(config.folders, meta_info=config.meta_info, cache_bytes=cache, warn=warn)
        parts.append((photographs, 1 - config.drawings))
    if config.drawings:
        parts.append((Drawings(), config.drawings))
    return Mixture(parts)


def make_network(config: RestorerTraining) -> Network:
    """The config's network, with the weights of `init` if that is given; those may lack a learned modulation.

    Raises:
        ValueError: The weights are missing or do not fit.
    """
    net = KINDS[config.network.kind].network(config.network)
    if config.init is not None:
        start = load_restorer(config.init)
        _check_start(config, start)
        weights = start.state_dict()
        own = {name: value for name, value in net.state_dict().items() if name.startswith("modulation.")}
        try:
            net.load_state_dict({**own, **weights})
        except RuntimeError as error:
            raise ConfigError(f"init: the weights of {config.init} do not fit the network of the config") from error
    return net


def _check_start(config: RestorerTraining, start: Network) -> None:
    """Shapes alone don't tell one learned modulation or extractor from another."""
    assert config.init is not None
    if not isinstance(start.config, RestorerConfig) or not start.config.learned_modulation:
        return
    for field in ("modulation", "modulate", "condition"):
        earlier, own = getattr(start.config, field), getattr(config.network, field, None)
        if earlier != own:
            raise ConfigError(f"network.{field} is {own}, and the weights of init, {config.init}, have {earlier}")
    named = read_header(resolve(config.init)).get("extractor_sha256")
    if config.extractor and named and named != extractor_fields(config.extractor)["extractor_sha256"]:
        raise ConfigError(f"extractor: {config.extractor} is not the one that init, {config.init}, was trained with")


def make_extractor(config: RestorerTraining, device: torch.device) -> Extractor | None:
    """What conditions the network, frozen; None where nothing does.

    Raises:
        ValueError: It is missing, or its conditions do not fit the network.
    """
    if config.extractor is None:
        return None
    assert isinstance(config.network, RestorerConfig)  # the config has been checked
    extractor, kind = load_extractor(config.extractor), config.network.condition
    if extractor.condition_dim(kind) != config.network.condition_dim:
        raise ConfigError(
            f"network.condition_dim is {config.network.condition_dim}, and the condition {kind} of {config.extractor} "
            f"has {extractor.condition_dim(kind)} channels"
        )
    return extractor.to(device)
