"""Versions of a picture at its own size: clean, degraded in one way, or in several after one another."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from dacesr.degradation.recipe import SPACES, degrade
from dacesr.degradation.sweeps import SWEEPS

CLEAN, MIXED = "clean", "mixed"
LEVELS = {"blur": 2.0, "noise": 20.0, "jpeg": 30.0}  # of a sweep that is named without one
MIXTURE = (("blur", 1.5), ("noise", 15.0), ("jpeg", 40.0))


def versions(x: Tensor, names: Sequence[str], *, seed: int = 0) -> dict[str, Tensor]:
    """A picture degraded in each of several ways.

    Args:
        x: (1, 3, h, w) in [0, 1].
        names: `clean`; `blur`, `noise` or `jpeg`, with `=LEVEL` for another level than `LEVELS` has; `mixed` for blur,
            then noise, then JPEG; a space of `degradation.recipe.SPACES`, from which a degradation is drawn.
        seed: Of what is random; each name has random numbers of its own.

    Returns:
        By name (1, 3, h, w) of 8-bit values; `clean` is `x` itself.

    Raises:
        ValueError: There is no such degradation or level.
    """
    return {name: _version(x, name, seed) for name in dict.fromkeys(names)}


def check_versions(names: Sequence[str]) -> None:
    """ValueError for a name that `versions` does not know."""
    for name in names:
        kind, sign, level = name.partition("=")
        if not sign and kind in (CLEAN, MIXED, *SPACES):
            continue
        if kind not in SWEEPS:
            raise ValueError(f"there is no degradation {name!r}; there are {CLEAN}, {MIXED}, {', '.join(SWEEPS)} (or, "
                             f"with a level, as blur=2.5), {', '.join(SPACES)}")  # fmt: skip
        if sign:
            _check_level(kind, level)


def _check_level(kind: str, level: str) -> None:
    top = 100.0 if kind == "jpeg" else 50.0 if kind == "blur" else 255.0
    try:
        fits = 0 < float(level) <= top and (kind != "jpeg" or float(level) >= 1)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{kind} takes a level ({SWEEPS[kind].unit}) of up to {top:g}, as in "
                         f"{kind}={LEVELS[kind]:g}; got {level!r}")  # fmt: skip


def _version(x: Tensor, name: str, seed: int) -> Tensor:
    check_versions([name])
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator(x.device).manual_seed(int.from_bytes(digest[:7]))
    if name == CLEAN:
        return x
    if name in SPACES:
        return degrade(x, name, generator, scale=1)[0]
    kind, _, level = name.partition("=")
    steps = MIXTURE if name == MIXED else ((kind, float(level) if level else LEVELS[kind]),)
    for each, its_level in steps:
        x = SWEEPS[each].apply(x, its_level, generator)
    return x
