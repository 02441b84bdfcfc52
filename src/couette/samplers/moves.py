"""The one move that every sampler makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from couette.contracts import Denoise, Level, Prediction
from couette.errors import InputError
from couette.schedules import Posterior as Posterior
from couette.schedules import posterior as posterior


def move(x: Tensor, p: Prediction, a: Level, b: Level) -> Tensor:
    """Carry x from level a to level b along the predicted x0 and its eps.

    x_b = r·x + alpha_b·x0 − alpha_a·r·base, r = sigma_b/sigma_a. With base = x0 it is DDIM with
    η = 0 (Song et al. 2021, eq. 12), Euler on the flow, Euler on the probability-flow ODE in
    (x/alpha, sigma/alpha), and the course's step of 1/(n − i) of the way to the prediction.
    """
    r = b.sigma / a.sigma
    if p.base is None:
        return r * x + (b.alpha - a.alpha * r) * p.x0
    return r * x + b.alpha * p.x0 - a.alpha * r * p.base


class Stretch(NamedTuple):
    """One step of a grid: from time t at level a down to time u at level b."""

    index: int  # type: ignore[assignment]
    count: int  # type: ignore[assignment]
    t: Tensor
    u: Tensor
    a: Level
    b: Level


def stretches(denoise: Denoise, times: Tensor) -> Iterator[Stretch]:
    """The steps of a grid of N + 1 falling times.

    Raises:
        InputError: fewer than two times, or times that do not fall.
    """
    if times.numel() < 2 or not bool((times[1:] < times[:-1]).all()):
        raise InputError(
            f"A sampler needs two or more times, each below the one before; got {times.tolist()}."
        )
    levels = denoise.corruption.schedule.level(times)
    count = times.numel() - 1
    for i in range(count):
        a, b = (Level(levels.alpha[k], levels.sigma[k]) for k in (i, i + 1))
        yield Stretch(i, count, times[i], times[i + 1], a, b)


def need_normal(denoise: Denoise, name: str) -> None:
    """Refuse a corruption whose noise is not normal.

    Raises:
        InputError: it is uniform.
    """
    if denoise.corruption.noise != "normal":
        raise InputError(
            f"The sampler '{name}' adds normal noise, but this model was trained on uniform noise; "
            "use 'mix', 'euler' or 'ddim'."
        )
