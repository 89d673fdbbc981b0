"""What conditions a network: which extractor, what it is shown of a picture, and what becomes of it."""

import hashlib

import pytest
import torch
from conditioned import conditioned, write_conditioned
from tiny_tagger import TAGS, write_tagger
from torch.nn import functional as F

from dacesr import conditioning, weightfiles
from dacesr.checkpoint import CheckpointError, convert, load_extractor, load_restorer, save_restorer
from dacesr.conditioning import (
    Guided,
    View,
    condition_of,
    extractor_fields,
    find_extractor,
    given_together,
    load_guided,
    look,
    region_of,
    tags_in,
)
from dacesr.config import RestorerConfig
from dacesr.nets.baselines import SRVGGConfig, SRVGGNetCompact
from dacesr.nets.restorer import Restorer
from dacesr.nets.swin import Swin
from dacesr.tiling import TilePlan


@pytest.fixture
def eye(tmp_path):
    path = tmp_path / "eye.safetensors"  # that of `file`, if it is there: the same again would have other bytes
    return path if path.exists() else write_tagger(path)


@pytest.fixture
def extractor(eye):
    return load_extractor(eye)


@pytest.fixture
def file(tmp_path):
    return write_conditioned(tmp_path)


def picture(height=20, width=30, batch=1, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def find(path, extractor=None):
    return find_extractor(path, path, load_restorer(path), extractor)


# --- names


def test_an_extractor_is_named_by_its_file_or_its_bundled_name(eye):
    digest = hashlib.sha256(eye.read_bytes()).hexdigest()
    assert extractor_fields(eye) == {"extractor": "eye.safetensors", "extractor_sha256": digest}
    assert extractor_fields("lite") == extractor_fields("lite-ree")
    assert extractor_fields("lite")["extractor"] == "lite-ree"


def test_the_extractor_beside_a_file_is_found(file, extractor):
    found, name = find(file)
    assert name == str(file.with_name("eye.safetensors"))
    torch.testing.assert_close(found.state_dict(), extractor.state_dict())


def test_a_copy_of_it_elsewhere_can_be_given(file, tmp_path):
    moved = tmp_path / "sub" / "other.safetensors"
    moved.parent.mkdir()
    file.with_name("eye.safetensors").rename(moved)
    with pytest.raises(CheckpointError, match=r"net\.safetensors needs its extractor eye\.safetensors beside it"):
        find(file)
    assert find(file, moved)[1] == str(moved)


def test_another_extractor_is_refused(file, tmp_path):
    other = write_tagger(tmp_path / "other.safetensors", seed=1)
    words = r"other\.safetensors is not the extractor that .*net\.safetensors was trained with, eye\.safetensors"
    with pytest.raises(CheckpointError, match=words):
        find(file, other)
    write_tagger(tmp_path / "eye.safetensors", seed=1)
    with pytest.raises(CheckpointError, match=r"eye\.safetensors is not the extractor .* sha256 differs"):
        find(file)


@pytest.mark.parametrize("name", ["../eye.safetensors", "/etc/passwd", "..", "", "a/b/c"])
def test_an_extractor_outside_the_folder_is_refused(tmp_path, eye, name):
    path = tmp_path / "net.safetensors"
    save_restorer(path, conditioned(), info={**extractor_fields(eye), "extractor": name})
    with pytest.raises(CheckpointError, match="must be a file in the same folder"):
        find(path)


def test_a_folder_is_no_extractor(file, tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read as an extractor"):
        find(file, tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read as an extractor"):
        extractor_fields(tmp_path)


def test_a_bundled_extractor_needs_no_file(tmp_path):
    path = tmp_path / "net.safetensors"
    save_restorer(path, conditioned(condition_dim=512), info=extractor_fields("lite"))
    found, name = find(path)
    assert name == "lite-ree"
    assert found.condition_dim() == 512
    save_restorer(path, conditioned(), info=extractor_fields("lite"))
    with pytest.raises(CheckpointError, match=r"takes conditions of 16 channels, and those of lite-ree have 512"):
        find(path)


def test_a_file_that_names_none_needs_one_from_the_user(tmp_path, eye):
    path = tmp_path / "net.safetensors"
    save_restorer(path, conditioned())
    with pytest.raises(CheckpointError, match="doesn't say by which extractor: name it"):
        find(path)
    assert find(path, eye)[1] == str(eye)


def test_released_weights_go_without_or_with_what_is_given(tmp_path, eye):
    path = tmp_path / "release.pth"
    torch.save(Restorer(RestorerConfig(embed_dim=8, depths=(1,))).state_dict(), path)
    assert load_restorer(path).config.modulation == "release"
    assert find(path) == (None, None)
    assert find(path, "lite")[1] == "lite"
    with pytest.raises(CheckpointError, match=r"takes conditions of 512 channels, and those of .*eye.* have 16"):
        find(path, eye)


@pytest.mark.parametrize("net", [conditioned(modulation="none"), SRVGGNetCompact(SRVGGConfig(num_feat=4, num_conv=1))])
def test_a_network_without_a_condition_has_no_extractor(tmp_path, eye, net):
    path = tmp_path / "net.safetensors"
    save_restorer(path, net)
    assert find(path) == (None, None)
    with pytest.raises(CheckpointError, match="takes no condition"):
        find(path, eye)


def test_the_extractor_on_the_hub_is_downloaded(file, monkeypatch, tmp_path):
    import huggingface_hub

    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    file.rename(snapshot / "model.safetensors")

    def download(repository, name):
        assert (repository, name) == ("someone/model", "eye.safetensors")
        return str(tmp_path / name)

    monkeypatch.setattr(weightfiles, "_from_hub", lambda hub_id: snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_guided("someone/model").extractor is not None


def test_a_converted_copy_keeps_its_extractor(file, tmp_path):
    convert(file, tmp_path / "half.safetensors", dtype=torch.float16)
    assert find(tmp_path / "half.safetensors")[1] == str(tmp_path / "eye.safetensors")


# --- what is shown


@pytest.mark.parametrize(("size", "seen"), [((1, 1), (8, 8)), ((3, 40), (8, 40)), ((1023, 600), (1023, 600))])
def test_small_pictures_are_shown_as_they_are_from_8_pixels_on(size, seen):
    x = picture(*size)
    shown = look(region_of(x), *size)
    assert shown.shape[2:] == seen
    torch.testing.assert_close(F.interpolate(shown, size, mode="nearest-exact"), x)


@pytest.mark.parametrize("strip", [1, 100_000, 1 << 22])
def test_large_pictures_are_shown_as_means_of_blocks(monkeypatch, strip):
    monkeypatch.setattr(conditioning, "STRIP", strip)
    x = picture(1100, 1540, batch=2)
    shown = look(region_of(x), 1100, 1540)
    torch.testing.assert_close(shown, F.avg_pool2d(x, (2, 3), ceil_mode=True))
    assert shown.shape[2:] == (550, 514)


def test_what_is_shown_is_bounded_whatever_the_proportions():
    asked = []

    def region(left, top, width, height):
        asked.append(width * height)
        return torch.zeros(1, 3, height, width)

    assert look(region, 600, 100_000).shape[2:] == (600, 513)
    assert max(asked) <= conditioning.STRIP
    assert sum(asked) == 600 * 100_000


def test_tags_come_from_the_condition(extractor, monkeypatch):
    x, runs, forward = picture(batch=3), [], Swin.forward
    extractor.tagger.name_tags(TAGS, extractor.recognise(x).logits.sigmoid().mean(0))
    expected = extractor.tags(x)
    assert len(set(expected)) > 1
    monkeypatch.setattr(Swin, "forward", lambda self, image: runs.append(len(image)) or forward(self, image))
    for kind in ("re", "le"):
        assert tags_in(extractor, condition_of(extractor, region_of(x), 20, 30, kind), kind) == expected
    assert runs == [3, 3]


# --- networks


def test_a_view_knows_its_place():
    calls = []
    plan = TilePlan(height=20, width=40, scale=1, tile=16, overlap=2)
    view = View(torch.zeros(1, 1, 1), 20, 40)
    for tile in plan.tiles():
        x = torch.zeros(1, 3, tile.rows.size, tile.columns.size)
        view.tile(tile).through(lambda *given: calls.append(given[2]), x)
    assert [call[:2] for call in calls] == [(t.rows.start / 20, t.columns.start / 40) for t in plan.tiles()]
    assert [call[2:] for call in calls] == [(t.rows.end / 20, t.columns.end / 40) for t in plan.tiles()]
    *_, last = plan.tiles()
    inner = view.tile(last).tile(last)
    assert (inner.top, inner.left) == (2 * last.rows.start, 2 * last.columns.start)


def test_parts_given_together_have_their_pictures_condition_and_their_own_place():
    plan = TilePlan(height=20, width=40, scale=1, tile=16, overlap=2)
    condition = torch.arange(2.0).view(2, 1, 1)
    views = [View(condition, 20, 40).tile(tile) for tile in plan.tiles()]
    x = torch.zeros(2 * len(views), 3, plan.rows[0].size, plan.columns[0].size)
    pixels, conditions, windows = given_together(x, views)
    assert pixels is x
    assert conditions.flatten().tolist() == [0, 1] * len(views)
    calls = []
    for view in views:
        view.through(lambda *given: calls.append(given[2]), x)
    torch.testing.assert_close(windows, torch.tensor(calls).repeat_interleave(2, dim=0))
    assert given_together(x, [view._replace(condition=None) for view in views]) == (x,)


@pytest.mark.parametrize("changes", [{}, {"modulation": "global"}, {"modulation": "release"}])
def test_guided_is_the_network_with_the_condition_of_each_picture(extractor, changes):
    net, x = conditioned(**changes), picture(batch=2)
    guided = Guided(net, extractor)
    with torch.no_grad():
        y = guided(x)
        torch.testing.assert_close(y, net(x, extractor.embed(x)))
        torch.testing.assert_close(y[1:], guided(x[1:]))
        assert not torch.allclose(y, net(x, extractor.embed(x.flip(0))), atol=1e-3)
    assert guided.config == net.config


def test_guided_by_logits(extractor):
    net, x = conditioned(modulation="global", condition="le", condition_dim=8), picture()
    with torch.no_grad():
        logits = extractor.recognise(x).logits
        torch.testing.assert_close(Guided(net, extractor)(x), net(x, logits[:, None]))


def test_guided_needs_what_fits(extractor):
    with pytest.raises(ValueError, match="needs its extractor"):
        Guided(conditioned())
    with pytest.raises(ValueError, match="takes no condition"):
        Guided(conditioned(modulation="none"), extractor)
    with pytest.raises(ValueError, match="conditions of 9 channels, and those of its extractor have 16"):
        Guided(conditioned(condition_dim=9), extractor)
    net, x = conditioned(modulation="release"), picture()
    with torch.no_grad():
        torch.testing.assert_close(Guided(net)(x), net(x))


def test_a_network_is_loaded_with_its_extractor(file, extractor):
    x = picture()
    with torch.no_grad():
        torch.testing.assert_close(load_guided(file)(x), Guided(conditioned(), extractor)(x))
