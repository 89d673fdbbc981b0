"""The U-Net discriminator with spectral normalisation of Real-ESRGAN (arXiv 2107.10833, Sec. 3.3; DACESR Eq. 8).

    x -> conv -> 3 x (conv, stride 2, twice as wide) -> 3 x (bilinear x2, conv, + the map of that size on the way down)
      -> 2 x conv -> conv to one logit per pixel

All convolutions but the first and the last are normalised; LeakyReLU 0.2 follows every one but the last.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Module:
    kernel = 4 if stride == 2 else 3
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False))


class UNetDiscriminator(nn.Module):
    """One logit for every pixel: how real the picture looks there.

    Args:
        width: features of the first convolution, n; the widest has 8 n (the release: 64).
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        n = width
        self.first = nn.Conv2d(3, n, 3, 1, 1)
        self.down = nn.ModuleList([_conv(n * k, 2 * n * k, stride=2) for k in (1, 2, 4)])
        self.up = nn.ModuleList([_conv(2 * n * k, n * k) for k in (4, 2, 1)])
        self.after = nn.ModuleList([_conv(n, n), _conv(n, n)])
        self.last = nn.Conv2d(n, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            x: (b, 3, h, w), RGB around [0, 1]; h and w multiples of 8.

        Returns:
            (b, 1, h, w) logits, above 0 for real.
        """
        maps = [F.leaky_relu(self.first(x), 0.2)]
        for conv in self.down:
            maps.append(F.leaky_relu(conv(maps[-1]), 0.2))
        out = maps.pop()
        for conv in self.up:
            out = F.interpolate(out, scale_factor=2, mode="bilinear")
            out = F.leaky_relu(conv(out), 0.2) + maps.pop()
        for conv in self.after:
            out = F.leaky_relu(conv(out), 0.2)
        return self.last(out)
