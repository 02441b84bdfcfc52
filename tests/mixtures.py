"""Worlds with known answers, small enough to check by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.exact import Empirical, Mixture
from worlds import draw, schedule


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def plane(on: str = "flow") -> Mixture:
    """Three unlike clouds in the plane, two classes."""
    return Mixture(
        schedule(on),
        torch.tensor([[0.8, 0.2], [-0.7, 0.5], [0.1, -0.9]]).reshape(3, 2, 1, 1),
        torch.tensor([0.3, 0.15, 0.1])[:, None, None, None],
        factors=draw(3, 1, 2, 1, 1, seed=1) / 3,
        weights=torch.tensor([0.5, 0.2, 0.3]),
        labels=torch.tensor([0, 1, 1]),
    )


def small(on: str = "flow") -> Mixture:
    """Pictures of 3×3 pixels, each with a spread of its own and two factors."""
    return Mixture(
        schedule(on),
        draw(4, 1, 3, 3) / 2,
        0.1 + draw(4, 1, 3, 3, seed=1).abs() / 5,
        factors=draw(4, 2, 1, 3, 3, seed=2) / 4,
        weights=torch.tensor([0.1, 0.4, 0.2, 0.3]),
        labels=torch.tensor([0, 1, 1, 0]),
    )


def album(on: str = "flow") -> Empirical:
    return Empirical(schedule(on), draw(7, 1, 3, 3), labels=torch.tensor([0, 1, 1, 0, 1, 0, 0]))
