"""What is known of a network in an ONNX file of others."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from dacesr.config.base import Config


class OnnxConfig(Config):
    """An ONNX network that takes RGB in [0, 1] and nothing else; found out by running it."""

    kind: Literal["onnx"] = "onnx"  # of network, as errors call it

    scale: Annotated[PositiveInt, Field(le=16)] = Field(4, description="output pixels per input pixel along each side")

    @property
    def block_count(self) -> int:
        """Unknown."""
        return 0

    def bytes_per_pixel(self, itemsize: int) -> int:
        """A guess at what the network holds for each input pixel: 12 maps of 64 channels, two of them enlarged."""
        return itemsize * 64 * (10 + 2 * self.scale**2)
