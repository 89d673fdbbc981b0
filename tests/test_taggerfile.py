import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from typer.testing import CliRunner

from dacesr import tensorfile, weightfiles
from dacesr.adapterfile import AdapterConfig, save_adapter
from dacesr.checkpoint import (
    CheckpointError,
    convert,
    describe,
    load_extractor,
    load_restorer,
    load_tagger,
    save_restorer,
    save_tagger,
)
from dacesr.cli import app
from dacesr.config import RestorerConfig, TaggerConfig
from dacesr.nets.restorer import Restorer
from dacesr.nets.tagger import THRESHOLD, Tagger
from dacesr.taggerfile import fingerprint

TAGS = ("cat", "dog", "Größe", "sea", "sky")
SMALL = TaggerConfig(
    image_size=32, resize=(512,), patch=4, embed_dim=8, depths=(1, 2), heads=(2, 4), window=4, width=6, tags=5,
    label_dim=4, head_dim=8, head_heads=4, head_mlp=8,
)  # fmt: skip
LAYERS = [  # that adapters change, with (out, in)
    *((f"encoder.stages.{stage}.{block}.attn.{part}", (dim, dim))
      for stage, block, dim in ((0, 0, 8), (1, 0, 16), (1, 1, 16)) for part in "qv"),
    *((f"head.{layer}.attn.{part}", (8, width)) for layer in (0, 1) for part, width in (("query", 8), ("key", 6))),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net() -> Tagger:
    net = Tagger(SMALL, tags=TAGS, thresholds=[0.1, 0.2, 0.3, 0.4, 0.55]).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(0.3 * torch.randn_like(value))
    return net


@pytest.fixture
def bundle(tmp_path, monkeypatch) -> Path:
    """The folder of bundled recognition weights, empty."""
    monkeypatch.setattr(weightfiles, "WEIGHTS", tmp_path / "weights")
    folder = tmp_path / "weights" / "recognition"
    folder.mkdir(parents=True)
    return folder


def released(net: Tagger) -> dict[str, Tensor]:
    """A tagger's tensors under the release's names, q, k and v in one."""
    found: dict[str, Tensor] = {}
    names = {
        "encoder.stem.": "visual_encoder.patch_embed.", "encoder.merging.0.": "visual_encoder.layers.0.downsample.",
        "encoder.norm.": "visual_encoder.norm.",
    }  # fmt: skip
    head = {
        "attn.query": "crossattention.self.query", "attn.key": "crossattention.self.key",
        "attn.value": "crossattention.self.value", "attn.proj": "crossattention.output.dense",
        "norm1": "crossattention.output.LayerNorm", "fc1": "intermediate.dense", "fc2": "output.dense",
        "norm2": "output.LayerNorm",
    }  # fmt: skip
    state = net.state_dict()
    for name, value in state.items():
        new = name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        parts = name.split(".")
        if name.startswith("encoder.stages."):
            rest = ".".join(parts[4:]).replace("attn.bias", "attn.relative_position_bias_table")
            new = f"visual_encoder.layers.{parts[2]}.blocks.{parts[3]}.{rest}"
            if ".k." in name:
                continue
            if ".v." in name:
                continue
            if ".q." in name:
                new, value = (
                    new.replace(".q.", ".qkv."),
                    torch.cat([state[name.replace(".q.", f".{p}.")] for p in "qkv"]),
                )
        elif name.startswith("head."):
            place = ".".join(parts[2:-1])
            new = f"tagging_head.encoder.layer.{parts[1]}.{head[place]}.{parts[-1]}"
        found[new] = value
    return found


def released_lora(rank: int = 3) -> dict[str, Tensor]:
    found = {}
    for stage, block, dim in ((0, 0, 8), (1, 0, 16), (1, 1, 16)):
        place = f"visual_encoder.layers.{stage}.blocks.{block}.attn.qkv"
        found |= {f"{place}.lora_A": torch.randn(2 * rank, dim), f"{place}.lora_B": torch.randn(2 * dim, rank)}
    for layer in (0, 1):
        for part, width in (("query", 8), ("key", 6)):
            place = f"tagging_head.encoder.layer.{layer}.crossattention.self.{part}"
            found |= {f"{place}.lora_A": torch.randn(rank, width), f"{place}.lora_B": torch.randn(8, rank)}
    return found


def peft_lora(rank: int = 2) -> dict[str, Tensor]:
    found = {}
    for place, (out, width) in LAYERS:
        found[f"base_model.model.{place}.lora_A.weight"] = torch.randn(rank, width)
        found[f"base_model.model.{place}.lora_B.weight"] = torch.randn(out, rank)
    return found


def settings_for(net: Tagger, base: str = "base", **changes) -> AdapterConfig:
    return AdapterConfig(**{"base": base, "base_fingerprint": fingerprint(net), "r": 2, "alpha": 3.0, **changes})


def merged_by_hand(net: Tagger, tensors: dict[str, Tensor], scaling: float) -> dict[str, Tensor]:
    state = dict(net.state_dict())
    for place, _ in LAYERS:
        a, b = (tensors[f"base_model.model.{place}.lora_{half}.weight"] for half in "AB")
        state[f"{place}.weight"] = state[f"{place}.weight"] + scaling * b @ a
    return state


def assert_same(net: torch.nn.Module, state: dict[str, Tensor], **tolerance) -> None:
    found = net.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, **(tolerance or {"rtol": 0, "atol": 0}))


