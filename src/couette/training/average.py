"""The running average of the weights."""

from __future__ import annotations

import copy

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
    def update(self, step: int) -> None:
        """Take in the weights after the `step`-th applied update, counted from 1."""
        beta = (1 - 1 / step) ** (self.exponent + 1)
        torch._foreach_lerp_(self._averaged, [p.data for p in self._weights], 1 - beta)
        for mine, theirs in zip(self._copied, self._buffers, strict=True):
            mine.copy_(theirs)


def exponent(width: float) -> float:
    """γ for a profile of relative standard deviation `width` (Karras et al. 2024, app. C.2)."""
    if not 0 < width < 0.28:
        raise ConfigError(f"The average's width lies between 0 and 0.28, not at {width}.")
    spread = width**-2
    return float(np.roots([1, 7, 16 - spread, 12 - spread]).real.max())
