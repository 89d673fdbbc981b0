"""The pieces of HTML that the web page shows."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dacesr.inspection import Inspection
from dacesr.serving.tickets import Status
from dacesr.web.visits import Result
from dacesr.web.work import Step

EXAMPLES = Path(__file__).with_name("examples")
_SEVERITIES = {1: "mild", 2: "moderate", 3: "strong", 4: "severe"}

HEADER = """<header class="top"><h1>dacesr</h1>
<p>Upscales photographs on this machine. Drop pictures, press <b>Upscale</b>, compare, download.</p></header>"""

EMPTY = """<div class="empty"><svg viewBox="0 0 64 48" aria-hidden="true"><rect x="2" y="14" width="26" height="20"
 rx="2"/><rect x="34" y="2" width="28" height="44" rx="2"/><path d="M34 24h28"/></svg>
<p>The result appears here, tile by tile.</p></div>"""


def examples() -> list[Path]:
    """The pictures that the page offers to try."""
    return sorted(EXAMPLES.glob("*.jpg"))


def example_buttons() -> str:
    """A button with a small picture for each example, which says its number."""
    buttons = "".join(
        f'<button type="button" data-number="{number}" aria-label="Try the example {path.stem}">'
        f'<img alt="" src="{_data(path.read_bytes())}"></button>'
        for number, path in enumerate(examples())
    )
    return f'<div class="examples"><span>Or try:</span>{buttons}</div>'


EXAMPLES_JS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("click", { number: Number(button.dataset.number) });
});"""


def growing(name: str, jpeg: bytes) -> str:
    """The picture at work."""
    alt = f"{escape(name)} as it sharpens"
    return f'<figure class="growing"><img alt="{alt}" decoding="sync" src="{_data(jpeg)}"></figure>'


def progress(step: Step) -> str:
    """How far it is: a bar and a line."""
    place = f" ({step.number} of {step.count})" if step.count > 1 else ""
    share, text = _told(step.status)
    value = "" if share is None else f' value="{share:.3f}"'
    return (
        f'<div class="work"><progress max="1"{value} aria-label="{escape(step.name)}"></progress>'
        f"<p>{escape(step.name)}{place}: {text}</p></div>"
    )


def _told(status: Status | None) -> tuple[float | None, str]:
    if status is None:
        return None, "on its way to the queue"
    if status.state == "waiting":
        return None, f"waits for {_count(status.ahead, 'other picture')}" if status.ahead else "comes next"
    if not status.total:
        return None, "being looked at"
    left = "" if status.seconds_left is None else f", about {_clock(status.seconds_left)} left"
    return status.done / status.total, f"tile {status.done} of {status.total}{left}"


def summary(results: Sequence[Result], failed: int) -> str:
    """What came of it all."""
    lines = [
        f"<p><b>{escape(result.name)}</b>: {result.outcome.input_size[0]} × {result.outcome.input_size[1]} became "
        f"{result.outcome.output_size[0]} × {result.outcome.output_size[1]} pixels in {result.outcome.seconds:.1f} s "
        f"with {escape(result.outcome.model)}.{_said(result)}</p>"
        for result in results
    ]
    if len(lines) > 1 or failed:
        lines.insert(0, f"<p>{_count(len(results), 'picture')} done" + (f", {failed} not.</p>" if failed else ".</p>"))
    return f'<div class="says" role="status">{"".join(lines)}</div>'


def _said(result: Result) -> str:
    return "".join(f" {escape(sentence)}." for sentence in result.outcome.warnings)


def failures(sentences: Sequence[str]) -> str:
    """Why pictures were refused."""
    if not sentences:
        return ""
    return f'<div class="failed" role="alert">{"".join(f"<p>{escape(sentence)}.</p>" for sentence in sentences)}</div>'


def inspection(found: Inspection, name: str) -> str:
    """What a picture shows, how much it has suffered, and what to do."""
    tags = "".join(f'<span class="tag">{escape(tag)}</span>' for tag, _ in found.tags[:8]) or "nothing it is sure of"
    severity = "unknown" if found.severity is None else f"{_SEVERITIES[found.severity]} ({found.severity} of 4)"
    strength = "" if found.advice.strength is None else f" at strength {found.advice.strength:g}"
    return (
        f'<div class="says"><p><b>{escape(name)}</b>, {found.width} × {found.height} pixels</p><p>{tags}</p>'
        f"<p>Degradation: {severity}</p><p>Advice: <b>{escape(found.advice.model)}{strength}</b>: "
        f"{escape(found.advice.reason)}.</p></div>"
    )


def note(sentence: str) -> str:
    """One sentence in the place of an inspection."""
    return f'<div class="says"><p>{escape(sentence)}.</p></div>'


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
