"""From a folder to what a model is, and to its parts: one entry for each kind of pipeline.

What it is, is read from its configs alone; nothing is loaded for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from couette.codecs import Symmetric
from couette.conditioners import Conditioning
from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Ask, Codec, Sizes
from couette.errors import CheckpointError, ConfigError, InputError
from couette.interop import encoders, libraries
from couette.interop.codecs import Autoencoder, factor_of
from couette.interop.folders import Folder, tensors_of
from couette.interop.networks import CrossAttending, Foreign, Joint, Packed, Plain, Transformer
from couette.interop.pictures import Enlarged, FilledIn
from couette.interop.schedulers import Scheduled, scheduled
from couette.model import load_weights
from couette.networks.diffusers_config import from_diffusers_config, sizes_from_diffusers_config
from couette.networks.unet2d import UNet2D
from couette.registry import NETWORKS, SCHEDULES
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


# What all have in common.


def _described(
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


def _fields(folder: Folder, part: str, *kinds: str) -> dict[str, Any]:
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


def _size(fields: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Height and width that a network was made for, in what it works on."""
    size = fields.get("sample_size")
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(s, int) for s in size):
        return size[0], size[1]
    raise CheckpointError(f"{where} says no sample_size; add it to the config.json of its network.")


def _learned(channels: int, out: Any, where: str) -> bool:
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


def _network(folder: Folder, part: str, runtime: Runtime) -> nn.Module:
    kind = folder.config(part)["_class_name"]
    return libraries.network(kind, folder.part(part), libraries.dtype_of(runtime))


def _placed(network: Foreign, runtime: Runtime) -> nn.Module:
    return runtime.place(network).eval()


def _autoencoder(folder: Folder) -> dict[str, Any]:
    """The config of the autoencoder.

    Raises:
        CheckpointError: it is of another class, or scales its latents by channel.
    """
    fields = _fields(folder, "vae", "AutoencoderKL")
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


