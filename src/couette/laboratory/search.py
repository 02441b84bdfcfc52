"""A grid for few steps, found by dynamic programming along a fine solution.

Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling" (GITS), sec. 4.
Along a fine solution x_0 … x_M with its predictions, one move from x_i to time j misses x_j by a
cost that needs no further evaluation of the network. The path of n moves from first to last with
the smallest sum of costs is the grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from couette import generate
from couette.config import SamplingConfig, spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Level, Prediction
from couette.errors import InputError
from couette.laboratory.compare import fine_times
from couette.model import Model
from couette.samplers import move

CANDIDATES = 96
"""Times that a grid may be made of: steps of the fine solution."""


def search(
    model: Model,
    asked: Sequence[Ask],
    steps: Sequence[int],
    *,
    seed: int = 0,
    sampling: SamplingConfig | None = None,
    candidates: int = CANDIDATES,
) -> dict[int, tuple[float, ...]]:
    """The best grid for each number of steps.

    Args:
        model: the model.
        asked: pictures whose trajectories are followed, drawn as one batch.
        steps: numbers of steps, each from 1 to `candidates`.
        seed: of the noise.
        sampling: guidance, and a grid that begins where the search is to begin.
        candidates: how many steps the fine solution has.

    Returns:
        Falling times for each number of steps, from the first time to 0.

    Raises:
        InputError: more steps than candidates, or fewer than one.
    """
    for count in steps:
        if not 1 <= count <= candidates:
            raise InputError(
                f"A grid of {count} steps can't be chosen from {candidates} times; ask for 1 to "
                f"{candidates}."
            )
    sampling = sampling or model.config.sampling
    start = generate.times_of(model, sampling)[0]
    times = fine_times(model.denoiser.corruption.schedule, start, candidates)
    costs = _costs(model, asked, times, seed, sampling)
    return {
        count: tuple(float(times[i]) for i in cheapest_path(costs, count)) for count in set(steps)
    }


def cheapest_path(costs: Tensor, moves: int) -> list[int]:
    """The path of exactly `moves` moves from node 0 to the last with the smallest total cost.

    Args:
        costs: (M + 1, M + 1); entry (i, j) is that of moving from i to j, infinite unless i < j.

    Returns:
        moves + 1 rising nodes.
    """
    best = torch.full((len(costs),), torch.inf, dtype=costs.dtype)
    best[0] = 0
    origins = []
    for _ in range(moves):
        best, origin = (best[:, None] + costs).min(0)
        origins.append(origin)
    node = len(costs) - 1
    path = [node]
    for origin in reversed(origins):
        node = int(origin[node])
        path.append(node)
    return path[::-1]


def _costs(
    model: Model, asked: Sequence[Ask], times: Tensor, seed: int, sampling: SamplingConfig
) -> Tensor:
    """How far one move along the prediction at i misses the fine solution at j, in x/alpha."""
    grid = spec("given", times=tuple(times.tolist()))
    fine = sampling.model_copy(
        update={"sampler": spec("heun"), "grid": grid, "steps": len(times) - 1}
    )
    beginning = _First()
    run = generate.steps(model, asked, seed=seed, sampling=fine, editor=beginning)
    xs, x0s = [], []
    for step in run:
        xs.append(step.x)
        x0s.append(step.x0)
    # A step's x0 was predicted where it began: at the x that the step before ended with.
    xs = [beginning.x, *xs]
    levels = model.denoiser.corruption.schedule.level(times)
    each = [Level(alpha, sigma) for alpha, sigma in zip(*levels, strict=True)]
    costs = torch.full((len(times), len(times)), torch.inf, dtype=torch.float64)
    for i, x0 in enumerate(x0s):
        for j in range(i + 1, len(times)):
            missed = (move(xs[i], Prediction(x0), each[i], each[j]) - xs[j]) / each[j].alpha
            costs[i, j] = missed.double().square().mean().sqrt()
    return costs


class _First:
    """Keeps the x that a run begins with."""

    x: Tensor

    def __call__(self, denoise: Denoise) -> Denoise:
        return _Kept(denoise, self)


class _Kept:
    def __init__(self, denoise: Denoise, first: _First) -> None:
        self.denoise, self.first = denoise, first

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        if not hasattr(self.first, "x"):
            self.first.x = x
        return self.denoise(x, t, cond)
