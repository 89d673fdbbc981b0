"""What must hold for any config and any tiles, asked by hypothesis: numbers at the ends of ranges, odd types, text.

A trial is a number of examples of one question, in a process of its own; its seed decides them.
"""

import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from tests.forked import ROOT
from tests.fuzz import mutators
from tests.fuzz.judging import LONGEST, SENTENCE, Trial
from torch.nn import functional as F

from dacesr.checkpoint import KINDS
from dacesr.conditioning import look, region_of
from dacesr.config import RestorerConfig, TaggerConfig
from dacesr.inference import Upscaler
from dacesr.nets.restorer import Restorer
from dacesr.nets.tagger import Tagger
from dacesr.ownfile import own_config
from dacesr.tensorfile import CheckpointError
from dacesr.tiling import TilePlan, plan_axis, span_weights
from dacesr.train.config import ConfigError, load_config
from dacesr.train.tasks import TRAININGS

EXAMPLES = 25  # of a trial
BLOCKS = 64  # of the networks that are made
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
QUESTIONS: dict[str, dict[str, Callable[[], Any]]] = {"configs": {}, "tiles": {}}


def question(target: str, *strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a function asked with values of the strategies; it raises where something does not hold."""

    def register(ask: Callable[..., None]) -> Callable[..., None]:
        QUESTIONS[target][ask.__name__] = given(*strategies)(ask)
        return ask

    return register


def property_trials(target: str, random: Random) -> Iterator[Trial]:
    """Trials without end: the questions in turn, with other seeds."""
    while True:
        for name in QUESTIONS[target]:
            number = random.randrange(2**32)
            what = "tests.fuzz.properties:asked"
            yield Trial(target, f"{name}, seed {number}", {}, [target, name, number, EXAMPLES], name, [0], what)


def asked(target: str, name: str, number: int, examples: int) -> int:
    """Ask with so many examples; 1 and the least example if something does not hold."""
    quick = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=False,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        seed(number)(quick(QUESTIONS[target][name]))()
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", []))
        print(f"{SENTENCE}{name}: {type(error).__name__}: {error} {notes}".replace("\n", " "), file=sys.stderr)
        return 1
    return 0


# --- configs

edges = st.sampled_from([-1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 1000, 65536, 2**31, 2**63, 10**30])
numbers = st.one_of(st.integers(1, 64), edges, st.floats(), st.booleans())
texts = st.one_of(
    st.text(max_size=12), st.sampled_from(["auto", "none", "$HOME", "${X", "restorer", "\x1b[2J", "a\nb"])
)
values = st.recursive(
    st.one_of(numbers, texts, st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
fields = {kind: sorted(entry.config.model_fields) for kind, entry in KINDS.items()}
fields["tagger"] = sorted(TaggerConfig.model_fields)


@question("configs", st.sampled_from(sorted(fields)), st.data())
def header_configs_are_refused_or_make_a_network(kind: str, data: st.DataObject) -> None:
    kinds = {name: entry.config for name, entry in KINDS.items()} | {"tagger": TaggerConfig}
    likely = st.one_of(st.integers(1, 64), values, st.lists(st.integers(1, 8), max_size=4))
    content = data.draw(st.dictionaries(st.sampled_from(fields[kind]), likely, max_size=6))
    text = data.draw(st.sampled_from([json.dumps(content), json.dumps(content)[:-1], json.dumps([content])]))
    header = {"dacesr_format": "1", "kind": kind, "config": text}
    try:
        config = own_config(header, "NAME", kinds, wanted="network")
    except CheckpointError as error:
        _expect_named(error, "NAME")
        return
    assume(config.block_count <= BLOCKS)
    with torch.device("meta"):
        net = Tagger(config) if isinstance(config, TaggerConfig) else KINDS[kind].network(config)
    assert all(parameter.is_meta for parameter in net.parameters())
    if not isinstance(config, TaggerConfig):
        assert config.bytes_per_pixel(2) > 0


@question("configs", st.sampled_from(CONFIGS), st.sampled_from(sorted(TRAININGS)), st.integers(0, 2**32), st.booleans())
def damaged_configs_are_refused_by_name(path: Path, training: str, number: int, in_words: bool) -> None:
    random, content = Random(number), path.read_bytes()
    change = mutators.change_words if in_words else mutators.damaged
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "NAME.toml")
        place.write_bytes(change(content, random))
        try:
            load_config(place, None, TRAININGS[training])
        except ConfigError as error:
            _expect_named(error, str(place))


def _expect_named(error: ValueError, *names: str) -> None:
    """Raise unless an error names one of the files or options, in a sentence of bearable length."""
    assert any(name in str(error) for name in names)
    assert len(str(error)) < LONGEST


def _keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    """All dotted keys of a TOML file."""
    found = []
    for key, value in content.items():
        found += [f"{prefix}{key}", *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    return found


@question("configs", st.sampled_from(CONFIGS), st.data())
def changes_are_taken_or_refused(path: Path, data: st.DataObject) -> None:
    keys = st.one_of(st.sampled_from(_keys(tomllib.loads(path.read_text()))), texts)
    written = st.one_of(values.map(json.dumps), texts, st.integers(1, 64).map(str))
    changes = data.draw(st.lists(st.tuples(keys, written).map("=".join), min_size=1, max_size=3))
    for training in TRAININGS.values():
        try:
            load_config(path, changes, training)
        except ConfigError as error:
            _expect_named(error, path.name, "--set")


# --- tiles

sides = st.one_of(st.integers(1, 70), st.integers(1, 100_000), edges)
tiles = st.one_of(st.integers(0, 80), edges)


@question("tiles", sides, tiles, st.one_of(st.integers(0, 30), edges))
def spans_cover_an_axis_and_weigh_one(length: int, tile: int, overlap: int) -> None:
    assume(length <= 10**6 and length // max(1, tile - overlap) <= 2000)
    try:
        spans = plan_axis(length, tile, overlap)
    except ValueError:
        assert length < 1 or tile < 0 or overlap < 0 or 3 * overlap > tile
        return
    assert spans[0].start == 0
    assert spans[-1].end == length
    assert len({span.size for span in spans}) == 1
    assert tile == 0 or spans[0].size <= tile
    for one, other in pairwise(spans):
        assert one.end - other.start == one.after == other.before >= overlap
        assert torch.allclose(
            span_weights(one, 2)[2 * (one.size - one.after) :] + span_weights(other, 2)[: 2 * other.before],
            torch.ones(2 * one.after),
        )
    assert all(one.end <= other.start for one, other in zip(spans, spans[2:], strict=False))


@question("tiles", st.integers(1, 60), st.integers(1, 60), st.integers(1, 4), st.integers(1, 40), st.integers(0, 13))
def what_is_exact_stays_so_when_blended(height: int, width: int, scale: int, tile: int, overlap: int) -> None:
    assume(3 * overlap <= tile)
    picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    plan = TilePlan(height=height, width=width, scale=scale, tile=tile, overlap=overlap)
    region = region_of(picture)
    parts = (region(c.start, r.start, c.size, r.size) for r, c in plan.tiles())
    strips = list(plan.blend(F.interpolate(part, scale_factor=scale) for part in parts))
    torch.testing.assert_close(torch.cat(strips, dim=2), F.interpolate(picture, scale_factor=scale))


@question("tiles", st.integers(1, 90), st.integers(1, 90), tiles, st.one_of(st.integers(0, 90), edges))
def an_upscaler_takes_any_tile_or_says_why_not(height: int, width: int, tile: int, overlap: int) -> None:
    net = Restorer(
        RestorerConfig(embed_dim=4, depths=(1,), head="pixelshuffledirect", scale=2, rgb_mean=(0.0, 0.0, 0.0))
    )
    with torch.no_grad():
        net.upsample[0].weight.zero_()
        net.upsample[0].bias.fill_(0.25)
    up = Upscaler(net, precision="fp32")
    try:
        side = up.tile_size(tile, overlap)
    except ValueError:
        assert tile < 0 or overlap < 0
        return
    assume(side == 0 or side >= 8 or height * width <= 400)
    output = up(torch.full((1, 3, height, width), 0.5), tile=tile, overlap=overlap)
    assert output.shape == (1, 3, 2 * height, 2 * width)
    assert output.std() < 1e-5


@question(
    "tiles", st.one_of(st.integers(1, 3000), st.integers(1, 20)), st.one_of(st.integers(1, 3000), st.integers(1, 20))
)
def an_extractor_is_shown_what_it_can_see(height: int, width: int) -> None:
    seen = look(lambda left, top, w, h: torch.full((1, 1, h, w), 0.5), height, width)
    assert 8 <= min(seen.shape[2:]) <= max(seen.shape[2:]) <= 1023
    assert seen.min() == seen.max() == 0.5