def _latent_shape(folder: Folder, fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the pictures that a network of latents was made for."""
    vae = _autoencoder(folder)
    height, width = _size(fields, folder.given)
    factor = factor_of(vae)
    return vae["in_channels"], height * factor, width * factor


def _codec(folder: Folder, runtime: Runtime) -> Autoencoder:
    fields = _autoencoder(folder)
    # Some overflow in half the bytes, and say so.
    wide = Runtime() if fields.get("force_upcast", True) else runtime
    network = libraries.network("AutoencoderKL", folder.part("vae"), libraries.dtype_of(wide))
    return Autoencoder(runtime.place(network), fields, runtime)


def _names(folder: Folder, rows: int) -> tuple[str, ...]:
    """The classes by name: the first of several that a class has, where no other has it.

    Args:
        rows: how many there are where none has a name.
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


def _reads(found: int, wanted: Any, folder: Folder) -> None:
    """Refuse an encoder whose features are not as wide as the network reads them."""
    if found != wanted:
        raise CheckpointError(
            f"The encoder of words of {folder.given} gives {found} features, and its network reads "
            f"{wanted}; these parts do not belong together."
        )


# UNet2DModel on pixels.


def _pixels(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "unet", "UNet2DModel")
    channels = int(fields.get("in_channels", 3))
    found = scheduled(folder.scheduler(), folder.given)
    names, blank = _rows(folder, fields)
    sampling = SamplingConfig(
        sampler=spec("ddim"), grid=spec("strided"), steps=50, threshold=found.threshold
    )
    return _described(
        folder,
        "unet",
        (channels, *_size(fields, folder.given)),
        found,
        sampling,
        classes=names,
        learned=_learned(channels, fields.get("out_channels", 3), folder.given),
        drop=0.1 if blank else 0.0,
    )


def _rows(folder: Folder, fields: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The classes, and whether the last row of their embedding stands for none of them: where
    id2label names all rows but that one."""
    rows = int(fields.get("num_class_embeds") or 0)
    if not rows:
        return (), False
    names = _names(folder, rows)
    if len(names) not in (rows, rows - 1):
        raise CheckpointError(
            f"{folder.given} names {len(names)} classes, and its network knows {rows}; name as "
            "many, or one fewer where the last one means none."
        )
    return names, len(names) == rows - 1


class Named(Conditioning):
    """Classes of a network that can't do without: nothing is told where none is named."""

    def __call__(self, asked: Any) -> dict[str, Any]:
        """As `Labels`.

        Raises:
            InputError: a class is named for some pictures and not for others.
        """
        asks: list[Ask] = list(asked)
        named = [ask for ask in asks if ask.label is not None]
        if 0 < len(named) < len(asks):
            raise InputError("This model needs a class for every picture; name one for each.")
        told = super().__call__(asks)
        return told if named else {}


def _pixel_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("unet")
    blank = config.diffusion.drop > 0 or not config.classes
    conditioner = Conditioning(config.classes) if blank else Named(config.classes)
    network = _own(folder, fields, runtime) if blank else None
    if network is None:
        wants = ("label",) if config.classes else ()
        network = _placed(Plain(_network(folder, "unet", runtime), wants), runtime)
    return Parts(network, Symmetric(), conditioner)


_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""What the weights of attention were called once, and are now."""


def _own(folder: Folder, fields: Mapping[str, Any], runtime: Runtime) -> nn.Module | None:
    """The network as our own class of it, which knows more tricks and needs no other library; None
    where it has settings that ours lacks."""
    try:
        settings = from_diffusers_config(fields)
        sizes: Sizes = sizes_from_diffusers_config(fields)
        network: UNet2D = NETWORKS.build(Spec(name="unet2d", **settings), sizes)
    except ConfigError:
        return None
    weights = {}
    for name, value in tensors_of(folder.part("unet")).items():
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        weights[name] = value.float()
    load_weights(network, weights, str(folder.part("unet")))
    network.requires_grad_(False)
    return runtime.recorded(runtime.place(network).eval())


# UNet2DConditionModel on latents: Stable Diffusion 1 and 2.

_INPAINTING = ("mask", "masked")


def _stable(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "unet", "UNet2DConditionModel")
    latent = _autoencoder(folder)["latent_channels"]
    extra = _channels(fields) - latent
    if extra not in (0, latent + 1):
        raise CheckpointError(
            f"The network of {folder.given} takes {_channels(fields)} channels, of which {latent} "
            f"are latents; it can have {latent}, or {2 * latent + 1} to fill in pictures."
        )
    for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
        if fields.get(key):
            raise CheckpointError(
                f"The network of {folder.given} has {key} {fields[key]!r}, so it is told more than "
                "words, which a Stable Diffusion 1 or 2 is not; use another model."
            )
    _reads(encoders.width_of(encoders.described(folder)), _read_width(fields), folder)
    found = scheduled(folder.scheduler(), folder.given)
    # A schedule that ends at pure noise is to be begun there.
    way: dict[str, Any] = {"sampler": spec("dpmpp-2m"), "grid": spec("karras"), "steps": 25}
    if found.terminal:
        way = {"sampler": spec("ddim"), "grid": spec("strided"), "steps": 50}
    return _described(
        folder,
        "unet",
        _latent_shape(folder, fields),
        found,
        SamplingConfig(guidance=7.5, **way),
        codec="latent",
        learned=_learned(latent, fields.get("out_channels", 4), folder.given),
    )


def _channels(fields: Mapping[str, Any]) -> int:
    return int(fields.get("in_channels", 4))


def _read_width(fields: Mapping[str, Any]) -> Any:
    """How wide the features of words are that a UNet2DConditionModel reads."""
    return fields.get("encoder_hid_dim") or fields.get("cross_attention_dim", 1280)


def _stable_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("unet")
    codec = _codec(folder, runtime)
    fills = _channels(fields) != codec.latent
    wants = ("text", *_INPAINTING) if fills else ("text",)
    words = encoders.Encoded(encoders.clip(folder, runtime), _read_width(fields))
    shape = (config.channels, config.height, config.width)
    pictures = FilledIn(shape, codec) if fills else None
    network = CrossAttending(_network(folder, "unet", runtime), wants)
    return Parts(_placed(network, runtime), codec, Conditioning((), words, pictures))


# UNet2DConditionModel on pixels: DeepFloyd IF, both stages.


def _deepfloyd(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "unet", "UNet2DConditionModel")
    enlarges = _enlarges(folder)
    given = _channels(fields)
    channels = given // 2 if enlarges else given
    _reads(encoders.width_of(encoders.described(folder)), _read_width(fields), folder)
    found = scheduled(folder.scheduler(), folder.given)
    sampling = SamplingConfig(
        sampler=spec("ddpm", variance=found.variance),
        grid=found.grid,
        steps=50 if enlarges else 100,
        guidance=4.0 if enlarges else 7.0,
        threshold=found.threshold,
    )
    return _described(
        folder,
        "unet",
        (channels, *_size(fields, folder.given)),
        found,
        sampling,
        learned=_learned(channels, fields.get("out_channels", 4), folder.given),
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
    words = encoders.Encoded(encoders.t5(folder, runtime), _read_width(fields))
    network = CrossAttending(_network(folder, "unet", runtime), wants)
    return Parts(_placed(network, runtime), Symmetric(), Conditioning((), words, pictures))


# DiT on latents.


def _dit(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "transformer", "DiTTransformer2DModel", "Transformer2DModel")
    if fields.get("norm_type", "ada_norm_zero") != "ada_norm_zero":
        raise CheckpointError(
            f"The transformer of {folder.given} has norm_type {fields['norm_type']!r}; a DiT has "
            "ada_norm_zero."
        )
    latent = _autoencoder(folder)["latent_channels"]
    rows = int(fields.get("num_embeds_ada_norm") or 1000)
    names = _names(folder, rows)
    if len(names) != rows:
        raise CheckpointError(
            f"{folder.given} names {len(names)} classes, and its transformer knows {rows}; name "
            "them all, or none."
        )
    found = scheduled(folder.scheduler(), folder.given)
    sampling = SamplingConfig(sampler=spec("ddim"), grid=spec("strided"), steps=50, guidance=4.0)
    return _described(
        folder,
        "transformer",
        _latent_shape(folder, fields),
        found,
        sampling,
        classes=names,
        codec="latent",
        learned=_learned(latent, fields.get("out_channels") or latent, folder.given),
    )


def _dit_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    network = Transformer(_network(folder, "transformer", runtime), ("label",))
    return Parts(_placed(network, runtime), _codec(folder, runtime), Conditioning(config.classes))


# Transformers on straight paths: Stable Diffusion 3 and Flux.


def _stable3(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "transformer", "SD3Transformer2DModel")
    shape = _latent_shape(folder, fields)
    patch = int(fields.get("patch_size") or 2)
    height, width = _size(fields, folder.given)
    if folder.has("text_encoder_3"):
        wide = encoders.width_of(encoders.described(folder, "_3"))
        _reads(wide, fields.get("joint_attention_dim", 4096), folder)
    found = scheduled(folder.scheduler(), folder.given, (height // patch) * (width // patch))
    sampling = SamplingConfig(sampler=spec("euler"), grid=found.grid, steps=28, guidance=4.0)
    return _described(folder, "transformer", shape, found, sampling, codec="latent")


def _stable3_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    width = int(folder.config("transformer").get("joint_attention_dim", 4096))
    words = encoders.Encoded(encoders.clips_and_t5(folder, runtime, width), width)
    network = Joint(_network(folder, "transformer", runtime), ("text", "pooled"))
    return Parts(_placed(network, runtime), _codec(folder, runtime), Conditioning((), words))


_FLUX_SIDE = 128
"""Latent positions to a side that Flux draws; its config says none."""

_FLUX_GUIDANCE = 3.5
"""The guidance that Flux [dev] was distilled to take, as its pipeline has it."""


def _flux(folder: Folder) -> ModelConfig:
    fields = _fields(folder, "transformer", "FluxTransformer2DModel")
    shape = _latent_shape(folder, {"sample_size": _FLUX_SIDE})
    found = scheduled(folder.scheduler(), folder.given, (_FLUX_SIDE // 2) ** 2)
    _reads(
        encoders.width_of(encoders.described(folder, "_2")),
        fields.get("joint_attention_dim", 4096),
        folder,
    )
    # One that is told no guidance was distilled to need few steps.
    steps = 28 if fields.get("guidance_embeds") else 4
    sampling = SamplingConfig(sampler=spec("euler"), grid=found.grid, steps=steps)
    return _described(folder, "transformer", shape, found, sampling, codec="latent")


def _flux_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("transformer")
    told = bool(fields.get("guidance_embeds"))
    width = int(fields.get("joint_attention_dim", 4096))
    encode = encoders.clip_and_t5(folder, runtime, length=512 if told else 256)
    network = Packed(
        _network(folder, "transformer", runtime),
        ("text", "pooled"),
        _FLUX_GUIDANCE if told else None,
    )
    return Parts(
        _placed(network, runtime),
        _codec(folder, runtime),
        Conditioning((), encoders.Encoded(encode, width)),
    )


PIXELS, STABLE = Family(_pixels, _pixel_parts), Family(_stable, _stable_parts)
DEEPFLOYD, DIT = Family(_deepfloyd, _deepfloyd_parts), Family(_dit, _dit_parts)
STABLE_3, FLUX = Family(_stable3, _stable3_parts), Family(_flux, _flux_parts)

PIPELINES: Mapping[str, Family] = {
    "DDPMPipeline": PIXELS,
    "DDIMPipeline": PIXELS,
    "UNet2DModel": PIXELS,
    "StableDiffusionPipeline": STABLE,
    "StableDiffusionImg2ImgPipeline": STABLE,
    "StableDiffusionInpaintPipeline": STABLE,
    "IFPipeline": DEEPFLOYD,
    "IFImg2ImgPipeline": DEEPFLOYD,
    "IFInpaintingPipeline": DEEPFLOYD,
    "IFSuperResolutionPipeline": DEEPFLOYD,
    "IFImg2ImgSuperResolutionPipeline": DEEPFLOYD,
    "IFInpaintingSuperResolutionPipeline": DEEPFLOYD,
    "DiTPipeline": DIT,
    "StableDiffusion3Pipeline": STABLE_3,
    "StableDiffusion3Img2ImgPipeline": STABLE_3,
    "FluxPipeline": FLUX,
    "FluxImg2ImgPipeline": FLUX,
}
"""The pipelines that can be loaded, by the class that their index names; and the single network
that needs no other part."""
