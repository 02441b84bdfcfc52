"""UNet2D against diffusers itself: the same weights give the same output."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from couette.config import spec
from couette.contracts import Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks import (
    UNet2D,
    count_parameters,
    from_diffusers_config,
    sizes_from_diffusers_config,
    to_diffusers_config,
)
from couette.registry import NETWORKS

SEED_000: dict[str, Any] = {
    "block_out_channels": (16, 32, 64, 64),
    "attention": (False, True, True, True),
    "norm_num_groups": 8,
}
DDPM: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "attention": (False, True),
    "norm_num_groups": 16,
    "layers_per_block": 1,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
UNEVEN: dict[str, Any] = {
    "block_out_channels": (12, 20, 28),
    "attention": (True, False, True),
    "norm_num_groups": 4,
    "layers_per_block": 3,
    "attention_head_dim": 8,
    "mid_attention": False,
}
CASES = {
    "course": (Sizes(1, 28, 28), {}),
    "course with classes": (Sizes(1, 28, 28, 10), {}),
    "seed 000": (Sizes(1, 32, 32), SEED_000),
    "ddpm": (Sizes(3, 8, 12), DDPM),
    "uneven": (Sizes(2, 12, 8, 3), UNEVEN),
}


def pair(name: str) -> tuple[UNet2D, Any]:
    """Our network and diffusers', built apart from one list of settings."""
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is the oracle here; it comes with the dev extra"
    )
    sizes, given = CASES[name]
    settings = NETWORKS.check(spec("unet2d", **given))
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**to_diffusers_config(sizes, settings))
    return UNet2D(sizes, **settings).eval(), theirs.eval()


@pytest.mark.parametrize(("case", "count"), [("course", 1_707_009), ("seed 000", 1_695_457)])
def test_parameters(case: str, count: int) -> None:
    sizes, settings = CASES[case]
    assert count_parameters(UNet2D(sizes, **settings)) == count


@pytest.mark.parametrize("case", list(CASES))
def test_state_dicts_have_the_same_names_and_shapes(case: str) -> None:
    ours, theirs = pair(case)
    shapes = {key: value.shape for key, value in ours.state_dict().items()}
    assert shapes == {key: value.shape for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("direction", ["from diffusers", "to diffusers"])
@pytest.mark.parametrize("case", list(CASES))
def test_same_weights_same_output(case: str, direction: str) -> None:
    ours, theirs = pair(case)
    if direction == "from diffusers":
        ours.load_state_dict(theirs.state_dict())
    else:
        theirs.load_state_dict(ours.state_dict())
    sizes = CASES[case][0]
    x = torch.randn(3, *sizes[:3])
    told = torch.tensor([0.0, 17.0, 999.0])
    label = torch.tensor([0, 1, sizes.classes]) if sizes.classes else None
    with torch.no_grad():
        mine = ours(x, told, {} if label is None else {"label": label})
        expected = theirs(x, told, class_labels=label).sample
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.01  # an output of zeros would prove nothing


def test_a_group_per_channel_normalizes_the_time_away() -> None:
    """What the docstring says of the course's finest level, and not of the next."""
    torch.manual_seed(0)
    network = UNet2D(Sizes(1, 16, 16)).eval()
    x, told = torch.randn(1, 1, 16, 16), torch.tensor([500.0])
    changes = []
    with torch.no_grad():
        before = network(x, told, {})
        for level in (0, 1):
            network.down_blocks[level].resnets[0].time_emb_proj.bias.normal_()
            after = network(x, told, {})
            changes.append((after - before).abs().max().item())
            before = after
    assert changes[0] < 1e-5
    assert changes[1] > 1e-2


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    network = UNet2D(Sizes(1, 8, 8), dropout=0.5)
    x, told = torch.randn(1, 1, 8, 8), torch.zeros(1)
    assert not torch.equal(network(x, told, {}), network(x, told, {}))
    network.eval()
    assert torch.equal(network(x, told, {}), network(x, told, {}))


@pytest.mark.parametrize(("height", "width"), [(28, 30), (26, 28), (29, 29)])
def test_sides_that_can_not_be_halved_twice_are_refused(height: int, width: int) -> None:
    with pytest.raises(ShapeError, match="multiples of 4"):
        UNet2D(Sizes(1, height, width))


def test_28_pixels_are_refused_at_four_levels_and_32_offered() -> None:
    with pytest.raises(ShapeError, match=r"multiples of 8\. 32×32 would do"):
        UNet2D(Sizes(1, 28, 28), **SEED_000)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"attention": (True,)}, "one entry per level"),
        ({"block_out_channels": (), "attention": ()}, "at least one"),
        ({"norm_num_groups": 24}, "such as 32"),
        ({"norm_num_groups": 0}, "norm_num_groups=0"),
        ({"attention_head_dim": 65}, "give 1 to 64"),
        ({"attention_head_dim": 0}, "give 1 to 64"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        UNet2D(Sizes(1, 28, 28), **settings)


@pytest.mark.parametrize("case", list(CASES))
def test_a_config_goes_to_diffusers_and_back(case: str) -> None:
    sizes, given = CASES[case]
    settings = NETWORKS.check(spec("unet2d", **given))
    config = to_diffusers_config(sizes, settings)
    assert from_diffusers_config(config) == settings
    assert sizes_from_diffusers_config(config) == sizes


def test_settings_left_out_have_the_defaults_of_diffusers() -> None:
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is the oracle here; it comes with the dev extra"
    )
    written = {"in_channels": 1, "out_channels": 1, "sample_size": 32}
    written |= {"block_out_channels": [16, 32, 64, 64], "norm_num_groups": 8}
    full = dict(diffusers.UNet2DModel(**written).config)
    assert from_diffusers_config(written) == from_diffusers_config(full)
    settings = from_diffusers_config(full)
    assert count_parameters(UNet2D(sizes_from_diffusers_config(full), **settings)) == 1_695_457


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"act_fn": "gelu"}, "act_fn='gelu'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "it has 'default'"),
        ({"invented": 1}, "no counterpart of the diffusers setting 'invented'"),
        ({"down_block_types": ["SkipDownBlock2D"]}, "no 'SkipDownBlock2D'"),
        (
            {
                "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
            },
            "do not mirror",
        ),
    ],
)
def test_a_config_without_a_counterpart_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_diffusers_config(config)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"in_channels": 3}, "no sample_size"),
        ({"sample_size": 32, "in_channels": 3, "out_channels": 6}, "3 channels in and 6 out"),
    ],
)
def test_a_config_without_sizes_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        sizes_from_diffusers_config(config)
