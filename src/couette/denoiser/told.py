"""What the network is told of the time. Any of these goes with any parameterization."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Level
from couette.errors import ConfigError
from couette.registry import TOLD
from couette.schedules import ratio


@TOLD.register("index")
def index(t: Tensor, level: Level, *, steps: int | None = None) -> Tensor:
    """The index into a table of `steps` entries, t·steps − 1, rounded where it is nearly whole.

    steps is the schedule's own where it is not given. When to use it: on tables of betas, as DDPM
    does (Ho et al. 2020, app. B).
    """
    if steps is None:
        raise ConfigError("Telling the table's index needs the table's length; set told.steps.")
    position = t.to(torch.float64) * steps - 1
    whole = position.round()
    return torch.where((position - whole).abs() < 1e-6, whole, position)


@TOLD.register("log")
def log(t: Tensor, level: Level) -> Tensor:
    """ln(sigma/alpha)/4 (Karras et al. 2022, tab. 1), within ±5.

    When to use it: on `edm`, and on any schedule without a table.
    """
    return (ratio(level).log() / 4).clamp(-5, 5)


@TOLD.register("time")
def time(t: Tensor, level: Level, *, scale: float = 1000.0) -> Tensor:
    """t times a scale; scale 1 is the normalized time.

    When to use it: on `flow`, whose networks are told 1000·t (Esser et al. 2024).
    """
    return t * scale


@TOLD.register("constant")
def constant(t: Tensor, level: Level, *, value: float = 0.0) -> Tensor:
    """The same number always: the network must read the noise from the picture.

    When to use it: for one-step denoisers, and to see what telling the time is worth.
    """
    return torch.full_like(t, value)