def refusal(source, **parts) -> str:
    """The one sentence that a tagger is refused with."""
    with pytest.raises(CheckpointError) as caught:
        load_tagger(source, **parts)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- our own format


def test_what_is_saved_is_loaded(tmp_path, net):
    save_tagger(tmp_path / "net.safetensors", net, info={"description": "small"})
    loaded = load_tagger(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert_same(loaded, net.state_dict())
    assert loaded.tag_names == TAGS
    assert torch.equal(loaded.thresholds, net.thresholds)
    assert not loaded.training
    found = describe(tmp_path / "net.safetensors")
    assert (found.architecture, found.config, found.scale) == ("tagger", SMALL, None)
    assert found.metadata == {"description": "small"}


@pytest.mark.parametrize("preset", ["lite"])
def test_our_preset_is_saved_and_loaded(tmp_path, preset):
    net = Tagger(TaggerConfig.preset(preset, tags=7))
    save_tagger(tmp_path / "net.safetensors", net, dtype=torch.float16)
    loaded = load_tagger(tmp_path / "net.safetensors")
    assert loaded.config == net.config
    assert (tmp_path / "net.safetensors").stat().st_size < 15_000_000


def test_half_storage_comes_back_as_fp32_with_the_same_fingerprint(tmp_path, net):
    save_tagger(tmp_path / "full.safetensors", net)
    save_tagger(tmp_path / "half.safetensors", net, dtype=torch.float16)
    full, half = load_tagger(tmp_path / "full.safetensors"), load_tagger(tmp_path / "half.safetensors")
    assert {value.dtype for value in half.state_dict().values()} == {torch.float32}
    assert_same(half, net.state_dict(), rtol=2**-11, atol=1e-6)
    assert fingerprint(full) == fingerprint(half) == fingerprint(net)
    with torch.no_grad():
        half.fc.bias.add_(0.1)
    assert fingerprint(full) != fingerprint(half)


def test_saving_refuses_other_types_and_the_formats_own_fields(tmp_path, net):
    with pytest.raises(ValueError, match="bfloat16"):
        save_tagger(tmp_path / "net.safetensors", net, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="info has thresholds"):
        save_tagger(tmp_path / "net.safetensors", net, info={"thresholds": "mine"})
    assert list(tmp_path.iterdir()) == []


def test_loading_leaves_the_random_numbers_alone(tmp_path, net):
    save_tagger(tmp_path / "net.safetensors", net)
    state = torch.get_rng_state()
    load_tagger(tmp_path / "net.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"dacesr_format": "2"}, "format 2"),
        ({"kind": "restorer"}, "holds a restorer, not a tagger"),
        ({"kind": "srvgg"}, "not a tagger"),
        ({"config": '{"embed_dim": "wide"}'}, "embed_dim"),
        ({"config": '{"depths": [1000000000], "heads": [6]}'}, "too few"),
        ({"config": TaggerConfig.preset("lite").model_dump_json()}, "does not fit"),
        ({"tags": '["a", "b"]'}, "another tag list"),
        ({"tags": "["}, "can't be read"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, net, header, said):
    good = {"dacesr_format": "1", "kind": "tagger", "config": SMALL.model_dump_json()}
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors", metadata=good | header)
    message = refusal(tmp_path / "net.safetensors")
    assert said in message
    assert str(tmp_path / "net.safetensors") in message


# --- the release


@pytest.mark.parametrize("head", ["tagging_head", "vision_multi"])
def test_the_release_is_translated_and_its_sizes_are_read(net, head):
    state = {name.replace("tagging_head", head): value for name, value in released(net).items()}
    loaded = load_tagger({"model": state})
    assert loaded.config == SMALL
    assert_same(loaded, net.state_dict())
    assert loaded.tag_names == ("0", "1", "2", "3", "4")


def test_what_has_no_place_here_is_ignored_and_nothing_else(net):
    rest = {
        name: torch.ones(3)
        for name in (
            "text_decoder.cls.predictions.bias", "tag_encoder.embeddings.word_embeddings.weight",
            "tagging_head.embeddings.position_ids", "vision_multi.encoder.layer.0.attention.self.query.weight",
            "visual_encoder.layers.0.blocks.0.attn.relative_position_index",
            "visual_encoder.layers.1.blocks.1.attn_mask",
        )
    }  # fmt: skip
    state = {name.replace("tagging_head", "vision_multi"): value for name, value in released(net).items()}
    assert_same(load_tagger(state | rest), net.state_dict())
    assert "unexpected: reweight_scale" in refusal(state | {"reweight_scale": torch.ones(1)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("visual_encoder.patch_embed.proj.weight", "lacks visual_encoder.patch_embed.proj.weight"),
        ("visual_encoder.layers.0.blocks.0.attn.qkv.bias", "missing: encoder.stages.0.0.attn.q.bias"),
        ("visual_encoder.layers.1.blocks.1.norm2.weight", "missing: encoder.stages.1.1.norm2.weight"),
        ("tagging_head.encoder.layer.1.output.dense.bias", "missing: head.1.fc2.bias"),
        ("label_embed", "lacks label_embed"),
        ("fc.weight", "missing: fc.weight"),
    ],
)
def test_an_incomplete_release_is_refused(net, name, said):
    state = released(net)
    del state[name]
    assert said in refusal(state)


def test_a_smaller_window_of_a_small_grid_gives_the_same_tokens(tmp_path, net):
    """The release shrinks a window to its grid; in ours that grid lies beside empty places."""
    state = released(net)  # at 16 px the second stage is 2 x 2, a window of 4
    name = "visual_encoder.layers.1.blocks.{}.attn.relative_position_bias_table"
    for block in (0, 1):
        table = state[name.format(block)]
        state[name.format(block)] = table.view(7, 7, -1)[2:5, 2:5].reshape(9, -1)
    loaded = load_tagger(state)
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.embed(image), net.embed(image), rtol=1e-4, atol=1e-5)


def test_a_large_file_is_mapped_and_loads_the_same(tmp_path, net, monkeypatch):
    torch.save({"model": released(net)}, tmp_path / "ram.pth")
    monkeypatch.setattr(tensorfile, "MAPPED_FROM", 0)
    loaded = load_tagger(tmp_path / "ram.pth")
    (tmp_path / "ram.pth").unlink()
    assert_same(loaded, net.state_dict())


# --- tags and thresholds


def write_labels(folder: Path, tags: str, thresholds: str, count: int = 5) -> None:
    (folder / tags).write_text("\n".join(TAGS[:count]), "utf-8")  # no newline at the end, as in the release
    (folder / thresholds).write_text("0.5\n0.6\n0.7\n0.8\n0.9\n")


@pytest.mark.parametrize(
    "names", [("ram_tag_list.txt", "ram_tag_list_threshold.txt"), ("ram.tags.txt", "ram.thresholds.txt")]
)
@pytest.mark.parametrize("given", [True, False])
def test_tags_and_thresholds_are_given_or_lie_beside_the_checkpoint(tmp_path, net, names, given):
    torch.save(released(net), tmp_path / "ram.pth")
    folder = tmp_path / "lists" if given else tmp_path
    folder.mkdir(exist_ok=True)
    write_labels(folder, *names)
    parts = {"tags": folder / names[0], "thresholds": str(folder / names[1])} if given else {}
    loaded = load_tagger(tmp_path / "ram.pth", **parts)
    assert loaded.tag_names == TAGS
    torch.testing.assert_close(loaded.thresholds, torch.tensor([0.5, 0.6, 0.7, 0.8, 0.9]))
    for sequence in (list("abcde"), tuple("abcde")):
        assert load_tagger(tmp_path / "ram.pth", tags=sequence).tag_names == tuple("abcde")


def test_tags_come_from_the_hub_with_the_checkpoint(tmp_path, net, monkeypatch):
    import huggingface_hub

    write_labels(tmp_path, "ram_tag_list.txt", "ram_tag_list_threshold.txt")
    (tmp_path / "cache").mkdir()
    torch.save(released(net), tmp_path / "cache" / "ram.pth")

    def download(repository, name):
        if name == "ram.pth":
            return str(tmp_path / "cache" / name)
        if not (tmp_path / name).is_file():
            raise FileNotFoundError(name)
        return str(tmp_path / name)

    class Info:
        siblings = (type("File", (), {"rfilename": "ram.pth"}),)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda *_, **__: Info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_tagger("someone/ram").tag_names == TAGS


def test_another_tag_list_is_refused(tmp_path, net):
    torch.save(released(net), tmp_path / "ram.pth")
    assert "another tag list" in refusal(tmp_path / "ram.pth", tags=["a", "b"])
    assert "another tag list" in refusal(tmp_path / "ram.pth", thresholds=[0.5])
    write_labels(tmp_path, "ram_tag_list.txt", "ram_tag_list_threshold.txt", count=4)
    message = refusal(tmp_path / "ram.pth")
    assert "knows 5 tags, and there are 4 names" in message
    assert "ram.pth" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0.5\nhigh\n", "line 2 of"),
        (b"0.5\n1.5\n", "line 2 of"),
        (b"0.5\n\n0.5\n", "line 2 of"),
        (b"\xff\xfe\x00", "not a text"),
    ],
)
def test_bad_thresholds_are_refused_with_their_line(tmp_path, net, content, said):
    torch.save(released(net), tmp_path / "ram.pth")
    (tmp_path / "limits.txt").write_bytes(content)
    message = refusal(tmp_path / "ram.pth", thresholds=tmp_path / "limits.txt")
    assert said in message
    assert "limits.txt" in message
    assert "cannot be read" in refusal(tmp_path / "ram.pth", tags=tmp_path / "none.txt")


