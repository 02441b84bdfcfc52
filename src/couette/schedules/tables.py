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
from couette.schedules.forward import preserving

Entries = Annotated[int, Field(ge=2, le=1_000_000)]
Positive = Annotated[float, Field(gt=0)]


class Table:
    """A variance-preserving schedule given by T values of beta: t = (k + 1)/T is entry k.

    alpha = sqrt(ᾱ), sigma = sqrt(1 − ᾱ), ᾱ_k = Π_{s≤k}(1 − β_s) (Ho et al. 2020, eq. 4). Between
    the entries log(sigma/alpha) is linear in t; below the first one sigma/alpha is, and before a
    last one without any signal (β = 1) alpha/sigma is.

    Args:
        betas: (T,) in (0, 1), at least two; the last may be 1.

    Raises:
        ConfigError: too few betas, or one outside (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        betas = betas.to(torch.float64)
        inside = (betas > 0) & (betas < 1)
        inside[-1:] |= betas[-1:] == 1
        if betas.numel() < 2 or not bool(inside.all()):
            raise ConfigError(
                "A table of betas needs two or more values, each between 0 and 1; only the last "
                "may be 1."
            )
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
        part = (position - below).clamp(0, 1)
        gap = table[below + 1] - table[below]
        rise = torch.where(gap.isinf(), -torch.log1p(-part), part * gap)
        return preserving((table[below] + rise).exp() * (position + 1).clamp(0, 1))

    def time(self, log_snr: Tensor) -> Tensor:
        log_ratio = -log_snr.to(torch.float64) / 2
        table = self._log_ratio.to(log_snr.device)
        above = torch.searchsorted(table, log_ratio.contiguous()).clamp(1, self.steps - 1)
        gap = table[above] - table[above - 1]
        rise = log_ratio - table[above - 1]
        part = torch.where(gap.isinf(), -torch.expm1(-rise), rise / gap).clamp(max=1)
        first = (log_ratio - table[0]).exp()
        return torch.where(log_ratio < table[0], first, above + part) / self.steps


def betas_between(alpha_bar: Tensor) -> Tensor:
    """The betas that lead from each ᾱ to the next: (T + 1,) from the clean end on, to (T,)."""
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


@SCHEDULES.register("linear", known_as=("linear",))
class Linear(Table):
    """Betas in even steps from 1e-4 to 0.02: DDPM's schedule (Ho et al. 2020, sec. 4).

    With T = 1000 it ends at sqrt(ᾱ) = 0.0064. With T = 300 and the same ends it stops at sqrt(ᾱ) =
    0.22: not at pure noise, so sampling begins a little off. When to use it: to compare with
    others.
    """

    def __init__(
        self, *, steps: Entries = 1000, beta_min: float = 1e-4, beta_max: float = 0.02
    ) -> None:
        super().__init__(torch.linspace(beta_min, beta_max, steps, dtype=torch.float64))


@SCHEDULES.register("scaled-linear", known_as=("scaled_linear",))
class ScaledLinear(Table):
    """Betas whose square roots are in even steps: Stable Diffusion's (Rombach et al. 2022).

    It keeps more of the picture than `linear` does and ends at sqrt(ᾱ) = 0.068: see
    `zero-terminal`. When to use it: for latents, and what was trained as Stable Diffusion 1, 2 and
    XL were.
    """

    def __init__(
        self, *, steps: Entries = 1000, beta_min: Positive = 0.00085, beta_max: Positive = 0.012
    ) -> None:
        roots = torch.linspace(beta_min**0.5, beta_max**0.5, steps, dtype=torch.float64)
        super().__init__(roots.square())


@SCHEDULES.register("cosine", known_as=("squaredcos_cap_v2",))
class Cosine(Table):
    """ᾱ(t) = f(t)/f(0), f(t) = cos²((t + s)/(1 + s)·π/2) (Nichol & Dhariwal 2021, eq. 17).

    s is `offset`; betas are capped at `max_beta`, and a cap of 1 lets it end at pure noise. When to
    use it: on small pictures (32 to 64 pixels), where `linear` leaves nothing but noise too early;
    for larger ones see `shifted`.
    """

    def __init__(
        self, *, steps: Entries = 1000, offset: float = 0.008, max_beta: Positive = 0.999
    ) -> None:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
        super().__init__(betas_between(alpha_bar).clamp(max=max_beta))


@SCHEDULES.register("sigmoid")
class Sigmoid(Table):
    """ᾱ falls as a sigmoid from 1 to `least` (Jabri et al. 2022; Chen 2023, alg. 1).

    ᾱ(t) = (S(end) − S(start + t·(end − start)))/(S(end) − S(start)), S(z) = sigmoid(z/tau).
    diffusers means another one by this name: see `sigmoid-betas`. When to use it: on pictures of
    128 pixels and more, where it trains more steadily than `cosine`.
    """

    def __init__(
        self,
        *,
        steps: Entries = 1000,
        start: float = -3.0,
        end: float = 3.0,
        tau: Positive = 1.0,
        least: Annotated[float, Field(ge=0, lt=1)] = 1e-9,
    ) -> None:
        s = torch.linspace(start / tau, end / tau, steps + 1, dtype=torch.float64).sigmoid()
        alpha_bar = (s[-1] - s) / (s[-1] - s[0])
        super().__init__(betas_between(alpha_bar.clamp(min=least)))


@SCHEDULES.register("sigmoid-betas", known_as=("sigmoid",))
class SigmoidBetas(Table):
    """Betas that rise as a sigmoid over [−6, 6]: diffusers' "sigmoid" (GeoDiff, Xu et al. 2022).

    β_k = beta_min + (beta_max − beta_min)·sigmoid(−6 + 12·k/(T − 1)). When to use it: for models
    trained with that setting.
    """

    def __init__(
        self, *, steps: Entries = 1000, beta_min: float = 1e-4, beta_max: float = 0.02
    ) -> None:
        rise = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
        super().__init__(beta_min + rise * (beta_max - beta_min))


@SCHEDULES.register(
    "betas",
    example={"values": (0.01, 0.04, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)},
    known_as=("trained_betas",),
)
class Betas(Table):
    """A table of betas written out, for a model whose table has no formula (`trained_betas`).

    When to use it: where `trained_betas` stands in a model's scheduler.

    Args:
        values: T numbers in (0, 1); the last may be 1.
    """

    def __init__(self, *, values: tuple[float, ...]) -> None:
        super().__init__(torch.tensor(values, dtype=torch.float64))


@SCHEDULES.register("alpha-bars", example={"values": (0.98, 0.9, 0.75, 0.55, 0.35, 0.15, 0.05, 0)})
class AlphaBars(Table):
    """A table of ᾱ written out, from the cleanest entry to the noisiest.

    When to use it: as `betas`, where the table is given by what it leaves of the signal.

    Args:
        values: T falling numbers in (0, 1); the last may be 0.

    Raises:
        ConfigError: values that do not fall.
    """

    def __init__(self, *, values: tuple[float, ...]) -> None:
        alpha_bar = torch.tensor((1.0, *values), dtype=torch.float64)
        if not bool((alpha_bar.diff() < 0).all()):
            raise ConfigError("The values of 'alpha-bars' must fall, each below the one before.")
        super().__init__(betas_between(alpha_bar))
