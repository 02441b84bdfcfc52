"""The likelihood of a model's data in bits per dimension, as papers report it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from couette.contracts import Batch
from couette.data import Dataset
from couette.evaluation.levels import batch_of
from couette.evaluation.likelihood import axes, log_likelihood, signs, variational_bound
from couette.evaluation.report import Bits, Likelihood
from couette.generate import KeyedNoise
from couette.model import Model, pixel_range
from couette.registry import GRIDS
from couette.schedules import entries, ratio
from couette.tensors import Stream, uniform

LEAST = 2e-3
"""The least sigma/alpha that a model without a table is asked about; a third of a grey level's
width, as much as the noise of dequantisation."""

_STEPS = 1_000
_ODE_STEPS = 32
_SMALL = 16
"""Dimensions up to which the trace is taken in full."""


def likelihood(
    model: Model,
    data: Dataset,
    index: Tensor,
    *,
    name: str,
    seed: int = 0,
    batch: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> Likelihood:
    """The variational bound and the ODE's likelihood of some of the data.

    Pictures have 256 grey levels. The bound is of their probability. The ODE's is of a density, at
    pictures that uniform noise of one level's width was added to, times that width: on average a
    bound on the probability as well (Theis et al. 2016, sec. 3.1). Both are −log2 per dimension.
    The bound's outer levels reach to infinity, the density's do not, so in pictures with much pure
    black or white the bound can be the lower of the two. Points have a density only, and theirs
    can be negative. Where the model knows the data's classes, it is told them.

    Args:
        model: its network should be in evaluation mode.
        data: of the model's picture size.
        index: (N,) int64, which pictures.
        name: of the model, for the report.
        seed: of all noise.
        batch: pictures at once.
        progress: called with (what is being done, how much is done, of how much).

    Raises:
        InputError: a model trained on uniform noise.
    """
    times = _times(model)
    flow, bound = [], []
    for done, given in _batches(model, data, index, batch):
        if progress:
            progress(f"likelihood of the {name}", done, len(index))
        flow.append(_by_ode(model, given, seed))
        bound.append(_by_bound(model, given, times, seed))
    prior, diffusion, decoder = (torch.cat(part) for part in zip(*bound, strict=True))
    return Likelihood(
        model=name,
        pictures=len(index),
        points=data.points,
        told=_told(model, data),
        flow=_bits(torch.cat(flow)),
        bound=_bits(prior + diffusion + decoder),
        prior=float(prior.mean()),
        diffusion=float(diffusion.mean()),
        decoder=float(decoder.mean()),
        steps=len(times) - 1,
    )


def _batches(model: Model, data: Dataset, index: Tensor, size: int) -> Iterator[tuple[int, Batch]]:
    for done, part in enumerate(torch.split(index, size)):
        yield done * size, batch_of(model, data, part)


def _told(model: Model, data: Dataset) -> bool:
    return data.labels is not None and model.conditioner.classes == data.classes


def _times(model: Model) -> Tensor:
    """All entries of a table; a thousand steps in Karras' grid where there is none."""
    schedule = model.denoiser.corruption.schedule
    count = entries(schedule)
    if count is not None:
        table: Tensor = GRIDS["strided"](schedule, count)
        return table
    grid: Tensor = GRIDS["karras"](schedule, _STEPS, sigma_min=LEAST)
    return grid


def _least(model: Model) -> float:
    """The least sigma/alpha that the model knows: a table's first, or `LEAST`."""
    schedule = model.denoiser.corruption.schedule
    count = entries(schedule)
    if count is None:
        return LEAST
    return float(ratio(schedule.level(torch.tensor(1 / count, dtype=torch.float64))))


def _by_ode(model: Model, given: Batch, seed: int) -> Tensor:
    """Bits per dimension, (B,)."""
    x, width = given.data, 1.0
    limits = None if model.is_points else pixel_range(model.codec)
    if limits is not None:
        width = (limits[1] - limits[0]) / 255
        shift = uniform(seed, given.keys.to(x.device), Stream.QUANTUM, x.shape[1:]) - 0.5
        x = x + width * shift
    size = x[0].numel()
    probes = axes(x) if size <= _SMALL else signs(seed, given.keys, x)
    nats = log_likelihood(
        model.denoiser, x, given.cond, probes, sigma=_least(model), steps=_ODE_STEPS
    )
    return -nats / (size * math.log(2)) - math.log2(width)


def _by_bound(model: Model, given: Batch, times: Tensor, seed: int) -> tuple[Tensor, ...]:
    """Bits per dimension of the bound's three parts, (B,) each."""
    x0 = given.data
    noise = KeyedNoise(seed, given.keys[:, 0], x0.shape[1:], str(x0.device))
    parts = variational_bound(
        model.denoiser,
        x0,
        times,
        given.cond,
        noise,
        range_of=None if model.is_points else pixel_range(model.codec),
    )
    return tuple(part / (x0[0].numel() * math.log(2)) for part in parts)


def _bits(each: Tensor) -> Bits:
    error = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else None
    return Bits(mean=float(each.mean()), error=error)
