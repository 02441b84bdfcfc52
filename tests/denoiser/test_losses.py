"""What an error costs before it is weighted."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import couette.denoiser  # noqa: F401  (fills the registry)
from couette.registry import LOSSES
from worlds import draw


@pytest.mark.parametrize("name", list(LOSSES))
class TestEveryLoss:
    def test_is_one_number_a_sample_and_0_on_the_target(self, name: str) -> None:
        output, target = draw(3, 2, 4, 5, seed=1), draw(3, 2, 4, 5, seed=2)
        target[1] = output[1]
        loss = LOSSES[name](output, target)
        assert loss.shape == (3,)
        assert loss[1] == 0 and bool((loss[[0, 2]] > 0).all())
        assert torch.equal(LOSSES[name](output[:1], target[:1]), loss[:1])

    def test_has_a_finite_gradient_on_the_target(self, name: str) -> None:
        target = draw(2, 1, 2, 2)
        output = target.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(LOSSES[name](output, target).sum(), output)
        assert torch.equal(gradient, torch.zeros_like(gradient))


@given(st.floats(1e-6, 1e3), st.floats(1e-3, 1))
def test_pseudo_huber(distance: float, c: float) -> None:
    """Song & Dhariwal 2024: √(‖d‖² + c²) − c with their c = 0.00054·√n."""
    output = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    output[0, 1, 0, 1] = distance
    edge = c * math.sqrt(12)
    expected = math.sqrt(distance**2 + edge**2) - edge
    found = float(LOSSES["pseudo-huber"](output, torch.zeros_like(output), c=c))
    assert found == pytest.approx(expected, abs=1e-12 * (distance + edge))
