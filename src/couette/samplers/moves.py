"""The two lines that samplers move along.

The probability-flow ODE of `x_t = alpha·x0 + sigma·eps` (Song et al. 2021, eq. 13), divided by
sigma or by alpha, is an integral of the prediction alone:

    y = x/sigma,  s = alpha/sigma:   dy/ds = x0(x, t)    finite at pure noise, s = 0
    X = x/alpha,  S = sigma/alpha:   dX/dS = eps(x, t)   finite at the picture, S = 0

So a solver is an answer to one question: along which x0 does it `move`, or along which eps does it
`transfer`? The good ones blend several predictions. Both lines have λ = log s = −log S in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from torch import Tensor

from couette.contracts import Denoise, Level, Prediction
from couette.errors import InputError
from couette.schedules import Posterior as Posterior
from couette.schedules import log_snr
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


class Slope(NamedTuple):
    """A prediction as dX/dS.

    eps: the noise in x, as the prediction has it.
    gap: x0 − base, by which a move lands beside the line (CFG++); None where base is x0.
    """

    eps: Tensor
    gap: Tensor | None = None


def slope(x: Tensor, p: Prediction, level: Level) -> Slope:
    """What a prediction for x at a level says of the noise: eps = (x − alpha·base)/sigma."""
    if p.base is None:
        return Slope((x - level.alpha * p.x0) / level.sigma)
    return Slope((x - level.alpha * p.base) / level.sigma, p.x0 - p.base)


def transfer(x: Tensor, along: Slope, a: Level, b: Level) -> Tensor:
    """Carry x from level a to level b along eps: x_b/alpha_b = x/alpha_a + (S_b − S_a)·eps.

    The transfer part of Liu et al. 2022 (PNDM), sec. 3. With x's own slope it is `move`; from
    alpha = 0 only that can be done.
    """
    q = b.alpha / a.alpha
    moved = q * x + (b.sigma - a.sigma * q) * along.eps
    return moved if along.gap is None else moved + b.alpha * along.gap


Part = TypeVar("Part", Prediction, Slope)


def blend(weights: Iterable[Tensor | float], parts: Iterable[Part]) -> Part:
    """Σ wᵢ·partᵢ, field by field; a field that some part lacks is left out.

    The weights stand for the first parts: those beyond them count for nothing.
    """
    used = list(zip(weights, parts, strict=False))
    fields = zip(*(part for _, part in used), strict=True)
    kind: Callable[..., Part] = type(used[0][1])
    return kind(*(_weighted([w for w, _ in used], field) for field in fields))


def _weighted(
    weights: Iterable[Tensor | float], values: tuple[Tensor | None, ...]
) -> Tensor | None:
    total = None
    for weight, value in zip(weights, values, strict=True):
        if value is None:
            return None
        total = weight * value if total is None else total + weight * value
    return total


def half_log_snr(level: Level) -> Tensor:
    """λ = log(alpha/sigma): −∞ at pure noise, ∞ at the picture (Lu et al. 2022, sec. 3)."""
    return log_snr(level) / 2


def level_at(denoise: Denoise, lam: Tensor) -> tuple[Tensor, Level]:
    """The time and the level at which λ is `lam`."""
    schedule = denoise.corruption.schedule
    t = schedule.time(2 * lam)
    return t, schedule.level(t)


def is_noise(level: Level) -> bool:
    """Whether alpha is 0, or so small that of x/alpha float32 keeps fewer than four digits."""
    return bool(level.alpha <= 1e-3 * level.sigma)


def is_clean(level: Level) -> bool:
    """Whether no noise is left."""
    return bool(level.sigma == 0)


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
        InputError: fewer than two times, or times or noise levels that do not fall.
    """
    if times.numel() < 2 or not bool((times[1:] < times[:-1]).all()):
        raise InputError(
            f"A sampler needs two or more times, each below the one before; got {times.tolist()}."
        )
    levels = denoise.corruption.schedule.level(times)
    if not bool(
        (levels.sigma[1:] * levels.alpha[:-1] < levels.sigma[:-1] * levels.alpha[1:]).all()
    ):
        raise InputError(
            "Some of the grid's times have the same noise level on this schedule, so a step "
            "between them would lead nowhere; ask for fewer steps, or for another grid."
        )
    count = times.numel() - 1
    for i in range(count):
        a, b = (Level(levels.alpha[k], levels.sigma[k]) for k in (i, i + 1))
        yield Stretch(i, count, times[i], times[i + 1], a, b)


def need_rising(low: float, high: float, what: str) -> None:
    """Refuse a range of noise levels that holds none.

    Raises:
        InputError: low is not below high.
    """
    if not low < high:
        raise InputError(
            f"Between {what} lie noise levels, so {low:g} must be below {high:g}; exchange them."
        )


def need_normal(denoise: Denoise, name: str) -> None:
    """Refuse a corruption whose noise is not normal.

    Raises:
        InputError: it is uniform.
    """
    if denoise.corruption.noise != "normal":
        raise InputError(
            f"The sampler '{name}' needs normal noise, but this model was trained on uniform "
            "noise; use 'mix', 'euler' or 'ddim'."
        )
