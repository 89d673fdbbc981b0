"""Traces that degradations leave in a picture, found without the clean one.

The reference tagger and an extractor that was tuned on ruined pictures agree on clean pictures and part ways on ruined
ones: their embedding shift, token by token, and the change of their tags say how far. Statistics of the pixels say how
much fine detail, noise and blocks there are.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from dacesr.similarity import Recogniser, embedding_cosine, jaccard

WINDOW = 256  # pixels a side of the parts of a large picture that are looked at
EPS = 1e-6


def traces(reference: Recogniser, extractor: Recogniser, picture: Tensor) -> Tensor:
    """All traces in a picture (3, h, w) in [0, 1]: (f,), fp64 on the CPU.

    Up to 256 x 256 pixels it is looked at as a whole; of a larger side windows of that length are taken (the middle one
    and those around it, five at most), so that what is measured are the pixels that would be enlarged. Extractors
    resize each to their input as ever; statistics are of the pixels as they are. Traces are means over windows.
    """
    found = []
    with torch.inference_mode():
        for window in _windows(picture):
            seen = _seen(reference, extractor, window[None])
            found.append(torch.cat([_statistics(window).cpu(), seen.cpu()]))
    return torch.stack(found).mean(0)


def _windows(picture: Tensor) -> Iterator[Tensor]:
    height, width = picture.shape[1:]
    tall, wide = min(height, WINDOW), min(width, WINDOW)
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    starts = {(round((height - tall) * y), round((width - wide) * x)): None for y, x in places}
    for top, left in starts:
        yield picture[:, top : top + tall, left : left + wide]


def _seen(reference: Recogniser, extractor: Recogniser, x: Tensor) -> Tensor:
    """Of a picture (1, 3, h, w): by how much the two disagree, how sure they are, and the mean shift of the tokens."""
    one, other = reference.recognise(x), extractor.recognise(x)
    a, b = one.tokens[0].double(), other.tokens[0].double()
    shift = b - a
    relative = shift.norm(dim=-1) / a.norm(dim=-1).clamp(min=EPS)
    p, q = one.logits[0].double().sigmoid(), other.logits[0].double().sigmoid()
    numbers = [
        relative.mean(),
        relative.std(correction=0),
        relative[0],
        embedding_cosine(one.tokens, other.tokens)[0].double(),
        a.std(0, correction=0).mean(),
        b.std(0, correction=0).mean(),
        (p - q).abs().mean(),
        p.max(),
        q.max(),
        p.sum(),
        q.sum(),
        _entropy(p),
        _entropy(q),
        p.new_tensor(jaccard(reference.names(one.logits)[0], extractor.names(other.logits)[0])),
    ]
    return torch.cat([torch.stack(numbers), shift.mean(0)])


def _entropy(p: Tensor) -> Tensor:
    """Mean over tags, in nats."""
    p = p.clamp(EPS, 1 - EPS)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def _statistics(picture: Tensor) -> Tensor:
    """Of the pixels (3, h, w), in 8-bit levels: detail at three scales, noise, blocks of 8 pixels, loose colour."""
    levels = picture.double() * 255
    luma = (levels * levels.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(0)[None, None]
    gradients = []
    image = luma
    for _ in range(3):
        gradients.append(_log(_steps(image).mean()))
        image = F.avg_pool2d(image, 2, ceil_mode=True)
    colour = levels - luma[0]
    fine = F.avg_pool2d(colour[None], 3, stride=1)[0] - colour[:, 1:-1, 1:-1]
    laplacian = luma.new_tensor(((1, -2, 1), (-2, 4, -2), (1, -2, 1)))[None, None]
    ripple = F.conv2d(luma, laplacian).abs()
    return torch.stack(
        [
            *gradients,
            gradients[0] - gradients[1],
            gradients[1] - gradients[2],
            _log(ripple.mean() * math.sqrt(math.pi / 2) / 6),  # noise (Immerkaer 1996)
            _log(ripple.median() / 6),
            _log(fine.abs().mean()),
            *(_blockiness(part) for part in (luma[0, 0], luma[0, 0].T)),
            luma.std(correction=0) / 64,
        ]
    )


def _steps(image: Tensor) -> Tensor:
    """Absolute differences of neighbours, across and down."""
    return torch.cat([image.diff(dim=-1).abs().flatten(), image.diff(dim=-2).abs().flatten()])


def _blockiness(luma: Tensor) -> Tensor:
    """How much larger steps across are at every eighth column than between, wherever the grid begins; 0 for none."""
    steps = luma.diff(dim=1).abs().mean(0)
    phases = torch.stack([steps[start::8].mean() for start in range(min(8, len(steps)))])
    return _log(phases.max()) - _log(phases.mean())


def _log(x: Tensor) -> Tensor:
    return (x + 0.05).log()
