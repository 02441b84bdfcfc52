"""Gaussian mixtures: everything about their noisy versions is known in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from couette.contracts import Schedule
from couette.errors import InputError, ShapeError
from couette.exact.known import TINY, Answer, Known, prior_of
from couette.tensors import normal, uniform

_COMPONENT, _SPREAD, _FACTOR = 0, 1, 2
"""What the draws of a sample are for."""


class Drawn(NamedTuple):
    """Samples: x0 (N, C, H, W) float64, and the component each is of, (N,) int64."""

    x0: Tensor
    component: Tensor


class Mixture(Known):
    """A mixture of K Gaussians, each with covariance diag(std²) + Σ_r f_r·f_rᵀ.

    Noised, it is a mixture again: x_t | k ~ N(α·μ_k, S_k), S_k = α²·C_k + σ²·I. The classic
    factor-analysis form (Bishop 2006, sec. 12.2.4) keeps S_k invertible by an R × R system, and
    alpha = 0 and sigma = 0 need no case of their own. Memory grows with B·K·R·D.

    Args:
        schedule: what x_t is.
        means: (K, C, H, W); points in the plane are (K, 2, 1, 1).
        std: standard deviation of each pixel by itself, a number or broadcastable to `means`; 0 is
            allowed.
        factors: (K, R, C, H, W) directions of further spread, each as long as its standard
            deviation; none when not given.
        weights: (K,) above 0, brought to the sum 1; equal when not given.
        labels: (K,) the class of each component; no classes when not given.

    Raises:
        ShapeError: parts that do not fit the means.
        InputError: weights or spreads out of range, labels that leave a class empty.
    """

    labels: Tensor | None

    def __init__(
        self,
        schedule: Schedule,
        means: Tensor,
        std: float | Tensor,
        *,
        factors: Tensor | None = None,
        weights: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        count = len(means)
        weights = torch.ones(count) if weights is None else weights
        factors = means.new_zeros(count, 0, *means.shape[1:]) if factors is None else factors
        if means.ndim != 4 or factors.ndim != 5 or means.shape != factors[:, :1].sum(1).shape:
            raise ShapeError(
                "A mixture needs means (K, C, H, W) and factors (K, R, C, H, W); got "
                f"{tuple(means.shape)} and {tuple(factors.shape)}."
            )
        spread = torch.as_tensor(std, dtype=torch.float64).expand_as(means)
        if weights.shape != (count,) or not bool((weights > 0).all() and (spread >= 0).all()):
            raise InputError(
                f"A mixture of {count} needs as many weights above 0, and no std below 0."
            )
        classes = 0 if labels is None else int(labels.max()) + 1
        weights = weights.double() / weights.double().sum()
        super().__init__(schedule, means.shape[1:], prior_of(weights, labels, classes))
        self.register_buffer("means", means.double().flatten(1))
        self.register_buffer("variance", spread.flatten(1).square())
        self.register_buffer("factors", factors.double().flatten(2))
        self.register_buffer("labels", labels)
        self.register_buffer("log_weights", _by_class(weights, labels, classes).log())

    def answer(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None) -> Answer:
        """With N = α²·diag(std²) + σ²·I and F the factors: z is the factors' posterior mean given
        r = x − αμ, S⁻¹r = N⁻¹(r − αFᵀz), and E[x0 | x, k] = μ + C·αS⁻¹r."""
        means, variance, factors = (self.get_buffer(n) for n in ("means", "variance", "factors"))
        alpha, sigma = alpha[:, None], sigma[:, None]  # against (B, K, D)
        rest = x[:, None] - alpha * means
        noise = (alpha.square() * variance + sigma.square()).clamp(min=TINY)
        over = factors / noise[:, :, None]  # (B or 1, K, R, D)
        system = torch.eye(factors.shape[1]).to(x) + alpha[..., None].square() * (over @ factors.mT)
        root = torch.linalg.cholesky(system)
        pull = alpha * (over @ rest[..., None])[..., 0]
        z = torch.cholesky_solve(pull[..., None], root)[..., 0]
        bend = torch.einsum("bkr,krd->bkd", z, factors)
        left = rest - alpha * bend
        white = left / noise
        log_density = -0.5 * (
            (left * white).sum(-1)
            + z.square().sum(-1)
            + noise.log().sum(-1)
            + 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            + x.shape[1] * math.log(2 * math.pi)
        )
        joint = log_density + self.get_buffer("log_weights")[-1 if label is None else label]
        share = joint.softmax(-1)[..., None]
        x0 = (share * (means + bend + alpha * variance * white)).sum(1)
        return Answer(x0, -(share * white).sum(1), joint.logsumexp(-1))

    def sample(self, count: int, *, seed: int = 0, label: int | None = None) -> Drawn:
        """Draw x0, of one class or of any; sample i of a seed is the same in any count."""
        means, variance, factors = (self.get_buffer(n) for n in ("means", "variance", "factors"))
        keys = torch.stack((torch.arange(count), torch.zeros(count, dtype=torch.int64)), 1)
        shares = self.get_buffer("log_weights")[-1 if label is None else label].exp().cumsum(0)
        place = uniform(seed, keys, _COMPONENT, (1,)).double() * shares[-1]
        component = torch.searchsorted(shares, place[:, 0], right=True)
        eps = normal(seed, keys, _SPREAD, means.shape[1:]).double()
        z = normal(seed, keys, _FACTOR, factors.shape[1:2]).double()
        x0 = means[component] + variance[component].sqrt() * eps
        x0 = x0 + torch.einsum("nr,nrd->nd", z, factors[component])
        return Drawn(x0.reshape(count, *self.shape), component)

    def moments(self, label: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of x0, of one class or of all."""
        means, variance, factors = (self.get_buffer(n) for n in ("means", "variance", "factors"))
        share = self.get_buffer("log_weights")[-1 if label is None else label].exp()
        mean = share @ means
        away = means - mean
        within = torch.diag(share @ variance) + torch.einsum(
            "k,krd,kre->de", share, factors, factors
        )
        return mean, within + torch.einsum("k,kd,ke->de", share, away, away)