# --- adapters


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"params": state}])
def test_a_lora_of_the_release_is_merged(tmp_path, net, wrap):
    lora = released_lora()
    torch.save(wrap(lora), tmp_path / "DAPE.pth")
    loaded = load_tagger(released(net), lora=tmp_path / "DAPE.pth")
    assert_same(loaded, load_tagger(released(net), lora=wrap(lora)).state_dict())
    state = net.state_dict()
    place = "visual_encoder.layers.1.blocks.0.attn.qkv"
    a, b = lora[f"{place}.lora_A"], lora[f"{place}.lora_B"]
    for part, rows, columns in (("q", a[:3], b[:16]), ("v", a[3:], b[16:])):
        name = f"encoder.stages.1.0.attn.{part}.weight"
        torch.testing.assert_close(loaded.state_dict()[name], state[name] + columns @ rows / 3)
    changed = {name for name, value in loaded.state_dict().items() if not torch.equal(value, state[name])}
    assert changed == {f"{place}.weight" for place, _ in LAYERS}


def test_a_lora_of_the_captioning_parts_is_ignored(net):
    lora = released_lora()
    rest = {f"text_decoder.bert.encoder.layer.0.attention.self.query.lora_{half}": torch.ones(3, 3) for half in "AB"}
    assert_same(load_tagger(released(net), lora=lora | rest), load_tagger(released(net), lora=lora).state_dict())


