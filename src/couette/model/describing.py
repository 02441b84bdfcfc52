"""From what a model is, as data, to its network: built, outlined, described."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

import couette.codecs  # noqa: F401  (fills the registry)
from couette.config import STATES, DiffusionConfig, ModelConfig, Spec
from couette.contracts import Codec, Sizes, TextSizes
from couette.errors import ConfigError, ShapeError
from couette.networks.common import require_multiple
from couette.networks.recalling import Recalling
from couette.networks.text import Reader
from couette.networks.vae import VAE
from couette.registry import CODECS, NETWORKS
from couette.storage import MAX_TENSORS

_GIVES = {"classifier": "logits", "autoencoder": "latents", "contrastive": "embeddings"}
"""What an objective needs of its network, where that is not pictures."""


def sizes_of(config: ModelConfig) -> Sizes:
    """What the network is built for.

    Raises:
        ConfigError: a codec that makes no states, for noise that replaces them.
        ShapeError: pictures that the codec can't take.
    """
    noise = config.diffusion.noise
    if noise in STATES and not CODECS.trait(config.codec.name, "states"):
        raise ConfigError(
            f"With {noise} noise pixels are states, which the codec '{config.codec}' does not "
            "make; set --codec levels:count=8."
        )
    channels, height, width = encoded_shape(config)
    words, text = config.text, None
    encoder = config.reader or config.pretrained
    if encoder is not None:
        text = TextSizes(words.length, width=encoder.width)
    elif words.encoder != "none":
        text = TextSizes(words.length, words.vocabulary)
    return Sizes(channels, height, width, len(config.classes), text=text)


def encoded_shape(config: ModelConfig) -> tuple[int, int, int]:
    """(C, H, W) of what the denoiser works on.

    Raises:
        ConfigError: a codec of latents without its autoencoder.
        ShapeError: pictures that the codec can't take.
    """
    sizes = Sizes(config.channels, config.height, config.width)
    if config.autoencoder is None:
        codec: Codec = CODECS.build(config.codec)
        return codec.shape(*sizes[:3])
    network = NETWORKS.check(config.autoencoder.network)
    factor = network["factor"]
    require_multiple(sizes, factor, config.autoencoder.network.name)
    return network["latent"], sizes.height // factor, sizes.width // factor


def build_autoencoder(config: ModelConfig) -> VAE:
    """A fresh autoencoder as the config of a model on latents describes it.

    Raises:
        ConfigError: the model has none, or it is no autoencoder.
    """
    described = config.autoencoder
    if described is None or NETWORKS.trait(described.network.name, "gives") != "latents":
        raise ConfigError(
            "A model on latents needs the network 'vae' for its autoencoder, not "
            f"'{described and described.network}'; use the config it was saved with."
        )
    made: VAE = NETWORKS.build(
        described.network, Sizes(config.channels, config.height, config.width)
    )
    return made


def build_reader(config: ModelConfig) -> Reader:
    """A fresh encoder of words as the config of a model that has one describes it."""
    reader = config.reader
    assert reader is not None
    sizes = TextSizes(config.text.length, config.text.vocabulary)
    return Reader(sizes, reader.width, reader.depth)


def build_sized(network: Spec, sizes: Sizes, diffusion: DiffusionConfig) -> nn.Module:
    """A fresh network of that kind for these pictures, with what the objective asks of it: a second
    half of the output for a learned variance, x0 beside x for self-conditioning.

    Raises:
        UnknownName, ConfigError, ShapeError: as the settings deserve.
    """
    if diffusion.variance == "learned":
        sizes = sizes._replace(out=2 * sizes.channels)
    build = partial(NETWORKS.build, network)
    made: nn.Module = Recalling(build, sizes) if diffusion.self_conditioning else build(sizes)
    return made


def build_network(config: ModelConfig) -> nn.Module:
    """A fresh network as the config describes it, its weights drawn from torch's generator.

    Raises:
        UnknownName, ConfigError, ShapeError: as the config deserves.
    """
    sizes = sizes_of(config)
    gives = NETWORKS.trait(config.network.name, "gives", "pictures")
    wanted = _GIVES.get(config.objective.name, "pictures")
    if gives != wanted:
        raise ConfigError(
            f"The network '{config.network.name}' gives {gives}, and the objective "
            f"'{config.objective.name}' needs one that gives {wanted}; choose another network."
        )
    try:
        return build_sized(config.network, sizes, config.diffusion)
    except (RuntimeError, MemoryError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ShapeError(
            f"The network '{config.network}' can't be built for {sizes.channels}×{sizes.height}×"
            f"{sizes.width} ({reason}); choose a smaller one."
        ) from None


class Unfilled(TorchFunctionMode):
    """Weights are not drawn at random: they have no memory, or will be replaced.

    For those without memory torch would import its compiler, which takes longer than a picture.
    """

    _DRAWING = frozenset(
        {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_"}
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in self._DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def without_memory(config: ModelConfig) -> nn.Module:
    """The network with nothing allocated for it: to ask what it wants and how large it is.

    Raises:
        UnknownName, ConfigError, ShapeError: as `build_network`.
    """
    with torch.device("meta"), Unfilled():
        return build_network(config)


def outline(config: ModelConfig) -> dict[str, Tensor]:
    """Names, shapes and dtypes of the network's weights, as tensors without memory.

    Raises:
        UnknownName, ConfigError, ShapeError: as `build_network`, or too many weights.
    """
    count = 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > MAX_TENSORS:
            raise ShapeError(f"The network '{config.network}' has over {MAX_TENSORS} tensors.")

    hook = register_module_parameter_registration_hook(counted)
    try:
        return without_memory(config).state_dict()
    finally:
        hook.remove()
