"""Multistep methods of Adams and Bashforth on dX/dS = eps: one evaluation a step.

Each moves along a blend of the slopes it has seen. lms and deis fit a polynomial to where these
lay; plms, pndm and ipndm take the numbers that hold for even steps, so that they are of second
order on any other grid. A start at alpha = 0 is a plain move that leaves no slope behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Step
from couette.registry import SAMPLERS
from couette.samplers import interpolation
from couette.samplers.moves import (
    Slope,
    blend,
    half_log_snr,
    is_clean,
    is_noise,
    move,
    need_normal,
    slope,
    stretches,
    transfer,
)
from couette.samplers.runge_kutta import HEUN, KUTTA, Tableau, in_time, looks
from couette.schedules import ratio

Order = Annotated[int, Field(ge=1, le=4)]
Weigh = Callable[[Sequence[Level], Level], Tensor]
"""(levels of past slopes, newest first; the level to reach) -> weights of the newest slopes."""

BASHFORTH = (
    torch.tensor([1.0], dtype=torch.float64),
    torch.tensor([3, -1], dtype=torch.float64) / 2,
    torch.tensor([23, -16, 5], dtype=torch.float64) / 12,
    torch.tensor([55, -59, 37, -9], dtype=torch.float64) / 24,
)
"""Weights for even steps, by how many slopes there are (Bashforth & Adams 1883)."""


def _even(past: Sequence[Level], b: Level) -> Tensor:
    return BASHFORTH[len(past) - 1]


def _in_ratio(past: Sequence[Level], b: Level) -> Tensor:
    return interpolation.adams([ratio(level) for level in past], ratio(b))


def _in_log_ratio(past: Sequence[Level], b: Level) -> Tensor:
    if is_clean(b):
        return BASHFORTH[0]
    axis = [-half_log_snr(level) for level in past]
    return interpolation.exponential_adams(axis, axis[0], -half_log_snr(b))


def _multistep(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    *,
    order: int = 4,
    weigh: Weigh = _even,
    warm: int = 0,
    table: Tableau = HEUN,
) -> Iterator[Step]:
    """The first `warm` steps go by a one-step method, its nodes in time; the rest by `weigh`."""
    past: deque[tuple[Level, Slope]] = deque(maxlen=order)
    for step in stretches(denoise, times):
        i, n, t, u, a, b = step
        p = denoise(x, t, cond)
        if is_noise(a):
            x = move(x, p, a, b)
        else:
            past.appendleft((a, slope(x, p, a)))
            if len(past) <= warm and not is_clean(b):
                seen = looks(denoise, x, cond, past[0][1], step, table, in_time)
                along = blend(table.weights, seen.slopes)
            else:
                levels, slopes = zip(*past, strict=True)
                along = blend(weigh(levels, b), slopes)
            x = transfer(x, along, a, b)
        yield Step(i, n, u, x, p.x0)


@SAMPLERS.register("lms", order=2, known_as=("LMSDiscreteScheduler", "sample_lms", "LMS", "lms"))
def lms(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, order: Order = 4
) -> Iterator[Step]:
    """Linear multistep: the polynomial in sigma/alpha through the last slopes, integrated exactly.

    Adams-Bashforth for uneven steps, as in Crowson's k-diffusion (sample_lms). It begins with
    Euler's step, whose error, of second order, is its own from then on. With X = x/alpha and S =
    sigma/alpha a step is X_u = X_t + Σ_j w_j·eps_j, w_j the integral of the j-th Lagrange
    polynomial in S. When to use it: to repeat what others drew; deis and dpmpp-2m stand coarser
    steps.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "lms")
    return _multistep(denoise, x, times, cond, order=order, weigh=_in_ratio)


@SAMPLERS.register(
    "deis", order=2, known_as=("deis",), variants={"order=2": ("DEISMultistepScheduler",)}
)
def deis(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, order: Order = 3
) -> Iterator[Step]:
    """DEIS: the polynomial in log(sigma/alpha) through the last slopes, integrated exactly.

    Zhang & Chen 2023, sec. 3 (AB-DEIS), with the polynomial in log ρ. It begins with Euler's step,
    as lms does, and the last step, to sigma = 0, is Euler's too. With X = x/alpha and S =
    sigma/alpha a step is X_u = X_t + Σ_j w_j·eps_j, w_j the integral over S of the j-th Lagrange
    polynomial in log S. When to use it: in 10 to 20 steps without much guidance.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "deis")
    return _multistep(denoise, x, times, cond, order=order, weigh=_in_log_ratio)


@SAMPLERS.register("ipndm", order=2, known_as=("IPNDMScheduler", "ipndm"))
def ipndm(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """iPNDM: Adams-Bashforth's weights for even steps, begun with fewer slopes.

    Zhang & Chen 2023, in its appendix: orders 1, 2, 3, then 4. No evaluation is spent on the start.
    The weights are 1; (3, −1)/2; (23, −16, 5)/12; (55, −59, 37, −9)/24. When to use it: in few
    steps, on a grid whose steps in sigma/alpha change slowly.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "ipndm")
    return _multistep(denoise, x, times, cond)


@SAMPLERS.register("plms", order=2, known_as=("PNDMScheduler(skip_prk_steps=True)", "PLMS"))
def plms(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """PLMS: Adams-Bashforth's weights for even steps, the first step by Heun's method.

    Liu et al. 2022 (PNDM), as Stable Diffusion has it. One evaluation a step, two in the first. The
    weights are ipndm's. When to use it: to repeat what Stable Diffusion's first programs drew.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "plms")
    return _multistep(denoise, x, times, cond, warm=1, table=HEUN)


@SAMPLERS.register("pndm", order=2, known_as=("PNDMScheduler",))
def pndm(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """PNDM: Adams-Bashforth's weights for even steps, the first three by Runge and Kutta's method.

    Liu et al. 2022 (F-PNDM), with pseudo Runge-Kutta's middle halfway in time. One evaluation a
    step, four in each of the first three. The weights are ipndm's. When to use it: to compare with;
    ipndm begins without the nine further evaluations.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "pndm")
    return _multistep(denoise, x, times, cond, warm=3, table=KUTTA)
