"""How large the loss is at each noise level, learned beside the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from couette.contracts import Level
from couette.denoiser.told import log
from couette.networks.embeddings import FourierFeatures, log_spaced

_LOWEST, _HIGHEST, _COUNT = 0.02, 2.0, 32
"""Frequencies in cycles per unit of ln(sigma/alpha)/4, which lies within ±5."""


class LogVariance(nn.Module):
    """u(level): linear in Fourier features of ln(sigma/alpha)/4; 0 until it is trained.

    Source: Karras et al. 2024, eqs. 15–22, after Kendall et al. 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waves = FourierFeatures(log_spaced(_COUNT, _LOWEST, _HIGHEST))
        self.weight = nn.Parameter(torch.zeros(self.waves.width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, level: Level) -> Tensor:
        """(B,) float32 for a level of (B,)."""
        told = log(level.alpha, level).to(self.weight)
        u: Tensor = self.waves(told) @ self.weight + self.bias
        return u

    def normalized(self, loss: Tensor, level: Level) -> Tensor:
        """loss/exp(u) + u: at its least where u is the log of the mean loss."""
        u: Tensor = self(level)
        return loss * torch.exp(-u) + u
