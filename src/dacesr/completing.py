"""What a shell proposes for the values of options: names that stand for something, known without reading a file.

Where none of them begins as what was typed, the shell proposes files.
"""

from pathlib import Path

_WEIGHTS = Path(__file__).with_name("weights")


def models() -> list[str]:
    """Bundled weights for upscaling, and `default`."""
    return ["default", *_bundled(_WEIGHTS)]


def extractors() -> list[str]:
    """The bundled recognition networks, and `lite`."""
    return ["lite", *_bundled(_WEIGHTS / "recognition")]


def weights() -> list[str]:
    """All bundled weights."""
    return [*models(), *extractors()]


def methods() -> list[str]:
    """What pictures can be enlarged by: plain resizes, and bundled weights."""
    return ["bicubic", "lanczos", *models()]


def spaces() -> list[str]:
    """Degradation spaces."""
    return ["bicubic", "level1", "level2", "level3", "dasr", "realesrgan", "bsrgan"]


def measures() -> list[str]:
    """Measures of pictures."""
    return [
        *("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "gmsd", "dists", "niqe"),
        *("lpips", "lpips_alex", "lpips_vgg", "lpips_squeeze", "lpips_s"),
    ]


def devices() -> list[str]:
    """Where networks run."""
    return ["auto", "cpu", "cuda", "mps", "xpu"]


def formats() -> list[str]:
    """Formats of outputs."""
    return ["png", "jpg", "webp", "tiff", "avif", "bmp", "ppm", "gif"]


def _bundled(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))
