import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from dacesr import weightfiles
from dacesr.checkpoint import (
    CheckpointError,
    bundled_names,
    convert,
    describe,
    load_restorer,
    resolve,
    save_restorer,
)
from dacesr.nets.baselines import SRVGGConfig, SRVGGNetCompact
from dacesr.nets.heads import HEADS
from dacesr.nets.restorer import Restorer, RestorerConfig

FIXTURES = Path(__file__).parent / "fixtures"
DATA = os.environ.get("DACESR_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="DACESR_DATA is not set")
SMALL = RestorerConfig.preset("light", embed_dim=8, depths=(1, 2))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net() -> Restorer:
    return Restorer(SMALL).eval()


def refusal(source) -> str:
    """The one sentence that a source is refused with."""
    with pytest.raises(CheckpointError) as caught:
        load_restorer(source)
    message = str(caught.value)
    assert "\n" not in message
    if isinstance(source, Path):
        assert str(source) in message
    return message


def same(a: Restorer, b: Restorer) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# --- our own format


def test_what_is_saved_is_loaded(tmp_path):
    config = RestorerConfig.preset(
        "base", embed_dim=12, depths=(1, 2), head="nearest+conv", scale=3, group_end="3conv", scan_order="alternate",
        image_skip="bilinear", block_residual=True, modulation="release", condition_dim=7, rgb_mean=(0.1, 0.2, 0.3),
    )  # fmt: skip
    net = Restorer(config)
    save_restorer(tmp_path / "net.safetensors", net)
    loaded = load_restorer(tmp_path / "net.safetensors")
    assert loaded.config == config
    assert same(loaded, net)
    assert not loaded.training
    x = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        assert torch.equal(loaded(x), net(x))


def test_loading_leaves_the_random_numbers_alone(tmp_path, net):
    save_restorer(tmp_path / "net.safetensors", net)
    state = torch.get_rng_state()
    load_restorer(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


def test_half_storage_is_half_the_size_and_keeps_the_decay_in_fp32(tmp_path):
    net = Restorer(RestorerConfig.preset("light"))
    save_restorer(tmp_path / "full.safetensors", net)
    save_restorer(tmp_path / "half.safetensors", net, dtype=torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size
    assert describe(tmp_path / "half.safetensors").dtype == "float16, float32"
    loaded = load_restorer(tmp_path / "half.safetensors")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    for name, value in loaded.state_dict().items():
        original = net.state_dict()[name]
        exact = name.endswith(("A_log", ".D", "dt_proj.weight", "dt_proj.bias"))
        torch.testing.assert_close(value, original, rtol=0 if exact else 2**-11, atol=0 if exact else 1e-7)
    assert next(net.parameters()).dtype == torch.float32


def test_the_file_is_plain_safetensors_with_text_in_its_header(tmp_path, net):
    save_restorer(tmp_path / "net.safetensors", net, info={"name": "Tiny", "licence": "CC0"})
    assert set(safetensors.torch.load_file(tmp_path / "net.safetensors")) == set(net.state_dict())
    info = describe(tmp_path / "net.safetensors")
    assert info.metadata == {"name": "Tiny", "licence": "CC0"}
    assert (info.architecture, info.config, info.scale) == ("restorer", SMALL, 4)
    assert info.parameters == sum(value.numel() for value in net.parameters())
    assert (info.container, info.key, info.dtype) == ("safetensors", None, "float32")
    assert len(info.sha256) == 64


def test_saving_refuses_other_types_and_the_formats_own_fields(tmp_path, net):
    with pytest.raises(ValueError, match="bfloat16"):
        save_restorer(tmp_path / "net.safetensors", net, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="info has config"):
        save_restorer(tmp_path / "net.safetensors", net, info={"config": "mine"})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, net, monkeypatch):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_restorer(path, net)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_written_with_the_usual_permissions(tmp_path, net):
    save_restorer(tmp_path / ("long" * 55 + ".safetensors"), net)
    (tmp_path / "other").touch()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"dacesr_format": "2"}, "format 2"),
        ({"kind": "tagger"}, "holds a tagger"),
        ({"config": '{"embed_dim": "wide"}'}, "embed_dim"),
        ({"config": '{"embed_dim": 8, "colour": 1}'}, "colour"),
        ({"config": "not json"}, "config"),
        ({"config": '{"embed_dim": 4096, "depths": [1000000000]}'}, "too few"),
        (
            {"config": RestorerConfig.preset("large").model_dump_json()},
            "of another shape: conv_first.weight (8, 3, 3, 3)",
        ),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, net, header, said):
    good = {"dacesr_format": "1", "kind": "restorer", "config": SMALL.model_dump_json()}
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors", metadata=good | header)
    assert said in refusal(tmp_path / "net.safetensors")


