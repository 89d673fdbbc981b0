"""Every knob of the networks: frozen pydantic models that refuse unknown fields and name the field at fault."""

from dacesr.config.adaptive import DASRConfig, KDSRConfig
from dacesr.config.base import Config, explain
from dacesr.config.baselines import EDSRConfig, RLFNConfig, RRDBConfig, SRResNetConfig, SRVGGConfig
from dacesr.config.onnx import OnnxConfig
from dacesr.config.restorer import PRESETS, ConditionKind, GroupEnd, RestorerConfig
from dacesr.config.tagger import TAGGER_PRESETS, TaggerConfig
from dacesr.config.transformers import HATConfig, SwinIRConfig

__all__ = [
    "NETWORKS",
    "PRESETS",
    "TAGGER_PRESETS",
    "ConditionKind",
    "Config",
    "DASRConfig",
    "EDSRConfig",
    "GroupEnd",
    "HATConfig",
    "KDSRConfig",
    "NetworkConfig",
    "OnnxConfig",
    "RLFNConfig",
    "RRDBConfig",
    "RestorerConfig",
    "SRResNetConfig",
    "SRVGGConfig",
    "SwinIRConfig",
    "TaggerConfig",
    "explain",
]

NetworkConfig = (
    RestorerConfig
    | SRVGGConfig
    | SRResNetConfig
    | EDSRConfig
    | RRDBConfig
    | RLFNConfig
    | SwinIRConfig
    | HATConfig
    | DASRConfig
    | KDSRConfig
    | OnnxConfig
)
"""Of any network that upscales: these share `kind`, `scale`, `block_count` and `bytes_per_pixel`."""

NETWORKS: dict[str, type[NetworkConfig]] = {
    "restorer": RestorerConfig,
    "srvgg": SRVGGConfig,
    "srresnet": SRResNetConfig,
    "edsr": EDSRConfig,
    "rrdb": RRDBConfig,
    "rlfn": RLFNConfig,
    "swinir": SwinIRConfig,
    "hat": HATConfig,
    "dasr": DASRConfig,
    "kdsr": KDSRConfig,
}
"""The same by their kinds."""