@pytest.mark.parametrize("name", ["ree.safetensors", "ree"])
def test_an_adapter_of_ours_stands_for_its_base_with_it_merged(tmp_path, net, name):
    save_tagger(tmp_path / "base.safetensors", net, dtype=torch.float16)
    lora = peft_lora()
    save_adapter(tmp_path / name, lora, settings_for(net), info={"description": "an adapter"})
    base = load_tagger(tmp_path / "base.safetensors")
    wanted = merged_by_hand(base, lora, 1.5)
    for loaded in (load_tagger(tmp_path / name), load_tagger(tmp_path / "base.safetensors", lora=tmp_path / name)):
        assert_same(loaded, wanted, rtol=1e-5, atol=1e-6)
        assert loaded.tag_names == TAGS
    found = describe(tmp_path / name)
    assert (found.architecture, found.config) == ("LoRA adapter", None)
    assert found.metadata == {"description": "an adapter"}


def test_an_adapter_gives_what_peft_gives(tmp_path, net):
    peft = pytest.importorskip("peft")
    save_tagger(tmp_path / "base.safetensors", net)
    save_adapter(tmp_path / "ree", peft_lora(), settings_for(net))
    image = torch.randn(1, 3, 32, 32)
    theirs = peft.PeftModel.from_pretrained(load_tagger(tmp_path / "base.safetensors"), tmp_path / "ree").eval()
    with torch.no_grad():
        unmerged, merged = theirs(image), load_tagger(tmp_path / "ree")(image)
        base = net(image)
    for one, other, before in zip(unmerged, merged, base, strict=True):
        assert (one - other).norm() < 1e-5 * one.norm()
        assert (one - before).norm() > 1e-2 * one.norm()