def fitted(schedule: Schedule, pictures: Tensor, labels: Tensor, *, rank: int) -> Mixture:
    """One Gaussian for each class of the pictures, by probabilistic principal components.

    Tipping & Bishop 1999 ("Probabilistic principal component analysis"), sec. 3.2: the `rank`
    widest directions of each class, and one variance for all the others, their mean.

    Args:
        schedule: what x_t is.
        pictures: (N, C, H, W), more than `rank` of each class.
        labels: (N,) int64.
        rank: factors kept, below the number of pixels.

    Raises:
        InputError: too many factors for the pictures.
    """
    size = pictures[0].numel()
    fewest = int(torch.bincount(labels).min())
    if not 0 <= rank < min(size, fewest - 1):
        raise InputError(
            f"{rank} factors are too many for pictures of {size} pixels, {fewest} in the smallest "
            f"class; give at most {min(size, fewest - 1) - 1}."
        )
    parts = [
        _principal(pictures[labels == label].double().flatten(1), rank)
        for label in range(int(labels.max()) + 1)
    ]
    means, stds, factors = (torch.stack(each) for each in zip(*parts, strict=True))
    shape = pictures.shape[1:]
    return Mixture(
        schedule,
        means.reshape(-1, *shape),
        stds[:, None, None, None],
        factors=factors.reshape(len(means), rank, *shape),
        weights=torch.bincount(labels),
        labels=torch.arange(len(means)),
    )


def _principal(flat: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), the std left over (0-d), and factors (rank, D), of (N, D)."""
    mean = flat.mean(0)
    _, values, directions = torch.linalg.svd(flat - mean, full_matrices=False)
    variances = values.square() / len(flat)
    left = variances[rank:].sum() / (flat.shape[1] - rank)
    lengths = (variances[:rank] - left).clamp(min=0).sqrt()
    return mean, left.sqrt(), lengths[:, None] * directions[:rank]


def _by_class(weights: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """(classes + 1, K): the weights within each class, and last those of the whole mixture."""
    if labels is None:
        return weights[None]
    within = weights * (labels == torch.arange(classes)[:, None])
    return torch.cat((within / within.sum(1, keepdim=True), weights[None]))
