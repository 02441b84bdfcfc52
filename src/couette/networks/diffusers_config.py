"""The settings of `UNet2D` as diffusers' UNet2DModel config, and back: only data, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from couette.contracts import Sizes
from couette.errors import ConfigError

_SAME = {
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "attention_head_dim": 8,
    "dropout": 0.0,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
}
"""Settings of one name in both, with diffusers' default: a config may leave them out."""

_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "attn_norm_num_groups": (None,),
    "resnet_time_scale_shift": ("default",),
    "class_embed_type": (None,),
    "num_train_timesteps": (None,),
}
"""Settings of diffusers' that `UNet2D` has at one value only, by the names of that value."""

_READ = {
    "sample_size",
    "in_channels",
    "out_channels",
    "num_class_embeds",
    "down_block_types",
    "up_block_types",
    "add_attention",
}

_ATTENDS = {
    "DownBlock2D": False,
    "AttnDownBlock2D": True,
    "UpBlock2D": False,
    "AttnUpBlock2D": True,
}


def from_diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `UNet2D` for a UNet2DModel's config (its `config.json`, as a dict).

    Keys that begin with "_" (diffusers' own marks) are passed over; settings left out have
    diffusers' defaults. `sizes_from_diffusers_config` reads the rest.

    Raises:
        ConfigError: a setting that `UNet2D` has no counterpart for.
    """
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    for key, value in given.items():
        if key in _ONLY and value not in _ONLY[key]:
            raise ConfigError(
                f"UNet2D can't be built with diffusers' {key}={value!r}; it has {_ONLY[key][0]!r}."
            )
        if key not in _ONLY and key not in _SAME and key not in _READ:
            raise ConfigError(f"UNet2D knows no counterpart of the diffusers setting '{key}'.")
    settings = {key: given.get(key, default) for key, default in _SAME.items()}
    settings["block_out_channels"] = tuple(settings["block_out_channels"])
    settings["attention"] = _attention(given)
    settings["mid_attention"] = given.get("add_attention", True)
    return settings


def sizes_from_diffusers_config(config: Mapping[str, Any]) -> Sizes:
    """The pictures and classes that a UNet2DModel's config was made for.

    `num_class_embeds` counts the row for "none", the last, beside the classes.

    Raises:
        ConfigError: no sample size, or as many channels out as in are not given.
    """
    size = config.get("sample_size")
    if size is None:
        raise ConfigError("The diffusers config names no sample_size; add height and width.")
    height, width = (size, size) if isinstance(size, int) else size
    channels, out = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels != out:
        raise ConfigError(
            f"The diffusers config has {channels} channels in and {out} out; UNet2D has as many "
            "out as in."
        )
    return Sizes(channels, height, width, max(0, (config.get("num_class_embeds") or 0) - 1))


def to_diffusers_config(sizes: Sizes, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of diffusers' UNet2DModel for the same network, all of them.

    Args:
        sizes: what the network was built for.
        settings: all of `UNet2D`'s settings, as `NETWORKS.check` returns them.
    """
    attention = settings["attention"]
    return {
        **{key: values[0] for key, values in _ONLY.items()},
        **{key: settings[key] for key in _SAME},
        "sample_size": (sizes.height, sizes.width),
        "in_channels": sizes.channels,
        "out_channels": sizes.outputs,
        "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        "add_attention": settings["mid_attention"],
        "num_class_embeds": sizes.classes + 1 if sizes.classes else None,
    }


def _attention(config: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which levels attend, from the names of the blocks; the way up must mirror the way down."""
    down = config.get("down_block_types", ("DownBlock2D",) + ("AttnDownBlock2D",) * 3)
    up = config.get("up_block_types", ("AttnUpBlock2D",) * 3 + ("UpBlock2D",))
    foreign = [name for name in (*down, *up) if name not in _ATTENDS]
    if foreign:
        raise ConfigError(
            f"UNet2D has no '{foreign[0]}'; it is built of {', '.join(sorted(_ATTENDS))}."
        )
    attention = tuple(_ATTENDS[name] for name in down)
    if attention != tuple(_ATTENDS[name] for name in reversed(up)):
        raise ConfigError(
            f"The diffusers blocks {tuple(up)} do not mirror {tuple(down)}; UNet2D has attention "
            "on a level both ways or not at all."
        )
    return attention
