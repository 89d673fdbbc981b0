"""Upscale real photographs with DACESR (arXiv 2602.23890).

`from dacesr import Upscaler` is the whole public surface most users need; torch is imported on first use only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dacesr.inference import Upscaler as Upscaler

    __version__: str

__all__ = ["Upscaler", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Upscaler":
        from dacesr.inference import Upscaler

        return Upscaler
    if name == "__version__":
        from importlib.metadata import version

        return version("dacesr")
    raise AttributeError(f"module 'dacesr' has no attribute {name!r}")