# --- what others save


@pytest.mark.parametrize("preset", ["light", "base", "large"])
def test_released_names_and_shapes_are_recognised(preset):
    keys = json.loads((FIXTURES / f"restorer_{preset}_keys.json").read_text())
    state = {name: torch.full(shape, 0.5) for name, shape in keys.items()}
    net = load_restorer(state)
    assert net.config == RestorerConfig.preset(preset, modulation="release")
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("group_end", ["1conv", "3conv"])
@pytest.mark.parametrize(
    ("head", "scale"),
    [(head, scale) for head in HEADS for scale in (1, 2, 3, 4) if (head, scale) != ("nearest+conv", 3)],
)
def test_hyper_parameters_are_read_from_the_shapes(head, scale, group_end):
    config = RestorerConfig(
        embed_dim=12, depths=(1, 3, 2), head=head, head_dim=64 if head == "pixelshuffledirect" else 5, scale=scale,
        group_end=group_end, state_dim=3, expand=3, conv_taps=5, dt_rank=7, modulation="release",
    )  # fmt: skip
    assert load_restorer(Restorer(config).state_dict()).config == config


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda state: state, None),
        (
            lambda state: {"params": {name: value + 1 for name, value in state.items()}, "params_ema": state},
            "params_ema",
        ),
        (
            lambda state: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
            "state_dict",
        ),
        (
            lambda state: {"model": {"params": {f"_orig_mod.{name}": value for name, value in state.items()}}},
            "model.params",
        ),
        (lambda state: {"net_g": {f"module._orig_mod.{name}": value for name, value in state.items()}}, "net_g"),
        (lambda state: {f"model.{name}": value for name, value in state.items()} | {"model.epoch": 7}, None),
        (
            lambda state: {"params_ema": {name: torch.nn.Parameter(value) for name, value in state.items()}},
            "params_ema",
        ),
        (
            lambda state: {"params": {name: value.double() for name, value in state.items()}, "iter": torch.ones(1)},
            "params",
        ),
    ],
)
@pytest.mark.parametrize("new_style", [True, False])
def test_wrappings_and_prefixes_are_taken_off(tmp_path, net, wrap, key, new_style):
    torch.save(wrap(net.state_dict()), tmp_path / "net.pth", _use_new_zipfile_serialization=new_style)
    loaded = load_restorer(tmp_path / "net.pth")
    assert same(loaded, net)
    assert all(value.requires_grad for value in loaded.parameters())
    assert describe(tmp_path / "net.pth").key == key


def test_safetensors_of_others_are_recognised(tmp_path, net):
    state = {f"module.{name}": value for name, value in net.half().state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "net.safetensors")
    assert same(load_restorer(tmp_path / "net.safetensors"), net.float())


