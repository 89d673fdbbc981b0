"""The classes of spandrel 0.4.2 that a plug-in meets, with its signatures: spandrel itself needs torchvision."""

import enum
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


class Architecture:
    def __init__(self, *, id: str, detect: Callable[[dict[str, Any]], bool], name: str | None = None) -> None:
        self.id, self.name, self._detect = id, name or id, detect

    def detect(self, state_dict: dict[str, Any]) -> bool:
        return self._detect(state_dict)


class ModelTiling(enum.Enum):
    SUPPORTED = 1
    DISCOURAGED = 2
    INTERNAL = 3


@dataclass
class SizeRequirements:
    minimum: int = 0
    multiple_of: int = 1
    square: bool = False


class ImageModelDescriptor:
    def __init__(
        self,
        model: torch.nn.Module,
        state_dict: dict[str, Any],
        architecture: Architecture,
        purpose: str,
        tags: list[str],
        supports_half: bool,
        supports_bfloat16: bool,
        scale: int,
        input_channels: int,
        output_channels: int,
        size_requirements: SizeRequirements | None = None,
        tiling: ModelTiling = ModelTiling.SUPPORTED,
        call_fn: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        assert purpose != "Restoration" or scale == 1
        self.model, self.architecture, self.purpose, self.tags = model, architecture, purpose, tags
        self.scale, self.size_requirements, self.tiling = scale, size_requirements or SizeRequirements(), tiling
        self.supports = {torch.float16: supports_half, torch.bfloat16: supports_bfloat16}
        self.channels = input_channels, output_channels
        self._call = call_fn or (lambda model, image: model(image))
        self.model.load_state_dict(state_dict)

    @torch.inference_mode()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self._call(self.model.eval(), image).clamp_(0, 1)


@dataclass(frozen=True)
class ArchSupport:
    architecture: Architecture
    detect: Callable[[dict[str, Any]], bool]
    before: tuple[str, ...] = ()

    @staticmethod
    def from_architecture(arch: Architecture, before: tuple[str, ...] = ()) -> "ArchSupport":
        return ArchSupport(arch, arch.detect, before)


class ArchRegistry:
    def __init__(self) -> None:
        self._by_id: dict[str, ArchSupport] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, *architectures: ArchSupport) -> None:
        for support in architectures:
            if support.architecture.id in self._by_id:
                raise ValueError(f"Duplicate architecture: {support.architecture.id}")
            self._by_id[support.architecture.id] = support

    def load(self, state_dict: dict[str, Any]) -> Any:
        for support in self._by_id.values():
            if support.detect(state_dict):
                return support.architecture.load(state_dict)  # pyright: ignore[reportAttributeAccessIssue]
        raise LookupError("unsupported")


class KeyCondition:
    def __init__(self, kind: str, keys: tuple[str, ...]) -> None:
        self._all, self._keys = {"all": all, "any": any}[kind], keys

    @staticmethod
    def has_all(*keys: str) -> "KeyCondition":
        return KeyCondition("all", keys)

    def __call__(self, state_dict: dict[str, object]) -> bool:
        return self._all(key in state_dict for key in self._keys)


class ModelLoader:
    def __init__(self, registry: ArchRegistry) -> None:
        self.registry = registry

    def load_from_file(self, path: Any) -> Any:
        return self.registry.load(load_file(path))


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> ArchRegistry:
    """Put the stand-in where spandrel would be; its main registry is empty."""
    spandrel, util = ModuleType("spandrel"), ModuleType("spandrel.util")
    for item in (Architecture, ModelTiling, SizeRequirements, ImageModelDescriptor, ArchSupport, ArchRegistry):
        setattr(spandrel, item.__name__, item)
    registry = ArchRegistry()
    vars(spandrel)["MAIN_REGISTRY"], vars(util)["KeyCondition"] = registry, KeyCondition
    monkeypatch.setitem(sys.modules, "spandrel", spandrel)
    monkeypatch.setitem(sys.modules, "spandrel.util", util)
    return registry
