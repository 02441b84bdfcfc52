"""Loss weightings, as factors on the squared error of the network's output F.

A squared error of x0 is out² times as large, so a weight w on x0 is w·out² here; one on eps is
SNR times that, SNR = alpha²/sigma². How often training draws a level weighs it as well.

A weighting that declares `learned=True` is divided by the variance that the objective learns of
each level's loss.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Level, Scalings
from couette.registry import WEIGHTINGS
from couette.schedules import log_snr

Positive = Annotated[float, Field(gt=0)]


@WEIGHTINGS.register("uniform")
def uniform(level: Level, scalings: Scalings) -> Tensor:
    """1 on the network's own target: L_simple for eps (Ho et al. 2020, eq. 14).

    When to use it: first; with the parameterization `edm` it is EDM's own weighting.
    """
    return torch.ones_like(scalings.out)


@WEIGHTINGS.register("uncertainty", learned=True)
def uncertainty(level: Level, scalings: Scalings) -> Tensor:
    """1/exp(u) with u learned for each level: all weigh alike (Karras et al. 2024, eqs. 15–22).

    The loss is error/exp(u) + u, at its least where u = log E[error]. A factor w(t) on the error
    would only move u by log w, so there is none to choose. When to use it: where one noise level's
    loss drowns the others'.
    """
    return torch.ones_like(scalings.out)


@WEIGHTINGS.register("snr")
def snr(level: Level, scalings: Scalings) -> Tensor:
    """SNR on x0: the squared error of eps, whatever the network predicts.

    L_simple (Ho et al. 2020, eq. 14) for every parameterization. When to use it: to compare
    parameterizations by the same loss.
    """
    return _snr(level) * scalings.out.square()


@WEIGHTINGS.register("truncated-snr")
def truncated_snr(level: Level, scalings: Scalings) -> Tensor:
    """max(SNR, 1) on x0: the larger of the errors of x0 and eps (Salimans & Ho 2022, sec. 4).

    When to use it: for `x0`, which `snr` would leave untaught at high noise.
    """
    return _snr(level).clamp(min=1) * scalings.out.square()


@WEIGHTINGS.register("min-snr")
def min_snr(level: Level, scalings: Scalings, *, gamma: Positive = 5.0) -> Tensor:
    """min(SNR, gamma) on x0 (Hang et al. 2023, sec. 3.4).

    gamma caps the weight of low noise. When to use it: for faster training on tables of betas.
    """
    return _snr(level).clamp(max=gamma) * scalings.out.square()


@WEIGHTINGS.register("soft-min-snr")
def soft_min_snr(level: Level, scalings: Scalings, *, gamma: Positive = 4.0) -> Tensor:
    """1/(1/SNR + 1/gamma) on x0: a smooth min-snr (Crowson et al. 2024, "soft-min-SNR").

    With gamma = 1/sigma_data² it is k-diffusion's weighting of that name. When to use it: as
    min-snr, without its corner.
    """
    return _snr(level) / (1 + _snr(level) / gamma) * scalings.out.square()


@WEIGHTINGS.register("p2")
def p2(level: Level, scalings: Scalings, *, gamma: Positive = 1.0, k: Positive = 1.0) -> Tensor:
    """1/(k + SNR)^gamma on eps: little for what can't be seen (Choi et al. 2022, eq. 8).

    When to use it: for pictures whose shapes count more than their grain.
    """
    return _snr(level) / (k + _snr(level)).pow(gamma) * scalings.out.square()


@WEIGHTINGS.register("sigmoid")
def sigmoid(level: Level, scalings: Scalings, *, bias: float = 0.0) -> Tensor:
    """sigmoid(bias − log SNR) on eps (Kingma & Gao 2023; Hoogeboom et al. 2024).

    A higher bias gives more weight to fine detail: pictures of more pixels want a lower one. When
    to use it: on pixels of large pictures.
    """
    return torch.sigmoid(bias - log_snr(level)) * _snr(level) * scalings.out.square()


@WEIGHTINGS.register("edm")
def edm_weighting(level: Level, scalings: Scalings, *, sigma_data: Positive = 0.5) -> Tensor:
    """(σ² + σ_data²)/(σ·σ_data)² on x0, σ = sigma/alpha (Karras et al. 2022, tab. 1).

    With the edm parameterization it equals `uniform`. When to use it: for another parameterization
    at the same weights.
    """
    total = (level.alpha * sigma_data).square() + level.sigma.square()
    return total / (level.sigma * sigma_data).square() * scalings.out.square()


def _snr(level: Level) -> Tensor:
    return (level.alpha / level.sigma).square()
