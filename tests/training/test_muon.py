"""Muon against torch's own, which takes matrices only, and against what it is meant to do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from couette.training.muon import _LONG, Muon, _by_rounds, orthogonal


@pytest.mark.parametrize(
    "shape", [(3, 16, 48), (2, 48, 16), (1, 20, 20), (2, 16, 144), (1, 90, 10)]
)
def test_singular_values_end_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("shape", [(2, 64, 576), (1, 24, 72)])
@pytest.mark.parametrize("condition", [1e0, 1e3, 1e6])
def test_the_gram_matrix_gives_what_the_rounds_give(
    shape: tuple[int, int, int], condition: float
) -> None:
    """Judged in float64, for singular values that are all alike and that fall far apart."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape).double(), full_matrices=False)
    values = torch.logspace(0, -math.log10(condition), shape[1], dtype=torch.float64)
    matrices = (left * values) @ right
    exact = _by_rounds(matrices / matrices.flatten(1).norm(dim=1)[:, None, None])
    assert shape[2] >= _LONG * shape[1]
    assert (orthogonal(matrices.float()) - exact).abs().max() < 3e-4


def test_matrices_move_as_by_torchs_own() -> None:
    """It rounds to bfloat16 on the way, so they agree to a few hundredths of a step."""
    torch.manual_seed(0)
    start, gradients = torch.randn(12, 30), torch.randn(4, 12, 30)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon([mine], lr=0.02)
    torchs = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
    for gradient in gradients:
        for weight, optimizer in ((mine, ours), (theirs, torchs)):
            weight.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert moved > 0.1
    assert (mine - theirs).norm() < 0.05 * moved


def test_a_convolution_is_the_matrix_of_what_it_reads() -> None:
    torch.manual_seed(0)
    kernel, gradient = torch.randn(8, 4, 3, 3), torch.randn(8, 4, 3, 3)
    weights = nn.Parameter(kernel.clone()), nn.Parameter(kernel.flatten(1).clone())
    for weight in weights:
        weight.grad = gradient.reshape(weight.shape)
        Muon([weight]).step()
    assert torch.equal(weights[0].flatten(1), weights[1])
