"""UNet2DConditionModel on latents: Stable Diffusion 1 and 2, and those that fill in pictures."""

from __future__ import annotations

from typing import Any

from couette.conditioners import Conditioning
from couette.config import ModelConfig, SamplingConfig, spec
from couette.errors import CheckpointError
from couette.interop import encoders
from couette.interop.families.common import (
    Family,
    Parts,
    autoencoder_of,
    channels_of,
    codec_of,
    described,
    fields_for,
    is_learned,
    latent_shape,
    must_read,
    network_of,
    placed,
    read_width,
    refuse_untold,
)
from couette.interop.folders import Folder
from couette.interop.networks import CrossAttending
from couette.interop.pictures import FilledIn
from couette.interop.schedulers import scheduled
from couette.runtime import Runtime

_INPAINTING = ("mask", "masked")


def _stable(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "unet", "UNet2DConditionModel")
    latent = autoencoder_of(folder)["latent_channels"]
    channels = channels_of(fields)
    if channels not in (latent, 2 * latent + 1):
        raise CheckpointError(
            f"The network of {folder.given} takes {channels} channels, of which {latent} are "
            f"latents; it can have {latent}, or {2 * latent + 1} to fill in pictures."
        )
    refuse_untold(fields, folder, encoder_hid_dim_type="text_proj")
    must_read(encoders.width_of(encoders.described(folder)), read_width(fields), folder)
    found = scheduled(folder.scheduler(), folder.given)
    # A schedule that ends at pure noise is to be begun there.
    way: dict[str, Any] = {"sampler": spec("dpmpp-2m"), "grid": spec("karras"), "steps": 25}
    if found.terminal:
        way = {"sampler": spec("ddim"), "grid": spec("strided"), "steps": 50}
    return described(
        folder,
        "unet",
        latent_shape(folder, fields),
        found,
        SamplingConfig(guidance=7.5, **way),
        codec="latent",
        learned=is_learned(latent, fields.get("out_channels", 4), folder.given),
    )


def _stable_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("unet")
    codec = codec_of(folder, runtime)
    fills = channels_of(fields) != codec.latent
    wants = ("text", *_INPAINTING) if fills else ("text",)
    words = encoders.Encoded(encoders.clip(folder, runtime), read_width(fields))
    shape = (config.channels, config.height, config.width)
    pictures = FilledIn(shape, codec) if fills else None
    network = CrossAttending(network_of(folder, "unet", runtime), wants)
    return Parts(placed(network, runtime), codec, Conditioning((), words, pictures))


STABLE = Family(_stable, _stable_parts)
