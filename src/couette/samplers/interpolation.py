"""How multistep methods weigh what was predicted before: by a polynomial through it.

Over a step from a to b a method needs the mean of a prediction f that it knows at a few points.
With r = 0 at a and r = 1 at b, f is taken to be the polynomial through its values at the nodes r_k:

    mean of f  =  Σ_k w_k·f(r_k),  where  Σ_k w_k·r_k^i  =  mean of r^i  for each power i

What differs between methods is the axis that r runs along, and how the step is spread over it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NODES, _WEIGHTS = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(32))


def weights(nodes: Tensor, moments: Tensor) -> Tensor:
    """The w_k above.

    Args:
        nodes: (K,) float64, the r_k, no two alike.
        moments: (K,) float64, the means of r⁰ = 1, r¹, …; with K = 1 the weight is 1.
    """
    powers = torch.arange(len(nodes), dtype=torch.float64)
    found: Tensor = torch.linalg.solve(nodes ** powers[:, None], moments)
    return found


def even(count: int) -> Tensor:
    """Means of r⁰ … r^(count−1) where the step is spread evenly over the axis: 1/(i + 1)."""
    return 1 / torch.arange(1, count + 1, dtype=torch.float64)


def exponential(h: Tensor, count: int) -> Tensor:
    """Means of r⁰ … r^(count−1) where the axis is the logarithm of what the step is even in.

    ∫ r^i·e^{hr} dr / ∫ e^{hr} dr over [0, 1]: the φ-functions of exponential integrators (Hochbruck
    & Ostermann 2010, sec. 2), by quadrature, without their cancellation at small h.

    Args:
        h: 0-d float64, the step along the logarithm, of either sign.
        count: how many.
    """
    r = (1 + _NODES) / 2
    density = _WEIGHTS * (h * (r - (h > 0).double())).exp()
    powers = torch.arange(count, dtype=torch.float64)
    return (r ** powers[:, None] * density).sum(1) / density.sum()


def adams(axis: Sequence[Tensor], end: Tensor) -> Tensor:
    """Weights of predictions made at `axis`, newest first, for a step even along it to `end`."""
    nodes = _nodes(axis, axis[0], end)
    return weights(nodes, even(len(nodes)))


def exponential_adams(axis: Sequence[Tensor], start: Tensor, end: Tensor) -> Tensor:
    """Weights of predictions made at `axis`, a logarithm, for the step from `start` to `end`."""
    nodes = _nodes(axis, start, end)
    return weights(nodes, exponential(end - start, len(nodes)))


def two_point(axis: Sequence[Tensor], start: Tensor, end: Tensor, mean: Tensor | float) -> Tensor:
    """Weights of two predictions where the mean of r is not integrated but given."""
    return weights(_nodes(axis, start, end), torch.tensor([1.0, float(mean)], dtype=torch.float64))


def _nodes(axis: Sequence[Tensor], start: Tensor, end: Tensor) -> Tensor:
    return (torch.stack(list(axis)) - start) / (end - start)
