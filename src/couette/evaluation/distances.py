"""How far one set of points is from another. Knows nothing of pictures or features.

All are computed in float64 from (N, D) tensors. N may be smaller than D, but the Fréchet distance
falls with N (roughly as D/N) towards its limit, so only numbers of equal counts are comparable.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from couette.errors import ShapeError

_BLOCKS = 20
_SMALLEST_BLOCK = 10
_DIRECTIONS = 128


class Estimate(NamedTuple):
    """A value and its standard error (None where there were too few points for one)."""

    value: float
    error: float | None


def frechet(a: Tensor, b: Tensor) -> float:
    """|μ_a − μ_b|² + Tr(C_a + C_b − 2·(C_a·C_b)^½): the Fréchet distance of two normal fits.

    Heusel et al. 2017, eq. 6 (after Dowson & Landau 1982). With C = RᵀR, R from a QR decomposition
    of the centred points, the trace of the root is the sum of the singular values of R_a·R_bᵀ: no
    matrix root is taken, nothing is squared twice, and covariances without full rank (N ≤ D) need
    no added diagonal.

    Args:
        a, b: (N, D) and (M, D), N and M at least 2.

    Raises:
        ShapeError: fewer than 2 points, or points of different dimensions.
    """
    a, b = _points(a, b)
    (mean_a, root_a), (mean_b, root_b) = _moments(a), _moments(b)
    shift = (mean_a - mean_b).square().sum()
    spread = root_a.square().sum() + root_b.square().sum()
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(shift + spread - 2 * overlap))


def kernel(a: Tensor, b: Tensor) -> Estimate:
    """The squared maximum mean discrepancy under the kernel (x·y/D + 1)³, without bias.

    Bińkowski et al. 2018, "Demystifying MMD GANs", eq. 4 and sec. 4. The value uses all pairs at
    once and can fall below 0 where both sets are alike; the error is that of the mean over up to 20
    disjoint blocks, which bounds it from above.

    Args:
        a, b: (N, D) and (M, D), N and M at least 2.

    Raises:
        ShapeError: as `frechet`.
    """
    a, b = _points(a, b)
    blocks = min(_BLOCKS, min(len(a), len(b)) // _SMALLEST_BLOCK)
    error = None
    if blocks >= 2:
        parts = [
            _discrepancy(x, y)
            for x, y in zip(a.tensor_split(blocks), b.tensor_split(blocks), strict=True)
        ]
        error = float(torch.tensor(parts, dtype=torch.float64).std()) / math.sqrt(blocks)
    return Estimate(_discrepancy(a, b), error)


def sliced(a: Tensor, b: Tensor, *, seed: int = 0) -> float:
    """The sliced Wasserstein-2 distance over 128 directions, in the points' own unit.

    The root of the mean squared distance of the sorted projections (Bonneel et al. 2015, "Sliced
    and Radon Wasserstein barycenters"). Unlike the Fréchet distance it sees shape beyond mean and
    covariance.

    Args:
        a, b: (N, D) and (M, D); quantiles are compared where N and M differ.
        seed: of the directions.

    Raises:
        ShapeError: as `frechet`.
    """
    a, b = _points(a, b)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], _DIRECTIONS, dtype=a.dtype, generator=generator)
    directions /= directions.norm(dim=0, keepdim=True)
    count = max(len(a), len(b))
    levels = (torch.arange(count, dtype=a.dtype) + 0.5) / count
    gaps = _quantiles(a @ directions, levels) - _quantiles(b @ directions, levels)
    return float(gaps.square().mean().sqrt())


def _points(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ShapeError(
            f"A distance needs two sets of at least 2 points of one dimension, (N, D) and (M, D); "
            f"got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    return a.detach().cpu().double(), b.detach().cpu().double()


def _moments(points: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,), and R (min(N, D), D) with RᵀR the covariance."""
    mean = points.mean(0)
    root = torch.linalg.qr(points - mean, mode="r").R
    return mean, root / math.sqrt(len(points) - 1)


def _discrepancy(a: Tensor, b: Tensor) -> float:
    within = _off_diagonal_mean(_kernel(a, a)) + _off_diagonal_mean(_kernel(b, b))
    return float(within - 2 * _kernel(a, b).mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1).pow(3)


def _off_diagonal_mean(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.diagonal().sum()) / (count * (count - 1))


def _quantiles(columns: Tensor, levels: Tensor) -> Tensor:
    """The empirical quantiles of each column: (N, K) to (len(levels), K)."""
    index = (levels * len(columns)).floor().long().clamp(max=len(columns) - 1)
    return columns.sort(0).values[index]


def coverage(found: Tensor, real: Tensor, *, near: int = 5) -> float:
    """How much of the variety of real pictures there is: the share of them with a sample nearby.

    Nearby is no farther than the `near`-th nearest other real picture (Naeem et al. 2020, "Reliable
    fidelity and diversity metrics for generative models": coverage). As many real pictures of the
    same kind cover all but about 2^−near. Few kinds of samples, however good, cover little.

    Args:
        found, real: (N, D) and (M, D); of fewer than near + 1 real pictures all others are near.
    """
    between = torch.cdist(real, real)
    between.fill_diagonal_(torch.inf)
    last = min(near, len(real) - 1)
    if last < 1:
        return 1.0
    radius = between.kthvalue(last, dim=1).values
    return float((torch.cdist(real, found).amin(1) <= radius).double().mean())
