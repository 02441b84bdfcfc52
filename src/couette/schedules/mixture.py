"""A schedule read as shares: how much of x_0 is kept where the rest is replaced, not added."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Level, Schedule
from couette.errors import ConfigError
from couette.schedules.forward import entries

_MIDDLE = torch.tensor(0.5, dtype=torch.float64)


class Mixture:
    """alpha(t) is the probability that a state is still its own, sigma(t) = 1 − alpha(t) the rest.

    A straight mix (`flow`) keeps its alpha, so alpha = 1 − t: the log-linear schedule of Sahoo et
    al. 2024. A variance-preserving schedule keeps alpha² = ᾱ, so that a table's β is the
    probability of being replaced in one step (Hoogeboom et al. 2021, sec. 4).

    Args:
        schedule: with alpha + sigma = 1 or alpha² + sigma² = 1.

    Raises:
        ConfigError: any other schedule; it says nothing of shares.
    """

    def __init__(self, schedule: Schedule) -> None:
        level = schedule.level(_MIDDLE)
        powers = [p for p in (1, 2) if abs(float(level.alpha**p + level.sigma**p) - 1) < 1e-9]
        if not powers:
            raise ConfigError(
                "States are replaced, so their schedule must part 1 into what is kept and what "
                "is not; choose flow, or a variance-preserving one such as cosine."
            )
        self.schedule, self.power = schedule, powers[0]
        self.steps = entries(schedule)

    def level(self, t: Tensor) -> Level:
        level = self.schedule.level(t)
        return Level(level.alpha**self.power, level.sigma**self.power)

    def time(self, log_snr: Tensor) -> Tensor:
        return self.schedule.time(log_snr / self.power)

    def fall(self, t: Tensor) -> Tensor:
        """−dalpha/dt, of the shape of `t`, float64."""
        with torch.enable_grad():
            t = t.detach().to(torch.float64).requires_grad_()
            (slope,) = torch.autograd.grad(self.level(t).alpha.sum(), t)
        return -slope
