"""Multiply-adds against Table II, against sums by hand, and time and memory of networks side by side."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from dacesr.cli import app
from dacesr.config import NETWORKS, RestorerConfig, SRVGGConfig
from dacesr.evaluate.complexity import count
from dacesr.evaluate.costs import STATUS, measure
from dacesr.evaluate.networks import PAPER, find_networks

SWINIR_GMACS = 896  # as we count; the paper says 539


@pytest.mark.parametrize("name", PAPER)
def test_table_2_of_the_paper(name: str) -> None:
    if name not in (*NETWORKS, "base"):
        pytest.skip(f"{name} is not there")
    (config,) = find_networks([name]).values()
    found, published = count(config), PAPER[name]
    gmacs = SWINIR_GMACS if name == "swinir" else published.gmacs
    assert found.parameters / 1e6 == pytest.approx(published.parameters, rel=0.01)
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_a_convolutional_network_by_hand() -> None:
    found = count(SRVGGConfig(num_feat=5, num_conv=2, scale=2), side=7)
    assert found == (3 * 5 * 9 + 2 * 5 * 5 * 9 + 5 * 12 * 9 + 5 * 3 + 12 + 3 * 5, 7 * 7 * 9 * (15 + 2 * 25 + 60), 0)


def test_a_restorer_by_hand() -> None:
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", scale=2, state_dim=3, dt_rank=2)
    found, (c, d, n, rank, taps) = count(config, side=6), (8, 16, 3, 2, 4)
    mixer = c * 2 * d + d * taps + d * (rank + 2 * n) + rank * d + d * c
    convolutions = 9 * (3 * c + 2 * c * c + c * 12)
    assert found.macs == 36 * (mixer + convolutions)
    assert found.scan_macs == 36 * 4 * d * n


@pytest.mark.parametrize(("modulation", "modulate"), [("spatial", "both"), ("global", "add"), ("release", "both")])
def test_a_modulation_by_hand(modulation: str, modulate: str) -> None:
    plain = RestorerConfig(embed_dim=8, depths=(1, 1), head="pixelshuffledirect", condition_dim=5)
    found = count(plain.model_copy(update={"modulation": modulation, "modulate": modulate}), side=6)
    without = count(plain, side=6)
    wide = {"both": 16, "add": 8}[modulate]
    projection, resizing = 144 * 5 * wide, 6 * 12 * 12 * wide + 6 * 12 * 6 * wide  # columns, then rows
    macs = {"spatial": 2 * (projection + resizing), "global": 2 * 5 * wide, "release": 0}[modulation]
    parameters = 0 if modulation == "release" else 2 * (5 + 1) * wide
    assert found == (without.parameters + parameters, without.macs + macs, without.scan_macs)


def test_attention_by_hand() -> None:
    swinir = NETWORKS["swinir"].model_validate(
        {"embed_dim": 6, "depths": [1], "heads": [2], "window": 4, "head": "pixelshuffledirect", "scale": 2}
    )
    c, tokens = 6, 8 * 8
    block = tokens * (3 * c * c + c * c + 2 * 2 * c * c) + 2 * tokens * 16 * c  # q k^T and its product with v
    convolutions = tokens * 9 * (3 * c + c * c + c * c + c * 12)
    assert count(swinir, side=8).macs == block + convolutions


def test_a_side_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel a side, not 0"):
        count(SRVGGConfig(), side=0)


def test_time_and_memory_side_by_side() -> None:
    narrow, wide = SRVGGConfig(num_feat=32, num_conv=1), SRVGGConfig(num_feat=256, num_conv=2)
    console = Console(file=io.StringIO())
    costs = measure({"narrow": narrow, "wide": wide}, side=160, device=torch.device("cpu"), rounds=3, console=console)
    assert list(costs) == ["narrow", "wide"]
    assert all(len(cost.rounds) == 3 and min(cost.rounds) > 0 for cost in costs.values())
    assert costs["narrow"].seconds == sorted(costs["narrow"].rounds)[1]
    assert costs["wide"].seconds > costs["narrow"].seconds  # 64 times the products
    if STATUS.exists():
        output = 3 * 4 * (4 * 160) ** 2  # bytes of what comes out, which the network holds beside what goes in
        peaks = [cost.peak_bytes for cost in costs.values()]
        assert peaks[0] is not None
        assert peaks[1] is not None
        assert output < peaks[0] < peaks[1] < 100 * output


def test_a_network_that_needs_a_condition_and_rounds_that_end() -> None:
    config = RestorerConfig(embed_dim=8, depths=(1,), head="pixelshuffledirect", modulation="spatial")
    before = torch.get_rng_state()
    cost = measure(
        {"it": config},
        side=40,
        device=torch.device("cpu"),
        rounds=9,
        max_seconds=0,
        console=Console(file=io.StringIO()),
    )["it"]
    assert len(cost.rounds) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_the_command_writes_what_it_shows(bilinear_file: Path, photos: Path, tmp_path: Path) -> None:
    call = ["evaluate", "table2", "base", str(bilinear_file), "--no-time", "--side", "64", "-o", str(tmp_path / "out")]
    call += ["--set", str(photos), "--space", "bicubic", "--device", "cpu", "--metrics", str(tmp_path)]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.stderr
    listed = list(csv.DictReader((tmp_path / "out/table2.csv").read_text().splitlines()))
    assert [row["network"] for row in listed] == ["base", "bilinear"]
    assert listed[0]["parameters M"] == "3.65"
    assert float(listed[1][f"{photos.name} bicubic PSNR-Y"]) > 20
    facts = json.loads((tmp_path / "out/table2.json").read_text())
    assert facts["side"] == 64
    assert facts["networks"][0]["complexity"]["parameters"] == 3_651_159
    assert [(mean["method"], mean["measure"]) for mean in facts["means"]] == [("bilinear", "psnr_y")]
    assert (tmp_path / "out" / facts["means"][0]["file"]).is_file()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet", "resnet is neither a network (light, base, large, srvgg"),
        ("lite-ree", "lite-ree holds no network that upscales"),
        ("nothing.pth", "nothing.pth does not exist"),
    ],
)
def test_what_is_no_network(name: str, sentence: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", "table2", name, "--no-time"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert sentence in result.stderr
