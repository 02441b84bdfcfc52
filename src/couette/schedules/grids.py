"""Time grids: where a sampler's steps lie."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Schedule
from couette.errors import InputError
from couette.registry import GRIDS
from couette.schedules.forward import entries, ratio

Positive = Annotated[float, Field(gt=0)]


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
