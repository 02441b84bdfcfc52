"""The DPM-Solver family: steps measured in λ = log(alpha/sigma).

dpm2 and dpmpp-2s look once at the middle of the step in λ: the first keeps its eps, the second its
x0. dpmpp-2m and dpmpp-3m spend no further evaluation: they take the polynomial in λ through the
last predictions of x0. At an end where λ is infinite all make a plain move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.interpolation import exponential_adams, two_point
from couette.samplers.moves import (
    blend,
    half_log_snr,
    is_clean,
    is_noise,
    level_at,
    move,
    need_normal,
    slope,
    stretches,
    transfer,
)


@SAMPLERS.register(
    "dpm2",
    order=2,
    evaluations=2,
    known_as=("KDPM2DiscreteScheduler", "sample_dpm_2", "DPM2", "dpm_2"),
)
def dpm2(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """DPM-Solver-2: move along the eps seen at the geometric mean of the step's sigma/alpha.

    Lu et al. 2022, alg. 1, with r₁ = 1/2, in Karras' form (Crowson's k-diffusion, sample_dpm_2).
    With X = x/alpha and S = sigma/alpha a step is X_u = X_t + (S_u − S_t)·eps(middle). When to use
    it: to compare with; dpmpp-2s does the same with x0, which bears guidance better.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpm2")
    for i, n, t, u, a, b in stretches(denoise, times):
        p = denoise(x, t, cond)
        if is_noise(a) or is_clean(b):
            x = move(x, p, a, b)
        else:
            there, level, second = halfway(denoise, x, cond, p, a, b)
            x = transfer(x, slope(there, second, level), a, b)
        yield Step(i, n, u, x, p.x0)


@SAMPLERS.register("dpmpp-2s", order=2, evaluations=2, known_as=("DPMSolverSinglestepScheduler",))
def dpmpp_2s(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++(2S): move along the x0 seen at the geometric mean of the step's sigma/alpha.

    Lu et al. 2023, alg. 1, with r = 1/2. x_u = r·x_t + (alpha_u − alpha_t·r)·x0(middle), r =
    sigma_u/sigma_t. When to use it: where no step may lean on those before it; dpmpp-2m costs half
    as much.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-2s")
    for i, n, t, u, a, b in stretches(denoise, times):
        p = along = denoise(x, t, cond)
        if not (is_noise(a) or is_clean(b)):
            _, _, along = halfway(denoise, x, cond, p, a, b)
        x = move(x, along, a, b)
        yield Step(i, n, u, x, p.x0)


def halfway(
    denoise: Denoise, x: Tensor, cond: Cond, p: Prediction, a: Level, b: Level
) -> tuple[Tensor, Level, Prediction]:
    """x moved along p to the middle in λ, the level there, and what is predicted there."""
    t, level = level_at(denoise, (half_log_snr(a) + half_log_snr(b)) / 2)
    there = move(x, p, a, level)
    return there, level, denoise(there, t, cond)


@SAMPLERS.register(
    "dpmpp-2m",
    order=2,
    known_as=(
        "DPMSolverMultistepScheduler",
        "EDMDPMSolverMultistepScheduler",
        "sample_dpmpp_2m",
        "DPM++ 2M",
        "dpmpp_2m",
    ),
)
def dpmpp_2m(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++(2M): move along x0 as the last two predictions have it at the step's middle.

    Lu et al. 2023, alg. 2. x_u = r·x_t + (alpha_u − alpha_t·r)·D with r = sigma_u/sigma_t, D = x0 +
    (h/2h')·(x0 − x0') for the last two predictions and steps in λ. It begins with Euler's step.
    When to use it: first, guided or not, in 10 to 30 steps.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-2m")
    return _multistep(denoise, x, times, cond, order=2)


@SAMPLERS.register(
    "dpmpp-3m",
    order=2,
    known_as=(
        "DPMSolverMultistepScheduler(solver_order=3)",
        "EDMDPMSolverMultistepScheduler(solver_order=3)",
    ),
)
def dpmpp_3m(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise
) -> Iterator[Step]:
    """DPM-Solver++(3M): the parabola in λ through the last three predictions, integrated exactly.

    Lu et al. 2023. The authors' code, and what follows it, halves the parabola's second term; here
    it is whole. It begins with Euler's step and one of dpmpp-2m, whose errors, of second order, are
    its own from then on. x_u = r·x_t + (alpha_u − alpha_t·r)·D with r = sigma_u/sigma_t, D the
    parabola's mean under e^λ over the step. When to use it: without guidance or with little;
    dpmpp-2m bears more of it.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-3m")
    return _multistep(denoise, x, times, cond, order=3)


def _multistep(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, order: int
) -> Iterator[Step]:
    past: deque[tuple[Tensor, Prediction]] = deque(maxlen=order)
    for i, n, t, u, a, b in stretches(denoise, times):
        p = along = denoise(x, t, cond)
        if not (is_noise(a) or is_clean(b)):
            past.appendleft((half_log_snr(a), p))
            lams, predictions = zip(*past, strict=True)
            along = blend(_weights(lams, half_log_snr(b)), predictions)
        x = move(x, along, a, b)
        yield Step(i, n, u, x, p.x0)


def _weights(lams: Sequence[Tensor], end: Tensor) -> Tensor:
    if len(lams) == 2:
        return two_point(lams, lams[0], end, mean=1 / 2)
    return exponential_adams(lams, lams[0], end)
