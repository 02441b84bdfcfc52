"""Effective weights: against densities that are known."""

from __future__ import annotations

import math

import pytest
import torch

from couette.config import DiffusionConfig, spec
from couette.errors import InputError
from couette.figures import pictures, resolve
from couette.figures.weights import _merged, _relative, effective
from couette.schedules import Linear, log_snr


def test_of_edm_is_its_weighting_times_the_normal_density() -> None:
    """Karras et al. 2022, tab. 1: ln sigma is N(-1.2, 1.2^2), and log SNR is -2 ln sigma."""
    places, weight = effective(DiffusionConfig())
    inside = (places > -3) & (places < 8)
    sigma = (-places / 2).exp()
    normal = torch.exp(-0.5 * ((sigma.log() + 1.2) / 1.2) ** 2) / (1.2 * math.sqrt(2 * math.pi))
    exact = normal / 2 * (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    torch.testing.assert_close(weight[inside], exact[inside], rtol=2e-3, atol=0)


def test_of_flow_matching_is_the_logistic_density_times_1_over_t_squared() -> None:
    config = DiffusionConfig(
        schedule=spec("flow"), parameterization=spec("flow"), times=spec("uniform")
    )
    places, weight = effective(config)
    inside = places.abs() < 6
    t = torch.sigmoid(-places / 2)  # whose density over log SNR is t(1 - t)/2
    exact = t * (1 - t) / 2 / t**2
    torch.testing.assert_close(weight[inside], exact[inside], rtol=2e-3, atol=0)


def test_of_a_table_has_its_entries() -> None:
    config = DiffusionConfig(
        schedule=spec("linear", steps=50), parameterization=spec("x0"), times=spec("uniform")
    )
    places, weight = effective(config)
    table = log_snr(Linear(steps=50).level(torch.arange(1, 51).double() / 50)).flip(0)
    torch.testing.assert_close(places, table[1:-1])
    torch.testing.assert_close(weight, 1 / 50 / ((table[2:] - table[:-2]) / 2))


def test_lines_that_coincide_are_drawn_as_one() -> None:
    lines = {}
    for weighting in ("snr", "edm", "uniform"):
        config = DiffusionConfig(
            schedule=spec("cosine"), parameterization=spec("eps"), weighting=spec(weighting)
        )
        lines[weighting] = _relative(effective(config), "x0")
    assert set(_merged(lines)) == {"snr, uniform", "edm"}


def test_on_eps_is_on_x0_without_the_snr() -> None:
    found = effective(DiffusionConfig())
    on_x0, on_eps = _relative(found, "x0"), _relative(found, "eps")
    middle = float(found.log_snr[found.log_snr.abs().argmin()])
    ratio = (on_x0.weight / on_eps.weight).log()
    torch.testing.assert_close(ratio, found.log_snr - middle)


def test_is_drawn_of_anything_but_the_one_level_of_a_denoiser(denoiser: object) -> None:
    names = [each.name for each in pictures(resolve(None), "weights")]
    assert names == ["weightings", "objectives"]
    own = pictures(resolve("digits"), "weights", {"weightings": ("snr", "p2:k=2"), "on": "eps"})
    assert [each.name for each in own] == names
    assert [each.name for each in pictures(resolve(str(denoiser)), "weights")] == ["objectives"]
    assert [each.name for each in pictures(resolve("absorbing"), "weights")] == ["objectives"]
    with pytest.raises(InputError, match="did you mean 'snr'"):
        pictures(resolve(None), "weights", {"weightings": ("snrr",)})
