"""Methods that choose their own steps: two orders from the same looks, and the step that fits.

The grid gives the ends and the first step tried. A stretch from alpha = 0 and one to sigma = 0 are
plain moves of their own; between them steps are measured in λ = log(alpha/sigma), where the curve
is about as rough everywhere. All pictures of a batch share the steps that the worst of them needs,
so a picture drawn in another batch is the same to within the tolerance only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Step
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
from couette.schedules import ratio

Tolerance = Annotated[float, Field(gt=0)]

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
        denoise, x, times, cond, noise: as every sampler's; only the ends of `times` and their
            first steps count.
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
    for plain, group in groupby(
        stretches(denoise, times), lambda g: is_noise(g.a) or is_clean(g.b)
    ):
        parts = list(group)
        run = (
            _plain(denoise, x, cond, parts)
            if plain
            else _controlled(denoise, x, cond, parts, pair, rtol, atol)
        )
        for step in run:
            x = step.x
            yield step._replace(index=index, count=None)
            index += 1


def _plain(denoise: Denoise, x: Tensor, cond: Cond, parts: Sequence[Stretch]) -> Iterator[Step]:
    for i, n, t, u, a, b in parts:
        p = denoise(x, t, cond)
        x = move(x, p, a, b)
        yield Step(i, n, u, x, p.x0)


def _controlled(
    denoise: Denoise,
    x: Tensor,
    cond: Cond,
    parts: Sequence[Stretch],
    pair: Pair,
    rtol: float,
    atol: float,
) -> Iterator[Step]:
    """From the first part's start to the last one's end, in steps whose error fits."""
    t, a, end = parts[0].t, parts[0].a, parts[-1]
    h = half_log_snr(parts[0].b) - half_log_snr(a)
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
