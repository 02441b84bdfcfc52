"""Noise schedules, time grids, and the forward process. Knows nothing of networks.

A schedule says how much picture and noise there is at time t, `x_t = alpha(t)·x0 + sigma(t)·eps`,
with t = 0 clean and t = 1 noise, in float64. Samplers and parameterizations work with the ratio
sigma/alpha, never with differences of log-SNR, because both ends of that axis are infinite.

`level(0)` is (1, 0) for every schedule here.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Level, Schedule
from couette.errors import ConfigError, InputError
from couette.registry import GRIDS, SCHEDULES

Entries = Annotated[int, Field(ge=2, le=1_000_000)]
Positive = Annotated[float, Field(gt=0)]


class Table:
    """A variance-preserving schedule given by T values of beta: t = (k + 1)/T is entry k.

    alpha = sqrt(ᾱ), sigma = sqrt(1 − ᾱ), ᾱ_k = Π_{s≤k}(1 − β_s) (Ho et al. 2020, eq. 4). Between
    the entries log(sigma/alpha) is linear in t; below the first one sigma/alpha is.

    Args:
        betas: (T,) in (0, 1), at least two.

    Raises:
        ConfigError: too few betas, or one outside (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        betas = betas.to(torch.float64)
        if betas.numel() < 2 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ConfigError("A table of betas needs two or more values, each between 0 and 1.")
        self.betas = betas
        self.steps = betas.numel()
        self.log_alpha_bar = torch.log1p(-betas).cumsum(0)
        self.alpha_bar = self.log_alpha_bar.exp()
        # log(sigma/alpha) = (log(1 − ᾱ) − log ᾱ)/2, without cancellation at either end.
        self._log_ratio = (torch.log(-torch.expm1(self.log_alpha_bar)) - self.log_alpha_bar) / 2

    def level(self, t: Tensor) -> Level:
        position = t.to(torch.float64) * self.steps - 1
        below = position.floor().clamp(0, self.steps - 2).long()
        table = self._log_ratio.to(t.device)
        part = position - below
        log_ratio = table[below] + part.clamp(0, 1) * (table[below + 1] - table[below])
        ratio = log_ratio.exp() * (position + 1).clamp(0, 1)
        alpha = torch.rsqrt(1 + ratio.square())
        return Level(alpha, ratio * alpha)

    def time(self, log_snr: Tensor) -> Tensor:
        log_ratio = -log_snr.to(torch.float64) / 2
        table = self._log_ratio.to(log_snr.device)
        above = torch.searchsorted(table, log_ratio.contiguous()).clamp(1, self.steps - 1)
        gap = table[above] - table[above - 1]
        position = above - 1 + ((log_ratio - table[above - 1]) / gap).clamp(max=1)
        first = (log_ratio - table[0]).exp()
        return torch.where(log_ratio < table[0], first, position + 1) / self.steps


@SCHEDULES.register("linear")
class Linear(Table):
    """Betas in even steps from 1e-4 to 0.02: DDPM's schedule (Ho et al. 2020, sec. 4).

    With T = 1000 it ends at sqrt(ᾱ) = 0.0064. With T = 300 and the same ends it stops at
    sqrt(ᾱ) = 0.22: not at pure noise, so sampling begins a little off.
    """

    def __init__(
        self, *, steps: Entries = 1000, beta_min: float = 1e-4, beta_max: float = 0.02
    ) -> None:
        super().__init__(torch.linspace(beta_min, beta_max, steps, dtype=torch.float64))


@SCHEDULES.register("cosine")
class Cosine(Table):
    """ᾱ(t) = f(t)/f(0), f(t) = cos²((t + s)/(1 + s)·π/2) (Nichol & Dhariwal 2021, eq. 17).

    Betas are capped at 0.999.
    """

    def __init__(self, *, steps: Entries = 1000, offset: float = 0.008) -> None:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
        super().__init__((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))


@SCHEDULES.register("edm")
class EDM:
    """Variance exploding: alpha = 1, sigma = sigma_max·t^rho (Karras et al. 2022).

    The power makes an even grid in t Karras' own grid with sigma_min = 0 (eq. 5). The one-step
    denoiser z = x + σε is this schedule held at one time.
    """

    steps = None

    def __init__(self, *, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if sigma_max <= 0 or rho <= 0:
            raise ConfigError(f"sigma_max {sigma_max} and rho {rho} must be above 0.")
        self.sigma_max, self.rho = sigma_max, rho

    def level(self, t: Tensor) -> Level:
        sigma = self.sigma_max * t.to(torch.float64).pow(self.rho)
        return Level(torch.ones_like(sigma), sigma)

    def time(self, log_snr: Tensor) -> Tensor:
        sigma = (-log_snr.to(torch.float64) / 2).exp()
        return (sigma / self.sigma_max).pow(1 / self.rho).clamp(max=1)


@SCHEDULES.register("flow")
class Flow:
    """A straight line from picture to noise: alpha = 1 − t, sigma = t (Lipman et al. 2023).

    With uniform noise on [0, 1] it is the course's toy mix (1 − a)·x + a·u.
    """

    steps = None

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.float64)
        return Level(1 - t, t)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.to(torch.float64) / 2)


