"""Second order with one correction a step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.moves import move, stretches


@SAMPLERS.register("heun", order=2, evaluations=2)
def heun(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """Heun's method on the probability-flow ODE (Karras et al. 2022, alg. 1).

    In (x/alpha, sigma/alpha) the trapezoid's average slope is that of one move along
    x0 + (x0' − x0)/(2q), where x0' is predicted at the move's end and q is the ratio of the end's
    sigma/alpha to the start's. The ends where that ratio is 0 (sigma = 0, or alpha = 0 at the
    start) take a plain move. Two evaluations a step, one there.
    """
    for i, n, t, u, a, b in stretches(denoise, times):
        first = denoise(x, t, cond)
        moved = move(x, first, a, b)
        q = (b.sigma * a.alpha) / (b.alpha * a.sigma)
        if q > 0:
            second = denoise(moved, u, cond)
            moved = move(x, _corrected(first, second, q), a, b)
        x = moved
        yield Step(i, n, u, x, first.x0)


def _corrected(first: Prediction, second: Prediction, q: Tensor) -> Prediction:
    x0 = first.x0 + (second.x0 - first.x0) / (2 * q)
    if first.base is None or second.base is None:
        return Prediction(x0)
    return Prediction(x0, first.base + (second.base - first.base) / (2 * q))
