"""Variance-preserving schedules given by a table of betas."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Level
from couette.errors import ConfigError
from couette.registry import SCHEDULES

Entries = Annotated[int, Field(ge=2, le=1_000_000)]


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
