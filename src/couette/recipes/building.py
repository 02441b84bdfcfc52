"""The parts of a run, built from its settings and its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from couette.codecs import Latents
from couette.conditioners import Captions
from couette.config import (
    STATES,
    AutoencoderConfig,
    ModelConfig,
    RunConfig,
    spec,
)
from couette.contracts import Ask, Codec, Objective
from couette.data import Dataset
from couette.discrete import objective_for
from couette.errors import ConfigError, DataError
from couette.model import Parts, assemble, build_network, codec_of, load_encoder
from couette.recipes.fitting import unlabelled
from couette.recipes.reading import Read
from couette.registry import OBJECTIVES
from couette.runs import find_model
from couette.runtime import Runtime, Trial, device_of
from couette.training import AutoencoderObjective, LatentCache, PowerAverage, Stream, Trainer
from couette.training.plan import Plan

_PROBED = 32
"""Pictures in the batch that the runtime times on a processor."""


def enough(data: Dataset) -> None:
    """Refuse data that nothing can be learned from.

    Raises:
        DataError: fewer than two pictures.
    """
    if len(data) < 2:
        raise DataError(
            f"'{data.name}' holds {len(data)} usable picture; training needs at least 2."
        )


def model_config(
    config: RunConfig,
    data: Dataset,
    parts: Parts,
    autoencoder: AutoencoderConfig | None = None,
    read: Read = Read(),  # noqa: B008  (it can't be changed)
) -> ModelConfig:
    """What a model trained so is, as data; without classes where the network can't be told them, or
    is told captions that were made of them.

    Raises:
        ConfigError, ShapeError: a network that does not fit the data.
    """
    text = config.text
    if read.pretrained is not None:
        text = text.model_copy(update={"run": None})
    elif parts.tokenizer is not None:
        own = {"vocabulary": parts.tokenizer.size, "tokenizer": None, "run": None}
        text = text.model_copy(update=own)
    described = ModelConfig(
        recipe=config.recipe,
        objective=config.objective,
        channels=data.channels,
        height=data.height,
        width=data.width,
        classes=data.classes if _told_classes(config) else (),
        codec=config.codec if autoencoder is None else spec("latent"),
        autoencoder=autoencoder,
        diffusion=config.diffusion,
        text=text,
        reader=read.described,
        pretrained=read.pretrained,
        network=config.network,
        sampling=config.sampling,
        data=f"{data.name}: {data.describe().splitlines()[0]}",
        data_fingerprint=data.fingerprint,
    )
    return unlabelled(described)


def _told_classes(config: RunConfig) -> bool:
    """Whether the network is to be told classes, as far as the settings say: not where captions
    are made of them."""
    captioned = config.data.captions and config.objective.name == "diffusion"
    return config.diffusion.drop < 1 and not captioned


def build_trainer(
    config: RunConfig,
    model: ModelConfig,
    data: Dataset,
    runtime: Runtime,
    parts: Parts,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[nn.Module, Trainer]:
    """The network, its weights drawn from the run's seed, and the trainer around it; `tell` is
    called before all pictures or captions are encoded, which may take long.

    Raises:
        ConfigError, ShapeError: settings that do not fit each other or the data.
    """
    training = config.training
    _need_grey_levels(config, data)
    torch.manual_seed(training.seed)
    network = runtime.readied(runtime.place(build_network(model)))
    objective = _objective(config, model, network, runtime, parts)
    average, second = (
        PowerAverage(network, width) if width else None
        for width in (training.average, training.second)
    )
    stream = _stream(config, model, data, runtime, training.batch, parts, tell=tell)
    stream.latents = _cached(config, model, data, stream.codec, tell)
    plan = Plan(training, len(data))
    graph = runtime.graph
    return network, Trainer(objective, stream, training, plan, average, second=second, graph=graph)


def _need_grey_levels(config: RunConfig, data: Dataset) -> None:
    """Refuse a learned variance where there are no grey levels in [-1, 1] to give a bound of.

    Raises:
        ConfigError: points, or another codec than `symmetric`.
    """
    if config.diffusion.variance == "learned" and (data.points or config.codec.name != "symmetric"):
        raise ConfigError(
            "A learned variance is taught by the likelihood of grey levels in [-1, 1]; it needs "
            "pictures and the codec 'symmetric'. Leave out diffusion.variance."
        )


def build_trial(config: RunConfig, model: ModelConfig, data: Dataset, parts: Parts) -> Trial:
    """The run's training step on a small batch, for the runtime to probe."""
    batch = config.training.batch
    if device_of(config.runtime.device) == "cpu":  # a card's speed depends on how full it is
        batch = min(_PROBED, batch)
    times = -(-config.training.batch // batch)

    def build(runtime: Runtime) -> tuple[nn.Module, Callable[[], Tensor]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            network = runtime.readied(runtime.place(build_network(model)))
        objective = _objective(config, model, network, runtime, parts).train()
        given = _stream(config, model, data, runtime, batch, parts, keep=False)(0)
        return network, lambda: objective(given, "network").loss.mean()

    def lasts(step: float) -> float:
        training = config.training
        if training.minutes is not None:
            return 60 * training.minutes
        steps = training.steps or (training.epochs or 0) * len(data) / training.batch
        return step * times * steps

    told = model.pretrained and model.pretrained.model_copy(update={"source": ""})
    known = model.model_copy(update={"pretrained": told})  # wherever its encoder lies
    key = f"{known.model_dump_json(exclude={'sampling', 'step', 'data'})} {batch}"
    return Trial(key, build, lasts)


def _objective(
    config: RunConfig,
    model: ModelConfig,
    network: nn.Module,
    runtime: Runtime,
    parts: Parts,
) -> Objective:
    objective: Objective
    if OBJECTIVES.trait(config.objective.name, "of") == "network":
        objective = OBJECTIVES.build(config.objective, network, runtime, config.training.seed)
        if isinstance(objective, AutoencoderObjective) and objective.perceptual:
            objective.features = _features(objective.run, runtime)
        return objective
    held = assemble(model, network, runtime, parts)
    untold = held.conditioner([Ask()])
    given = held.denoiser, config.diffusion, untold, config.training.seed
    if config.diffusion.noise in STATES:
        return objective_for(*given)
    objective = OBJECTIVES.build(config.objective, *given)
    return objective


def _features(run: str | None, runtime: Runtime) -> Callable[[Tensor], Sequence[Tensor]]:
    """The maps of an encoder's picture tower, frozen.

    Raises:
        ConfigError: no encoder is named.
        CheckpointError: what is named is none.
    """
    if run is None:
        raise ConfigError(
            "The perceptual term compares what an encoder sees; train one with --recipe clip and "
            "name it: --objective.run RUN."
        )
    _, network, _ = load_encoder(find_model(Path(run)), runtime=runtime)
    return network.requires_grad_(False).eval().maps


def _stream(
    config: RunConfig,
    model: ModelConfig,
    data: Dataset,
    runtime: Runtime,
    batch: int,
    parts: Parts,
    *,
    keep: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> Stream:
    """The batches; `keep` works out what is told of all captions, for more than a batch or two, and
    `tell` is called before that takes long."""
    codec = codec_of(model, parts, runtime)
    words = parts.words(model, runtime)
    captions = None
    if words is not None:
        encoder = model.reader or model.pretrained
        digest = None if encoder is None else encoder.digest
        captions = Captions(words, data.texts or (), keep=keep, digest=digest, tell=tell)
    return Stream(
        data,
        codec,
        config.data,
        batch=batch,
        seed=config.training.seed,
        device=runtime.device,
        labelled=bool(model.classes),
        captions=captions,
    )


def _cached(
    config: RunConfig,
    model: ModelConfig,
    data: Dataset,
    codec: Codec,
    tell: Callable[[str], None],
) -> LatentCache | None:
    """The latents of all pictures; none where each visit sees a picture anew, and for pixels."""
    if model.autoencoder is None or not isinstance(codec, Latents) or config.data.crop:
        return None
    said: list[str] = []

    def progress(what: str, done: int, of: int) -> None:
        if not said:
            said.append(f"{what} {of:,} pictures, once for all runs on them with this autoencoder")
            tell(said[0])

    return LatentCache(
        codec,
        data,
        digest=model.autoencoder.digest,
        flip=config.data.flip,
        seed=config.training.seed,
        progress=progress,
    )
