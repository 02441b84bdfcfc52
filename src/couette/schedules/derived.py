"""Schedules made of another schedule.

The inner one is written as on the command line: `shifted:schedule=cosine,shift=4`; with several
settings of its own it stands in brackets, `shifted:schedule=(linear:steps=300,beta_max=0.03)`.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from couette.config import Spec, joined, spec_fields
from couette.contracts import Level, Schedule
from couette.errors import ConfigError
from couette.registry import SCHEDULES
from couette.schedules.forward import entries
from couette.schedules.tables import Table, betas_between

Inner = Annotated[str, BeforeValidator(joined)]
Positive = Annotated[float, Field(gt=0)]


def _built(text: str) -> Schedule:
    schedule: Schedule = SCHEDULES.build(Spec.model_validate(spec_fields(text)))
    return schedule


@SCHEDULES.register("shifted")
class Shifted:
    """Another schedule with sigma/alpha `shift` times as large: log-SNR lower by 2·log(shift).

    The same noise hides less of a larger picture, whose neighbouring pixels agree. What suits
    pictures of 64 pixels suits those of d with shift = d/64 (Hoogeboom et al. 2023, sec. 3.1). The
    result is of the inner schedule's own kind: of `flow` it is `flow:shift=…`, of `edm` another
    sigma_max; variance preserving stays so. When to use it: on pictures larger than those a
    schedule was found for.
    """

    def __init__(self, *, schedule: Inner = "cosine", shift: Positive = 2.0) -> None:
        self.schedule = _built(schedule)
        self.steps = entries(self.schedule)
        self.unit = getattr(self.schedule, "unit", torch.hypot)
        self.shift = torch.tensor(shift, dtype=torch.float64)

    def level(self, t: Tensor) -> Level:
        alpha, sigma = self.schedule.level(t)
        sigma = self.shift * sigma
        unit = self.unit(alpha, sigma)
        return Level(alpha / unit, sigma / unit)

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr.to(torch.float64) + 2 * self.shift.log())


@SCHEDULES.register("zero-terminal", known_as=("rescale_betas_zero_snr",))
class ZeroTerminal(Table):
    """A table rescaled to end at pure noise, which is where sampling begins (Lin et al. 2024).

    Algorithm 1: sqrt(ᾱ) is shifted so that its last entry is 0 and scaled so that its first one
    stays. When to use it: for pictures that may be all dark or all bright, which a table with
    signal left at its end never learns to make; with `v` or `x0`, as eps says nothing where alpha
    is 0.

    Raises:
        ConfigError: the schedule within has no table.
    """

    def __init__(self, *, schedule: Inner = "scaled-linear") -> None:
        table = _built(schedule)
        if not isinstance(table, Table):
            raise ConfigError(
                f"'zero-terminal' rescales a table of betas, which '{schedule}' is not; give it "
                "linear, scaled-linear or another table."
            )
        root = table.alpha_bar.sqrt()
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        super().__init__(betas_between(torch.cat((root.new_ones(1), root.square()))))
