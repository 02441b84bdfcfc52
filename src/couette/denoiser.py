"""From a network to a denoiser: parameterizations, what the network is told, loss weightings.

A parameterization is the affine map x0 = skip·x + out·net(inp·x, told, cond). The network's target
falls out of it as (x0 − skip·x)/out, so one loss serves all. Knows nothing of training loops,
samplers or guidance.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.config import DiffusionConfig
from couette.contracts import (
    Cond,
    Corruption,
    Level,
    Network,
    Parameterization,
    Prediction,
    Scalings,
    Schedule,
    Told,
)
from couette.errors import ConfigError
from couette.registry import PARAMETERIZATIONS, SCHEDULES, TIMES, TOLD, WEIGHTINGS
from couette.runtime import Runtime
from couette.schedules import entries, ratio
from couette.tensors import expand

Positive = Annotated[float, Field(gt=0)]

# Parameterizations: what the network's output F means.


@PARAMETERIZATIONS.register("eps")
def eps(level: Level) -> Scalings:
    """F is the noise: x0 = (x − sigma·F)/alpha (Ho et al. 2020, eq. 15). Singular at alpha = 0."""
    return Scalings(1 / level.alpha, -level.sigma / level.alpha, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("x0")
def x0(level: Level) -> Scalings:
    """F is the clean picture."""
    return Scalings(
        torch.zeros_like(level.alpha), torch.ones_like(level.alpha), torch.ones_like(level.alpha)
    )


@PARAMETERIZATIONS.register("v")
def v(level: Level) -> Scalings:
    """F is alpha·eps − sigma·x0 (Salimans & Ho 2022, sec. 4), for any alpha and sigma."""
    power = level.alpha.square() + level.sigma.square()
    return Scalings(level.alpha / power, -level.sigma / power, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("flow")
def flow(level: Level) -> Scalings:
    """F is eps − x0, the velocity of the straight path (Lipman et al. 2023, eq. 23)."""
    total = level.alpha + level.sigma
    return Scalings(1 / total, -level.sigma / total, torch.ones_like(level.alpha))


@PARAMETERIZATIONS.register("edm")
def edm(level: Level, *, sigma_data: Positive = 0.5) -> Scalings:
    """Unit variance in, out and in the target (Karras et al. 2022, tab. 1), for any alpha.

    sigma_data is the standard deviation of the pictures in [-1, 1].
    """
    signal = (sigma_data * level.alpha).square()
    total = signal + level.sigma.square()
    return Scalings(
        sigma_data**2 * level.alpha / total,
        level.sigma * sigma_data * total.rsqrt(),
        total.rsqrt(),
    )


# What the network is told of the time.


@TOLD.register("index")
def index(t: Tensor, level: Level, *, steps: int | None = None) -> Tensor:
    """The index into a table of `steps` entries, t·steps − 1, rounded where it is nearly whole.

    steps is the schedule's own where it is not given.
    """
    if steps is None:
        raise ConfigError("Telling the table's index needs the table's length; set told.steps.")
    position = t.to(torch.float64) * steps - 1
    whole = position.round()
    return torch.where((position - whole).abs() < 1e-6, whole, position)


@TOLD.register("log")
def log(t: Tensor, level: Level) -> Tensor:
    """ln(sigma/alpha)/4 (Karras et al. 2022, tab. 1), within ±5."""
    return (ratio(level).log() / 4).clamp(-5, 5)


@TOLD.register("time")
def time(t: Tensor, level: Level, *, scale: float = 1000.0) -> Tensor:
    """t times a scale; scale 1 is the normalized time."""
    return t * scale


@TOLD.register("constant")
def constant(t: Tensor, level: Level, *, value: float = 0.0) -> Tensor:
    """The same number always: the network must read the noise from the picture."""
    return torch.full_like(t, value)


# Loss weightings, as factors on the squared error of the network's output F. A squared error of x0
# is out² times as large, so a weight w on x0 is w·out² here.


@WEIGHTINGS.register("uniform")
def uniform(level: Level, scalings: Scalings) -> Tensor:
    """1 on the network's own target: L_simple for eps (Ho et al. 2020, eq. 14)."""
    return torch.ones_like(scalings.out)


