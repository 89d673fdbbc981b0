"""Make the example pictures again: render or draw each at four times its size, then degrade it.

    python examples/make.py [NAME ...] [--renders out/renders]

Needs the program `povray` (Debian: `apt-get install povray`) for the scenes and matplotlib, which ships the portrait.
Clean renders are kept in the folder of `--renders` and reused. The same machine gives the same bytes every time.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips

HERE = Path(__file__).resolve().parent
SCALE = 4
TEXT = """A page, photographed in poor light

The lens was a little out of focus, the sensor was warm, and the picture was then sent on by somebody \
whose telephone makes every file as small as it can. What is left are soft strokes, grain, and blocks \
of eight by eight pixels with a halo around each letter.

None of that is lost for good. A stroke is still a stroke: dark, of one width, with a clean edge on \
both sides, and the eye reads it before it sees it.

<span font_family="DejaVu Sans Mono" size="smaller">  Nr  size        scale  seconds
  01  240 x 180       4      3.1
  02  128 x 150       4      1.4
  03  288 x 192       4      3.9</span>

<i>Kept in the second drawer, under the maps.</i>"""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What happens between the clean picture and the example.

    Attributes:
        blur: sigmas of the Gaussian blur along x and y, in pixels of the clean picture.
        noise: standard deviation of the Gaussian noise, in 8-bit levels of the small picture.
        gray_noise: whether the three channels share one noise.
        quality: JPEG qualities, one per compression, in order.
    """

    blur: tuple[float, float]
    noise: float
    gray_noise: bool
    quality: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture: its file name, how the clean version is made, and the damage."""

    file: str
    clean: Callable[[Path], pyvips.Image]
    damage: Damage

    @property
    def name(self) -> str:
        """The file name without its extension."""
        return Path(self.file).stem


def render(scene: str, width: int, height: int) -> Callable[[Path], pyvips.Image]:
    """A function that renders `scenes/{scene}.pov` into a folder, unless its render there is newer than the scene."""

    def clean(folder: Path) -> pyvips.Image:
        source, target = HERE / "scenes" / f"{scene}.pov", folder / f"{scene}.png"
        if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
            size = [f"+W{width * SCALE}", f"+H{height * SCALE}"]
            # One thread: radiosity samples depend on the order of the pixels.
            command = [
                "povray",
                "-D",
                "-V",
                "-GA",
                "+WT1",
                "-J",
                "+A0.3",
                "+R2",
                *size,
                f"+I{source.name}",
                f"+O{target}",
            ]
            subprocess.run(command, cwd=source.parent, check=True)
        return pyvips.Image.new_from_file(str(target)).extract_band(0, n=3)

    return clean


def page(_: Path) -> pyvips.Image:
    """A page of text on uneven paper, turned a little, darker towards one corner."""
    width, height = 216 * SCALE, 272 * SCALE
    ink = pyvips.Image.text(TEXT, font="DejaVu Serif 32", width=width - 130, dpi=72, spacing=9)
    ink = ink.embed(65, 80, width, height).cast("float") / 255
    grain = pyvips.Image.black(width, height)
    for seed, (sigma, radius) in enumerate([(2.5, 1.0), (40.0, 12.0), (150.0, 60.0)]):
        grain += pyvips.Image.gaussnoise(width, height, mean=0, sigma=sigma, seed=seed).gaussblur(radius)
    paper = (grain + 232).bandjoin([grain + 224, grain + 204])
    sheet = paper * (1 - ink) + (ink * [44, 40, 48])
    across = pyvips.Image.xyz(width, height)
    shade = 1.0 - 0.38 * ((across[0] / width) * 0.7 + (across[1] / height) * 0.3) ** 2
    turned = (sheet * shade).rotate(2.2, background=[70, 60, 52], interpolate=pyvips.Interpolate.new("bicubic"))
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return turned.crop(left, top, width, height)


def portrait(_: Path) -> pyvips.Image:
    """The public-domain portrait of Grace Hopper (US Navy) that matplotlib ships."""
    from matplotlib.cbook import get_sample_data

    picture = pyvips.Image.new_from_file(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return picture.crop(0, 0, picture.width // SCALE * SCALE, picture.height // SCALE * SCALE)


def degrade(clean: pyvips.Image, damage: Damage, generator: np.random.Generator) -> pyvips.Image:
    """Blur, shrink by four, add noise, compress as JPEG.

    Args:
        clean: RGB, 0 to 255, both sides multiples of four.
        damage: how much of each.
        generator: source of the noise.

    Returns:
        RGB uint8 image of a quarter of the width and height.
    """
    blurred = clean.cast("float")
    for sigma, turn in zip(damage.blur, ("d0", "d90"), strict=True):
        if sigma > 0:
            row = pyvips.Image.gaussmat(sigma, 0.01, separable=True, precision="float").rot(turn)
            blurred = blurred.conv(row, precision="float")
    small = blurred.resize(1 / SCALE, kernel="cubic").numpy()
    shape = (*small.shape[:2], 1 if damage.gray_noise else 3)
    noisy = small + generator.normal(0, damage.noise, shape)
    image = pyvips.Image.new_from_array(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), interpretation="srgb")
    for quality in damage.quality:
        image = pyvips.Image.new_from_buffer(image.jpegsave_buffer(Q=quality), "")
    return image


EXAMPLES = (
    Example(
        file="house.jpg",
        clean=render("house", 288, 216),
        damage=Damage(blur=(1.6, 1.6), noise=2, gray_noise=False, quality=(80,)),
    ),
    Example(
        file="still_life.jpg",
        clean=render("still_life", 240, 180),
        damage=Damage(blur=(2.4, 2.0), noise=5, gray_noise=False, quality=(70,)),
    ),
    Example(
        file="lake.jpg",
        clean=render("lake", 288, 192),
        damage=Damage(blur=(3.4, 2.2), noise=5, gray_noise=True, quality=(75, 50)),
    ),
    Example(file="page.webp", clean=page, damage=Damage(blur=(1.8, 2.4), noise=4, gray_noise=True, quality=(55,))),
    Example(
        file="portrait.jpg", clean=portrait, damage=Damage(blur=(2.0, 2.0), noise=3, gray_noise=False, quality=(85,))
    ),
)


def main() -> None:
    """Make the named examples, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [example.name for example in EXAMPLES]
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names)}; all when left out")
    parser.add_argument("--renders", type=Path, default=HERE.parent / "out" / "renders", help="folder of clean renders")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(names):
        sys.exit(f"no example is named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    arguments.renders.mkdir(parents=True, exist_ok=True)
    for seed, example in enumerate(EXAMPLES):
        if arguments.name and example.name not in arguments.name:
            continue
        clean = example.clean(arguments.renders)
        image = degrade(clean, example.damage, np.random.default_rng(seed))
        # Compressed once more, at high quality, as when somebody saves a picture again.
        image.write_to_file(str(HERE / example.file), keep="none", Q=92)
        print(f"{example.file}: {image.width} x {image.height}")


if __name__ == "__main__":
    main()