def test_what_peft_saves_is_merged(tmp_path, net):
    peft = pytest.importorskip("peft")
    save_tagger(tmp_path / "base.safetensors", net)
    settings = peft.LoraConfig(r=4, lora_alpha=2, target_modules=["q", "v", "query", "key"], init_lora_weights=False)
    tuned = peft.get_peft_model(load_tagger(tmp_path / "base.safetensors"), settings).eval()
    tuned.save_pretrained(tmp_path / "ree")
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        wanted = tuned(image).logits
        for lora in (tmp_path / "ree", tmp_path / "ree" / "adapter_model.safetensors"):
            found = load_tagger(tmp_path / "base.safetensors", lora=lora).logits(image)
            assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert "doesn't tell its base" in refusal(tmp_path / "ree")


def test_an_untrained_adapter_changes_nothing(tmp_path, net):
    lora = {name: value * (0 if "lora_B" in name else 1) for name, value in peft_lora().items()}
    save_tagger(tmp_path / "base.safetensors", net)
    save_adapter(tmp_path / "ree.safetensors", lora, settings_for(net))
    assert_same(load_tagger(tmp_path / "ree.safetensors"), net.state_dict())


def test_an_adapter_for_another_base_is_refused(tmp_path, net):
    save_tagger(tmp_path / "base.safetensors", net)
    save_adapter(tmp_path / "ree.safetensors", peft_lora(), settings_for(net))
    with torch.no_grad():
        net.fc.bias.add_(1)
    save_tagger(tmp_path / "base.safetensors", net)
    message = refusal(tmp_path / "ree.safetensors")
    assert "for another base" in message
    assert "ree.safetensors" in message
    assert "base.safetensors" in message
    lora = released_lora()
    lora["visual_encoder.layers.0.blocks.0.attn.qkv.lora_B"] = torch.ones(6, 3)
    assert "for another base" in refusal(released(net), lora=lora)
    deeper = {name.replace("layers.1.", "layers.7."): value for name, value in released_lora().items()}
    assert "no layer encoder.stages.7.0.attn.q" in refusal(released(net), lora=deeper)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lora: lora.pop("visual_encoder.layers.1.blocks.1.attn.qkv.lora_B"), "is incomplete"),
        (
            lambda lora: [lora.pop(name) for name in list(lora) if "layers.0." in name],
            "nothing for encoder.stages.0.0.attn.q, encoder.stages.0.0.attn.v",
        ),
        (
            lambda lora: lora.update({"visual_encoder.norm.bias": torch.ones(16)}),
            "not of a LoRA: visual_encoder.norm.bias",
        ),
        (lambda lora: lora.update({"fc.lora_A": torch.ones(2), "fc.lora_B": torch.ones(2)}), "not matrices: fc"),
    ],
)
def test_an_incomplete_or_foreign_lora_is_refused(tmp_path, net, change, said):
    lora = released_lora()
    change(lora)
    torch.save(lora, tmp_path / "DAPE.pth")
    message = refusal(released(net), lora=tmp_path / "DAPE.pth")
    assert said in message
    assert "DAPE.pth" in message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "does not tell its lora_alpha"),
        ({"r": 2}, "not the config of a LoRA"),
        ([], "not the config of a LoRA"),
        ({"r": 2, "lora_alpha": 4, "use_dora": True}, "use_dora"),
        ({"r": 2, "lora_alpha": 4, "rank_pattern": {"q": 4}}, "rank_pattern"),
        ({"r": 2, "lora_alpha": 4, "bias": "all"}, "bias all"),
        ({"r": 2, "lora_alpha": 4, "peft_type": "IA3"}, "IA3"),
    ],
)
def test_adapters_of_other_kinds_are_refused(tmp_path, net, settings, said):
    save_tagger(tmp_path / "base.safetensors", net)
    safetensors.torch.save_file(peft_lora(), tmp_path / "adapter_model.safetensors")
    if settings is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert said in refusal(tmp_path / "base.safetensors", lora=tmp_path / "adapter_model.safetensors")


