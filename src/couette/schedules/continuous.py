"""Schedules given by a formula in t, without a table.

`unit`, where a schedule has it, says what of alpha and sigma it keeps at 1; without it that is
sqrt(alpha² + sigma²).
"""

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

Positive = Annotated[float, Field(gt=0)]


def first(alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a variance-exploding schedule keeps at 1: the picture's own size."""
    return alpha


@SCHEDULES.register("edm")
class EDM:
    """Variance exploding: alpha = 1, sigma = sigma_max·t^rho (Karras et al. 2022).

    The power makes an even grid in t Karras' own grid with sigma_min = 0 (eq. 5). The one-step
    denoiser z = x + σε is this schedule held at one time. When to use it: first, with the
    parameterization `edm`.
    """

    steps = None
    unit = staticmethod(first)

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

    Its velocity is constant along the way. With uniform noise on [0, 1] it is the course's toy mix
    (1 − a)·x + a·u. For larger pictures `shift` above 1 spends more of the time at high noise: t
    becomes shift·t/(1 + (shift − 1)·t) (Esser et al. 2024, eq. 23; 3 in Stable Diffusion 3), a
    log-SNR lower by 2·log(shift). When to use it: for rectified flow, with the parameterization
    `flow`.
    """

    steps = None
    unit = staticmethod(torch.add)

    def __init__(self, *, shift: Positive = 1.0) -> None:
        self.shift = shift

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.float64)
        whole = 1 + (self.shift - 1) * t
        return Level((1 - t) / whole, self.shift * t / whole)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.to(torch.float64) / 2 - math.log(self.shift))


@SCHEDULES.register("gvp")
class Trigonometric:
    """A quarter turn: alpha = cos(πt/2), sigma = sin(πt/2) (Albergo & Vanden-Eijnden 2023).

    The cosine schedule without table, offset or cap, named "GVP" by SiT (Ma et al. 2024). At t = 1
    nothing of the picture is left. When to use it: with `v` or `flow`, on pictures and latents.
    """

    steps = None

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.float64)
        return Level(torch.sin((1 - t) * math.pi / 2), torch.sin(t * math.pi / 2))

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.atan((-log_snr.to(torch.float64) / 2).exp()) * 2 / math.pi


@SCHEDULES.register("vp")
class VP:
    """The VP-SDE, ᾱ = exp(−B), B = beta_min·t + (beta_max − beta_min)·t²/2 (Song et al. 2021).

    Equations 32 and 33: the continuous limit of `linear`, whose 1000 betas are these β(t)/1000.
    When to use it: for score-based models.

    Raises:
        ConfigError: beta_max is below beta_min.
    """

    steps = None

    def __init__(self, *, beta_min: Positive = 0.1, beta_max: Positive = 20.0) -> None:
        if beta_max < beta_min:
            raise ConfigError(f"beta_max {beta_max} must not be below beta_min {beta_min}.")
        self.beta_min, self.rise = beta_min, beta_max - beta_min

    def level(self, t: Tensor) -> Level:
        t = t.to(torch.float64)
        integral = (self.beta_min + self.rise * t / 2) * t
        return Level((-integral / 2).exp(), (-torch.expm1(-integral)).sqrt())

    def time(self, log_snr: Tensor) -> Tensor:
        # B = log(1 + e^(−log_snr)), and t by the root of the quadratic that is exact at t = 0.
        log_snr = log_snr.to(torch.float64)
        integral = torch.logaddexp(torch.zeros_like(log_snr), -log_snr)
        integral = integral.clamp(max=2 * self.beta_min + self.rise)  # B(1) and a little more
        root = (self.beta_min**2 + 2 * self.rise * integral).sqrt()
        return (2 * integral / (self.beta_min + root)).clamp(max=1)


@SCHEDULES.register("linear-log-snr")
class LinearLogSNR:
    """log-SNR falls in a straight line from log_snr_max to log_snr_min (Kingma et al. 2021).

    Variance preserving, with the ends of VDM: every noise level equally often. (sigma/alpha)² is
    e^(−log_snr(t)) − e^(−log_snr_max): the line bends up near t = 0, where everything is clean.
    When to use it: for likelihoods.

    Raises:
        ConfigError: log_snr_max is not above log_snr_min.
    """

    steps = None

    def __init__(self, *, log_snr_max: float = 13.3, log_snr_min: float = -5.0) -> None:
        if log_snr_max <= log_snr_min:
            raise ConfigError(
                f"log_snr_max {log_snr_max} must be above log_snr_min {log_snr_min}; the schedule "
                "falls from one to the other."
            )
        self.top, self.span = log_snr_max, log_snr_max - log_snr_min

    def level(self, t: Tensor) -> Level:
        return preserving(self._ratio(t.to(torch.float64)))

    def time(self, log_snr: Tensor) -> Tensor:
        beyond = self.top - log_snr.to(torch.float64)
        return (torch.logaddexp(torch.zeros_like(beyond), beyond) / self.span).clamp(max=1)

    def _ratio(self, t: Tensor) -> Tensor:
        return math.exp(-self.top / 2) * torch.expm1(self.span * t).sqrt()


@SCHEDULES.register("ve")
class VE(LinearLogSNR):
    """The VE-SDE: alpha = 1, sigma² = sigma_min²·((sigma_max/sigma_min)^2t − 1) (Song et al. 2021).

    Equation 29: sigma grows by the same factor in every stretch of t. The largest, sigma_max, is
    about the largest distance between two pictures. When to use it: for score-based models.

    Raises:
        ConfigError: sigma_max is not above sigma_min.
    """

    unit = staticmethod(first)

    def __init__(self, *, sigma_min: Positive = 0.01, sigma_max: Positive = 50.0) -> None:
        if sigma_max <= sigma_min:
            raise ConfigError(f"sigma_max {sigma_max} must be above sigma_min {sigma_min}.")
        super().__init__(log_snr_max=-2 * math.log(sigma_min), log_snr_min=-2 * math.log(sigma_max))

    def level(self, t: Tensor) -> Level:
        sigma = self._ratio(t.to(torch.float64))
        return Level(torch.ones_like(sigma), sigma)


def laplace_log_snr(u: Tensor, mean: float, scale: float) -> Tensor:
    """Falling quantiles of the Laplace distribution: log-SNR at u in [0, 1] (Hang et al. 2024).

    mean − scale·sgn(0.5 − u)·log(1 − 2·|u − 0.5|).
    """
    return mean - scale * torch.sign(0.5 - u) * (2 * torch.minimum(u, 1 - u)).log()


@SCHEDULES.register("laplace")
class Laplace:
    """log-SNR is Laplace distributed over t: dense where it is near `mean` (Hang et al. 2024).

    Variance preserving, from infinite log-SNR to none: most of the time goes to the middle noise
    levels, where most is learned. diffusers' "laplace" takes this alpha for ᾱ = alpha². When to use
    it: for fast training.
    """

    steps = None

    def __init__(self, *, mean: float = 0.0, scale: Positive = 0.5) -> None:
        self.mean, self.scale = mean, scale

    def level(self, t: Tensor) -> Level:
        return preserving((-laplace_log_snr(t.to(torch.float64), self.mean, self.scale) / 2).exp())

    def time(self, log_snr: Tensor) -> Tensor:
        above = (log_snr.to(torch.float64) - self.mean) / self.scale
        tail = (-above.abs()).exp() / 2
        return torch.where(above > 0, tail, 1 - tail)