def mixed(x0: Tensor, level: Level, eps: Tensor) -> Tensor:
    """q(x_t | x_0) in closed form: alpha·x0 + sigma·eps. Shapes broadcast."""
    return level.alpha * x0 + level.sigma * eps


def transition(earlier: Level, later: Level) -> Level:
    """q(x_t | x_s) for s < t, normal noise: x_t = alpha·x_s + sigma·eps with these two.

    For a table and neighbouring entries they are sqrt(1 − β_t) and sqrt(β_t) (Ho et al. 2020,
    eq. 2). A chain of uniform noises is not uniform, so the toy mix has the closed form only.
    """
    alpha = later.alpha / earlier.alpha
    variance = later.sigma.square() - (alpha * earlier.sigma).square()
    return Level(alpha, variance.clamp(min=0).sqrt())


def ratio(level: Level) -> Tensor:
    """sigma/alpha: the noise level in the picture's own units (infinite where alpha is 0)."""
    return level.sigma / level.alpha


def log_snr(level: Level) -> Tensor:
    """log(alpha²/sigma²)."""
    return 2 * (level.alpha.log() - level.sigma.log())


def entries(schedule: Schedule) -> int | None:
    """How many entries the schedule's table has; None where it is continuous."""
    count: int | None = getattr(schedule, "steps", None)
    return count


@GRIDS.register("uniform")
def uniform(schedule: Schedule, steps: int) -> Tensor:
    """Even in t, from 1 to 0."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@GRIDS.register("strided")
def strided(schedule: Schedule, steps: int) -> Tensor:
    """Even strides through a table's entries, each rounded to one: the fractions are never told.

    Raises:
        InputError: a schedule without a table, or more steps than it has entries.
    """
    count = entries(schedule)
    if count is None:
        raise InputError("The grid 'strided' needs a table of betas; use 'uniform' or 'karras'.")
    if steps > count:
        raise InputError(f"The table has {count} entries; ask for at most that many steps.")
    return (torch.linspace(1, 0, steps + 1, dtype=torch.float64) * count).round() / count


@GRIDS.register("karras")
def karras(
    schedule: Schedule,
    steps: int,
    *,
    rho: Positive = 7.0,
    sigma_min: Positive = 0.002,
    sigma_max: Positive = 80.0,
) -> Tensor:
    """Even in (sigma/alpha)^(1/rho) between sigma_max and sigma_min, then 0.

    Karras et al. 2022, eq. 5. The schedule's own range is kept where it is narrower.

    Raises:
        InputError: sigma_min is not below sigma_max.
    """
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    top = min(sigma_max, float(ratio(schedule.level(ends[0]))))
    if not 0 < sigma_min < top:
        raise InputError(
            f"The grid 'karras' needs 0 < sigma_min < sigma_max; got {sigma_min} and {top:.4g}."
        )
    ramp = torch.linspace(top ** (1 / rho), sigma_min ** (1 / rho), steps, dtype=torch.float64)
    times = schedule.time(-2 * rho * ramp.log())
    return torch.cat((times, ends[1:]))
