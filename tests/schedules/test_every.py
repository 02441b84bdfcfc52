from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from couette.contracts import Level
from couette.registry import SCHEDULES
from couette.schedules import log_snr, mixed, preserving, ratio, transition
from worlds import draw, f64, schedule

NAMES = [
    *SCHEDULES,
    "linear:steps=300",
    "cosine:max_beta=1",
    "sigmoid:least=0,tau=0.7",
    "zero-terminal:schedule=cosine",
    "betas:values=(0.3,1)",
    "alpha-bars:values=(0.7,0.2)",
    "edm:sigma_max=20,rho=3",
    "flow:shift=3",
    "vp:beta_min=5,beta_max=5",
    "laplace:mean=-1,scale=2",
    "shifted:schedule=zero-terminal,shift=0.5",
    "shifted:schedule=flow,shift=4",
    "shifted:schedule=edm",
]


@pytest.mark.parametrize("name", NAMES)
class TestEverySchedule:
    def test_begins_exactly_clean(self, name: str) -> None:
        level = schedule(name).level(f64(0.0))
        assert (float(level.alpha), float(level.sigma)) == (1.0, 0.0)
        assert level.alpha.dtype == level.sigma.dtype == torch.float64

    def test_takes_float32_times_of_any_shape(self, name: str) -> None:
        level = schedule(name).level(torch.rand(2, 3))
        assert level.alpha.shape == level.sigma.shape == (2, 3)
        assert level.alpha.dtype == level.sigma.dtype == torch.float64

    def test_is_monotone(self, name: str) -> None:
        level = schedule(name).level(torch.linspace(0, 1, 4001, dtype=torch.float64))
        assert bool((level.sigma.diff() > 0).all())
        assert bool((level.alpha.diff() <= 0).all())

    @settings(max_examples=40)
    @given(t=st.floats(1e-6, 1))
    def test_time_is_the_inverse_of_level(self, name: str, t: float) -> None:
        s = schedule(name)
        back = s.time(log_snr(s.level(f64(t))))
        assert float(back) == pytest.approx(t, rel=1e-9, abs=1e-12)

    def test_time_of_both_ends(self, name: str) -> None:
        assert schedule(name).time(f64(-math.inf, math.inf)).tolist() == [1.0, 0.0]

    def test_time_beyond_the_last_level_is_one(self, name: str) -> None:
        s = schedule(name)
        beyond = log_snr(s.level(f64(1.0))) - 1
        assert s.time(beyond).tolist() == [1.0]

    def test_chain_composes_to_the_closed_form(self, name: str) -> None:
        """x_u from x_t from x_s is x_u from x_s: same coefficient, same variance."""
        s = schedule(name)
        times = torch.linspace(0, 0.99, 40, dtype=torch.float64)
        alpha, variance = f64(1.0), f64(0.0)
        for t, u in pairwise(times):
            step = transition(s.level(t), s.level(u))
            alpha = alpha * step.alpha
            variance = step.alpha.square() * variance + step.sigma.square()
        closed = s.level(times[-1])
        assert float(alpha) == pytest.approx(float(closed.alpha), rel=1e-12)
        assert float(variance) == pytest.approx(float(closed.sigma.square()), rel=1e-12)


@pytest.mark.parametrize("name", ["linear:steps=50", "edm:sigma_max=3", "flow"])
def test_chain_simulated_agrees_with_the_closed_form(name: str) -> None:
    """Fixed draws. With fresh ones, either bound (5 standard errors) fails once in 1.7 million."""
    s, count = schedule(name), 40_000
    times = torch.linspace(0, 0.9, 46, dtype=torch.float64)
    x = torch.full((count,), 0.7, dtype=torch.float64)
    for k in range(45):
        x = mixed(x, transition(s.level(times[k]), s.level(times[k + 1])), draw(count, seed=k))
    closed = s.level(times[-1])
    sigma = float(closed.sigma)
    assert abs(float(x.mean()) - 0.7 * float(closed.alpha)) < 5 * sigma / math.sqrt(count)
    assert abs(float(x.var()) / sigma**2 - 1) < 5 * math.sqrt(2 / count)


def kurtosis(x: torch.Tensor) -> float:
    centred = x - x.mean()
    return float(centred.pow(4).mean() / centred.pow(2).mean() ** 2 - 3)


def test_a_chain_of_uniform_noises_is_not_uniform() -> None:
    """Same mean and variance at the end, another shape: so the toy mix has the closed form only.

    Excess kurtosis is −1.2 for uniform noise and −1.2·Σw⁴/(Σw²)² for a sum of them weighted by w.
    """
    s, count = schedule("flow"), 100_000
    times = torch.linspace(0, 0.8, 21, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def unit() -> torch.Tensor:
        return (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5) * math.sqrt(12)

    x = torch.zeros(count, dtype=torch.float64)
    weights = torch.zeros(20, dtype=torch.float64)
    for k in range(20):
        step = transition(s.level(times[k]), s.level(times[k + 1]))
        x = mixed(x, step, unit())
        weights = weights * step.alpha
        weights[k] = step.sigma
    closed = mixed(torch.zeros(count, dtype=torch.float64), s.level(times[-1]), unit())
    assert float(weights.square().sum()) == pytest.approx(0.64, rel=1e-12)
    assert float(x.var()) == pytest.approx(float(closed.var()), rel=0.02)
    expected = -1.2 * float(weights.pow(4).sum() / weights.square().sum() ** 2)
    assert expected > -0.4
    assert kurtosis(closed) == pytest.approx(-1.2, abs=0.03)
    assert kurtosis(x) == pytest.approx(expected, abs=0.06)


def test_mixed_ratio_and_log_snr() -> None:
    level = Level(f64(0.8), f64(0.6))
    assert mixed(f64(10.0), level, f64(-1.0)).tolist() == pytest.approx([7.4])
    assert float(ratio(level)) == pytest.approx(0.75)
    assert float(log_snr(level)) == pytest.approx(math.log(16 / 9))
    assert float(ratio(Level(f64(0.0), f64(1.0)))) == math.inf


def test_the_variance_preserving_level_of_a_ratio() -> None:
    level = preserving(f64(0.0, 1e-200, 0.75, 1e200, math.inf))
    assert level.alpha.tolist() == pytest.approx([1, 1, 0.8, 0, 0], abs=1e-199)
    assert level.sigma.tolist() == pytest.approx([0, 0, 0.6, 1, 1], abs=1e-199)
