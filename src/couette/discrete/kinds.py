"""The two ways in which states are lost, and the exact way back.

Shapes: B batch, K states. A state is one-hot along axis 1, (B, K, ...); [MASK] is no state of its
own but the vector of zeros, so networks have K channels in and K out. Alpha and sigma = 1 − alpha
of a level broadcast over x: 0-d, or (B, 1, ...).

At rate β(t) = −α'(t)/α(t) a position forgets what it is and takes a new state from π: nothing but
[MASK] for `absorbing`, any of the K with equal odds for `multinomial`. Hence q(x_t | x_s) =
r·x_s + (1 − r)·π with r = α_t/α_s, and q(x_t | x_0) is the same with r = α_t: the house's one
form, alpha·x_0 + sigma·π, as probabilities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from couette.contracts import Level


class Odds(NamedTuple):
    """A distribution at every position: of the K states (B, K, ...), and of [MASK] (B, 1, ...)."""

    states: Tensor
    mask: Tensor


def drawn(odds: Odds, u: Tensor) -> Tensor:
    """A state for each position, one-hot (B, K, ...): the inverse distribution function at u.

    One uniform a position is enough, and it reaches every state. A largest Gumbel made of float32
    uniforms never exceeds 17, which lowers the temperature unasked (Zheng et al. 2024).

    Args:
        odds: the states' need not sum to 1; all but the mask's share is divided among them.
        u: uniform on [0, 1), (B, 1 or more, ...), of which the first channel is used.
    """
    reached = odds.states.cumsum(1)
    # Multiplied out, so that with odds.mask = 0 the last state is reached by every u below 1.
    reached = reached * (1 - odds.mask) > u[:, :1] * reached[:, -1:]
    before = torch.zeros_like(reached[:, :1])
    return torch.diff(reached.to(odds.states.dtype), dim=1, prepend=before.to(odds.states.dtype))


def between(s: Level, t: Level) -> Level:
    """q(x_t | x_s) for s < t, as the share kept and the share replaced."""
    return Level(t.alpha / s.alpha, (s.alpha - t.alpha) / s.alpha)


class Kind(ABC):
    """What becomes of a state that is lost."""

    @abstractmethod
    def end(self, count: int) -> Tensor:
        """π as probabilities of the K = `count` states and, last, of [MASK]; (K + 1,) float64."""

    @abstractmethod
    def start(self, u: Tensor) -> Tensor:
        """x_T ~ π, from uniforms (B, K, ...)."""

    @abstractmethod
    def after(self, x: Tensor, level: Level) -> Odds:
        """q(x_t | x): of a clean x at the level of t, of x_s at `between(s, t)`."""

    @abstractmethod
    def unknown(self, x: Tensor) -> Tensor:
        """1 at positions of x_t that leave x_0 open, 0 where it can be read off; (B, 1, ...)."""

    @abstractmethod
    def belief(self, x: Tensor, logits: Tensor) -> Tensor:
        """p(x_0 | x_t), (B, K, ...), from a network's logits and from x_t itself."""

    @abstractmethod
    def back(self, x: Tensor, p: Tensor, t: Level, s: Level) -> Odds:
        """p(x_s | x_t) = Σ q(x_s | x_t, x_0)·p(x_0 | x_t) for s < t.

        With a one-hot x_0 for p it is the exact posterior q(x_s | x_t, x_0).

        Args:
            x: x_t, one-hot.
            p: p(x_0 | x_t), a `belief`.
            t, s: the levels of both times.
        """

    @abstractmethod
    def rate_bound(self, x: Tensor, x0: Tensor, log_p: Tensor, t: Level, fall: Tensor) -> Tensor:
        """The negative evidence bound in continuous time, as nats per position and unit of time.

        Σ_y R̂_p − R̂ + R̂·log(R̂/R̂_p) over the states y that x_t could come from, where R̂ is the
        rate of the reverse chain given x_0 and R̂_p what the prediction makes of it (Campbell et
        al. 2022, prop. 2; Lou et al. 2024, sec. 3). Its mean over x_t, integrated over t in
        [0, 1], bounds −log p(x_0); the mean of that over the data is their entropy where every
        position's p is exact, however many positions there are.

        Args:
            x: x_t, one-hot.
            x0: one-hot.
            log_p: log p(x_0 | x_t), (B, K, ...).
            t: the level at t.
            fall: −dα/dt there.

        Returns:
            (B, 1, ...).
        """


