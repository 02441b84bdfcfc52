from __future__ import annotations

import pytest
import torch

from couette.contracts import Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks import TokenTransformer


def test_starts_by_saying_nothing() -> None:
    network = TokenTransformer(Sizes(5, 1, 7), width=16, depth=1)
    assert torch.equal(network(torch.rand(2, 5, 1, 7), torch.rand(2), {}), torch.zeros(2, 5, 1, 7))


def test_every_position_sees_every_other_and_knows_its_place() -> None:
    torch.manual_seed(0)
    network = TokenTransformer(Sizes(3, 1, 4), width=16, depth=1)
    torch.nn.init.normal_(network.leave.weight)
    x = torch.ones(1, 3, 1, 4, requires_grad=True)
    out = network(x, torch.zeros(1), {})[0, 0, 0]
    assert out.unique().numel() == 4
    for position in out:
        (gradient,) = torch.autograd.grad(position, x, retain_graph=True)
        assert bool((gradient.abs().sum((0, 1, 2)) > 0).all())


def test_another_size_is_refused() -> None:
    network = TokenTransformer(Sizes(3, 1, 4), width=16, depth=1)
    with pytest.raises(ShapeError, match="knows 1×4 positions and was given 1×5"):
        network(torch.zeros(1, 3, 1, 5), torch.zeros(1), {})


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 heads do not divide a width of 16"):
        TokenTransformer(Sizes(3, 1, 4), width=16, heads=3)
