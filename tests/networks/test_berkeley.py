import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from couette.contracts import Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks import BerkeleyUNet, count_parameters


def expected_parameters(d: int, channels: int, classes: int, time: bool, side: int = 7) -> int:
    """Counted from the assignment's diagram, block by block."""

    def conv(inside: int, outside: int, area: int = 9) -> int:
        return inside * outside * area + outside + 2 * outside  # weights, bias, BatchNorm

    def pair(inside: int, outside: int) -> int:
        return conv(inside, outside) + conv(outside, outside)

    def fc(inside: int, outside: int) -> int:
        return (inside + 1) * outside + (outside + 1) * outside

    total = pair(channels, d)
    total += conv(d, d) + pair(d, d) + conv(d, 2 * d) + pair(2 * d, 2 * d)
    total += conv(2 * d, 2 * d, side * side)
    total += conv(4 * d, d, 16) + pair(d, d) + conv(2 * d, d, 16) + pair(d, d)
    total += pair(2 * d, d) + d * channels * 9 + channels
    total += (fc(1, 2 * d) + fc(1, d)) * time
    total += (fc(classes, 2 * d) + fc(classes, d)) * (time and classes > 0)
    return total


@pytest.mark.parametrize(
    ("hidden", "classes", "time"), [(128, 0, False), (64, 0, True), (64, 10, True), (64, 10, False)]
)
def test_parameters_are_the_diagrams(hidden: int, classes: int, time: bool) -> None:
    network = BerkeleyUNet(Sizes(1, 28, 28, classes), hidden=hidden, time=time)
    assert count_parameters(network) == expected_parameters(hidden, 1, classes, time)


@pytest.mark.parametrize(("hidden", "gigaflops"), [(128, 2.14), (64, 0.54)])
def test_the_cost_that_the_docstring_states(hidden: int, gigaflops: float) -> None:
    network = BerkeleyUNet(Sizes(1, 28, 28), hidden=hidden).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28), torch.zeros(1), {})
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflops, abs=0.005)


@pytest.mark.parametrize(("height", "width"), [(28, 30), (26, 28)])
def test_sides_that_do_not_divide_by_four_are_refused(height: int, width: int) -> None:
    with pytest.raises(ShapeError, match="multiples of 4"):
        BerkeleyUNet(Sizes(1, height, width))


def test_without_time_it_takes_neither_time_nor_class() -> None:
    network = BerkeleyUNet(Sizes(1, 8, 8, classes=10), hidden=8).eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(x, torch.zeros(2), {}), network(x, torch.ones(2), {}))
    with pytest.raises(ConfigError, match="label"):
        network(x, torch.zeros(2), {"label": torch.zeros(2, dtype=torch.int64)})


def test_none_is_the_zero_vector() -> None:
    """No weight of the first class layer can reach the output for "none"; its bias can."""
    torch.manual_seed(0)
    network = BerkeleyUNet(Sizes(1, 8, 8, classes=3), hidden=8, time=True).eval()
    x, told = torch.randn(4, 1, 8, 8), torch.full((4,), 0.5)
    label = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        before = network(x, told, {"label": label})
        network.class1[0].weight.normal_()
        network.class2[0].weight.normal_()
        after = network(x, told, {"label": label})
        network.class1[0].bias.normal_()
        biased = network(x, told, {"label": label})
    same = (before == after).flatten(1).all(1)
    assert same.tolist() == [False, False, False, True]
    assert not torch.equal(biased[3], after[3])


def test_class_multiplies_and_time_adds() -> None:
    """c = 0 leaves only t after the bottleneck: what stood there before cannot matter."""
    torch.manual_seed(0)
    network = BerkeleyUNet(Sizes(1, 8, 8, classes=3), hidden=8, time=True).eval()
    seen = []
    network.up1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network.class1[2].weight.zero_()
        network.class1[2].bias.zero_()
        network(torch.randn(1, 1, 8, 8), torch.tensor([0.3]), {"label": torch.tensor([1])})
        time = network.time1(torch.tensor([[0.3]]))
    torch.testing.assert_close(seen[0][:, :16], time.expand(1, 16, 2, 2))
