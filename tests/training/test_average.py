"""The power-function average against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from couette.errors import ConfigError
from couette.training.average import PowerAverage, Profile, combined, exponent

APPLIED = torch.tensor(True)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_of_karras_2024(width: float, gamma: float) -> None:
    assert exponent(width) == pytest.approx(gamma, abs=0.005)


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.2, 0.27])
def test_the_profile_has_the_width_asked_for(width: float) -> None:
    """The weights of the steps, t^γ·(γ+1), have this standard deviation over [0, 1]."""
    gamma = exponent(width)
    t = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    density = (gamma + 1) * t**gamma
    mean = (density * t).mean()
    assert float((density * (t - mean) ** 2).mean().sqrt()) == pytest.approx(width, rel=1e-4)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.28, 0.3, float("nan")])
def test_widths_out_of_range(width: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and"):
        exponent(width)


def layer() -> nn.BatchNorm1d:
    return nn.BatchNorm1d(3, dtype=torch.float64)


def test_the_first_update_is_a_copy() -> None:
    network = layer()
    average = PowerAverage(network, 0.1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1e30, -3.0, 1e-30]))
    average.update(torch.tensor(1), APPLIED)
    assert torch.equal(average.network.weight, network.weight)


def test_a_refused_update_leaves_all_as_it_is() -> None:
    network = layer()
    average = PowerAverage(network, 0.1)
    average.update(torch.tensor(1), APPLIED)
    before = average.network.weight.clone()
    with torch.no_grad():
        network.weight.fill_(7.0)
    average.update(torch.tensor(1), ~APPLIED)
    assert torch.equal(average.network.weight, before)


def test_equals_the_closed_form() -> None:
    """After n updates step i has the weight (i^(γ+1) − (i−1)^(γ+1))/n^(γ+1), up to O(1/n)."""
    network, steps, width = layer(), 400, 0.1
    average = PowerAverage(network, width)
    power = exponent(width) + 1
    values = torch.randn(steps, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            network.weight.copy_(value)
        average.update(torch.tensor(step), APPLIED)
    i = torch.arange(1, steps + 1, dtype=torch.float64)
    exact = ((i / steps) ** power - ((i - 1) / steps) ** power)[:, None]
    # Π(1 − 1/k)^(γ+1) telescopes to (i/n)^(γ+1), so the form is exact and not only near.
    torch.testing.assert_close(average.network.weight, (exact * values).sum(0), rtol=0, atol=1e-12)


def test_buffers_are_copied_and_nothing_asks_for_gradients() -> None:
    network = layer().train()
    average = PowerAverage(network, 0.1)
    network(torch.randn(8, 3, dtype=torch.float64))
    average.update(torch.tensor(1), APPLIED)
    assert torch.equal(average.network.running_mean, network.running_mean)
    assert int(average.network.num_batches_tracked) == 1
    assert not any(p.requires_grad for p in average.network.parameters())
    assert not average.network.training
    assert network.training


def walker() -> nn.Linear:
    """A single weight, at 0."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(network.weight)
    return network


class TestCombined:
    """Other averages from two that were kept (Karras et al. 2024, fig. 4)."""

    def kept(self, steps: int, every: int) -> tuple[list[Profile], list[torch.Tensor]]:
        """Profiles of widths 0.05 and 0.1 at every so many steps, with the averages of a walk."""
        network = walker()
        averages = {width: PowerAverage(network, width) for width in (0.05, 0.10)}
        generator = torch.Generator().manual_seed(0)
        profiles, values = [], []
        for step in range(1, steps + 1):
            with torch.no_grad():
                network.weight.add_(torch.randn((), generator=generator, dtype=torch.float64))
            for width, average in averages.items():
                average.update(torch.tensor(step), APPLIED)
                if step % every == 0:
                    profiles.append(Profile(step, width))
                    values.append(average.network.weight.detach().clone())
        return profiles, values

    @pytest.mark.parametrize("width", [0.05, 0.07, 0.1, 0.14])
    def test_the_average_that_was_not_kept(self, width: float) -> None:
        profiles, values = self.kept(2000, 250)
        factors, missed = combined(profiles, Profile(2000, width))
        found = sum(f * v for f, v in zip(factors, values, strict=True))
        network = walker()
        exact = PowerAverage(network, width)
        generator = torch.Generator().manual_seed(0)
        for step in range(1, 2001):
            with torch.no_grad():
                network.weight.add_(torch.randn((), generator=generator, dtype=torch.float64))
            exact.update(torch.tensor(step), APPLIED)
        scale = float(network.weight.detach().abs())
        assert isinstance(found, torch.Tensor)
        assert float((found - exact.network.weight).abs()) < (0.02 + missed) * scale
        assert missed < 0.03
        assert sum(factors) == pytest.approx(1, abs=0.01)

    def test_what_is_missed_is_told(self) -> None:
        """Of a far width, and with one checkpoint alone."""
        _, far = combined([Profile(1000, 0.05), Profile(1000, 0.1)], Profile(1000, 0.01))
        _, near = combined([Profile(1000, 0.05), Profile(1000, 0.1)], Profile(1000, 0.07))
        assert near < 0.06 < 0.3 < far
        _, early = combined([Profile(500, 0.05), Profile(500, 0.1)], Profile(1000, 0.07))
        assert early > 0.9
