import pytest
import torch

from couette.contracts import Sizes
from couette.errors import ShapeError
from couette.networks import PointMLP


def test_pictures_are_refused() -> None:
    with pytest.raises(ShapeError, match="not pictures of 1×2"):
        PointMLP(Sizes(2, 1, 2))


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_it_learns_the_exact_denoiser_of_two_points(unit: float) -> None:
    """For x0 = ±a the posterior mean at noise σ is a·tanh(a·x/σ²), coordinate by coordinate.

    The network is told σ in units of 1 and of 1/1000: both ranges must be resolved.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = PointMLP(Sizes(2, 1, 1), hidden=64, depth=2)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    a = 0.7

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sign = torch.randint(0, 2, (count, 2, 1, 1), generator=generator) * 2 - 1
        sigma = 0.2 + 0.8 * torch.rand(count, generator=generator)
        noise = torch.randn(count, 2, 1, 1, generator=generator)
        return a * sign, sigma, a * sign + sigma[:, None, None, None] * noise

    for _ in range(600):
        x0, sigma, x = draw(256)
        loss = (network(x, unit * sigma, {}) - x0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, sigma, x = draw(4096)
    exact = a * torch.tanh(a * x / sigma[:, None, None, None] ** 2)
    with torch.no_grad():
        error = (network(x, unit * sigma, {}) - exact).square().mean().sqrt()
        deaf = (network(x, 0.6 * unit * torch.ones(4096), {}) - exact).square().mean().sqrt()
    assert error < 0.08
    assert deaf > 1.5 * error  # told the wrong σ it does worse: it listens
