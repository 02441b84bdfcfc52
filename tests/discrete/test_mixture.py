from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.errors import ConfigError
from couette.schedules import Cosine, Flow, Linear, entries, log_snr
from discrete.joint import f64, mixture

NAMES = ["flow", "linear", "cosine"]


@pytest.mark.parametrize("name", NAMES)
class TestEveryMixture:
    def test_shares_add_up(self, name: str) -> None:
        level = mixture(name).level(torch.linspace(0, 1, 101, dtype=torch.float64))
        assert torch.allclose(level.alpha + level.sigma, torch.ones(101).double(), atol=1e-12)
        assert (float(level.alpha[0]), float(level.sigma[0])) == (1, 0)

    @given(t=st.floats(1e-3, 0.999))
    def test_time_is_the_inverse_of_level(self, name: str, t: float) -> None:
        schedule = mixture(name)
        assert float(schedule.time(log_snr(schedule.level(f64(t))))) == pytest.approx(t, rel=1e-8)

    @given(t=st.floats(0.01, 0.99))
    def test_fall_is_the_slope(self, name: str, t: float) -> None:
        t = round(t, 3) + 0.0005  # between a table's entries
        schedule, h = mixture(name), 1e-6
        around = schedule.level(f64(t - h, t + h)).alpha
        assert float(schedule.fall(f64(t))) == pytest.approx(
            float(around[0] - around[1]) / (2 * h), rel=1e-5, abs=1e-8
        )


def test_a_straight_mix_keeps_its_alpha() -> None:
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    assert torch.equal(mixture("flow").level(t).alpha, Flow().level(t).alpha)
    assert torch.allclose(mixture("flow").fall(t), torch.ones(9).double())


@pytest.mark.parametrize(("name", "table"), [("linear", Linear()), ("cosine", Cosine())])
def test_a_table_replaces_with_probability_beta(name: str, table: Linear | Cosine) -> None:
    schedule = mixture(name)
    t = torch.arange(1001, dtype=torch.float64) / 1000
    kept = schedule.level(t).alpha
    assert entries(schedule) == 1000
    assert torch.allclose(1 - kept[1:] / kept[:-1], table.betas, atol=1e-9)


def test_a_schedule_that_adds_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose flow"):
        mixture("edm")
