"""The one step of every sampler that draws noise: keep some of the old noise, draw the rest anew.

With λ = log(alpha/sigma), h = λ_b − λ_a and q = e^(−h), the factor by which sigma/alpha falls, a
step from level a down to level b is

    x_b = alpha_b·x0 + kept·eps + fresh·z,    kept² + fresh² = sigma_b²,

a plain move to the level (alpha_b, kept), then new noise. Samplers differ in how they split
sigma_b, and in the blend of predictions that stands for x0 and eps. The splits are written with q,
which is 0 where alpha_a or sigma_b is 0 and h infinite.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.interpolation import exponential_adams
from couette.samplers.moves import (
    Stretch,
    blend,
    half_log_snr,
    is_clean,
    is_noise,
    move,
    stretches,
)

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


def draws_noise(sampler: Spec) -> bool:
    """Whether a sampler, as it is set, draws noise on its way, and so has no one solution.

    Raises:
        UnknownName, ConfigError: a sampler or a setting that does not exist.
    """
    strength = SAMPLERS.trait(sampler.name, "strength")
    if strength is not None:
        return bool(SAMPLERS.check(sampler)[strength])
    return bool(SAMPLERS.trait(sampler.name, "noise", False))


class Split(NamedTuple):
    """A level's sigma in two parts: the noise x already has, and the noise to be drawn."""

    kept: Tensor
    fresh: Tensor


def fall(a: Level, b: Level) -> Tensor:
    """q = e^(−h): the factor by which sigma/alpha falls from level a to level b."""
    return (b.sigma * a.alpha) / (b.alpha * a.sigma)


def ancestral(a: Level, b: Level, eta: float) -> Split:
    """eta times the noise of the chain's own posterior, sigma_b·sqrt(1 − q²), is drawn.

    Song et al. 2021 (DDIM), eq. 16; "ancestral" in k-diffusion.
    """
    drawn = eta**2 * (1 - fall(a, b).square())
    return Split(b.sigma * (1 - drawn).sqrt(), b.sigma * drawn.sqrt())


def diffused(a: Level, b: Level, eta: float) -> Split:
    """What the reverse SDE of strength eta = tau² keeps and draws while x0 stands still.

    kept = sigma_b·e^(−eta·h), fresh = sigma_b·sqrt(1 − e^(−2·eta·h)) (Xue et al. 2023, sec. 4). At
    eta = 1 it is Anderson's reverse of the forward process, and the split of `ancestral`.
    """
    left = fall(a, b) ** eta
    return Split(b.sigma * left, b.sigma * (1 - left.square()).sqrt())


def drawn(split: Split, noise: Noise, t: Tensor, u: Tensor) -> Tensor:
    """The fresh part; nothing is asked for where there is none."""
    return split.fresh * noise(t, u) if bool((split.fresh > 0).any()) else split.fresh


def renew(x: Tensor, p: Prediction, s: Stretch, split: Split, noise: Noise) -> Tensor:
    """The step that this module is about, over the stretch s."""
    return move(x, p, s.a, Level(s.b.alpha, split.kept)) + drawn(split, noise, s.t, s.u)


Past = Iterable[tuple[Level, Prediction]]
"""Predictions and the levels they were made at, newest first."""

Weigh = Callable[[Sequence[Level], Level, Level], Tensor]
"""(levels of K predictions, a, b) -> their weights over the step from a to b: (K,), of sum 1."""


def multistep(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    order: int,
    split: Callable[[Level, Level], Split],
    weigh: Weigh,
) -> Iterator[Step]:
    """Steps along a mean of the last `order` predictions, or of as many as there are."""
    past: deque[tuple[Level, Prediction]] = deque(maxlen=order)
    for s in stretches(denoise, times):
        p = denoise(x, s.t, cond)
        past.appendleft((s.a, p))
        x = renew(x, over(s, past, weigh), s, split(s.a, s.b), noise)
        yield Step(s.index, s.count, s.u, x, p.x0)


def over(s: Stretch, past: Past, weigh: Weigh) -> Prediction:
    """What stands for x0 over a stretch: the newest prediction alone where an end of λ is infinite,
    and never one made there, which would be infinitely far away."""
    if is_noise(s.a) or is_clean(s.b):
        return next(p for _, p in past)
    near = [(level, p) for level, p in past if not is_noise(level)]
    return blend(weigh([level for level, _ in near], s.a, s.b), [p for _, p in near])


def exponential(levels: Sequence[Level], a: Level, b: Level, *, eta: float) -> Tensor:
    """Weights of the polynomial in λ through predictions at these levels, integrated exactly.

    The SDE of strength eta takes the mean of x0 under the density e^((1 + eta)·λ) over the step
    (Xue et al. 2023, sec. 4): as on the ODE, with the axis stretched.
    """
    *axis, start, end = ((1 + eta) * half_log_snr(level) for level in (*levels, a, b))
    return exponential_adams(axis, start, end)
