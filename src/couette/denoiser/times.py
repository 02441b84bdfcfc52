"""How training draws its times: from u, uniform in (0, 1), by the inverse distribution function.

Each rises with u, from clean to noise. Those that speak of noise levels do so of sigma/alpha,
whatever the schedule; levels beyond the schedule's end are drawn at its end.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Schedule
from couette.registry import TIMES
from couette.schedules import entries, laplace_log_snr

Positive = Annotated[float, Field(gt=0)]


@TIMES.register("uniform")
def uniform_times(schedule: Schedule, u: Tensor) -> Tensor:
    """Every t, or every entry of a table, equally often: for what is trained as DDPM was.

    t = u, or (k + 1)/T with k drawn from a table's entries (Ho et al. 2020, alg. 1). When to use
    it: on tables of betas.
    """
    count = entries(schedule)
    return u if count is None else ((u * count).floor() + 1) / count


@TIMES.register("log-normal")
def log_normal_times(
    schedule: Schedule, u: Tensor, *, mean: float = -1.2, std: Positive = 1.2
) -> Tensor:
    """ln(sigma/alpha) is normal (Karras et al. 2022, tab. 1): the one to begin with on `edm`.

    ln(sigma/alpha) = mean + std·Φ⁻¹(u). When to use it: first, on `edm`.
    """
    return schedule.time(-2 * (mean + std * torch.special.ndtri(u)))


@TIMES.register("logit-normal")
def logit_normal_times(
    schedule: Schedule, u: Tensor, *, mean: float = 0.0, std: Positive = 1.0
) -> Tensor:
    """ln(t/(1 − t)) is normal (Esser et al. 2024, eq. 19): for `flow`, dense in the middle.

    On the plain flow sigma/alpha is t/(1 − t), and this is `log-normal`. When to use it: on `flow`,
    where most is learned in the middle.
    """
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


@TIMES.register("mode")
def mode_times(
    schedule: Schedule,
    u: Tensor,
    *,
    scale: Annotated[float, Field(ge=-1, le=2 / (math.pi - 2))] = 1.29,
) -> Tensor:
    """t = u − scale·(sin²(πu/2) − u) (Esser et al. 2024, eq. 20): for `flow`, no end forgotten.

    Dense in the middle for scale above 0, at both ends below it, uniform at 0. Theirs with u turned
    round, so that it rises. When to use it: on `flow`, where neither end may be forgotten.
    """
    return u - scale * (torch.sin(math.pi * u / 2).square() - u)


@TIMES.register("cosine-weighted")
def cosine_weighted_times(schedule: Schedule, u: Tensor) -> Tensor:
    """sigma/alpha is tan(πu/2): the noise levels of the cosine schedule, on any schedule.

    On the flow it is CosMap, t = 1 − 1/(1 + tan(πu/2)) (Esser et al. 2024, eq. 21). When to use it:
    to train another schedule on what `cosine` sees.
    """
    return schedule.time(-2 * torch.tan(math.pi * u / 2).log())


@TIMES.register("laplace")
def laplace_times(
    schedule: Schedule, u: Tensor, *, mean: float = 0.0, scale: Positive = 0.5
) -> Tensor:
    """log-SNR is Laplace distributed (Hang et al. 2024): fast training, most of it mid-way.

    The same levels as the schedule `laplace` has at uniform times. When to use it: for fast
    training on any schedule, most of it at the middle noise levels.
    """
    return schedule.time(laplace_log_snr(u, mean, scale))


@TIMES.register("fixed")
def fixed_times(schedule: Schedule, u: Tensor, *, sigma: Positive = 0.5) -> Tensor:
    """One noise level sigma/alpha, always: a one-step denoiser.

    t is where sigma/alpha = sigma (UC Berkeley CS180, project 5, part B). When to use it: with
    nothing but the recipe `denoiser` and its like.
    """
    return schedule.time(torch.full_like(u, -2 * math.log(sigma), dtype=torch.float64))
