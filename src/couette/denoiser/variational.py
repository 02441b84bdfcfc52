"""The variational bound, term by term, in bits per dimension (Ho et al. 2020, eq. 5).

A term compares the exact reverse step q(x_s | x_t, x_0) with the model's normal one, whose variance
lies between that of the exact step and beta (Nichol & Dhariwal 2021, eq. 15).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from couette.contracts import Prediction, Schedule
from couette.schedules import entries, posterior
from couette.tensors import expand, mean_flat

LEVELS = 256
"""Grey levels of a picture in [-1, 1]: bins of width 2/255 around each, the outer two open."""

_FAR = 1e9
"""Standard deviations beyond which nothing is left of a normal distribution."""


def normal_kl(apart: Tensor, log_variance: Tensor, log_model: Tensor) -> Tensor:
    """KL(N(m, exp(log_variance)) || N(m + apart, exp(log_model))) in nats, of each number."""
    ratio = (log_variance - log_model).exp()
    distance = apart.square() * (-log_model).exp()
    return 0.5 * (ratio - 1 + log_model - log_variance + distance)


def discretized_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """−log P(x) in nats, where a normal variable is rounded to the nearest of 256 grey levels.

    Exact in both tails, and the probabilities of all levels add up to 1 (Ho et al. 2020, eq. 13).

    Args:
        x: grey levels in [-1, 1].
        mean, log_variance: of the normal variable; shapes broadcast.
    """
    scale = (-0.5 * log_variance).exp()
    half = 1 / (LEVELS - 1)
    upper = torch.where(x > 1 - half, _FAR, (x + half - mean) * scale)
    lower = torch.where(x < half - 1, -_FAR, (x - half - mean) * scale)
    # Φ(b) − Φ(a) = Φ(−a) − Φ(−b): in the lower tail nothing cancels.
    mirrored = lower + upper > 0
    a, b = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_probability: Tensor = above + torch.log1p(-(below - above).exp())
    return -log_probability


def bound_term(schedule: Schedule, x0: Tensor, t: Tensor, predicted: Prediction) -> Tensor:
    """The bound's term for the step from t to the entry below, bits per dimension, (B,).

    The last step, to t = 0, has the discretized likelihood of x0 instead of a divergence; its exact
    variance is 0, and the step before lends its own, as in Ho's code.

    Args:
        schedule: one with a table.
        x0: (B, C, H, W), of 256 grey levels in [-1, 1].
        t: (B,) in [1/T, 1].
        predicted: its `mix` says where log-variances lie between the exact step's (0) and
            beta's (1).
    """
    count = entries(schedule)
    assert count is not None and predicted.mix is not None
    place = t * count - 1
    last = place < 1e-6
    a, b = schedule.level(t), schedule.level(torch.where(last, 0.0, place / count))
    back = posterior(a, b)
    second = torch.tensor([2.0, 1.0], dtype=torch.float64) / count
    lent = posterior(*(schedule.level(time) for time in second)).variance.to(t.device)
    exact = expand(torch.where(last, lent, back.variance).log(), x0)
    model = exact + predicted.mix * (expand(back.beta.log(), x0) - exact)
    gain = b.alpha - a.alpha * back.mean.sigma / a.sigma  # of x0 on the step's mean
    apart = expand(gain, x0) * (predicted.x0 - x0)
    nats = torch.where(
        expand(last, x0) > 0,
        discretized_nll(x0, x0 + apart, model),
        normal_kl(apart, exact, model),
    )
    return mean_flat(nats) / math.log(2)
