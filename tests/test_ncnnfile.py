"""Networks of ncnn: read as they are stored, and everything else refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dacesr.checkpoint import CheckpointError, convert, describe, load_restorer
from dacesr.config import SRVGGConfig
from dacesr.image import read
from dacesr.nets.baselines import SRVGGNetCompact

FIXTURE = (
    Path(__file__).parent / "fixtures" / "ncnn_srvgg.npz"
)  # random weights, and what ncnn 1.0.20261020 makes of them
CONFIG = SRVGGConfig(num_feat=5, num_conv=2, scale=2)
FLAGS = {"fp16": 0x01306B47, "fp32": 0, "raw": 0x0002C056}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SRVGGNetCompact(CONFIG).eval()


def description(config=CONFIG) -> list[str]:
    """The lines of a .param file, as converters from ONNX write them."""
    lines, width = [], 3
    for i in range(config.num_conv + 2):
        source = f"act{i - 1}" if i else "in_1"
        outputs = config.num_feat if i <= config.num_conv else 3 * config.scale**2
        lines.append(f"Convolution Conv_{i} 1 1 {source} conv{i} 0={outputs} 1=3 4=1 5=1 6={outputs * width * 9}")
        lines.append(f"PReLU PRelu_{i} 1 1 conv{i} act{i} 0={outputs}")
        width = outputs
    scale = config.scale
    return [
        "7767517",
        f"{len(lines) + 4} {len(lines) + 6}",
        "Input input 0 1 data",
        "Split split 1 2 data in_0 in_1",
        *lines[:-1],
        f"PixelShuffle shuffle 1 1 conv{config.num_conv + 1} shuffled 0={scale}",
        f"Interp enlarge 1 1 in_0 enlarged 0=1 1={scale}.000000e+00 2={scale}.000000e+00",
        "BinaryOp add 2 1 shuffled enlarged output",
    ]


def stored(net: SRVGGNetCompact, kind: str = "fp16") -> bytes:
    """The bytes of a .bin file."""
    content = b""
    for value in net.state_dict().values():
        values = value.numpy()
        if values.ndim == 4:
            content += FLAGS[kind].to_bytes(4, "little")
            values = values.astype(np.float16 if kind == "fp16" else np.float32)
        content += values.tobytes()
        content += bytes(-len(content) % 4)
    return content


def write(folder, lines: list[str], content: bytes):
    (folder / "net.param").write_text("\n".join(lines) + "\n")
    (folder / "net.bin").write_bytes(content)
    return folder / "net.param"


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_restorer(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.with_suffix("")) in message
    return message


@pytest.mark.parametrize("kind", FLAGS)
@pytest.mark.parametrize("suffix", [".param", ".bin"])
def test_both_files_name_the_network(tmp_path, net, kind, suffix):
    write(tmp_path, description(), stored(net, kind))
    loaded = load_restorer(tmp_path / f"net{suffix}")
    assert loaded.config == CONFIG
    for name, value in loaded.state_dict().items():
        original = net.state_dict()[name]
        if kind == "fp16" and value.ndim == 4:
            original = original.half().float()
        assert torch.equal(value, original)


def test_the_network_computes_what_ncnn_computes(tmp_path, net):
    with np.load(FIXTURE) as arrays:
        recorded = {name: torch.from_numpy(arrays[name]) for name in arrays}
    x, output = recorded.pop("x"), recorded.pop("output")
    net.load_state_dict(recorded)
    loaded = load_restorer(write(tmp_path, description(), stored(net)))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x[None])[0], output, rtol=1e-5, atol=1e-5)


def test_the_order_of_independent_lines_does_not_matter(tmp_path, net):
    lines = description()
    lines.insert(4, lines.pop(-2))
    assert lines[4].startswith("Interp")
    assert load_restorer(write(tmp_path, lines, stored(net))).config == CONFIG


def test_facts_and_conversion(tmp_path, net):
    path = write(tmp_path, description(), stored(net))
    info, other = describe(path), describe(path.with_suffix(".bin"))
    assert (info.container, info.dtype, info.scale) == ("ncnn", "float16, float32", 2)
    assert info.sha256 == other.sha256
    convert(path, tmp_path / "ours.safetensors")
    assert load_restorer(tmp_path / "ours.safetensors").config == CONFIG


@pytest.mark.parametrize(("missing", "given"), [("net.bin", "net.param"), ("net.param", "net.bin")])
def test_a_missing_half_is_named(tmp_path, net, missing, given):
    write(tmp_path, description(), stored(net))
    (tmp_path / missing).unlink()
    assert f"{missing} is missing" in refusal(tmp_path / given)


def _swap(old: str, new: str):
    return lambda lines: [line.replace(old, new) for line in lines]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_swap("PReLU", "ReLU"), "one each of PixelShuffle"),
        (_swap("BinaryOp", "Concat"), "one each of PixelShuffle"),
        (_swap("0=5 1=3", "0=5 1=5"), "Conv_0 (Convolution) has an unexpected value of parameter 1: 5"),
        (_swap("4=1 5=1", "4=1 3=2 5=1"), "parameter 3: 2"),
        (_swap("4=1 5=1", "4=1 5=1 8=2"), "parameter 8: 2"),
        (_swap("4=1 5=1", "4=1"), "parameter 5: None"),
        (_swap("0=1 1=2.0", "0=2 1=2.0"), "enlarge (Interp) has an unexpected value of parameter 0: 2"),
        (_swap("1=2.0", "1=4.0"), "enlarge (Interp)"),
        (_swap("enlarged output", "enlarged output 0=2"), "add (BinaryOp)"),
        (_swap("shuffled enlarged", "shuffled conv0"), "does not add the enlarged input"),
        (_swap("1 1 act0 conv1", "1 1 conv0 conv1"), "Conv_1 (Convolution) stands where one Convolution should follow"),
        (_swap("conv3 shuffled 0=2", "conv3 shuffled 0=3"), "enlarge"),
        (_swap("Input input", "MemoryData input"), "does not start with one input"),
        (_swap("0=5 1=3", "0=five 1=3"), "a line that can't be read (Convolution Conv_0"),
        (_swap("0=5 1=3", "0=inf 1=3"), "a line that can't be read"),
        (_swap("Split split 1 2", "Split split 1 99"), "a line that can't be read (Split"),
        (lambda lines: lines[:-1], "is truncated or damaged: it has 11 layers and announces 12"),
        (lambda lines: lines[:2], "not the description of an ncnn network"),
        (lambda lines: ["7767517x", *lines[1:]], "not the description"),
        (lambda lines: [*lines, "Softmax last 1 1 output end"], "announces 12"),
        (lambda lines: ["7767517", "13 99", *lines[2:], "Softmax last 1 1 output end"], "one each of"),
    ],
)
def test_other_structures_are_refused(tmp_path, net, change, said):
    path = write(tmp_path, change(description()), stored(net))
    message = refusal(path)
    assert said in message
    assert "net.param" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-1], "is truncated: it ends inside the weights of Conv_3"),
        (lambda content: content[:100], "is truncated: it ends inside the weights of Conv_0"),
        (lambda content: content[:4], "is truncated"),
        (lambda content: content + bytes(8), "its description speaks of"),
        (lambda content: 0x000D4B38.to_bytes(4, "little") + content[4:], "neither fp16 nor fp32 (flag 0x000d4b38)"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, net, change, said):
    write(tmp_path, description(), change(stored(net)))
    for suffix in (".param", ".bin"):
        message = refusal(tmp_path / f"net{suffix}")
        assert said in message
        assert "net.bin" in message


@pytest.mark.parametrize("change", [_swap("6=135", "6=136"), _swap("conv0 act0 0=5", "conv0 act0 0=1")])
def test_a_description_that_contradicts_itself_is_refused(tmp_path, net, change):
    assert "does not fit its description" in refusal(write(tmp_path, change(description()), stored(net)))


def test_a_pytorch_file_that_ends_in_bin_is_no_ncnn_network(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "net.bin")
    assert load_restorer(tmp_path / "net.bin").config == CONFIG
    (tmp_path / "net.param").write_text("anything")
    assert load_restorer(tmp_path / "net.bin").config == CONFIG


def test_the_network_of_upscayl_gives_pictures_in_the_right_colours(data):
    info = describe(data / "checkpoints" / "upscayl-lite-4x.param")
    assert (info.config, info.parameters) == (SRVGGConfig(), 1_213_296)
    net = load_restorer(data / "checkpoints" / "upscayl-lite-4x.bin")
    x = read(data / "real" / "RealSRSet" / "butterfly.png")[:, :, 60:140, 20:120]
    with torch.no_grad():
        y = net(x)
    back = torch.nn.functional.interpolate(y, size=x.shape[-2:], mode="area")
    assert (back - x).abs().mean() < 0.05
    assert (y.flatten(2).mean(2) - x.flatten(2).mean(2)).abs().max() < 0.02
