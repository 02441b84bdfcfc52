import pytest
import torch
from torch.nn import functional as F

from couette.contracts import Sizes
from couette.errors import ShapeError
from couette.networks import BasicUNet, count_parameters


def test_the_course_counts_309057_parameters() -> None:
    assert count_parameters(BasicUNet(Sizes(1, 28, 28))) == 309_057


@pytest.mark.parametrize(("height", "width"), [(28, 30), (27, 28), (2, 4), (0, 4)])
def test_sides_that_do_not_divide_by_four_are_refused(height: int, width: int) -> None:
    with pytest.raises(ShapeError, match="multiples of 4"):
        BasicUNet(Sizes(1, height, width))


def test_output_ends_in_silu() -> None:
    """SiLU is never below -0.2785, however far the last convolution goes."""
    network = BasicUNet(Sizes(1, 8, 8))
    lowest = F.silu(torch.linspace(-5, 0, 10001)).min()
    with torch.no_grad():
        network.up[2].bias.fill_(-1.2785)
        network.up[2].weight.zero_()
        out = network(torch.randn(2, 1, 8, 8), torch.zeros(2), {})
    torch.testing.assert_close(out, lowest.expand_as(out), rtol=0, atol=1e-6)


def test_a_skip_is_added_after_the_doubling() -> None:
    """With identity-like kernels the answer can be worked out by hand from pooled maxima."""
    network = BasicUNet(Sizes(1, 4, 4))
    for parameter in network.parameters():
        parameter.data.zero_()
    for layer in (*network.down, *network.up):
        layer.weight.data[0, 0, 2, 2] = 1.0  # channel 0 passes through
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    fine = F.silu(x)
    middle = F.silu(fine.reshape(1, 1, 2, 2, 2, 2).amax((3, 5)))
    coarse = F.silu(F.silu(middle.amax((2, 3), keepdim=True)))
    middle = F.silu(coarse + middle)
    expected = F.silu(middle.repeat_interleave(2, 2).repeat_interleave(2, 3) + fine)
    with torch.no_grad():
        torch.testing.assert_close(network(x, torch.zeros(1), {}), expected)
