"""What the network's output F means: x0 = skip·x + out·F, four coefficients of the level."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from couette.contracts import Level, Scalings
from couette.registry import PARAMETERIZATIONS

Positive = Annotated[float, Field(gt=0)]


@PARAMETERIZATIONS.register("eps")
def eps(level: Level) -> Scalings:
    """F is the noise: x0 = (x − sigma·F)/alpha (Ho et al. 2020, eq. 15). Singular at alpha = 0.

    When to use it: on tables that end short of pure noise, as DDPM's and Stable Diffusion's.
    """
    return Scalings(1 / level.alpha, -level.sigma / level.alpha, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("score", unbounded=True)
def score(level: Level) -> Scalings:
    """F is the score of x_t, −eps/sigma: x0 = (x + sigma²·F)/alpha (Song et al. 2021, eq. 7).

    Singular at alpha = 0, as eps is; and its own error grows without bound as sigma falls to 0, so
    it is trained with a weight that falls with sigma², such as `snr` (Song et al. 2021's λ), and
    never with `uniform`. When to use it: for score-based models, on `ve` and `vp`.
    """
    return Scalings(
        1 / level.alpha, level.sigma.square() / level.alpha, torch.ones_like(level.alpha)
    )


@PARAMETERIZATIONS.register("x0")
def x0(level: Level) -> Scalings:
    """F is the clean picture.

    x0 = F (Salimans & Ho 2022, sec. 4). When to use it: for one-step denoisers, and at high noise,
    where eps says little of the picture.
    """
    return Scalings(
        torch.zeros_like(level.alpha), torch.ones_like(level.alpha), torch.ones_like(level.alpha)
    )


@PARAMETERIZATIONS.register("v")
def v(level: Level) -> Scalings:
    """F is alpha·eps − sigma·x0 (Salimans & Ho 2022, sec. 4), for any alpha and sigma.

    x0 = (alpha·x − sigma·F)/(alpha² + sigma²). When to use it: on schedules that end at pure noise,
    where eps is singular.
    """
    power = level.alpha.square() + level.sigma.square()
    return Scalings(level.alpha / power, -level.sigma / power, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("flow")
def flow(level: Level) -> Scalings:
    """F is eps − x0, the velocity of the straight path (Lipman et al. 2023, eq. 23).

    x0 = (x − sigma·F)/(alpha + sigma), on any schedule. When to use it: on `flow`.
    """
    total = level.alpha + level.sigma
    return Scalings(1 / total, -level.sigma / total, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("edm")
def edm(level: Level, *, sigma_data: Positive = 0.5) -> Scalings:
    """Unit variance in, out and in the target (Karras et al. 2022, tab. 1), for any alpha.

    sigma_data is the standard deviation of the pictures in [-1, 1]. With d² = sigma_data²·alpha² +
    sigma²: x0 = sigma_data²·alpha/d²·x + sigma_data·sigma/d·F, the network given x/d. When to use
    it: first.
    """
    signal = (sigma_data * level.alpha).square()
    total = signal + level.sigma.square()
    return Scalings(
        sigma_data**2 * level.alpha / total,
        level.sigma * sigma_data * total.rsqrt(),
        total.rsqrt(),
    )


def singular(scalings: Scalings) -> bool:
    """Whether the network's output can't say what x0 is: that of eps and score at alpha = 0."""
    return not all(bool(part.isfinite().all()) for part in scalings)


def regular(level: Level) -> list[str]:
    """The parameterizations that are not singular at this level."""
    return [name for name in PARAMETERIZATIONS if not singular(PARAMETERIZATIONS[name](level))]
