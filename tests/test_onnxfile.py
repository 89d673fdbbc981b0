"""ONNX files: those of others, damaged and hostile ones, and the scan as a function of standard operators."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dacesr import Upscaler
from dacesr.checkpoint import CheckpointError, describe, load_restorer
from dacesr.config import OnnxConfig
from dacesr.nets.portable import scan_plain
from dacesr.nets.scan import selective_scan
from dacesr.onnxfile import read_onnx
from dacesr.onnxscan import DOMAIN, NAME, STEPS, scan_function


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
    kind: int = TensorProto.FLOAT,
    tensors: tuple[onnx.TensorProto, ...] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [value("picture", list(shape), kind)], [value("big", ["n", "c", "a", "b"], kind)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def enlarging(scale: float = 3, **options: object) -> onnx.ModelProto:
    """Repeats pixels."""
    scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")
    node = helper.make_node("Resize", ["picture", "", "scales"], ["big"], mode="nearest")
    return model([node], tensors=(scales,), **options)


def written(path: Path, made: onnx.ModelProto) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("length", [1, STEPS - 1, STEPS, 3 * STEPS + 5])
def test_the_scan_as_a_function_and_in_plain_operations(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    b, d, n = 2, 5, 3
    u, dt = torch.randn(b, length, d, generator=generator), torch.rand(b, length, d, generator=generator)
    A = -4 * torch.rand(d, n, generator=generator)
    B, C = (torch.randn(b, length, n, generator=generator) for _ in range(2))
    wanted = selective_scan(u.mT, dt.mT, A, B.mT, C.mT, backend="reference").mT
    assert (scan_plain(dt * u, dt, A, B, C) - wanted).abs().max() < 1e-5
    names = ["x", "dt", "A", "B", "C"]
    inputs = dict(zip(names, (dt * u, dt, A, B, C), strict=True))
    graph = helper.make_graph(
        [helper.make_node(NAME, names, ["y"], domain=DOMAIN)],
        "g",
        [value(name, [None] * x.ndim) for name, x in inputs.items()],  # pyright: ignore[reportArgumentType]
        [value("y", [None] * 3)],  # pyright: ignore[reportArgumentType]
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, functions=[scan_function()], ir_version=10)
    onnx.checker.check_model(made)
    started = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = started.run(None, {name: x.numpy() for name, x in inputs.items()})
    assert (torch.from_numpy(y) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (1, 3, 24, 16)])
def test_a_network_of_others(tmp_path: Path, kind: int, shape: tuple[int | str, ...]) -> None:
    path = written(tmp_path / "others.onnx", enlarging(shape=shape, kind=kind))
    assert load_restorer(path).config == OnnxConfig(scale=3)
    found = describe(path)
    assert (found.scale, found.container, found.architecture) == (3, "ONNX", None)
    x = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    wanted = x.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert (Upscaler.load(path)(x, overlap=4) - wanted).abs().max() < 1e-3


def test_networks_that_are_not_for_pictures(tmp_path: Path) -> None:
    seven = numpy_helper.from_array(np.float32(700), "seven")
    gray = helper.make_node("Identity", ["picture"], ["big"])
    flat = helper.make_node("ReduceMean", ["picture"], ["big"])
    bright = helper.make_node("Mul", ["picture", "seven"], ["big"])
    cast = helper.make_node("Cast", ["picture"], ["big"], to=TensorProto.STRING)
    vector = helper.make_node("Flatten", ["picture"], ["big"])
    row = model([helper.make_node("SequenceConstruct", ["picture"], ["big"])])
    row.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("big", TensorProto.FLOAT, None))
    text = model([cast])
    text.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    memory = numpy_helper.from_array(np.array([1 << 40]), "memory")
    large = [
        helper.make_node("ConstantOfShape", ["memory"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["big"]),
    ]
    cases = [
        (row, "gives something else than a picture"),
        (text, "gives something else than a picture"),
        (model([vector]), r"does not enlarge RGB pictures by a whole number: it makes \(1, 12288\)"),
        (model(large, tensors=(memory,)), "needs more memory for 64 x 64 pixels than there is"),
        (enlarging(shape=(1, 3, 0, 8)), "does not take a picture"),
        (enlarging(shape=(1, 3, 1 << 40, 1 << 40)), "does not take a picture"),
        (model([gray], shape=("n", 1, "h", "w")), "does not take a picture"),
        (model([gray], shape=(4, 3, "h", "w")), "does not take a picture"),
        (model([gray], kind=TensorProto.UINT8), "does not take a picture"),
        (model([flat]), "does not enlarge RGB pictures by a whole number"),
        (enlarging(1.5), "does not enlarge RGB pictures by a whole number"),
        (model([bright], tensors=(seven,)), "values of 0 to 255"),
    ]
    for made, said in cases:
        with pytest.raises(CheckpointError, match=f"others.onnx {said}|others.onnx seems to .*{said}"):
            load_restorer(written(tmp_path / "others.onnx", made))


def test_files_beside_it_are_never_opened(tmp_path: Path) -> None:
    for place in ("../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", ""):
        for hidden in ("initializer", "attribute"):
            tensor = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "factor")
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=place)
            nodes = [helper.make_node("Mul", ["picture", "factor"], ["big"])]
            if hidden == "attribute":
                nodes.insert(0, helper.make_node("Constant", [], ["factor"], value=tensor))
            made = model(nodes, tensors=(tensor,) if hidden == "initializer" else ())
            with pytest.raises(CheckpointError, match="keeps its weights in other files, which are not opened"):
                read_onnx(written(tmp_path / "hostile.onnx", made))
    context = model([helper.make_node("EPContext", ["picture"], ["big"], domain="com.microsoft")])
    with pytest.raises(CheckpointError, match="compiled for one device"):
        read_onnx(written(tmp_path / "hostile.onnx", context))


def refusal(path: Path) -> str | None:
    try:
        load_restorer(path)
    except CheckpointError as error:
        return str(error)
    return None


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    whole = enlarging().SerializeToString()
    path = tmp_path / "damaged.onnx"
    generator = np.random.default_rng(0)
    flipped = []
    for _ in range(60):
        content = bytearray(whole)
        content[generator.integers(len(content))] ^= int(generator.integers(1, 256))
        flipped.append(bytes(content))
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"{}", b"\0" * 100, whole[:50], whole[: len(whole) // 2], *flipped):
        path.write_bytes(content)
        said = refusal(path)
        if said is None:  # what was changed does not matter
            assert content in flipped
        else:
            assert str(path) in said
            assert "\n" not in said
    with pytest.raises(CheckpointError, match="does not exist"):
        load_restorer(tmp_path / "missing.onnx")


def test_an_own_file_must_be_what_it_says(tmp_path: Path) -> None:
    made = enlarging()
    for header, said in (
        ({"dacesr_format": "2"}, "is of format 2"),
        ({"dacesr_format": "1", "kind": "restorer", "config": "{"}, "a config that can't be used"),
        ({"dacesr_format": "1", "kind": "restorer", "config": '{"modulation":"spatial"}'}, "does not take a picture"),
    ):
        helper.set_model_props(made, header)
        with pytest.raises(CheckpointError, match=said):
            load_restorer(written(tmp_path / "own.onnx", made))


def test_what_is_not_enlarged_by_the_scale_is_refused(tmp_path: Path) -> None:
    made = enlarging(3)
    helper.set_model_props(made, {"dacesr_format": "1", "kind": "restorer", "config": '{"modulation": "none"}'})
    with pytest.raises(CheckpointError, match=r"should make \(1, 3, 32, 48\) of a picture, and made \(1, 3, 24, 36\)"):
        load_restorer(written(tmp_path / "own.onnx", made))(torch.zeros(1, 3, 8, 12))
    size = numpy_helper.from_array(np.array([1, 3, 128, 128]), "size")
    node = helper.make_node("Resize", ["picture", "", "", "size"], ["big"], mode="nearest")
    net = load_restorer(written(tmp_path / "others.onnx", model([node], tensors=(size,))))
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 128, 128)
    with pytest.raises(CheckpointError, match=r"and made \(1, 3, 128, 128\)"):
        net(torch.zeros(1, 3, 8, 12))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    path = written(tmp_path / "others.onnx", enlarging())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError, match=rf'need the package {package}: pip install "dacesr\[onnx\]"'):
        load_restorer(path)
