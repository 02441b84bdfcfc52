"""Which noise goes with which picture of a batch.

A pairing that declares `couples=True` looks at the whole batch, which then must not be split.
"""

from __future__ import annotations

import torch
from torch import Tensor

from couette.registry import PAIRINGS


@PAIRINGS.register("none")
def none(noise: Tensor, data: Tensor) -> Tensor:
    """Each picture its own noise, drawn independently.

    eps is independent of x0, as in Ho et al. 2020. When to use it: first.
    """
    return noise


@PAIRINGS.register("immiscible", couples=True)
def immiscible(noise: Tensor, data: Tensor) -> Tensor:
    """The least sum of distances between pictures and noises (Li et al. 2024, alg. 1).

    It minimises Σ_i ‖x_i − eps_π(i)‖ over permutations π of the batch. When to use it: for faster
    training in batches of a hundred or more.
    """
    return noise[_assignment(_distances(noise, data))]


@PAIRINGS.register("ot", couples=True)
def optimal_transport(noise: Tensor, data: Tensor) -> Tensor:
    """The least sum of squared distances: minibatch optimal transport (Tong et al. 2024).

    It minimises Σ_i ‖x_i − eps_π(i)‖² over permutations π of the batch. When to use it: on `flow`,
    for straighter paths and so fewer steps.
    """
    return noise[_assignment(_distances(noise, data).square())]


def _distances(noise: Tensor, data: Tensor) -> Tensor:
    """(B, B) Euclidean, a row for each picture."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(data.flatten(1), noise.flatten(1), compute_mode=exact)


def _assignment(cost: Tensor) -> Tensor:
    """The noise of each picture, (B,) int64, that makes the sum of costs least."""
    from scipy.optimize import linear_sum_assignment  # slower to import than a picture to draw

    return torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=cost.device)
