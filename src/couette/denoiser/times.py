"""How training draws its times: from u, uniform in (0, 1), by the inverse distribution function."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Schedule
from couette.registry import TIMES
from couette.schedules import entries

Positive = Annotated[float, Field(gt=0)]


@TIMES.register("uniform")
def uniform_times(schedule: Schedule, u: Tensor) -> Tensor:
    """Every t, or every entry of a table, equally often."""
    count = entries(schedule)
    return u if count is None else ((u * count).floor() + 1) / count


@TIMES.register("log-normal")
def log_normal_times(
    schedule: Schedule, u: Tensor, *, mean: float = -1.2, std: Positive = 1.2
) -> Tensor:
    """ln(sigma/alpha) is normal (Karras et al. 2022, tab. 1)."""
    return schedule.time(-2 * (mean + std * torch.special.ndtri(u)))


@TIMES.register("fixed")
def fixed_times(schedule: Schedule, u: Tensor, *, sigma: Positive = 0.5) -> Tensor:
    """One noise level sigma/alpha, always: a one-step denoiser."""
    return schedule.time(torch.full_like(u, -2 * math.log(sigma), dtype=torch.float64))
