"""Loss weightings, as factors on the squared error of the network's output F.

A squared error of x0 is out² times as large, so a weight w on x0 is w·out² here.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Level, Scalings
from couette.registry import WEIGHTINGS

Positive = Annotated[float, Field(gt=0)]


@WEIGHTINGS.register("uniform")
def uniform(level: Level, scalings: Scalings) -> Tensor:
    """1 on the network's own target: L_simple for eps (Ho et al. 2020, eq. 14)."""
    return torch.ones_like(scalings.out)


@WEIGHTINGS.register("min-snr")
def min_snr(level: Level, scalings: Scalings, *, gamma: Positive = 5.0) -> Tensor:
    """min(SNR, gamma) on x0 (Hang et al. 2023, eq. 7)."""
    snr = (level.alpha / level.sigma).square()
    return snr.clamp(max=gamma) * scalings.out.square()


@WEIGHTINGS.register("edm")
def edm_weighting(level: Level, scalings: Scalings, *, sigma_data: Positive = 0.5) -> Tensor:
    """(σ² + σ_data²)/(σ·σ_data)² on x0, σ = sigma/alpha (Karras et al. 2022, tab. 1).

    With the edm parameterization it equals `uniform`.
    """
    total = (level.alpha * sigma_data).square() + level.sigma.square()
    return total / (level.sigma * sigma_data).square() * scalings.out.square()
