"""Denoisers whose exact answers are known, for the tests of whatever drives a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import couette.denoiser
import couette.samplers  # noqa: F401  (the registries must be full before tests ask for names)
from couette.config import Spec, spec
from couette.contracts import Cond, Corruption, Denoise, Level, Prediction, Schedule, Step
from couette.registry import GRIDS, SAMPLERS, SCHEDULES
from couette.schedules import mixed


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