def test_a_file_saved_on_a_cuda_machine_is_read(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "cpu.pth")
    with zipfile.ZipFile(tmp_path / "cpu.pth") as source, zipfile.ZipFile(tmp_path / "cuda.pth", "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            target.writestr(item, content)
    assert same(load_restorer(tmp_path / "cuda.pth"), net)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("norm_f.weight"), "missing: norm_f.weight"),
        (lambda state: state.pop("layers.0.conv.bias"), "missing: layers.0.conv.bias"),
        (lambda state: state.pop("conv_first.weight"), "lacks conv_first.weight"),
        (lambda state: state.update({"cls_token": torch.ones(1)}), "unexpected: cls_token"),
        (lambda state: state.update({"norm_f.bias": torch.ones(9)}), "of another shape: norm_f.bias (9,) for (8,)"),
        (lambda state: state.update({"conv_first.weight": torch.ones(8, 3)}), "conv_first.weight has the shape (8, 3)"),
        (
            lambda state: state.update({"conv_first.weight": torch.ones(0, 3, 3, 3)}),
            "conv_first.weight has the shape (0,",
        ),
        (
            lambda state: state.update({"upsample.0.weight": torch.ones(75, 8, 3, 3)}),
            "scale: Input should be 1, 2, 3 or 4",
        ),
        (
            lambda state: state.update({"layers.99999999999.residual_group.blocks.0.norm.bias": torch.ones(8)}),
            "group 99999",
        ),
        (
            lambda state: state.update({"layers.1.residual_group.blocks.99999999999.norm.bias": torch.ones(8)}),
            "too few",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_names_the_tensors(net, change, said):
    state = net.state_dict()
    change(state)
    message = refusal(state)
    assert said in message
    assert "the state dict" in message


def test_a_long_list_of_tensors_is_cut():
    state = Restorer(RestorerConfig.preset("light")).state_dict()
    for name in [name for name in state if name.endswith("mixer.D")]:
        del state[name]
    assert "and 2 more" in refusal(state)


# --- what isn't a restorer


class _Payload:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("style", ["zip", "legacy", *range(6)])
def test_pickled_code_is_named_and_never_run(tmp_path, net, style):
    target, path = tmp_path / "ran", tmp_path / "net.pth"
    content = {"params": net.state_dict(), "note": _Payload(target)}
    if style in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=style == "zip")
    else:
        path.write_bytes(pickle.dumps(_Payload(target), protocol=style))
    assert "code" in refusal(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(_Payload(target)))
    assert target.exists()  # the payload does work


def test_objects_besides_tensors_are_named(tmp_path, net):
    torch.save({"params": net.state_dict(), "args": Namespace(lr=1)}, tmp_path / "net.pth")
    assert "argparse.Namespace" in refusal(tmp_path / "net.pth")


