"""DPM-Solver++ for the reverse SDE: one step by way of its middle, and multistep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Step
from couette.registry import SAMPLERS
from couette.samplers.interpolation import two_point
from couette.samplers.moves import (
    half_log_snr,
    is_clean,
    is_noise,
    level_at,
    move,
    need_normal,
    stretches,
)
from couette.samplers.noisy import Strength, diffused, drawn, exponential, multistep, renew


@SAMPLERS.register(
    "dpmpp-sde",
    noise=True,
    strength="eta",
    weak=2,
    evaluations=2,
    known_as=(
        "DPMSolverSDEScheduler",
        "sample_dpmpp_sde",
        "DPM++ SDE",
        "dpmpp_sde",
        "dpmpp_sde_gpu",
    ),
)
def dpmpp_sde(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, eta: Strength = 1.0
) -> Iterator[Step]:
    """A noisy step half of the way, then the whole step along the x0 predicted there.

    k-diffusion's sample_dpmpp_sde, diffusers' DPMSolverSDE: DPM-Solver++(2S) (Lu et al. 2023, alg.
    1 with r = 1/2) for the reverse SDE of strength eta; eta = 0 is dpmpp-2s. What the first half
    draws is carried on as on the SDE's own path. Two evaluations a step, one where sigma ends or
    alpha starts at 0. Noise is kept and drawn as by dpmpp-2m-sde. When to use it: with noise in few
    steps; dpmpp-2m-sde costs half as much.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-sde")
    for s in stretches(denoise, times):
        first = denoise(x, s.t, cond)
        whole = diffused(s.a, s.b, eta)
        if is_noise(s.a) or is_clean(s.b):
            x = renew(x, first, s, whole, noise)
        else:
            v, middle = level_at(denoise, (half_log_snr(s.a) + half_log_snr(s.b)) / 2)
            early, late = diffused(s.a, middle, eta), diffused(middle, s.b, eta)
            begun = drawn(early, noise, s.t, v)
            there = move(x, first, s.a, Level(middle.alpha, early.kept)) + begun
            second = denoise(there, v, cond)
            path = late.kept / middle.sigma * begun + drawn(late, noise, v, s.u)
            x = move(x, second, s.a, Level(s.b.alpha, whole.kept)) + path
        yield Step(s.index, s.count, s.u, x, first.x0)


@SAMPLERS.register(
    "dpmpp-2m-sde",
    noise=True,
    strength="eta",
    weak=2,
    known_as=(
        "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++')",
        "EDMDPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++')",
        "CogVideoXDPMScheduler",
        "CosineDPMSolverMultistepScheduler",
        "sample_dpmpp_2m_sde",
        "DPM++ 2M SDE",
        "dpmpp_2m_sde",
        "dpmpp_2m_sde_gpu",
    ),
    variants={
        "form=heun": (
            "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++', solver_type='heun')",
            "sample_dpmpp_2m_sde(solver_type='heun')",
            "DPM++ 2M SDE Heun",
            "dpmpp_2m_sde_heun",
            "dpmpp_2m_sde_heun_gpu",
        )
    },
)
def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    eta: Strength = 1.0,
    form: Literal["midpoint", "heun"] = "midpoint",
) -> Iterator[Step]:
    """x0 on the line in λ through the last two predictions, for the reverse SDE of strength eta.

    SDE-DPM-Solver++(2M) (Lu et al. 2023); diffusers' DPMSolverMultistep with sde-dpmsolver++.
    "midpoint" takes the line's value in the middle of the step, as the paper does; "heun"
    integrates it exactly. eta = 0 is dpmpp-2m. Of sigma_u the part sigma_u·e^(−eta·h) is kept of
    the old noise and sigma_u·sqrt(1 − e^(−2·eta·h)) drawn anew, h the step in λ. When to use it:
    first among those that draw noise, in 20 steps or more.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-2m-sde")
    split = partial(diffused, eta=eta)
    weigh = _middle if form == "midpoint" else partial(exponential, eta=eta)
    return multistep(denoise, x, times, cond, noise, 2, split, weigh)


def _middle(levels: Sequence[Level], a: Level, b: Level) -> Tensor:
    """The line's value at half the step in λ."""
    lams = [half_log_snr(level) for level in levels]
    if len(lams) == 1:
        return torch.ones(1, dtype=torch.float64)
    return two_point(lams, half_log_snr(a), half_log_snr(b), mean=1 / 2)


@SAMPLERS.register(
    "dpmpp-3m-sde",
    noise=True,
    strength="eta",
    weak=2,
    known_as=(
        "DPMSolverMultistepScheduler(algorithm_type='sde-dpmsolver++', solver_order=3)",
        "sample_dpmpp_3m_sde",
        "DPM++ 3M SDE",
        "dpmpp_3m_sde",
        "dpmpp_3m_sde_gpu",
    ),
)
def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, eta: Strength = 1.0
) -> Iterator[Step]:
    """x0 on the parabola in λ through the last three predictions, for the SDE of strength eta.

    k-diffusion's sample_dpmpp_3m_sde halves the parabola's second term, and diffusers'
    sde-dpmsolver++ with solver_order=3 has its sign wrong; it is whole here. eta = 0 is dpmpp-3m.
    Lu et al. 2023, carried from two predictions to three. Noise is kept and drawn as by
    dpmpp-2m-sde. When to use it: as dpmpp-2m-sde, in 30 steps or more (in 10 the variance
    overshoots several times over) and with less guidance.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-3m-sde")
    parabola = partial(exponential, eta=eta)

    def weigh(levels: Sequence[Level], a: Level, b: Level) -> Tensor:
        return (parabola if len(levels) == 3 else _middle)(levels, a, b)

    return multistep(denoise, x, times, cond, noise, 3, partial(diffused, eta=eta), weigh)
