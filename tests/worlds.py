"""Denoisers whose exact answers are known, for the tests of whatever drives a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

import couette.denoiser
import couette.samplers  # noqa: F401  (the registries must be full before tests ask for names)
from couette.config import Spec, spec
from couette.contracts import Cond, Corruption, Denoise, Level, Noise, Prediction, Schedule, Step
from couette.registry import GRIDS, SAMPLERS, SCHEDULES
from couette.schedules import mixed


def _falls(name: str) -> bool:
    return not (SAMPLERS.trait(name, "inverse") or SAMPLERS.trait(name, "states"))


DOWN = [name for name in SAMPLERS if _falls(name)]
"""The samplers that lead from normal noise to pictures."""


def schedule(text: str) -> Schedule:
    """A schedule as it is written in a config: `linear:steps=300`. One whose settings have no
    defaults is built with the example it declares of itself."""
    asked = Spec.model_validate(text)
    example = SCHEDULES.trait(asked.name, "example", {})
    built: Schedule = SCHEDULES.build(Spec(name=asked.name, **{**example, **asked.settings}))
    return built


def grid(name: str, s: Schedule, steps: int, **settings: Any) -> Tensor:
    """A registered time grid; `given` is handed even times."""
    if name == "given":
        settings.setdefault("times", tuple(torch.linspace(1, 0, steps + 1).tolist()))
    times: Tensor = GRIDS.bind(spec(name, **settings))(s, steps=steps)
    return times


class Gaussian:
    """Pictures whose pixels are independent, each N(mean, std²), in float64.

    E[x0 | x_t] = m + αs²/(α²s² + σ²)·(x_t − αm), and x_t is N(αm, α²s² + σ²).
    """

    def __init__(self, schedule: Schedule, mean: float, std: float) -> None:
        self.corruption = Corruption(schedule)
        self.mean, self.std = mean, std

    def variance(self, level: Level) -> Tensor:
        return (level.alpha * self.std).square() + level.sigma.square()

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level = self.corruption.schedule.level(t)
        gain = level.alpha * self.std**2 / self.variance(level)
        return Prediction(self.mean + gain * (x - level.alpha * self.mean))

    def carried(self, x: Tensor, a: Level, b: Level) -> Tensor:
        """The probability-flow ODE from level a to b: quantiles stay quantiles."""
        spread = (self.variance(b) / self.variance(a)).sqrt()
        return b.alpha * self.mean + spread * (x - a.alpha * self.mean)


class Mixture:
    """Two bumps in one dimension, in float64: the prediction is not linear in x.

    x_t is a mixture of normals of means αm_k and variances α²s_k² + σ²; E[x0 | x_t] is the mean of
    what each bump alone would say, weighted by how likely x_t is of it.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.corruption = Corruption(schedule)
        self.shares = torch.tensor([0.35, 0.65], dtype=torch.float64)
        self.means = torch.tensor([-0.8, 0.6], dtype=torch.float64)
        self.stds = torch.tensor([0.3, 0.45], dtype=torch.float64)

    def bumps(self, level: Level) -> Normal:
        spread = ((level.alpha * self.stds).square() + level.sigma.square()).sqrt()
        return Normal(level.alpha * self.means, spread, validate_args=False)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level = self.corruption.schedule.level(t)
        bumps, x = self.bumps(level), x.unsqueeze(-1)
        whose = (bumps.log_prob(x) + self.shares.log()).softmax(-1)
        gain = level.alpha * (self.stds / bumps.stddev).square()
        return Prediction((whose * (self.means + gain * (x - bumps.mean))).sum(-1))

    def below(self, x: Tensor, level: Level) -> Tensor:
        """The share of x_t that lies below x."""
        return (self.shares * self.bumps(level).cdf(x.unsqueeze(-1))).sum(-1)

    def carried(self, x: Tensor, a: Level, b: Level) -> Tensor:
        """The probability-flow ODE from level a to b: on a line, quantiles stay quantiles."""
        share = self.below(x, a)
        reach = 20 * (b.alpha + b.sigma)
        low, high = torch.full_like(x, -float(reach)), torch.full_like(x, float(reach))
        for _ in range(100):
            middle = (low + high) / 2
            beyond = self.below(middle, b) > share
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        return (low + high) / 2


class Constant:
    """Predicts one picture, whatever it sees."""

    def __init__(self, corruption: Corruption, value: float) -> None:
        self.corruption, self.value = corruption, value

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return Prediction(torch.full_like(x, self.value))


class Crooked:
    """A smooth prediction that no schedule makes easy: tells sampler formulas apart."""

    def __init__(self, corruption: Corruption) -> None:
        self.corruption = corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return Prediction(torch.tanh(1.3 * x + 0.7 * t) - 0.2 * x)


class OneHot:
    """Noise that is 1 in row k + 1 at draw k and 0 elsewhere.

    Run on rows (unit start, 0, 0, …) with a denoiser that is linear in x, the rows end as the
    coefficients of x_T and of every draw: their squares sum to the exact variance.
    """

    def __init__(self, x: Tensor) -> None:
        self.x, self.draws = x, 0

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        self.draws += 1
        noise = torch.zeros_like(self.x)
        noise[self.draws] = 1
        return noise


def numbered(*shape: int, first: int = 1000) -> Noise:
    """Noise whose draws are fixed, one seed after another."""
    seeds = count(first)
    return lambda t, u: draw(*shape, seed=next(seeds))


def silent(t: Tensor, u: Tensor) -> Tensor:
    """The noise of a sampler that must not ask for any."""
    raise AssertionError("this sampler is deterministic and asked for noise")


def run(
    name: str,
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    noise: Callable[[Tensor, Tensor], Tensor] = silent,
    **settings: Any,
) -> list[Step]:
    """All steps of a registered sampler."""
    return list(SAMPLERS[name](denoise, x, times, {}, noise, **settings))


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noised(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return mixed(x0, schedule.level(t), eps)
