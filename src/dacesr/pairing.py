"""Two sets of weights of one network, and all between them: network interpolation (Wang et al. 2019, ESRGAN, Sec. 3.4).

A perceptual file (crisp) names its fidelity partner (faithful), a file in the same folder, in its header:

    fidelity         the partner's file name
    fidelity_sha256  of the partner's bytes
    strength         optional: how much of the perceptual weights to take where the user doesn't say, 0 to 1

Two networks that take a condition name the same extractor (`dacesr.conditioning`), by its sha256.

At strength s the weights are (1 - s) * fidelity + s * perceptual, computed in fp32.
"""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import torch

from dacesr.checkpoint import Network, load_restorer
from dacesr.onnxnetwork import OnnxNetwork
from dacesr.tensorfile import CheckpointError, read_header, replace_header, sha256_of
from dacesr.weightfiles import beside

FIELDS = ("fidelity", "fidelity_sha256", "strength")


class Pair:
    """A perceptual network with its fidelity partner, which is loaded when first needed.

    Attributes:
        strength: What to take where the user doesn't say.
    """

    def __init__(self, perceptual: Network, fidelity: Callable[[], Network], *, strength: float = 1.0) -> None:
        """Take a network in fp32 and what loads its partner.

        Raises:
            ValueError: The strength lies outside [0, 1].
        """
        self.strength = checked(strength)
        self._perceptual = perceptual
        self._load = fidelity
        self._fidelity: Network | None = None

    def at(self, strength: float) -> Network:
        """The network of a strength: 1 is the perceptual one itself, 0 the fidelity one, between them a new one.

        Raises:
            CheckpointError: The partner is missing or does not belong to this network.
            ValueError: The strength lies outside [0, 1].
        """
        if checked(strength) == 1:
            return self._perceptual
        if self._fidelity is None:
            self._fidelity = self._load()
        return self._fidelity if strength == 0 else interpolate(self._fidelity, self._perceptual, strength)


def checked(strength: float) -> float:
    """A strength, if it is one.

    Raises:
        ValueError: It is no number or lies outside [0, 1].
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ValueError(f"strength must be a number from 0 to 1; got {strength!r}")
    return float(strength)


@torch.no_grad()
def interpolate(fidelity: Network, perceptual: Network, strength: float) -> Network:
    """A new network with (1 - strength) * fidelity + strength * perceptual; both of one config, in fp32."""
    net, other = copy.deepcopy(fidelity), perceptual.state_dict()
    for name, value in net.state_dict().items():
        value.mul_(1 - strength).add_(other[name], alpha=strength)
    return net


def find_pair(source: str | os.PathLike[str], path: Path, net: Network) -> Pair | None:
    """The pair that a file's header speaks of; None where the file stands alone.

    Args:
        source: What the user gave: a bundled name, a path or a hub id.
        path: The file that it stands for.
        net: The network in that file.

    Raises:
        CheckpointError: The header names a partner in a way that makes no sense; whether the partner is there and fits
            is found out only when it is needed.
    """
    header = {} if isinstance(net, OnnxNetwork) else read_header(path)
    if "dacesr_format" not in header or "fidelity" not in header:
        return None
    name, digest = header["fidelity"], header.get("fidelity_sha256", "")
    if Path(name).name != name or name in ("", ".."):
        raise CheckpointError(f"{path} names {name!r} as its fidelity partner, which must be a file in the same folder")
    try:
        strength = checked(float(header.get("strength", "1")))
    except ValueError as error:
        raise CheckpointError(f"{path} has the strength {header['strength']!r}, not a number from 0 to 1") from error

    def load() -> Network:
        return _partner(beside(source, path, name), digest, path, net)

    return Pair(net, load, strength=strength)


def at_strength(
    source: str | os.PathLike[str], path: Path, net: Network, strength: float | None
) -> tuple[Network, float | None]:
    """One set of weights, for files that hold no more.

    Args:
        source: As for `find_pair`, and so are `path` and `net`.
        path: See there.
        net: See there.
        strength: 0 faithful to 1 crisp, or None for the file's own.

    Returns:
        The network of that strength, and the strength; None where there is one set of weights.

    Raises:
        CheckpointError: As for `find_pair` and `Pair.at`.
        ValueError: The strength is impossible, or there is one set of weights.
    """
    pair = find_pair(source, path, net)
    if pair is not None:
        strength = pair.strength if strength is None else checked(strength)
        return pair.at(strength), strength
    if strength is not None:
        raise ValueError(f"{os.fspath(source)} has one set of weights, so there is no strength to choose")
    return net, None


def _partner(partner: Path, digest: str, path: Path, net: Network) -> Network:
    if not partner.is_file():
        raise CheckpointError(f"{path} needs its fidelity partner {partner.name} beside it for a strength below 1")
    if sha256_of(partner) != digest:
        raise CheckpointError(f"{partner} is not the fidelity partner that {path} was paired with (its sha256 differs)")
    fidelity = load_restorer(partner)
    _check_same(fidelity, net, partner, path)
    return fidelity


def _check_same(fidelity: Network, perceptual: Network, partner: Path, path: Path) -> None:
    if fidelity.config != perceptual.config:
        raise CheckpointError(f"{partner} has another config than {path}, so there is nothing between them")
    one, other = (read_header(file).get("extractor_sha256") for file in (partner, path))
    if one != other:
        raise CheckpointError(
            f"{partner} was trained with another extractor than {path}, so there is nothing between them"
        )


def pair_restorers(
    fidelity: str | os.PathLike[str], perceptual: str | os.PathLike[str], *, strength: float | None = None
) -> None:
    """Write into the header of a perceptual file which fidelity file it belongs to; its weights stay as they are.

    Args:
        fidelity: A file of weights in the same folder.
        perceptual: A file in our own format, which is replaced whole or not at all.
        strength: What to take where the user doesn't say, 0 to 1; None for the perceptual weights as they are.

    Raises:
        CheckpointError: One of the files can't be loaded, isn't in the same folder or our format, or they differ in
            their config.
        ValueError: The strength lies outside [0, 1].
        OSError: The file can't be written.
    """
    partner, path = Path(fidelity), Path(perceptual)
    _check_same(load_restorer(partner), load_restorer(path), partner, path)
    header = read_header(path)
    if "dacesr_format" not in header:
        raise CheckpointError(f"{path} is not in dacesr's own format: dacesr models convert writes it")
    if partner.resolve().parent != path.resolve().parent or partner.name == path.name:
        raise CheckpointError(f"{partner} must be another file in the folder of {path}")
    pair = {"fidelity": partner.name, "fidelity_sha256": sha256_of(partner)}
    if strength is not None:
        pair["strength"] = repr(checked(strength))
    replace_header(path, {key: value for key, value in header.items() if key not in FIELDS} | pair)