class Absorbing(Kind):
    """Lost states become [MASK] and stay so (Austin et al. 2021, app. A.2.2; Sahoo et al. 2024)."""

    def end(self, count: int) -> Tensor:
        return torch.eye(count + 1, dtype=torch.float64)[-1]

    def start(self, u: Tensor) -> Tensor:
        return torch.zeros_like(u)

    def after(self, x: Tensor, level: Level) -> Odds:
        hidden = self.unknown(x)
        return Odds(level.alpha * x, hidden + level.sigma * (1 - hidden))

    def unknown(self, x: Tensor) -> Tensor:
        return 1 - x.sum(1, keepdim=True)

    def belief(self, x: Tensor, logits: Tensor) -> Tensor:
        return x + self.unknown(x) * logits.softmax(1)

    def back(self, x: Tensor, p: Tensor, t: Level, s: Level) -> Odds:
        """A state that shows stays; (α_s − α_t)/(1 − α_t) of the masks are lifted."""
        hidden = self.unknown(x)
        return Odds(x + hidden * (s.alpha - t.alpha) / t.sigma * p, hidden * s.sigma / t.sigma)

    def rate_bound(self, x: Tensor, x0: Tensor, log_p: Tensor, t: Level, fall: Tensor) -> Tensor:
        """−α'/(1 − α) times the cross-entropy of what is masked (Sahoo et al. 2024, sec. 3.4)."""
        return self.unknown(x) * fall / t.sigma * cross_entropy(x0, log_p)


class Multinomial(Kind):
    """Lost states become any of the K (Hoogeboom et al. 2021; Austin et al. 2021, "uniform")."""

    def end(self, count: int) -> Tensor:
        odds = torch.full((count + 1,), 1 / count, dtype=torch.float64)
        odds[-1] = 0
        return odds

    def start(self, u: Tensor) -> Tensor:
        return drawn(_unmasked(torch.ones_like(u)), u)

    def after(self, x: Tensor, level: Level) -> Odds:
        return _unmasked(_mixed(x, level))

    def unknown(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, :1])

    def belief(self, x: Tensor, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def back(self, x: Tensor, p: Tensor, t: Level, s: Level) -> Odds:
        """q(x_t | x_s) ⊙ Σ q(x_s | x_0)·p(x_0 | x_t)/q(x_t | x_0), by Bayes.

        The division is what makes it a mixture of posteriors; Austin et al. 2021, eq. 4, leave it
        out, which is the same for a one-hot p alone.
        """
        return _unmasked(_mixed(x, between(s, t)) * _mixed(p / _mixed(x, t), s))

    def rate_bound(self, x: Tensor, x0: Tensor, log_p: Tensor, t: Level, fall: Tensor) -> Tensor:
        """With the ratios q_t(y | x_0)/q_t(x_t | x_0) and their mean over p; y = x_t adds 0."""
        likelihood = _mixed(x, t)
        true = _mixed(x0 / likelihood, t)
        predicted = _mixed(log_p.exp() / likelihood, t)
        each = predicted - true + true * (true / predicted).log()
        return fall / t.alpha * each.mean(1, keepdim=True)


def cross_entropy(x0: Tensor, log_p: Tensor) -> Tensor:
    """−log p at the true states, (B, 1, ...) nats. Impossible states must not be the true ones."""
    return -torch.where(x0 > 0, log_p, 0).sum(1, keepdim=True)


def step_bound(kind: Kind, x: Tensor, x0: Tensor, log_p: Tensor, t: Level, s: Level) -> Tensor:
    """KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)) in nats, (B, 1, ...): one term of the bound.

    Austin et al. 2021, eq. 1; at s = 0 it is −log p(x_0 | x_t). A masked position stays masked
    with the same probability in both, so that [MASK] adds nothing.
    """
    true = kind.back(x, x0, t, s).states
    predicted = kind.back(x, log_p.exp(), t, s).states
    return torch.where(true > 0, true * (true / predicted).log(), 0).sum(1, keepdim=True)


def _mixed(x: Tensor, level: Level) -> Tensor:
    """alpha·x + sigma·(the sum of x, spread evenly)."""
    return level.alpha * x + level.sigma * x.mean(1, keepdim=True)


def _unmasked(states: Tensor) -> Odds:
    return Odds(states, torch.zeros_like(states[:, :1]))


KINDS: Mapping[str, Kind] = {"absorbing": Absorbing(), "multinomial": Multinomial()}
"""By `Corruption.noise`."""
