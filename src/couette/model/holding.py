"""What users hold: a denoiser with its codec and its conditioner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from couette.codecs import Latents
from couette.conditioners import Conditioning, Tokenizes, Words
from couette.config import ModelConfig, SamplingConfig, spec
from couette.contracts import Codec
from couette.denoiser import Denoiser, NoisyClassifier, build_denoiser
from couette.errors import CheckpointError, ConfigError
from couette.exact import Ideal, World
from couette.networks.text import WordEncoder
from couette.networks.vae import VAE
from couette.registry import CODECS
from couette.runtime import Runtime


@dataclass(frozen=True)
class Model:
    """From words and seeds to pictures: a denoiser, a codec, a conditioner, and what it is."""

    denoiser: Denoiser
    codec: Codec
    conditioner: Conditioning
    config: ModelConfig

    @property
    def network(self) -> nn.Module:
        return cast(nn.Module, self.denoiser.network)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the denoiser works on."""
        config = self.config
        return self.codec.shape(config.channels, config.height, config.width)

    @property
    def is_points(self) -> bool:
        """Whether it makes 2-D points, (N, 2, 1, 1), instead of pictures."""
        return self.config.is_points


@dataclass(frozen=True)
class ClassifierModel:
    """A classifier of noised pictures: log p(y | x_t), a codec, and what it is."""

    classify: NoisyClassifier
    codec: Codec
    config: ModelConfig

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes


class Parts(NamedTuple):
    """What a model has beside its network, made before that was trained and not changed since.

    tokenizer: of a model that reads captions. autoencoder: of one that works on latents. reader: of
    one that is told what an encoder makes of words, instead of reading them itself; where the
    encoder is another library's, so is the tokenizer, and neither is saved with the model.
    """

    tokenizer: Tokenizes | None = None
    autoencoder: VAE | None = None
    reader: WordEncoder | None = None

    def words(self, config: ModelConfig, runtime: Runtime) -> Words | None:
        """How captions are told to the model; None where they are not.

        Raises:
            CheckpointError: another library's encoder is needed and was not opened.
        """
        if config.pretrained is not None and self.reader is None:
            raise CheckpointError(
                f"The model is told its words by '{config.pretrained.source}', which was not "
                "opened with it; open the model with couette.load."
            )
        if self.tokenizer is None:
            return None
        if self.reader is not None:
            self.reader.to(runtime.device)
        return Words(self.tokenizer, config.text.length, self.reader)


def codec_of(config: ModelConfig, parts: Parts, runtime: Runtime) -> Codec:
    """The codec of a model, with its autoencoder in it where it has one.

    Raises:
        ConfigError: settings and parts that do not go together.
    """
    described, network = config.autoencoder, parts.autoencoder
    if described is None or network is None:
        codec: Codec = CODECS.build(config.codec)
        return codec
    runtime.place(network)
    return Latents(network, torch.tensor(described.mean), torch.tensor(described.scale), runtime)


def assemble(
    config: ModelConfig,
    network: nn.Module,
    runtime: Runtime | None = None,
    parts: Parts = Parts(),  # noqa: B008  (it can't be changed)
) -> Model:
    """A model around a network that is there already, and its other parts."""
    denoiser = build_denoiser(config.diffusion, cast(Any, network), runtime)
    codec = codec_of(config, parts, denoiser.runtime)
    wants: frozenset[str] = getattr(network, "wants", frozenset())
    classes = config.classes if "label" in wants else ()
    words = parts.words(config, denoiser.runtime)
    return Model(denoiser, codec, Conditioning(classes, words), config)


def drawn_as(model: Model, sampling: SamplingConfig) -> Model:
    """The same model with another way to draw; told nothing, there is nothing to guide by."""
    if not (model.conditioner.classes or model.conditioner.words):
        sampling = sampling.model_copy(update={"guidance": 1.0})
    return replace(model, config=model.config.model_copy(update={"sampling": sampling}))


def exact_model(world: World, runtime: Runtime | None = None) -> Model:
    """A model whose denoiser is the true one of a world; sampled as by default.

    Raises:
        ConfigError: a device without float64, which exact answers are computed in.
        CouetteError: the world's data can't be opened, or its settings do not fit.
    """
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    if runtime.device == "mps":
        raise ConfigError("Exact worlds need float64, which mps does not have; use --device cpu.")
    known, data = world.open()
    config = ModelConfig(
        recipe="exact",
        channels=data.channels,
        height=data.height,
        width=data.width,
        classes=data.classes,
        codec=spec("symmetric"),
        diffusion=world.diffusion,
        network=spec("exact", world=world.given),
        sampling=SamplingConfig(),
        data=data.name,
        data_fingerprint=data.fingerprint,
    )
    return assemble(config, Ideal(known).to(runtime.device), runtime)


def pixel_range(codec: Codec) -> tuple[float, float] | None:
    """The range of encoded pictures, for keeping predictions in it; latents have none."""
    low, high = getattr(codec, "low", None), getattr(codec, "high", None)
    return None if low is None or high is None else (low, high)