def test_a_checkpoint_that_is_a_tar_archive_too_is_refused(tmp_path, net):
    """PyTorch before 2.6 ran code from tar archives, and the first bytes of one are free."""
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    start = path.read_bytes()[:15]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("name"), io.BytesIO())
    header = bytearray(path.read_bytes())
    header[:15] = start
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    assert tarfile.is_tarfile(path)
    assert "tar archive" in refusal(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_called_truncated(tmp_path, net, kind, keep):
    path = tmp_path / "net.weights"
    if kind == "safetensors":
        save_restorer(path, net)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    assert "truncated or damaged" in refusal(path)


def _image(file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, file_format)
    return buffer.getvalue()


def _zip(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    return buffer.getvalue()


def _saved(save, *args, **kwargs) -> bytes:
    buffer = io.BytesIO()
    save(*args, buffer, **kwargs)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (_image("PNG"), "a PNG image"),
        (_image("JPEG"), "a JPEG image"),
        (_image("WEBP"), "a WebP image"),
        (_image("TIFF"), "a TIFF image"),
        (_image("BMP"), "a BMP image"),
        (_image("GIF"), "a GIF image"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git-lfs pointer"),
        ("Größe: 3\n".encode(), "a text file"),
        ("é".encode() * 400, "a text file"),
        (bytes(range(256)) * 4, "unknown kind"),
        (_zip(["report/word.xml", "a.txt"]), "zip archive of other files"),
        (_zip(["a/code/x.py", "a/data.pkl", "a/constants.pkl"]), "TorchScript"),
        (_zip(["archive/models/model.json", "archive/archive_format"]), "a program of torch.export"),
        (_tar(), "a tar archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "compressed archive"),
        (struct.pack("<Q", 2**20) + b"{" + b"x" * 100, "truncated or damaged"),
    ],
)
def test_a_foreign_file_is_called_what_it_is(tmp_path, content, said):
    path = tmp_path / "Gewichte ü.pth"
    path.write_bytes(content)
    assert said in refusal(path)


def test_numpy_and_torchscript_files_are_called_what_they_are(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    assert "a NumPy archive" in refusal(tmp_path / "a.npz")
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    assert "TorchScript" in refusal(tmp_path / "a.pt")


def test_missing_files_and_folders_are_said_so(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.pth")
    assert "does not exist" in refusal("nowhere/none.pth")
    assert "folder" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said_so(tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(b"PK\x03\x04")
    path.chmod(0)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no tensors"),
        ({"epoch": 3, "lr": 0.1}, "the entries epoch, lr"),
        ([1, 2], "only a list"),
        (torch.ones(3), "only a Tensor"),
        ({"fc.weight": torch.ones(2, 2)}, "unknown kind (its tensors: fc.weight"),
    ],
)
def test_a_checkpoint_without_a_network_is_said_so(tmp_path, content, said):
    torch.save(content, tmp_path / "net.pth")
    assert said in refusal(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("names", "architecture"),
    [
        (["features.0.weight", "features.0.bias", "classifier.6.weight"], "VGG"),
        (["visual_encoder.layers.0.blocks.0.attn.qkv.lora_A"], "LoRA"),
    ],
)
def test_another_architecture_is_named_and_described(tmp_path, names, architecture):
    torch.save({name: torch.ones(2) for name in names}, tmp_path / "net.pth")
    assert architecture in refusal(tmp_path / "net.pth")
    info = describe(tmp_path / "net.pth")
    assert architecture in str(info.architecture)
    assert (info.config, info.scale, info.parameters) == (None, None, 2 * len(names))


@pytest.mark.parametrize(
    ("names", "architecture"),
    [
        ("conv_1 block_1.c1_r block_1.esa.conv1", "RLFN"),
        ("conv_first body.0.rdb1.conv1 conv_up1", "RRDB (ESRGAN)"),
        ("conv_first RRDB_trunk.0.RDB1.conv1 upconv1 HRconv", "RRDB (ESRGAN)"),
        ("model.0 model.1.sub.0.RDB1.conv1.0 model.3", "RRDB (ESRGAN)"),
        ("conv_first body.0.conv1 upconv1 conv_hr conv_last", "SRResNet"),
        ("conv_first recon_trunk.0.conv1 upconv1 HRconv", "SRResNet"),
        ("conv_first body.0.conv1 conv_after_body upsample.0", "EDSR"),
        ("head.0 body.0.body.0 body.0.body.2 body.1 body.2 tail.0.0", "EDSR"),
        ("body.0 body.1 body.2", "SRVGGNetCompact (Real-ESRGAN)"),
    ],
)
def test_a_file_without_sensible_shapes_is_called_what_its_names_say(tmp_path, names, architecture):
    torch.save({f"{name}.weight": torch.ones(2) for name in names.split()}, tmp_path / "net.pth")
    assert f"seems to hold a {architecture}, but it" in refusal(tmp_path / "net.pth")


# --- Real-ESRGAN's compact networks


@pytest.mark.parametrize("convolutions", [1, 16, 32])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact_networks_are_recognised_by_their_shapes(tmp_path, convolutions, scale):
    config = SRVGGConfig(num_feat=6, num_conv=convolutions, scale=scale)
    net = SRVGGNetCompact(config)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    loaded = load_restorer(tmp_path / "net.pth")
    assert isinstance(loaded, SRVGGNetCompact)
    assert not loaded.training
    assert loaded.config == config
    assert same(loaded, net)
    info = describe(tmp_path / "net.pth")
    assert (info.architecture, info.key, info.scale) == ("SRVGGNetCompact (Real-ESRGAN)", "params", scale)


def test_compact_networks_are_stored_in_our_own_format(tmp_path):
    net = SRVGGNetCompact(SRVGGConfig(num_feat=6, num_conv=2, scale=2))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "half.safetensors", dtype=torch.float16)
    half = load_restorer(tmp_path / "half.safetensors")
    assert half.config == net.config
    torch.testing.assert_close(half.state_dict(), net.state_dict(), rtol=2**-11, atol=1e-7)
    info = describe(tmp_path / "half.safetensors")
    assert (info.architecture, info.dtype, info.scale) == ("SRVGGNetCompact (Real-ESRGAN)", "float16", 2)
    assert info.metadata == {"source": "net.pth"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: [state.pop(f"body.{i}.weight") for i in (1, 3, 5)], "its activation is not PReLU"),
        (lambda state: state.pop("body.0.weight"), "lacks body.0.weight"),
        (lambda state: state.pop("body.3.weight"), "missing: body.3.weight"),
        (lambda state: state.update({"body.6.weight": torch.ones(13, 6, 3, 3)}), "gives 13 channels"),
        (lambda state: state.update({"body.6.weight": torch.ones(75, 6, 3, 3)}), "scale: Input should be 1, 2, 3 or 4"),
        (lambda state: state.update({"body.99999999999.weight": torch.ones(12, 6, 3, 3)}), "num_conv"),
        (lambda state: state.update({"body.999.weight": torch.ones(12, 6, 3, 3)}), "too few for 498 blocks"),
        (lambda state: state.update({"body.2.weight": torch.ones(6, 5, 3, 3)}), "(6, 5, 3, 3) for (6, 6, 3, 3)"),
    ],
)
def test_a_compact_network_that_does_not_fit_names_the_tensors(change, said):
    state = SRVGGNetCompact(SRVGGConfig(num_feat=6, num_conv=2, scale=2)).state_dict()
    change(state)
    assert said in refusal(state)


