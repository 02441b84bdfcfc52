"""The chain of one position as matrices: what the closed forms in `kinds` come from.

Rows are where a position is, columns where it goes; S = K + 1 states, [MASK] the last one (which
`multinomial` never enters). A textbook's view, used by figures and proofs: (S, S) for K states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Level
from couette.discrete.kinds import Kind


def transitions(kind: Kind, count: int, level: Level) -> Tensor:
    """Q = alpha·I + sigma·1πᵀ, (S, S) float64: of q(x_t | x_0), or of a stretch by `between`."""
    end = kind.end(count)
    return level.alpha * torch.eye(len(end), dtype=torch.float64) + level.sigma * end.expand(
        len(end), -1
    )


def rates(kind: Kind, count: int, level: Level, fall: Tensor) -> Tensor:
    """R = β·(1πᵀ − I) with β = −α'/α, per unit of time, (S, S) float64; dq/dt = q·R."""
    end = kind.end(count)
    jumps = end.expand(len(end), -1) - torch.eye(len(end), dtype=torch.float64)
    return fall / level.alpha * jumps


def reverse_rates(kind: Kind, data: Tensor, level: Level, fall: Tensor) -> Tensor:
    """R̂_xy = R_yx·q_t(y)/q_t(x) for x ≠ y: the rates of the chain run backwards.

    Campbell et al. 2022, prop. 1. States that are never visited are left at rate 0.

    Args:
        kind: how states are lost.
        data: probabilities of the K clean states, (K,) float64.
        level, fall: at the time t.

    Returns:
        (S, S) float64, rows adding up to 0.
    """
    count = len(data)
    clean = torch.cat((data, data.new_zeros(1)))
    q = clean @ transitions(kind, count, level)
    forward = rates(kind, count, level, fall)
    back = torch.where(q[:, None] > 0, forward.T * q[None, :] / q[:, None], 0.0)
    back.fill_diagonal_(0)
    return back - torch.diag(back.sum(1))
