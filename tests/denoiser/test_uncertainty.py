"""The learned log-variance: where it lands, and what the loss is there."""

from __future__ import annotations

import torch

from couette.contracts import Level
from couette.denoiser import LogVariance

LEVELS = Level(
    torch.ones(5, dtype=torch.float64),
    torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64),
)


def test_it_begins_as_nothing() -> None:
    loss = torch.arange(5.0)
    assert torch.equal(LogVariance().normalized(loss, LEVELS), loss)


def test_its_optimum_is_the_log_of_the_mean_loss() -> None:
    """There the loss at each level is 1 + log E[loss], and levels far apart learn apart."""
    mean = torch.tensor([4.0, 0.5, 0.01, 1.0, 30.0])
    u = LogVariance()
    waves = u.waves(LEVELS.sigma.log() / 4)
    u.weight.data = (torch.linalg.pinv(waves.double()) @ mean.log().double()).float()
    # Two losses a level, 0.5 and 1.5 times its mean: only the mean counts.
    losses = (u.normalized(0.5 * mean, LEVELS) + u.normalized(1.5 * mean, LEVELS)) / 2
    torch.testing.assert_close(losses, 1 + mean.log(), atol=1e-4, rtol=0)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    for parameter in u.parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), atol=1e-4, rtol=0)