# --- published files


@needs_data
def test_dvmsr_is_described_by_its_averaged_weights():
    info = describe(Path(str(DATA), "checkpoints", "DVMSR.pth"))
    assert (info.architecture, info.key, info.parameters, info.scale) == ("restorer", "params_ema", 424_428, 4)
    assert info.config == RestorerConfig.preset("light", modulation="release")
    assert info.sha256 == "b9993f169da81ee63c4b5d4fc770c2f05a4af1e9481aa18a16577fe78fb6f174"


@needs_data
def test_a_published_rlfn_saved_on_a_gpu_is_loaded_and_converted(tmp_path):
    path = Path(str(DATA), "checkpoints", "team00_rlfn.pth")
    assert (describe(path).architecture, describe(path).scale) == ("RLFN", 4)
    convert(path, tmp_path / "rlfn.safetensors")
    converted, original = load_restorer(tmp_path / "rlfn.safetensors"), load_restorer(path)
    assert converted.config == original.config
    assert same(converted, original)


# --- converting


def test_converting_keeps_weights_and_header_text(tmp_path, net):
    torch.save({"params_ema": net.state_dict()}, tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "full.safetensors", info={"licence": "MIT"})
    convert(tmp_path / "full.safetensors", tmp_path / "half.safetensors", dtype=torch.float16, info={"name": "half"})
    full, half = (describe(tmp_path / f"{name}.safetensors") for name in ("full", "half"))
    assert full.metadata == {"source": "net.pth", "licence": "MIT"}
    assert half.metadata == {"source": "net.pth", "licence": "MIT", "name": "half"}
    assert same(load_restorer(tmp_path / "full.safetensors"), net)
    assert full.config == half.config == SMALL.model_copy(update={"modulation": "release"})


