"""A transformer of latents told a class: DiT."""

from __future__ import annotations

from couette.conditioners import Conditioning
from couette.config import ModelConfig, SamplingConfig, spec
from couette.errors import CheckpointError
from couette.interop.families.common import (
    Family,
    Parts,
    autoencoder_of,
    codec_of,
    described,
    fields_for,
    is_learned,
    latent_shape,
    must_fit,
    names_of,
    network_of,
    placed,
)
from couette.interop.folders import Folder
from couette.interop.networks import Transformer
from couette.interop.schedulers import scheduled
from couette.runtime import Runtime


def _dit(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "transformer", "DiTTransformer2DModel", "Transformer2DModel")
    if fields.get("norm_type", "ada_norm_zero") != "ada_norm_zero":
        raise CheckpointError(
            f"The transformer of {folder.given} has norm_type {fields['norm_type']!r}; a DiT has "
            "ada_norm_zero."
        )
    latent = autoencoder_of(folder)["latent_channels"]
    channels = fields.get("in_channels", 4)
    must_fit("takes", channels, latent, folder)
    rows = int(fields.get("num_embeds_ada_norm") or 1000)
    names = names_of(folder, rows)
    if len(names) != rows:
        raise CheckpointError(
            f"{folder.given} names {len(names)} classes, and its transformer knows {rows}; name "
            "them all, or none."
        )
    found = scheduled(folder.scheduler(), folder.given)
    sampling = SamplingConfig(sampler=spec("ddim"), grid=spec("strided"), steps=50, guidance=4.0)
    return described(
        folder,
        "transformer",
        latent_shape(folder, fields),
        found,
        sampling,
        classes=names,
        codec="latent",
        learned=is_learned(latent, fields.get("out_channels") or channels, folder.given),
    )


def _dit_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    network = Transformer(network_of(folder, "transformer", runtime), ("label",))
    return Parts(placed(network, runtime), codec_of(folder, runtime), Conditioning(config.classes))


DIT = Family(_dit, _dit_parts)
