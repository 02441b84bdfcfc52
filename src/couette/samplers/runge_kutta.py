"""One-step methods of Runge and Kutta on dX/dS = eps, each given by its table.

A method looks at the slope at some nodes between a step's ends and moves along a blend of what it
saw. Slopes are blended with weights that sum to 1, so each look, too, is a transfer from a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.moves import (
    Slope,
    Stretch,
    blend,
    is_clean,
    is_noise,
    level_at,
    move,
    need_normal,
    slope,
    stretches,
    transfer,
)
from couette.schedules import ratio


class Tableau(NamedTuple):
    """An explicit method after Butcher (1964).

    nodes: where the second and later looks are, as fractions of the step.
    rows: how each of those is reached, as weights of the slopes seen before; they sum to its node.
    weights: of all slopes, for the step itself; they sum to 1.
    """

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


HEUN = Tableau((1,), ((1,),), (1 / 2, 1 / 2))
MIDPOINT = Tableau((1 / 2,), ((1 / 2,),), (0, 1))
KUTTA = Tableau((1 / 2, 1 / 2, 1), ((1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


Between = Callable[[Denoise, Stretch, float], tuple[Tensor, Level]]
"""Where a node of a step lies: its time and level."""


def in_ratio(denoise: Denoise, step: Stretch, node: float) -> tuple[Tensor, Level]:
    """A node as a fraction of the step in S = sigma/alpha."""
    return level_at(denoise, -torch.lerp(ratio(step.a), ratio(step.b), node).log())


def in_time(denoise: Denoise, step: Stretch, node: float) -> tuple[Tensor, Level]:
    """A node as a fraction of the step in t."""
    t = torch.lerp(step.t, step.u, node)
    return t, denoise.corruption.schedule.level(t)


class Looks(NamedTuple):
    """What a method saw on one step: all slopes, and its last look's x and prediction."""

    slopes: list[Slope]
    x: Tensor
    p: Prediction


def looks(
    denoise: Denoise,
    x: Tensor,
    cond: Cond,
    first: Slope,
    step: Stretch,
    table: Tableau,
    between: Between = in_ratio,
) -> Looks:
    """Evaluate the denoiser at a tableau's nodes.

    Args:
        denoise, x, cond: as a sampler has them, x at the step's start.
        first: x's slope there.
        step: the step; neither its start nor a node may be an end where S is infinite or 0.
        table: the method.
        between: where its nodes lie.
    """
    slopes = [first]
    for node, row in zip(table.nodes, table.rows, strict=True):
        t, level = (step.u, step.b) if node == 1 else between(denoise, step, node)
        there = transfer(x, blend((w / node for w in row), slopes), step.a, level)
        p = denoise(there, t, cond)
        slopes.append(slope(there, p, level))
    return Looks(slopes, there, p)


def runge_kutta(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, table: Tableau
) -> Iterator[Step]:
    """Any explicit method. A step from alpha = 0, or one with a node at sigma = 0, is plain."""
    for step in stretches(denoise, times):
        i, n, t, u, a, b = step
        p = denoise(x, t, cond)
        if is_noise(a) or (is_clean(b) and 1 in table.nodes):
            x = move(x, p, a, b)
        else:
            seen = looks(denoise, x, cond, slope(x, p, a), step, table)
            x = transfer(x, blend(table.weights, seen.slopes), a, b)
        yield Step(i, n, u, x, p.x0)


@SAMPLERS.register(
    "heun",
    order=2,
    evaluations=2,
    known_as=(
        "HeunDiscreteScheduler",
        "sample_heun",
        "Heun",
        "heun",
    ),
    variants={"along=velocity": ("FlowMatchHeunDiscreteScheduler",)},
)
def heun(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    along: Literal["noise", "velocity"] = "noise",
) -> Iterator[Step]:
    """Heun's method: the mean of what is seen at both ends (Karras et al. 2022, alg. 1).

    Two evaluations a step; one where a step ends at sigma = 0 or, along "noise", starts at alpha =
    0. With X = x/alpha and S = sigma/alpha a step along "noise" is X_u = X_t + (S_u − S_t)·(eps_t +
    eps_u)/2. Along "velocity" it is x_u = x_t + (alpha_u − alpha_t)·(x0_t + x0_u)/2 + (sigma_u −
    sigma_t)·(eps_t + eps_u)/2: on `flow` Heun's method on dx/dt = eps − x0. When to use it: with
    the schedule `edm`, on which it is the paper's choice; along "velocity" on `flow`.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "heun")
    if along == "velocity":
        return _trapezoid(denoise, x, times, cond)
    return runge_kutta(denoise, x, times, cond, HEUN)


def _trapezoid(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond) -> Iterator[Step]:
    """Heun's method on dx = x0·d(alpha) + eps·d(sigma)."""
    for i, n, t, u, a, b in stretches(denoise, times):
        p = denoise(x, t, cond)
        there = move(x, p, a, b)
        if not is_clean(b):
            second = denoise(there, u, cond)
            x0 = (p.x0 + second.x0) / 2
            eps = (slope(x, p, a).eps + slope(there, second, b).eps) / 2
            there = x + (b.alpha - a.alpha) * x0 + (b.sigma - a.sigma) * eps
        x = there
        yield Step(i, n, u, x, p.x0)


@SAMPLERS.register("midpoint", order=2, evaluations=2)
def midpoint(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise
) -> Iterator[Step]:
    """The midpoint method: the slope halfway in sigma/alpha (Runge 1895).

    Two evaluations a step, the last one included; one where a step starts at alpha = 0. With X =
    x/alpha and S = sigma/alpha a step is X_u = X_t + (S_u − S_t)·eps(middle). When to use it:
    instead of heun where the last step should be of second order, too.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "midpoint")
    return runge_kutta(denoise, x, times, cond, MIDPOINT)


@SAMPLERS.register("rk4", order=4, evaluations=4)
def rk4(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """The classical Runge-Kutta method of fourth order (Kutta 1901), in sigma/alpha.

    Four evaluations a step; one where a step starts at alpha = 0 or ends at sigma = 0. The four
    slopes weigh (1, 2, 2, 1)/6. When to use it: for an answer near the exact one; for pictures heun
    is cheaper.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "rk4")
    return runge_kutta(denoise, x, times, cond, KUTTA)
