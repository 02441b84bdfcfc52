"""Schedules given by a formula in t, without a table."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Level
from couette.errors import ConfigError
from couette.registry import SCHEDULES


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
