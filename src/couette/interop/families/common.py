"""What all kinds of pipeline have in common: their shapes, their parts, their classes.

Shapes: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from couette.conditioners import Conditioning
from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, spec
from couette.contracts import Codec
from couette.errors import CheckpointError
from couette.interop import libraries
from couette.interop.codecs import Autoencoder, factor_of
from couette.interop.folders import Folder
from couette.interop.networks import Foreign
from couette.interop.schedulers import Scheduled
from couette.runtime import Runtime

RECIPE = "diffusers"
"""What stands in a model's config for how it was trained."""


class Parts(NamedTuple):
    """What a model is made of."""

    network: nn.Module
    codec: Codec
    conditioner: Conditioning


class Family(NamedTuple):
    """A kind of pipeline.

    describe: what a model is, from its configs.
    parts: its parts, loaded where the runtime says; given what it is.
    """

    describe: Callable[[Folder], ModelConfig]
    parts: Callable[[Folder, ModelConfig, Runtime], Parts]


def described(
    folder: Folder,
    part: str,
    shape: tuple[int, int, int],
    found: Scheduled,
    sampling: SamplingConfig,
    *,
    classes: tuple[str, ...] = (),
    codec: str = "symmetric",
    learned: bool = False,
    drop: float = 0.1,
) -> ModelConfig:
    """What a model is.

    Args:
        folder: the pipeline's.
        part: its network.
        shape: (C, H, W) of the pictures.
        found: what its scheduler says.
        sampling: how it draws unless asked otherwise.
        classes: by name.
        codec: symmetric, or latent.
        learned: whether the network predicts a variance.
        drop: above 0 where it has learned to do without what it is told.
    """
    channels, height, width = shape
    times = "logit-normal" if found.schedule.name == "flow" else "uniform"
    diffusion = DiffusionConfig(
        schedule=found.schedule,
        parameterization=found.parameterization,
        told=found.told,
        times=spec(times),
        variance="learned" if learned else "fixed",
        drop=drop,
    )
    return ModelConfig(
        recipe=RECIPE,
        channels=channels,
        height=height,
        width=width,
        classes=classes,
        codec=spec(codec),
        diffusion=diffusion,
        network=spec(RECIPE, kind=str(folder.config(part).get("_class_name"))),
        sampling=sampling,
    )


def fields_for(folder: Folder, part: str, *kinds: str) -> dict[str, Any]:
    """The config of a part that must be of one of these classes.

    Raises:
        CheckpointError: it is of another.
    """
    fields = folder.config(part)
    if fields.get("_class_name") not in kinds:
        raise CheckpointError(
            f"The {part} of {folder.given} is a '{fields.get('_class_name')}', and a {folder.kind} "
            f"is loaded here with {' or '.join(kinds)}; use another model."
        )
    return fields