@WEIGHTINGS.register("min-snr")
def min_snr(level: Level, scalings: Scalings, *, gamma: Positive = 5.0) -> Tensor:
    """min(SNR, gamma) on x0 (Hang et al. 2023, eq. 7)."""
    snr = (level.alpha / level.sigma).square()
    return snr.clamp(max=gamma) * scalings.out.square()


@WEIGHTINGS.register("edm")
def edm_weighting(level: Level, scalings: Scalings, *, sigma_data: Positive = 0.5) -> Tensor:
    """(σ² + σ_data²)/(σ·σ_data)² on x0, σ = sigma/alpha (Karras et al. 2022, tab. 1).

    With the edm parameterization it equals `uniform`.
    """
    total = (level.alpha * sigma_data).square() + level.sigma.square()
    return total / (level.sigma * sigma_data).square() * scalings.out.square()


# How training draws its times: from u, uniform in (0, 1), by the inverse distribution function.


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


class Denoiser:
    """A network with a corruption and a parameterization: (x_t, t, cond) to the predicted x0.

    Args:
        network: the module; it runs in its own float32, under the runtime's autocast.
        corruption: what x_t is.
        parameterization: what the network's output means.
        told: what the network is told of the time.
        runtime: where and in what arithmetic the network runs.
    """

    def __init__(
        self,
        network: Network,
        corruption: Corruption,
        parameterization: Parameterization,
        told: Told,
        runtime: Runtime | None = None,
    ) -> None:
        self.network = network
        self.corruption = corruption
        self.parameterization = parameterization
        self.told = told
        self.runtime = runtime or Runtime()

    def raw(self, x: Tensor, t: Tensor, level: Level, scalings: Scalings, cond: Cond) -> Tensor:
        """The network's output F for x (B, C, H, W) at t (0-d or (B,)), float32."""
        told = self.told(t, level).reshape(-1).expand(x.shape[0]).to(x.device, torch.float32)
        inputs = (expand(scalings.inp, x) * x).float()
        with self.runtime.autocast():
            output: Tensor = self.network(inputs, told, cond)
        return output.to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """Predict x0.

        Args:
            x: (B, C, H, W) at time t.
            t: 0-d or (B,), in [0, 1].
            cond: what the network is told beside, as its `wants` says.
        """
        level = self.corruption.schedule.level(t)
        scalings = self.parameterization(level)
        output = self.raw(x, t, level, scalings, cond)
        return Prediction(expand(scalings.skip, x) * x + expand(scalings.out, x) * output)


def target(scalings: Scalings, level: Level, x0: Tensor, eps: Tensor) -> Tensor:
    """What F should be: (x0 − skip·x_t)/out, with the terms in x0 and eps kept apart: their two
    coefficients are float64's, to 1e-16/sigma, where the difference of pictures would cancel."""
    on_x0 = (1 - scalings.skip * level.alpha) / scalings.out
    on_eps = -scalings.skip * level.sigma / scalings.out
    return expand(on_x0, x0) * x0 + expand(on_eps, x0) * eps


def build_corruption(config: DiffusionConfig) -> Corruption:
    """The corruption that the settings describe.

    Raises:
        ConfigError: uniform noise on anything but the straight mix.
    """
    if config.noise == "uniform" and config.schedule.name != "flow":
        raise ConfigError(
            f"Uniform noise belongs to the toy mix, schedule 'flow', not to "
            f"'{config.schedule.name}'; set diffusion.noise to normal."
        )
    return Corruption(SCHEDULES.build(config.schedule), config.noise)


def build_denoiser(
    config: DiffusionConfig, network: Network, runtime: Runtime | None = None
) -> Denoiser:
    """The denoiser that the settings describe, around a built network.

    Raises:
        ConfigError: settings that contradict each other.
    """
    corruption = build_corruption(config)
    told = config.told
    if told.name == "index" and told.settings.get("steps") is None:
        count = entries(corruption.schedule)
        if count is None:
            raise ConfigError(
                f"The schedule '{config.schedule.name}' has no table to tell the index of; set "
                "diffusion.told to log or time."
            )
        told = told.with_settings(steps=count)
    parameterization = PARAMETERIZATIONS.bind(config.parameterization)
    return Denoiser(network, corruption, parameterization, TOLD.bind(told), runtime)
