"""A figure on which pictures, maps and words are placed in inches, from its upper left corner."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 8.0  # points
LINE = 0.17  # inches from line to line

Range = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, width and height in inches, from the figure's upper left corner."""


class Canvas:
    """A figure in the making.

    Attributes:
        figure: It.
        width, height: In inches.
    """

    def __init__(self, width: float, height: float) -> None:
        """An empty figure of a size in inches."""
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width, height))

    def text(self, x: float, y: float, text: str, room: float, **looks: Any) -> None:
        """Write lines at a place, y in their middle; what has no room, in inches, is cut off."""
        size = looks.get("fontsize", LETTERS)
        letters = max(2, int(room * 72 / (0.56 * size)))
        lines = [line if len(line) <= letters else f"{line[: letters - 1]}…" for line in text.split("\n")]
        looks = {"va": "center", "fontsize": LETTERS, "parse_math": False} | looks
        self.figure.text(x / self.width, 1 - y / self.height, "\n".join(lines), **looks)

    def picture(self, box: Box, pixels: Tensor) -> "Axes":
        """Show (3, h, w) in [0, 1], pixel by pixel."""
        ax = self.axes(box)
        ax.imshow(pixels.clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        return ax

    def map(self, box: Box, values: Tensor, colours: Range, name: str, **looks: Any) -> "Axes":
        """Show (h, w) in the colours of a map of that name, over a range."""
        ax = self.axes(box)
        looks = {"cmap": name, "vmin": colours[0], "vmax": colours[1], "interpolation": "nearest"} | looks
        ax.imshow(values.cpu().numpy(), **looks)
        return ax

    def axes(self, box: Box) -> "Axes":
        """Axes without their lines."""
        left, top, wide, tall = box
        low = 1 - (top + tall) / self.height
        ax = self.figure.add_axes((left / self.width, low, wide / self.width, tall / self.height))
        ax.set_axis_off()
        return ax
