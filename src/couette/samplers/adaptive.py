"""Methods that choose their own steps: two orders from the same looks, and the step that fits.

The grid gives the ends and the first step tried. Out of pure noise and into the picture lead plain
moves, so short that their error does not count: up to alpha/sigma = 0.002, and from sigma/alpha =
0.002, or less where the tolerance is finer; of a table, from its first entry. Between them steps
are measured in λ = log(alpha/sigma), where the curve is about as rough everywhere. All pictures of
a batch share the steps that the worst of them needs; `generate` hands over one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Step
from couette.errors import InputError
from couette.registry import SAMPLERS
from couette.samplers.moves import (
    Stretch,
    blend,
    half_log_snr,
    is_clean,
    is_noise,
    level_at,
    move,
    need_normal,
    slope,
    stretches,
)
from couette.samplers.runge_kutta import Looks, Tableau, looks
from couette.schedules import entries, ratio

Tolerance = Annotated[float, Field(gt=0)]

_OUT, _IN = 2e-3, 2e-3
"""The plain moves at the ends: up to this alpha/sigma, and from this sigma/alpha at most."""

_SHORTEST = 1e-6
"""Steps in λ that are shorter than this one are given up."""


class Pair(NamedTuple):
    """Two methods on one set of looks, the last of them at the step's end.

    table: the one that is followed; its last row is its weights, so its end is its last look.
    check: the weights of the other, one order below.
    order: of the one that is followed.
    """

    table: Tableau
    check: tuple[float, ...]
    order: int


DORMAND_PRINCE = Pair(
    Tableau(
        (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
    ),
    (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
    5,
)
BOGACKI_SHAMPINE = Pair(
    Tableau(
        (1 / 2, 3 / 4, 1),
        ((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (2 / 9, 1 / 3, 4 / 9, 0),
    ),
    (7 / 24, 1 / 4, 1 / 3, 1 / 8),
    3,
)


@SAMPLERS.register("dopri5", evaluations=None, adaptive=True)
def dopri5(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    rtol: Tolerance = 1e-3,
    atol: Tolerance = 1e-3,
) -> Iterator[Step]:
    """Dormand and Prince's pair of orders 5 and 4 (1980), with steps as long as the error allows.

    The RK45 by which Song et al. 2021 (app. D.4) solve the probability-flow ODE. Six evaluations a
    step. When to use it: for a given accuracy, whatever it costs.

    Args:
        denoise, x, times, cond, noise: as every sampler's; of `times` the ends count, and the
            first step is the first one tried.
        rtol: the error a step may make, relative to x/alpha.
        atol: and beside that, in the unit of the pictures.

    Raises:
        InputError: a corruption whose noise is not normal, or a tolerance out of reach.
    """
    need_normal(denoise, "dopri5")
    _need_digits(x, rtol)
    return _adaptive(denoise, x, times, cond, DORMAND_PRINCE, rtol, atol)


@SAMPLERS.register("bosh3", evaluations=None, adaptive=True)
def bosh3(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    rtol: Tolerance = 1e-2,
    atol: Tolerance = 1e-2,
) -> Iterator[Step]:
    """Bogacki and Shampine's pair of orders 3 and 2 (1989), with steps as long as the error allows.

    Three evaluations a step: the cheaper pair where the tolerance is loose. Otherwise as dopri5.
    When to use it: for a rough accuracy in as few evaluations as that takes.

    Raises:
        InputError: a corruption whose noise is not normal, or a tolerance out of reach.
    """
    need_normal(denoise, "bosh3")
    _need_digits(x, rtol)
    return _adaptive(denoise, x, times, cond, BOGACKI_SHAMPINE, rtol, atol)


def _need_digits(x: Tensor, rtol: float) -> None:
    least = 10 * torch.finfo(x.dtype).eps
    if rtol < least:
        raise InputError(
            f"rtol {rtol:g} is finer than the arithmetic of {x.dtype}; it is at least {least:.1g}."
        )


def _adaptive(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, pair: Pair, rtol: float, atol: float
) -> Iterator[Step]:
    index = 0
    for part in _parts(denoise, times, atol):
        plain = is_noise(part.a) or is_clean(part.b)
        run = (
            _plain(denoise, x, cond, part)
            if plain
            else _controlled(denoise, x, cond, part, pair, rtol, atol)
        )
        for step in run:
            x = step.x
            yield step._replace(index=index, count=None)
            index += 1


class _Part(NamedTuple):
    """A piece of the way: from time t at level a to time u at level b, h the first step tried."""

    t: Tensor
    u: Tensor
    a: Level
    b: Level
    h: Tensor


def _parts(denoise: Denoise, times: Tensor, atol: float) -> list[_Part]:
    """The way out of pure noise, what lies between, and the way into the picture, if there."""
    schedule = denoise.corruption.schedule
    grid = list(stretches(denoise, times))
    knots = [times[0]]
    if is_noise(grid[0].a):
        out, _ = level_at(denoise, torch.tensor(_OUT, dtype=torch.float64).log())
        knots.append(torch.maximum(out, grid[0].u))
    if is_clean(grid[-1].b):
        count = entries(schedule)
        near = torch.tensor(min(_IN, max(atol, 1e-4)), dtype=torch.float64)
        into, _ = level_at(denoise, -near.log())
        into = into.clamp(min=1 / count) if count else into
        knots.append(torch.minimum(into, grid[-1].t))
    knots.append(times[-1])
    falling = [t for k, t in enumerate(knots) if k == 0 or t < min(knots[:k])]
    levels = [schedule.level(t) for t in falling]
    parts = []
    for (t, a), (u, b) in pairwise(zip(falling, levels, strict=True)):
        first = next((each for each in times if each < t), u)
        tried = schedule.level(torch.maximum(first, u))
        parts.append(_Part(t, u, a, b, half_log_snr(tried) - half_log_snr(a)))
    return parts


def _plain(denoise: Denoise, x: Tensor, cond: Cond, part: _Part) -> Iterator[Step]:
    p = denoise(x, part.t, cond)
    x = move(x, p, part.a, part.b)
    yield Step(0, None, part.u, x, p.x0)


def _controlled(
    denoise: Denoise,
    x: Tensor,
    cond: Cond,
    part: _Part,
    pair: Pair,
    rtol: float,
    atol: float,
) -> Iterator[Step]:
    """From the part's start to its end, in steps whose error fits."""
    t, a, end, h = part.t, part.a, part, part.h
    p = denoise(x, t, cond)
    while t > end.u:
        lam = half_log_snr(a) + h
        u, b = (end.u, end.b) if lam >= half_log_snr(end.b) else level_at(denoise, lam)
        step = Stretch(0, 0, t, u, a, b)
        seen = looks(denoise, x, cond, slope(x, p, a), step, pair.table)
        error = _error(x, seen, step, pair, rtol, atol)
        if error <= 1:
            yield Step(0, None, u, seen.x, p.x0)
            x, p, t, a = seen.x, seen.p, u, b
        elif h < _SHORTEST:
            raise InputError(
                f"No step from t = {float(t):.6g} has an error within rtol {rtol:g} and atol "
                f"{atol:g}: the prediction is not finite or not smooth there; ask for less "
                "accuracy, or look at what the model predicts."
            )
        h = h * min(5.0, max(0.2, 0.9 * max(error, 1e-9) ** (-1 / pair.order)))


def _error(x: Tensor, seen: Looks, step: Stretch, pair: Pair, rtol: float, atol: float) -> float:
    """How far the two methods' ends lie apart, in tolerances: of each picture the root of the mean
    square, of the batch the largest."""
    apart = [w - v for w, v in zip(pair.table.weights, pair.check, strict=True)]
    S_a, S_b = ratio(step.a), ratio(step.b)
    difference = (S_b - S_a) * blend(apart, seen.slopes).eps
    size = torch.maximum((x / step.a.alpha).abs(), (seen.x / step.b.alpha).abs())
    scaled = (difference / (atol + rtol * size)).reshape(x.shape[0], -1)
    return float(scaled.square().mean(1).sqrt().max())
