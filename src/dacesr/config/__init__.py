"""Every knob of the networks: frozen pydantic models that refuse unknown fields and name the field at fault."""

from dacesr.config.base import Config, explain
from dacesr.config.baselines import SRVGGConfig
from dacesr.config.restorer import PRESETS, ConditionKind, GroupEnd, RestorerConfig
from dacesr.config.tagger import TAGGER_PRESETS, TaggerConfig

__all__ = [
    "NETWORKS",
    "PRESETS",
    "TAGGER_PRESETS",
    "ConditionKind",
    "Config",
    "GroupEnd",
    "NetworkConfig",
    "RestorerConfig",
    "SRVGGConfig",
    "TaggerConfig",
    "explain",
]

NetworkConfig = RestorerConfig | SRVGGConfig
"""Of any network that upscales: these share `kind`, `scale`, `block_count` and `bytes_per_pixel`."""

NETWORKS: dict[str, type[NetworkConfig]] = {"restorer": RestorerConfig, "srvgg": SRVGGConfig}
"""The same by their kinds."""