def test_saving_something_else_as_an_adapter_is_refused(tmp_path, net):
    for tensors in (net.state_dict(), released_lora(), {}, dict(list(peft_lora().items())[:1])):
        with pytest.raises(ValueError, match=r"LoRA|incomplete"):
            save_adapter(tmp_path / "ree.safetensors", tensors, settings_for(net))
    assert list(tmp_path.iterdir()) == []


# --- one kind of file given for another


def test_each_kind_of_file_is_named_where_another_is_wanted(tmp_path, net):
    restorer = Restorer(RestorerConfig.preset("light", embed_dim=8, depths=(1,)))
    save_restorer(tmp_path / "restorer.safetensors", restorer)
    save_tagger(tmp_path / "tagger.safetensors", net)
    save_adapter(tmp_path / "ree.safetensors", peft_lora(), settings_for(net, base="missing"))
    assert "holds a restorer, not a tagger" in refusal(tmp_path / "restorer.safetensors")
    assert "holds a restorer, not an adapter" in refusal(released(net), lora=tmp_path / "restorer.safetensors")
    assert "not an adapter" in refusal(released(net), lora=tmp_path / "tagger.safetensors")
    assert "seems to hold a restorer, not a tagger" in refusal(restorer.state_dict())
    assert "unknown kind" in refusal({"fc.weight": torch.ones(1)})
    assert "goes onto a tagger" in refusal(released_lora())
    assert "without its config" in refusal(net.state_dict())
    assert "an adapter on missing" in refusal(tmp_path / "ree.safetensors")
    assert "is an adapter itself" in refusal(tmp_path / "ree.safetensors", lora=released_lora())
    for source, said in (
        (tmp_path / "tagger.safetensors", "holds a tagger"),
        (tmp_path / "ree.safetensors", "holds an adapter"),
        (released(net), "RAM tagger"),
        (released_lora(), "LoRA adapter"),
    ):
        with pytest.raises(CheckpointError, match=said) as caught:
            load_restorer(source)
        assert "not a restorer" in str(caught.value)


# --- bundled names


