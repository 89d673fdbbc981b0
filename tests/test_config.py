import pytest
from pydantic import ValidationError

from dacesr.config import PRESETS, RestorerConfig, explain
from dacesr.nets import restorer


def test_the_presets_are_the_published_sizes():
    light, base, large = (RestorerConfig.preset(name) for name in ("light", "base", "large"))
    assert (light.embed_dim, light.depths, light.head) == (60, (2, 2, 2, 2), "pixelshuffledirect")
    assert (base.embed_dim, base.depths, base.head) == (180, (2, 2, 2, 2), "pixelshuffle")
    assert (large.embed_dim, large.depths, large.head) == (192, (2,) * 8, "pixelshuffle")
    assert RestorerConfig() == base


@pytest.mark.parametrize("name", PRESETS)
def test_presets_follow_the_release_and_carry_no_modulation(name):
    config = RestorerConfig.preset(name)
    assert (config.scale, config.group_end, config.state_dim, config.expand, config.conv_taps) == (4, "1conv", 16, 2, 4)
    assert (config.scan_order, config.image_skip, config.block_residual) == ("raster", "none", False)
    assert config.modulation == "none"


def test_delta_rank_is_a_sixteenth_rounded_up_unless_given():
    assert [RestorerConfig(embed_dim=dim).delta_rank for dim in (1, 16, 17, 60, 180, 192)] == [1, 1, 2, 4, 12, 12]
    assert RestorerConfig(dt_rank=7).delta_rank == 7


def test_json_and_back_is_the_same_config():
    config = RestorerConfig.preset("light", depths=[1, 3], scan_order="alternate", rgb_mean=(0.5, 0.5, 0.5), dt_rank=3)
    assert RestorerConfig.model_validate_json(config.model_dump_json()) == config


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        RestorerConfig().scale = 2  # pyright: ignore


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", 5),
        ("scale", 0),
        ("depths", ()),
        ("depths", (2, 0)),
        ("depths", (2, "2")),
        ("embed_dim", -1),
        ("embed_dim", True),
        ("embed_dim", 60.0),
        ("embed_dim", 10**12),
        ("state_dim", 65),
        ("head", "bicubic"),
        ("group_end", "2conv"),
        ("scan_order", "hilbert"),
        ("image_skip", "nearest"),
        ("modulation", "cfm"),
        ("dt_rank", "full"),
        ("rgb_mean", (0.5, 0.5)),
        ("embed_dims", 60),
    ],
)
def test_an_impossible_value_is_an_error_that_names_field_and_value(field, value):
    with pytest.raises(ValidationError) as caught:
        RestorerConfig.preset("base", **{field: value})
    assert field in explain(caught.value)
    assert "\n" not in explain(caught.value)


def test_the_bottleneck_needs_four_channels():
    with pytest.raises(ValueError, match=r"embed_dim is 3"):
        RestorerConfig(embed_dim=3, group_end="3conv")


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="light, base, large"):
        RestorerConfig.preset("huge")  # pyright: ignore


def test_the_network_re_exports_its_config():
    assert restorer.RestorerConfig is RestorerConfig
