"""Going back up to go down better: a deterministic sampler, its picture noised again on the way.

Both methods raise the noise by the forward process itself, q(x_up | x), so they hold for every
normal corruption; noise levels are given as sigma/alpha. What brings the picture down is another
sampler, driven over a short grid of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Sampler, Schedule, Step
from couette.registry import SAMPLERS
from couette.samplers.first_order import euler
from couette.samplers.moves import need_normal, need_rising, stretches
from couette.samplers.noisy import Strength
from couette.samplers.runge_kutta import heun
from couette.schedules import ratio, transition

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Swell = Annotated[float, Field(ge=0, le=2)]


@SAMPLERS.register(
    "edm",
    noise=True,
    strength="s_churn",
    evaluations=2,
    variants={
        "s_churn=80,s_noise=1.007": ("KarrasVeScheduler",),
        "s_churn=40,s_min=0,s_max=1e9,s_noise=1": ("sample_heun(s_churn=40)",),
    },
)
def edm(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    s_churn: Strength = 40.0,
    s_min: Strength = 0.05,
    s_max: Strength = 50.0,
    s_noise: Swell = 1.003,
) -> Iterator[Step]:
    """Karras et al. 2022, alg. 2 (stochastic Heun): up a little by noise, then down by heun.

    Between the noise levels s_min and s_max each step begins by raising sigma/alpha by the factor 1
    + min(s_churn/N, √2 − 1) with noise of standard deviation s_noise, but no further than the
    schedule's end. The settings are the paper's for ImageNet (table 5); s_churn = 0 is heun. When
    to use it: in many steps, to mend the model's errors as well as heun's; its settings are worth a
    search.

    Raises:
        InputError: a corruption whose noise is not normal, or `s_min` not below `s_max`.
    """
    need_normal(denoise, "edm")
    up = (s_churn, s_min, s_max, s_noise)
    return _churned(heun, denoise, x, times, cond, noise, *up)


@SAMPLERS.register(
    "euler-churn",
    noise=True,
    strength="s_churn",
    variants={
        "s_churn=40,s_min=0,s_max=1e9,s_noise=1": (
            "EulerDiscreteScheduler.step(s_churn=40)",
            "EDMEulerScheduler.step(s_churn=40)",
            "sample_euler(s_churn=40)",
        )
    },
)
def euler_churn(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    s_churn: Strength = 40.0,
    s_min: Strength = 0.05,
    s_max: Strength = 50.0,
    s_noise: Swell = 1.003,
) -> Iterator[Step]:
    """Karras et al. 2022, alg. 2 without the correction: as edm, but with steps of euler.

    k-diffusion's sample_euler and diffusers' EDMEuler with s_churn above 0. When to use it: to
    repeat what those drew, and to see what edm's correction is worth.

    Raises:
        InputError: a corruption whose noise is not normal, or `s_min` not below `s_max`.
    """
    need_normal(denoise, "euler-churn")
    up = (s_churn, s_min, s_max, s_noise)
    return _churned(euler, denoise, x, times, cond, noise, *up)


def _churned(
    down: Sampler,
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    s_churn: float,
    s_min: float,
    s_max: float,
    s_noise: float,
) -> Iterator[Step]:
    need_rising(s_min, s_max, "s_min and s_max")
    schedule = denoise.corruption.schedule
    for s in stretches(denoise, times):
        top, sigma = s.t, ratio(s.a)
        gamma = min(s_churn / s.count, math.sqrt(2) - 1)
        if gamma > 0 and s_min <= sigma <= s_max:
            top = torch.maximum(s.t, schedule.time(-2 * ((1 + gamma) * sigma).log()))
        if top > s.t:
            x = _noised(x, schedule, s.t, top, noise, s_noise)
        step = next(down(denoise, x, torch.stack((top, s.u)), cond, noise))
        x = step.x
        yield Step(s.index, s.count, s.u, x, step.x0)


@SAMPLERS.register(
    "restart", noise=True, strength="repeats", evaluations=None, known_as=("Restart",)
)
def restart(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    low: Positive = 0.06,
    high: Positive = 0.30,
    repeats: Annotated[int, Field(ge=0)] = 2,
    inner: Count = 2,
) -> Iterator[Step]:
    """Restart (Xu et al. 2023, sec. 3): heun, going from `low` up to `high` and down on its way.

    At the grid's time whose sigma/alpha is nearest to `low` (and below `high`) the picture is
    noised up to `high` and brought back by `inner` steps of heun on Karras' grid, `repeats` times
    over. So much noise at once drowns the errors made above. The settings are the authors' example
    for CIFAR-10, where `inner` + 1 points are counted. Where alpha and sigma are above 0 it costs
    2·inner·repeats evaluations more than heun. When to use it: where more steps of heun no longer
    help.

    Raises:
        InputError: a corruption whose noise is not normal, or `low` not below `high`.
    """
    need_normal(denoise, "restart")
    need_rising(low, high, "restart's low and high")
    schedule = denoise.corruption.schedule
    where = _nearest(ratio(schedule.level(times[1:])), low, high)
    for s in stretches(denoise, times):
        step = next(heun(denoise, x, torch.stack((s.t, s.u)), cond, noise))
        x = step.x
        for _ in range(repeats if s.index == where else 0):
            loop = _loop(schedule, high, s.b, s.u, inner)
            x = _noised(x, schedule, s.u, loop[0], noise)
            *_, last = heun(denoise, x, loop, cond, noise)
            x = last.x
        yield Step(s.index, s.count, s.u, x, step.x0)


def _nearest(sigmas: Tensor, low: float, high: float) -> int | None:
    """The index of the noise level nearest to low among those below high."""
    if not bool((sigmas < high).any()):
        return None
    return int(torch.where(sigmas < high, (sigmas - low).abs(), torch.inf).argmin())


def _loop(schedule: Schedule, high: float, level: Level, u: Tensor, steps: int) -> Tensor:
    """Times from the noise level `high`, or the schedule's end, down to u, on Karras' grid."""
    top = schedule.level(schedule.time(-2 * torch.tensor(high, dtype=torch.float64).log()))
    part = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    ramp = torch.lerp(ratio(top) ** (1 / 7), ratio(level) ** (1 / 7), part) ** 7
    return torch.cat((schedule.time(-2 * ramp[:-1].log()), u.reshape(1)))


def _noised(
    x: Tensor, schedule: Schedule, u: Tensor, t: Tensor, noise: Noise, s_noise: float = 1.0
) -> Tensor:
    """q(x_t | x_u), its noise times s_noise: back up from u to t."""
    forward = transition(schedule.level(u), schedule.level(t))
    return forward.alpha * x + s_noise * forward.sigma * noise(t, u)
