"""The running average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from couette.errors import ConfigError


class PowerAverage:
    """An average whose memory is a fixed share of the run so far.

    avg ← β·avg + (1 − β)·weights with β = (1 − 1/n)^(γ+1) after n steps (Karras et al. 2024,
    eq. 3). The first step has β = 0, so nothing of the random initialisation ever remains, and
    early averages follow the weights closely: no warm-up to set.

    Args:
        network: the network whose weights are averaged; its buffers are copied.
        width: standard deviation of the average's profile as a share of the run, in (0, 0.28).

    Raises:
        ConfigError: a width outside that range.
    """

    def __init__(self, network: nn.Module, width: float) -> None:
        self.exponent = exponent(width)
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._averaged: list[Tensor] = list(self.network.parameters())
        self._weights = list(network.parameters())
        self._copied = list(self.network.buffers())
        self._buffers = list(network.buffers())

    @torch.no_grad()
    def update(self, count: Tensor, applied: Tensor) -> None:
        """Take in the weights after an update.

        Args:
            count: 0-d int64, the updates that were applied so far.
            applied: 0-d bool; False where the last one was refused: then all stays as it is.
        """
        count = count.clamp_min(1).to(self._averaged[0].dtype)
        # 1 − (1 − 1/n)^(γ+1), without a loss of digits at large n.
        share = -torch.expm1((self.exponent + 1) * torch.log1p(-1 / count))
        share = torch.where(applied, share, 0.0)
        taken = torch._foreach_mul([p.data for p in self._weights], share)
        torch._foreach_mul_(self._averaged, 1 - share)
        torch._foreach_add_(self._averaged, taken)
        for mine, theirs in zip(self._copied, self._buffers, strict=True):
            mine.copy_(theirs)


class Profile(NamedTuple):
    """How much an average after so many updates has of each: a power of the update's number, of
    this relative width."""

    updates: int
    width: float


def combined(kept: Sequence[Profile], wanted: Profile) -> tuple[list[float], float]:
    """The combination of averages nearest to another one (Karras et al. 2024, app. C.3).

    Args:
        kept: profiles of the averages at hand, all different.
        wanted: the profile of the average that is wanted.

    Returns:
        A factor for each, and what is missed: the combined profile's distance from the wanted one
        as a share of its norm (Euclidean, over the run).

    Raises:
        ConfigError: a width out of range.
    """
    own = np.array([[_product(a, b) for b in kept] for a in kept])
    toward = np.array([_product(a, wanted) for a in kept])
    # Averages of nearby steps are nearly alike: no more digits than there are.
    factors = np.linalg.lstsq(own, toward, rcond=1e-12)[0]
    # Most of a weight never moves, and an average has all of that.
    factors = factors / factors.sum()
    norm = _product(wanted, wanted)
    squared = norm - 2 * factors @ toward + factors @ own @ factors
    return [float(each) for each in factors], float(np.sqrt(max(squared, 0.0) / norm))


def _product(a: Profile, b: Profile) -> float:
    """The inner product of two profiles, over the time from 0."""
    first, second = (a, b) if a.updates <= b.updates else (b, a)
    g, h = exponent(first.width), exponent(second.width)
    ratio = first.updates / second.updates
    return float((g + 1) * (h + 1) / (g + h + 1) * ratio**h / second.updates)


def exponent(width: float) -> float:
    """γ for a profile of relative standard deviation `width` (Karras et al. 2024, app. C.2)."""
    if not 0 < width < 0.28:
        raise ConfigError(f"The average's width lies between 0 and 0.28, not at {width}.")
    spread = width**-2
    return float(np.roots([1, 7, 16 - spread, 12 - spread]).real.max())
