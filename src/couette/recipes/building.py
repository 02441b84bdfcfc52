"""The parts of a run, built from its settings and its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from couette.conditioners import Captions, Conditioning, Words
from couette.config import STATES, ModelConfig, RunConfig
from couette.contracts import Ask, Codec, Objective
from couette.data import Dataset
from couette.data.tokenizer import Tokenizer
from couette.denoiser import build_denoiser
from couette.discrete import objective_for
from couette.errors import ConfigError, DataError
from couette.model import build_network
from couette.recipes.fitting import unlabelled
from couette.registry import CODECS, OBJECTIVES
from couette.runtime import Runtime, Trial
from couette.training import PowerAverage, Stream, Trainer
from couette.training.plan import Plan

_PROBED = 32
"""Pictures in the batch that the runtime times."""


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
    config: RunConfig, data: Dataset, tokenizer: Tokenizer | None = None
) -> ModelConfig:
    """What a model trained so is, as data; without classes where the network can't be told them.

    Raises:
        ConfigError, ShapeError: a network that does not fit the data.
    """
    text = config.text
    if tokenizer is not None:
        text = text.model_copy(update={"vocabulary": tokenizer.size, "tokenizer": None})
    described = ModelConfig(
        recipe=config.recipe,
        objective=config.objective,
        channels=data.channels,
        height=data.height,
        width=data.width,
        classes=data.classes if config.diffusion.drop < 1 else (),
        codec=config.codec,
        diffusion=config.diffusion,
        text=text,
        network=config.network,
        sampling=config.sampling,
        data=f"{data.name}: {data.describe().splitlines()[0]}",
        data_fingerprint=data.fingerprint,
    )
    return unlabelled(described)


def build_trainer(
    config: RunConfig,
    model: ModelConfig,
    data: Dataset,
    runtime: Runtime,
    words: Words | None = None,
) -> tuple[nn.Module, Trainer]:
    """The network, its weights drawn from the run's seed, and the trainer around it.

    Raises:
        ConfigError, ShapeError: settings that do not fit each other or the data.
    """
    training = config.training
    _need_grey_levels(config, data)
    torch.manual_seed(training.seed)
    network = runtime.compiled(runtime.place(build_network(model)))
    objective = _objective(config, model, network, runtime, words)
    average = PowerAverage(network, training.average) if training.average else None
    stream = _stream(config, model, data, runtime.device, training.batch, words)
    return network, Trainer(objective, stream, training, Plan(training, len(data)), average)


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


def build_trial(
    config: RunConfig, model: ModelConfig, data: Dataset, words: Words | None = None
) -> Trial:
    """The run's training step on a small batch, for the runtime to probe."""
    batch = min(_PROBED, config.training.batch)
    parts = -(-config.training.batch // batch)

    def build(runtime: Runtime) -> tuple[nn.Module, Callable[[], Tensor]]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            network = runtime.compiled(runtime.place(build_network(model)))
        objective = _objective(config, model, network, runtime, words).train()
        given = _stream(config, model, data, runtime.device, batch, words)(0)
        return network, lambda: objective(given, "network").loss.mean()

    def lasts(step: float) -> float:
        training = config.training
        if training.minutes is not None:
            return 60 * training.minutes
        steps = training.steps or (training.epochs or 0) * len(data) / training.batch
        return step * parts * steps

    key = f"{model.model_dump_json(exclude={'sampling', 'step', 'data'})} {batch}"
    return Trial(key, build, lasts)


def _objective(
    config: RunConfig,
    model: ModelConfig,
    network: nn.Module,
    runtime: Runtime,
    words: Words | None,
) -> Objective:
    denoiser = build_denoiser(config.diffusion, cast(Any, network), runtime)
    untold = Conditioning(model.classes, words)([Ask()])
    given = denoiser, config.diffusion, untold, config.training.seed
    if config.diffusion.noise in STATES:
        return objective_for(*given)
    objective: Objective = OBJECTIVES.build(config.objective, *given)
    return objective


def _stream(
    config: RunConfig,
    model: ModelConfig,
    data: Dataset,
    device: str,
    batch: int,
    words: Words | None,
) -> Stream:
    codec: Codec = CODECS.build(config.codec)
    captions = None if words is None else Captions(words, data.texts or ())
    return Stream(
        data,
        codec,
        config.data,
        batch=batch,
        seed=config.training.seed,
        device=device,
        labelled=bool(model.classes),
        captions=captions,
    )