def size_of(fields: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Height and width that a network was made for, in what it works on.

    Raises:
        CheckpointError: its config does not say.
    """
    size = fields.get("sample_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return size[0], size[1]
    raise CheckpointError(f"{where} says no sample_size; add it to the config.json of its network.")


def is_learned(channels: int, out: Any, where: str) -> bool:
    """Whether the output has a second half, for the variance.

    Raises:
        CheckpointError: neither as many channels come out as go in, nor twice as many.
    """
    if out in (channels, 2 * channels):
        return bool(out == 2 * channels)
    raise CheckpointError(
        f"The network of {where} makes {out} channels of {channels}; it must be as many, or twice "
        "as many where it predicts a variance."
    )


def network_of(folder: Folder, part: str, runtime: Runtime) -> nn.Module:
    """A part that is a network of diffusers, loaded."""
    kind = folder.config(part)["_class_name"]
    return libraries.network(kind, folder.part(part), libraries.dtype_of(runtime))


def placed(network: Foreign, runtime: Runtime) -> nn.Module:
    """A network where it runs."""
    return runtime.place(network).eval()


def autoencoder_of(folder: Folder) -> dict[str, Any]:
    """The config of the autoencoder.

    Raises:
        CheckpointError: it is of another class, makes pictures of other channels than it takes, or
            scales its latents by channel.
    """
    fields = fields_for(folder, "vae", "AutoencoderKL")
    if fields.get("in_channels", 3) != fields.get("out_channels", 3):
        raise CheckpointError(
            f"The autoencoder of {folder.given} takes pictures of {fields.get('in_channels', 3)} "
            f"channels and makes them of {fields.get('out_channels', 3)}; use another model."
        )
    if fields.get("latents_mean") or fields.get("latents_std"):
        raise CheckpointError(
            f"The autoencoder of {folder.given} scales its latents channel by channel, which is "
            "not done here; use another model."
        )
    defaults = {"in_channels": 3, "latent_channels": 4, "scaling_factor": 0.18215}
    try:
        fields = {**defaults, **fields}
        factor_of(fields)
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{folder.part('vae') / 'config.json'} has no block_out_channels; it is damaged."
        ) from None
    return fields


def latent_shape(folder: Folder, fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the pictures that a network of latents was made for."""
    vae = autoencoder_of(folder)
    height, width = size_of(fields, folder.given)
    factor = factor_of(vae)
    return vae["in_channels"], height * factor, width * factor


def codec_of(folder: Folder, runtime: Runtime) -> Autoencoder:
    """The autoencoder, loaded; in float32 where its config asks for that."""
    fields = autoencoder_of(folder)
    dtype = torch.float32 if fields.get("force_upcast", True) else libraries.dtype_of(runtime)
    network = libraries.network("AutoencoderKL", folder.part("vae"), dtype)
    return Autoencoder(runtime.place(network), fields, runtime)


def names_of(folder: Folder, rows: int) -> tuple[str, ...]:
    """The classes by name: the first of several that a class has, where no other has it.

    Args:
        rows: how many there are where none has a name.

    Raises:
        CheckpointError: names that are not numbered.
    """
    named = folder.index.get("id2label")
    if not isinstance(named, Mapping) or not named:
        return tuple(map(str, range(rows)))
    try:
        whole = [str(named[key]) for key in sorted(named, key=int)]
    except ValueError:
        raise CheckpointError(
            f"The id2label of {folder.given} has keys that are no numbers; it is damaged."
        ) from None
    first = [each.split(",")[0].strip() for each in whole]
    return tuple(
        one if first.count(one) == 1 else every for one, every in zip(first, whole, strict=True)
    )


def must_read(found: int, wanted: Any, folder: Folder) -> None:
    """Refuse an encoder whose features are not as wide as the network reads them.

    Raises:
        CheckpointError: with both widths.
    """
    if found != wanted:
        raise CheckpointError(
            f"The encoder of words of {folder.given} gives {found} features, and its network reads "
            f"{wanted}; these parts do not belong together."
        )


def must_fit(
    does: str, channels: Any, latent: int, folder: Folder, of: str = "the latents"
) -> None:
    """Refuse a network of latents that has other channels than those of its autoencoder.

    Args:
        does: what the network does with them: takes, or makes.
        channels: how many it does that with.
        latent: how many there are.
        folder: the pipeline's.
        of: what has so many.

    Raises:
        CheckpointError: with both numbers.
    """
    if channels != latent:
        raise CheckpointError(
            f"The network of {folder.given} {does} {channels} channels, and {of} of its "
            f"autoencoder have {latent}; these parts do not belong together."
        )


_TOLD = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Settings by which networks are told something beside the time: classes, sizes, pictures, …"""


def refuse_untold(fields: Mapping[str, Any], folder: Folder, **known: Any) -> None:
    """Refuse a network that must be told more than its kind of pipeline tells it here.

    Args:
        fields: the network's config.
        folder: the pipeline's.
        known: of those settings the ones that it may have, and their value.

    Raises:
        CheckpointError: with the setting, and what can be loaded instead.
    """
    for key in _TOLD:
        if fields.get(key) and fields[key] != known.get(key):
            other = f"{key} {known[key]!r} or without it" if key in known else f"no {key}"
            raise CheckpointError(
                f"The network of {folder.given} has {key} {fields[key]!r}, so it must be told more "
                f"than '{folder.kind}' tells it here; use a model with {other}."
            )


def channels_of(fields: Mapping[str, Any]) -> int:
    """Channels that go into a UNet2DConditionModel."""
    return int(fields.get("in_channels", 4))


def read_width(fields: Mapping[str, Any]) -> Any:
    """How wide the features of words are that a UNet2DConditionModel reads."""
    return fields.get("encoder_hid_dim") or fields.get("cross_attention_dim", 1280)