def test_bundled_extractors_are_adapters_on_a_bundled_base(bundle, net):
    save_tagger(bundle / "lite-ram.safetensors", net, dtype=torch.float16)
    lora = peft_lora()
    base = load_tagger("lite-ram")
    for name in ("lite-dape", "lite-ree"):
        save_adapter(bundle / f"{name}.safetensors", lora, settings_for(base, base="lite-ram"), dtype=torch.float16)
    wanted = merged_by_hand(base, {name: value.half().float() for name, value in lora.items()}, 1.5)
    for name in ("lite", "lite-ree", "lite-dape"):
        extractor = load_extractor(name)
        assert_same(extractor.tagger, wanted, rtol=1e-5, atol=1e-6)
    assert_same(load_tagger("lite-ram", lora="lite-ree"), wanted, rtol=1e-5, atol=1e-6)
    x = torch.rand(1, 3, 50, 40)
    assert load_extractor("lite").embed(x).shape == (1, 17, 6)
    assert load_extractor("lite", dtype=torch.bfloat16).tagger.fc.weight.dtype == torch.bfloat16
    assert "bundled: lite-dape, lite-ram, lite-ree" in refusal("lite-rem")
    assert weightfiles.bundled_names() == []


def test_models_list_has_recognition_in_a_part_of_its_own(bundle, net):
    save_restorer(
        bundle.parent / "tiny.safetensors", Restorer(RestorerConfig.preset("light", embed_dim=8, depths=(1,)))
    )
    save_tagger(bundle / "lite-ram.safetensors", net, info={"description": "names of things"})
    result = CliRunner().invoke(app, ["models", "list"])
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["tiny"], ["recognition:"], ["lite-ram", "names", "of", "things"],
    ]  # fmt: skip


# --- converting and describing


def test_the_release_is_converted_with_its_tags_and_an_adapter(tmp_path, net):
    torch.save({"model": released(net)}, tmp_path / "ram.pth")
    torch.save(released_lora(), tmp_path / "DAPE.pth")
    write_labels(tmp_path, "names.txt", "limits.txt")
    parts = {"tags": tmp_path / "names.txt", "thresholds": tmp_path / "limits.txt"}
    arguments = ["models", "convert", tmp_path / "ram.pth", "-o", tmp_path / "dape.safetensors", "--half"]
    options = [part for name, path in {"lora": tmp_path / "DAPE.pth", **parts}.items() for part in (f"--{name}", path)]
    result = CliRunner().invoke(app, [os.fspath(part) for part in (*arguments, *options)])
    assert result.exit_code == 0, result.output
    found = describe(tmp_path / "dape.safetensors")
    assert found.metadata == {"source": "ram.pth", "lora": "DAPE.pth"}
    assert found.config == SMALL
    loaded = load_tagger(tmp_path / "dape.safetensors")
    assert loaded.tag_names == TAGS
    wanted = load_tagger(tmp_path / "ram.pth", lora=tmp_path / "DAPE.pth")
    assert_same(loaded, wanted.state_dict(), rtol=2**-10, atol=1e-6)


def test_an_adapter_is_converted_into_a_tagger(tmp_path, net):
    save_tagger(tmp_path / "base.safetensors", net)
    save_adapter(tmp_path / "ree.safetensors", peft_lora(), settings_for(net), info={"description": "an adapter"})
    convert(tmp_path / "ree.safetensors", tmp_path / "whole.safetensors")
    assert_same(load_tagger(tmp_path / "whole.safetensors"), load_tagger(tmp_path / "ree.safetensors").state_dict())
    assert describe(tmp_path / "whole.safetensors").metadata["description"] == "an adapter"


def test_parts_of_taggers_are_refused_for_restorers(tmp_path):
    save_restorer(tmp_path / "net.safetensors", Restorer(RestorerConfig.preset("light", embed_dim=8, depths=(1,))))
    with pytest.raises(ValueError, match="are for taggers"):
        convert(tmp_path / "net.safetensors", tmp_path / "out.safetensors", tags=tmp_path / "tags.txt")


def test_a_release_is_described_with_its_sizes(tmp_path, net):
    torch.save({"model": released(net)}, tmp_path / "ram.pth")
    found = describe(tmp_path / "ram.pth")
    assert (found.architecture, found.config, found.key, found.scale) == ("RAM tagger", SMALL, "model", None)
    result = CliRunner().invoke(app, ["models", "info", str(tmp_path / "ram.pth")])
    assert "tags 5" in result.stdout
    assert load_tagger(tmp_path / "ram.pth").thresholds[0] == THRESHOLD
