"""The loss at each noise level, on pictures that were held out and on pictures trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from couette.contracts import Ask, Batch
from couette.data import Dataset, to_float
from couette.discrete import objective_for
from couette.model import Model
from couette.registry import TIMES
from couette.schedules import log_snr

COUNT = 12


class LevelLosses(NamedTuple):
    """The mean loss at each level: log-SNR (L,) falling, loss (L,)."""

    log_snr: list[float]
    loss: list[float]


def times_of(model: Model, count: int = COUNT) -> Tensor:
    """The midpoints of `count` equal shares of the times that training draws, (≤ count,) float64.

    The mean of the losses there estimates the training loss.
    """
    draw = TIMES.bind(model.config.diffusion.times)
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return draw(model.denoiser.corruption.schedule, shares).unique()  # type: ignore[no-any-return]


@torch.no_grad()
def loss_by_level(
    model: Model, data: Dataset, index: Tensor, *, seed: int = 0, batch: int = 256
) -> LevelLosses:
    """The loss that training minimises, at fixed times and with fixed noise.

    Args:
        model: its network should be in evaluation mode.
        data: of the model's picture size.
        index: (N,) int64, which pictures.
        seed: of the noise, which is the same for every model and level.
        batch: pictures at once.
    """
    times = times_of(model)
    untold = model.conditioner([Ask()])
    objective = objective_for(model.denoiser, model.config.diffusion, untold, seed)
    objective.training = False  # the objective's own; the network's mode is its owner's
    sums = torch.zeros(len(times), dtype=torch.float64)
    for part in torch.split(index, batch):
        given = batch_of(model, data, part)
        for level, t in enumerate(times):
            losses = objective.at(given, t.expand(len(part)))
            sums[level] += losses.loss.double().sum().cpu()
    snr = log_snr(model.denoiser.corruption.schedule.level(times))
    return LevelLosses(snr.tolist(), (sums / len(index)).tolist())


def batch_of(model: Model, data: Dataset, index: Tensor) -> Batch:
    """Samples as a model takes them, with their classes where it knows those of the data."""
    device = model.denoiser.runtime.device
    pictures = model.codec.encode(to_float(data.pictures(index).to(device)))
    cond = model.conditioner(asks_of(model, data, index))
    keys = torch.stack((index, torch.zeros_like(index)), 1)
    return Batch(pictures, {key: value.to(device) for key, value in cond.items()}, keys)


def asks_of(model: Model, data: Dataset, index: Tensor) -> list[Ask]:
    """What pictures of a data set show, as far as a model can be told it."""
    asked = [Ask()] * len(index)
    if data.labels is not None and model.conditioner.classes == data.classes:
        asked = [Ask(label) for label in data.labels[index].tolist()]
    if data.texts is not None and model.conditioner.words is not None:
        texts = data.texts
        asked = [
            each._replace(words=texts[i]) for each, i in zip(asked, index.tolist(), strict=True)
        ]
    return asked