def test_a_file_can_be_converted_in_place(tmp_path, net):
    path = tmp_path / "net.safetensors"
    save_restorer(path, net)
    convert(path, path, dtype=torch.float16)
    assert describe(path).dtype == "float16, float32"


# --- names


def test_default_says_that_nothing_is_bundled(monkeypatch, tmp_path):
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    monkeypatch.setattr(weightfiles, "DEFAULT_WEIGHTS", None)
    assert bundled_names() == []
    assert "no weights are bundled" in refusal("default")


def test_bundled_names_and_default_are_files_of_the_package(monkeypatch, tmp_path, net):
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    monkeypatch.setattr(weightfiles, "DEFAULT_WEIGHTS", "tiny")
    save_restorer(tmp_path / "tiny.safetensors", net)
    assert bundled_names() == ["tiny"]
    assert same(load_restorer("tiny"), net)
    assert same(load_restorer("default"), net)
    assert "bundled: tiny" in refusal("tinny")


def test_bundled_names_come_with_a_description_where_there_is_one(monkeypatch, tmp_path, net):
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path)
    save_restorer(tmp_path / "a.safetensors", net, info={"description": "small and quick"})
    save_restorer(tmp_path / "b.safetensors", net)
    assert weightfiles.bundled_descriptions() == {"a": "small and quick", "b": ""}


class _Hub:
    """A hub of one repository, in the place of huggingface_hub's functions."""

    def __init__(self, folder: Path, *, online: bool = True, cached: bool = False) -> None:
        self.folder, self.online, self.cached = folder, online, cached

    def model_info(self, repository, timeout):
        from huggingface_hub.errors import RepositoryNotFoundError

        if not self.online:
            raise ConnectionError("no route to host\nafter several tries")
        if repository != "someone/tiny":
            raise RepositoryNotFoundError("404", response=_NoResponse())  # pyright: ignore
        return Namespace(siblings=[Namespace(rfilename=path.name) for path in self.folder.iterdir()])

    def hf_hub_download(self, repository, name):
        return str(self.folder / name)

    def snapshot_download(self, repository, local_files_only):
        if not self.cached or not local_files_only:
            raise FileNotFoundError("not in the cache")
        return str(self.folder)

    def install(self, monkeypatch) -> None:
        import huggingface_hub

        for name in ("model_info", "hf_hub_download", "snapshot_download"):
            monkeypatch.setattr(huggingface_hub, name, getattr(self, name))


class _NoResponse:
    headers: dict[str, str] = {}  # noqa: RUF012
    request = None
    status_code = 404


@pytest.mark.parametrize("name", ["model.safetensors", "tiny.safetensors"])
@pytest.mark.parametrize("online", [True, False])
def test_a_hub_id_is_downloaded_or_taken_from_the_cache(monkeypatch, tmp_path, net, name, online):
    save_restorer(tmp_path / name, net)
    (tmp_path / "README.md").write_text("a model card")
    _Hub(tmp_path, online=online, cached=True).install(monkeypatch)
    assert same(load_restorer("someone/tiny"), net)


def test_hub_errors_are_one_sentence(monkeypatch, tmp_path, net):
    _Hub(tmp_path).install(monkeypatch)
    assert "neither a file nor a public repository" in refusal("someone/none")
    assert "0 files of weights" in refusal("someone/tiny")
    _Hub(tmp_path, online=False).install(monkeypatch)
    assert "can't be reached" in refusal("someone/tiny")


def test_paths_are_never_taken_for_hub_ids(monkeypatch, tmp_path, net):
    def never(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(weightfiles, "_from_hub", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    save_restorer("owner/name", net)
    assert resolve("owner/name") == Path("owner/name")
    for missing in ("owner/other", "some/file.pth", "some/file.safetensors", "a/b/c", "/a/b", "./b", "../b", "name"):
        assert "does not exist" in refusal(missing)
    assert "does not exist" in refusal(Path("someone/tiny"))
