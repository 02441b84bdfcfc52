"""A world of states whose every answer is known: a few positions with a joint distribution."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from couette.config import spec
from couette.contracts import Cond, Corruption, Prediction
from couette.discrete import KINDS, transitions
from couette.registry import SCHEDULES
from couette.schedules import Mixture


def mixture(name: str = "flow") -> Mixture:
    return Mixture(SCHEDULES.build(spec(name)))


def full(x: Tensor) -> Tensor:
    """States with [MASK] as one more channel."""
    return torch.cat((x, 1 - x.sum(1, keepdim=True)), 1)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Joint:
    """The ideal denoiser of `positions` states, p(x_0) a random table, in float64.

    Its answer is the logarithm of every position's exact p(x_0 | x_t).
    """

    def __init__(
        self, noise: str, *, states: int = 3, positions: int = 2, schedule: str = "flow"
    ) -> None:
        self.corruption = Corruption(mixture(schedule), noise)  # type: ignore[arg-type]
        self.kind, self.states = KINDS[noise], states
        generator = torch.Generator().manual_seed(1)
        everything = list(itertools.product(range(states), repeat=positions))
        self.all = F.one_hot(torch.tensor(everything), states).permute(0, 2, 1)[:, :, None].double()
        table = torch.rand(len(everything), generator=generator, dtype=torch.float64) ** 2
        self.table = table / table.sum()  # (C,), of self.all (C, K, 1, L)

    @property
    def entropy(self) -> float:
        """Nats per position."""
        return -float((self.table * self.table.log()).sum()) / self.all.shape[-1]

    @property
    def marginals(self) -> Tensor:
        """(K, 1, L)."""
        return torch.einsum("c,cknl->knl", self.table, self.all)

    def likelihood(self, x: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_0) of each x (B, K, 1, L) for every x_0, (B, C)."""
        chain = transitions(self.kind, self.states, self.corruption.schedule.level(t))
        each = torch.einsum("cknl,ks,bsnl->bcnl", self.all, chain[:-1], full(x.double()))
        return each.prod(-1).flatten(1)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        posterior = self.table * self.likelihood(x, t)
        posterior = posterior / posterior.sum(1, keepdim=True)
        return Prediction(torch.einsum("bc,cknl->bknl", posterior, self.all).log())

    def noised(self) -> Tensor:
        """Every x_t there is, masks included where the kind has them, (M, K, 1, L)."""
        masks = int(self.kind.end(self.states)[-1])
        choices = itertools.product(range(self.states + masks), repeat=self.all.shape[-1])
        hot = F.one_hot(torch.tensor(list(choices)), self.states + masks).permute(0, 2, 1)
        return hot[:, : self.states, None].double()


def uniforms(count: int, like: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *like.shape[1:], generator=generator, dtype=torch.float64)


def chi_square(counts: Tensor, expected: Tensor) -> float:
    """The probability of counts as far from the expected ones, or farther, by chance."""
    statistic = float(((counts - expected).square() / expected).sum())
    freedom = len(counts) - 1
    return float(torch.special.gammaincc(f64(freedom / 2), f64(statistic / 2)))


def nats(bits: Tensor) -> Tensor:
    return bits * math.log(2)
