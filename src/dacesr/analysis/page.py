"""Comparisons as one HTML page with a slider, which needs nothing but itself: no other file, no network."""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from dacesr import __version__
from dacesr.analysis.comparing import printable
from dacesr.analysis.views import INPUT, REFERENCE, Comparison, View
from dacesr.analysis.windows import Window
from dacesr.evaluate.methods import Method

TITLE = "dacesr: side by side"
UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}  # in JSON that stands in HTML


def scenes_of(comparison: Comparison) -> list[dict[str, Any]]:
    """What the page shows of a comparison, with its pictures encoded, so that the comparison itself can go.

    Args:
        comparison: Of one picture.

    Returns:
        One for each part of the picture that is kept, ready for JSON.
    """
    cells = {name: [(cell.text, cell.rank) for cell in row] for name, row in comparison.cells().items()}
    several = len(comparison.views) > 1
    scenes = []
    for place, view in enumerate(comparison.views, start=1):
        methods = list(comparison.scores)
        scenes.append(
            {
                "title": f"{comparison.title}, part {place}" if several else comparison.title,
                "note": _note(comparison, view),
                "scale": comparison.scale,
                "width": view.width,
                "height": view.height,
                "input": INPUT,
                "left": methods[0] if len(methods) > 1 else INPUT,
                "right": methods[-1],
                "names": list(view.pictures),
                "pictures": {name: _embedded(pixels) for name, pixels in view.pictures.items()},
                "windows": [_place(comparison, view, window) for window in view.windows],
                "heads": comparison.heads,
                "scores": list(cells.items()),
            }
        )
    return scenes


def page(scenes: Sequence[dict[str, Any]], *, made: str) -> str:
    """The page.

    Args:
        scenes: From `scenes_of`, of all comparisons.
        made: A sentence on what made it.

    Returns:
        HTML in which names are text, whatever they hold, and only the page's own script may run.
    """
    template = files("dacesr.analysis").joinpath("page.html").read_text("utf-8")
    policy = f"default-src 'none'; img-src data:; {_allowed(template, 'style')}; {_allowed(template, 'script')}; "
    parts = {
        "POLICY": policy + "base-uri 'none'; form-action 'none'",
        "TITLE": html.escape(TITLE),
        "MADE": html.escape(made),
        "DATA": json.dumps(scenes, ensure_ascii=False, separators=(",", ":")).translate(UNSAFE),
    }
    return re.sub(f"@({'|'.join(parts)})@", lambda match: parts[match[1]], template)


def made_by(methods: Sequence[Method], *, scale: int, seed: int | None) -> str:
    """A sentence on what made a page.

    Args:
        methods: That are compared.
        scale: That they enlarge by.
        seed: Of the degradations; None where there are none.
    """
    names = [f"{one.name} ({one.given})" if one.given.isalnum() and one.given != one.name else one.name
             for one in methods]  # fmt: skip
    degraded = "" if seed is None else f"; degraded with seed {seed}"
    return f"Made by dacesr {__version__}: {', '.join(map(printable, names))}; enlarged {scale} times{degraded}."


def _note(comparison: Comparison, view: View) -> str:
    """What is seen, and what is not."""
    height, width = comparison.size
    sentences = [f"Enlarged {comparison.scale} times to {width} x {height} pixels."]
    if (view.height, view.width) != comparison.size:
        sentences.append(f"Only {view.width} x {view.height} of them, from {view.left},{view.top} on, are embedded: "
                         "those around the windows.")  # fmt: skip
    sentences.append(f"Windows are x,y,size in these pixels. {REFERENCE} is the sharp reference."
                     if comparison.has_reference else "Windows are x,y,size in these pixels.")  # fmt: skip
    if comparison.failed:
        sentences.append(f"Failed here: {', '.join(comparison.failed)}.")
    return " ".join(sentences)


def _place(comparison: Comparison, view: View, window: Window) -> dict[str, Any]:
    """A window within a view, called as sheets call it."""
    number = f"{comparison.windows.index(window) + 1}: " if len(comparison.windows) > 1 else ""
    return {"name": f"{number}{window}", "x": window.x - view.left, "y": window.y - view.top, "size": window.size}


def _embedded(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="webp", lossless=True, quality=20, method=1)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _allowed(template: str, kind: str) -> str:
    """The part of a content security policy that allows the template's own style or script."""
    content = template.partition(f"<{kind}>")[2].partition(f"</{kind}>")[0]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"{kind}-src 'sha256-{digest}'"
