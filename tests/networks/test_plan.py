from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from couette.contracts import Cond, Sizes, TextSizes
from couette.networks import BasicUNet, BerkeleyUNet, PlanRow, UNet2D, count_parameters, plan
from couette.registry import NETWORKS


def test_basic_by_hand() -> None:
    sizes = Sizes(1, 28, 28)
    assert plan(BasicUNet(sizes), sizes) == [
        PlanRow("down.0", "Conv2d", 32, 28, 28, 832),
        PlanRow("down.1", "Conv2d", 64, 14, 14, 51_264),
        PlanRow("down.2", "Conv2d", 64, 7, 7, 102_464),
        PlanRow("up.0", "Conv2d", 64, 7, 7, 102_464),
        PlanRow("up.1", "Conv2d", 32, 14, 14, 51_232),
        PlanRow("up.2", "Conv2d", 1, 28, 28, 801),
    ]


def test_berkeley_narrows_to_one_pixel_and_back() -> None:
    sizes = Sizes(1, 28, 20, classes=10)
    rows = {row.name: row for row in plan(BerkeleyUNet(sizes, hidden=8, time=True), sizes)}
    assert rows["flatten"][2:] == (16, 1, 1, 0)
    assert rows["unflatten"][2:5] == (16, 7, 5)
    assert rows["out"][2:5] == (1, 28, 20)


def test_unet2d_is_listed_in_the_order_it_runs() -> None:
    sizes = Sizes(1, 28, 28)
    rows = plan(UNet2D(sizes), sizes)
    assert [row.name for row in rows] == [
        *("time_embedding", "conv_in", "down_blocks.0", "down_blocks.1", "down_blocks.2"),
        *("mid_block", "up_blocks.0", "up_blocks.1", "up_blocks.2", "conv_norm_out", "conv_out"),
    ]
    assert rows[0][2:5] == (128, None, None)
    assert rows[5][2:5] == (64, 7, 7)


READING = ("clip", "dit", "unet")


@pytest.mark.parametrize("name", list(NETWORKS))
def test_rows_add_up_and_the_network_is_left_as_it_was(name: str) -> None:
    side = 1 if name == "points" else 16
    text = TextSizes(length=5, vocabulary=9) if name in READING else None
    sizes = Sizes(2, side, side, classes=3, text=text)
    network = NETWORKS[name](sizes)
    next(network.children()).eval()
    modes = {key: module.training for key, module in network.named_modules()}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rows = plan(network, sizes)
    assert sum(row.parameters for row in rows) == count_parameters(network)
    assert {key: module.training for key, module in network.named_modules()} == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


class Odd(nn.Module):
    """A block that never runs, one that is shared, and a parameter of the network's own."""

    wants: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(2, 3)
        self.first = nn.Conv2d(1, 1, 1)
        self.second = nn.Sequential(self.first)
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        result: Tensor = self.second(self.first(x)) * self.scale.sum()
        return result


def test_idle_shared_and_loose_parameters_are_counted_once() -> None:
    assert plan(Odd(), Sizes(1, 4, 4)) == [
        PlanRow("first", "Conv2d", 1, 4, 4, 2),
        PlanRow("second", "Sequential", 1, 4, 4, 0),
        PlanRow("idle", "Linear", None, None, None, 9),
        PlanRow("", "Odd", None, None, None, 5),
    ]
    assert count_parameters(Odd()) == 16


def test_hooks_are_taken_off_where_the_network_fails() -> None:
    network = BasicUNet(Sizes(1, 8, 8))
    with pytest.raises(RuntimeError):
        plan(network, Sizes(3, 8, 8))
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training
