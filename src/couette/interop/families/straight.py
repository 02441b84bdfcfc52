"""Transformers of latents on straight paths: Stable Diffusion 3 and Flux."""

from __future__ import annotations

from couette.conditioners import Conditioning
from couette.config import ModelConfig, SamplingConfig, spec
from couette.interop import encoders
from couette.interop.families.common import (
    Family,
    Parts,
    autoencoder_of,
    codec_of,
    described,
    fields_for,
    latent_shape,
    must_fit,
    must_read,
    network_of,
    placed,
    size_of,
)
from couette.interop.folders import Folder
from couette.interop.networks import Joint, Packed
from couette.interop.schedulers import scheduled
from couette.runtime import Runtime


def _stable3(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "transformer", "SD3Transformer2DModel")
    shape = latent_shape(folder, fields)
    latent, channels = autoencoder_of(folder)["latent_channels"], fields.get("in_channels", 16)
    must_fit("takes", channels, latent, folder)
    must_fit("makes", fields.get("out_channels", 16) or channels, latent, folder)
    patch = int(fields.get("patch_size") or 2)
    rows, columns = size_of(fields, folder.given)
    width = int(fields.get("joint_attention_dim", 4096))
    clips = [encoders.described(folder, number) for number in ("", "_2")]
    # Those of CLIP are filled up with zeros.
    must_read(max(width, sum(map(encoders.width_of, clips))), width, folder)
    pooled = sum(int(each.get("projection_dim") or 512) for each in clips)
    must_read(pooled, fields.get("pooled_projection_dim", 2048), folder)
    if folder.has("text_encoder_3"):
        must_read(encoders.width_of(encoders.described(folder, "_3")), width, folder)
    found = scheduled(folder.scheduler(), folder.given, (rows // patch) * (columns // patch))
    sampling = SamplingConfig(sampler=spec("euler"), grid=found.grid, steps=28, guidance=4.0)
    return described(folder, "transformer", shape, found, sampling, codec="latent")


def _stable3_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    width = int(folder.config("transformer").get("joint_attention_dim", 4096))
    words = encoders.Encoded(encoders.clips_and_t5(folder, runtime, width), width)
    network = Joint(network_of(folder, "transformer", runtime), ("text", "pooled"))
    return Parts(placed(network, runtime), codec_of(folder, runtime), Conditioning((), words))


_FLUX_SIDE = 128
"""Latent positions to a side that Flux draws; its config says none."""

_FLUX_GUIDANCE = 3.5
"""The guidance that Flux [dev] was distilled to take, as its pipeline has it."""


def _flux(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "transformer", "FluxTransformer2DModel")
    shape = latent_shape(folder, {"sample_size": _FLUX_SIDE})
    latent, channels = autoencoder_of(folder)["latent_channels"], fields.get("in_channels", 64)
    squares = "squares of 2×2 latents"
    must_fit("takes", channels, 4 * latent, folder, squares)
    must_fit("makes", fields.get("out_channels") or channels, 4 * latent, folder, squares)
    found = scheduled(folder.scheduler(), folder.given, (_FLUX_SIDE // 2) ** 2)
    widths = [encoders.width_of(encoders.described(folder, number)) for number in ("", "_2")]
    must_read(widths[0], fields.get("pooled_projection_dim", 768), folder)
    must_read(widths[1], fields.get("joint_attention_dim", 4096), folder)
    # One that is told no guidance was distilled to need few steps.
    steps = 28 if fields.get("guidance_embeds") else 4
    sampling = SamplingConfig(sampler=spec("euler"), grid=found.grid, steps=steps)
    return described(folder, "transformer", shape, found, sampling, codec="latent")


def _flux_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("transformer")
    told = bool(fields.get("guidance_embeds"))
    width = int(fields.get("joint_attention_dim", 4096))
    encode = encoders.clip_and_t5(folder, runtime, length=512 if told else 256)
    network = Packed(
        network_of(folder, "transformer", runtime),
        ("text", "pooled"),
        _FLUX_GUIDANCE if told else None,
    )
    return Parts(
        placed(network, runtime),
        codec_of(folder, runtime),
        Conditioning((), encoders.Encoded(encode, width)),
    )


STABLE_3, FLUX = Family(_stable3, _stable3_parts), Family(_flux, _flux_parts)
