"""UNet2DConditionModel on pixels: DeepFloyd IF, whose second stage enlarges what the first drew."""

from __future__ import annotations

from couette.codecs import Symmetric
from couette.conditioners import Conditioning
from couette.config import ModelConfig, SamplingConfig, spec
from couette.interop import encoders
from couette.interop.families.common import (
    Family,
    Parts,
    channels_of,
    described,
    fields_for,
    is_learned,
    must_read,
    network_of,
    placed,
    read_width,
    refuse_untold,
    size_of,
)
from couette.interop.folders import Folder
from couette.interop.networks import CrossAttending
from couette.interop.pictures import Enlarged
from couette.interop.schedulers import scheduled
from couette.registry import SCHEDULES
from couette.runtime import Runtime


def _deepfloyd(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "unet", "UNet2DConditionModel")
    enlarges = _enlarges(folder)
    given = channels_of(fields)
    channels = given // 2 if enlarges else given
    known = {"encoder_hid_dim_type": "text_proj", "addition_embed_type": "text"}
    if enlarges:
        known["class_embed_type"] = "timestep"
    refuse_untold(fields, folder, **known)
    must_read(encoders.width_of(encoders.described(folder)), read_width(fields), folder)
    learned = is_learned(channels, fields.get("out_channels", 4), folder.given)
    found = scheduled(folder.scheduler(), folder.given)
    fixed = "posterior" if found.variance == "learned" and not learned else found.variance
    sampling = SamplingConfig(
        sampler=spec("ddpm", variance=fixed),
        grid=found.grid,
        steps=50 if enlarges else 100,
        guidance=4.0 if enlarges else 7.0,
        threshold=found.threshold,
    )
    return described(
        folder,
        "unet",
        (channels, *size_of(fields, folder.given)),
        found,
        sampling,
        learned=learned,
    )


def _enlarges(folder: Folder) -> bool:
    """Whether it is a second stage."""
    return folder.kind.endswith("SuperResolutionPipeline")


def _deepfloyd_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("unet")
    pictures = None
    wants: tuple[str, ...] = ("text",)
    if _enlarges(folder):
        wants = ("text", "image", "image_noise")
        noising = folder.scheduler("image_noising_scheduler")
        table = SCHEDULES.build(scheduled(noising, folder.given).schedule)
        pictures = Enlarged((config.channels, config.height, config.width), table)
    words = encoders.Encoded(encoders.t5(folder, runtime), read_width(fields))
    network = CrossAttending(network_of(folder, "unet", runtime), wants)
    return Parts(placed(network, runtime), Symmetric(), Conditioning((), words, pictures))


DEEPFLOYD = Family(_deepfloyd, _deepfloyd_parts)
