"""The forward process: q(x_t | x_0) and q(x_t | x_s), the exact reverse of its steps, and how a
level is measured."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from couette.contracts import Level, Schedule


def mixed(x0: Tensor, level: Level, eps: Tensor) -> Tensor:
    """q(x_t | x_0) in closed form: alpha·x0 + sigma·eps. Shapes broadcast."""
    return level.alpha * x0 + level.sigma * eps


def transition(earlier: Level, later: Level) -> Level:
    """q(x_t | x_s) for s < t, normal noise: x_t = alpha·x_s + sigma·eps with these two.

    For a table and neighbouring entries they are sqrt(1 − β_t) and sqrt(β_t) (Ho et al. 2020,
    eq. 2). A chain of uniform noises is not uniform, so the toy mix has the closed form only.
    """
    alpha = later.alpha / earlier.alpha
    variance = later.sigma.square() - (alpha * earlier.sigma).square()
    return Level(alpha, variance.clamp(min=0).sqrt())


class Posterior(NamedTuple):
    """q(x_u | x_t, x_0): normal, its mean reached by a move to `mean`, with these variances.

    mean: the level to move to. beta: the variance of q(x_t | x_u). variance: that of the posterior.
    """

    mean: Level
    beta: Tensor
    variance: Tensor


def posterior(a: Level, b: Level) -> Posterior:
    """The reverse of one step of the Gaussian chain, given x0 (Ho et al. 2020, eqs. 6 and 7)."""
    beta = transition(b, a).sigma.square()
    variance = beta * (b.sigma / a.sigma).square()
    rest = (b.sigma.square() - variance).clamp(min=0).sqrt()
    return Posterior(Level(b.alpha, rest), beta, variance)


def ratio(level: Level) -> Tensor:
    """sigma/alpha: the noise level in the picture's own units (infinite where alpha is 0)."""
    return level.sigma / level.alpha


def log_snr(level: Level) -> Tensor:
    """log(alpha²/sigma²)."""
    return 2 * (level.alpha.log() - level.sigma.log())


def preserving(ratio: Tensor) -> Level:
    """The variance-preserving level of a ratio sigma/alpha: alpha² + sigma² = 1.

    0 gives exactly (1, 0) and infinity exactly (0, 1).
    """
    return Level((1 + ratio.square()).rsqrt(), (1 + ratio.pow(-2)).rsqrt())


def entries(schedule: Schedule) -> int | None:
    """How many entries the schedule's table has; None where it is continuous."""
    count: int | None = getattr(schedule, "steps", None)
    return count
