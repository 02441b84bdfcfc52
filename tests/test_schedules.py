from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from couette.config import Spec, spec
from couette.contracts import Level, Schedule
from couette.errors import ConfigError, InputError
from couette.registry import GRIDS, SCHEDULES
from couette.schedules import Table, entries, log_snr, mixed, ratio, transition
from worlds import draw, schedule

NAMES = [*SCHEDULES, "linear:steps=300", "edm:sigma_max=20,rho=3"]
TABLES = ["linear", "linear:steps=300", "cosine"]


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


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


class TestTables:
    @pytest.mark.parametrize("name", TABLES)
    def test_entries_are_products_of_betas(self, name: str) -> None:
        s = schedule(name)
        assert isinstance(s, Table) and entries(s) == s.steps
        t = (torch.arange(s.steps, dtype=torch.float64) + 1) / s.steps
        level = s.level(t)
        alpha_bar = torch.tensor(
            [math.prod((1 - s.betas[: k + 1]).tolist()) for k in range(0, s.steps, 37)],
            dtype=torch.float64,
        )
        assert torch.allclose(level.alpha.square()[::37], alpha_bar, rtol=1e-10, atol=0)
        assert torch.allclose(level.sigma.square()[::37], 1 - alpha_bar, rtol=1e-9, atol=0)
        power = level.alpha.square() + level.sigma.square()
        assert torch.allclose(power, torch.ones_like(power), rtol=0, atol=1e-14)

    @pytest.mark.parametrize("name", TABLES)
    def test_one_step_is_ho_equation_2(self, name: str) -> None:
        s = schedule(name)
        assert isinstance(s, Table)
        t = torch.arange(s.steps + 1, dtype=torch.float64) / s.steps
        levels = s.level(t)
        earlier = Level(levels.alpha[:-1], levels.sigma[:-1])
        step = transition(earlier, Level(levels.alpha[1:], levels.sigma[1:]))
        assert torch.allclose(step.alpha, (1 - s.betas).sqrt(), rtol=1e-9, atol=0)
        assert torch.allclose(step.sigma.square(), s.betas, rtol=1e-9, atol=1e-14)

    def test_linear_is_the_papers(self) -> None:
        s = schedule("linear")
        assert isinstance(s, Table) and s.steps == 1000
        assert float(s.betas[0]) == 1e-4
        assert float(s.betas[-1]) == 0.02
        assert torch.allclose(s.betas.diff(), f64((0.02 - 1e-4) / 999), rtol=1e-9, atol=0)
        assert float(s.alpha_bar[-1]) == pytest.approx(4.0358e-5, rel=1e-4)

    def test_how_near_to_pure_noise_linear_ends(self) -> None:
        assert float(schedule("linear").level(f64(1.0)).alpha) == pytest.approx(0.00635, abs=5e-6)
        short = float(schedule("linear:steps=300").level(f64(1.0)).alpha)
        assert short == pytest.approx(0.21922, abs=5e-6)

    def test_cosine_is_the_papers_function(self) -> None:
        s = schedule("cosine")
        t = f64(0.1, 0.25, 0.5, 0.75, 0.9)
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        f0 = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert torch.allclose(s.level(t).alpha.square(), f / f0, rtol=1e-10, atol=0)
        assert isinstance(s, Table) and float(s.betas.max()) == 0.999

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("linear", {"num_train_timesteps": 1000, "beta_schedule": "linear"}),
            ("linear:steps=300", {"num_train_timesteps": 300, "beta_schedule": "linear"}),
            ("cosine", {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}),
        ],
    )
    def test_diffusers_has_the_same(self, ours: str, theirs: dict[str, object]) -> None:
        diffusers = pytest.importorskip("diffusers")
        s, other = schedule(ours), diffusers.DDPMScheduler(**theirs)
        assert isinstance(s, Table)
        # Theirs are float32; where 1 − β is 0.001, as at cosine's end, a rounding is worth 1e-5.
        assert torch.allclose(s.betas, other.betas.double(), rtol=3e-7, atol=0)
        least = 1e-6 if "linear" in ours else 3e-5
        assert torch.allclose(s.alpha_bar, other.alphas_cumprod.double(), rtol=least, atol=0)

    @pytest.mark.parametrize("betas", [[0.1], [], [0.1, 1.0], [0.0, 0.1], [0.1, math.nan]])
    def test_bad_betas_are_refused(self, betas: list[float]) -> None:
        with pytest.raises(ConfigError, match="between 0 and 1"):
            Table(torch.tensor(betas))

    @pytest.mark.parametrize("text", ["linear:steps=-5", "linear:steps=1", "cosine:steps=0"])
    def test_bad_lengths_are_refused(self, text: str) -> None:
        with pytest.raises(ConfigError, match="steps"):
            schedule(text)


def test_edm_is_karras() -> None:
    level = schedule("edm").level(f64(1.0, 0.5))
    assert level.alpha.tolist() == [1.0, 1.0]
    assert level.sigma.tolist() == [80.0, 80 * 0.5**7]
    with pytest.raises(ConfigError, match="above 0"):
        schedule("edm:sigma_max=0")


def test_flow_is_a_straight_line() -> None:
    level = schedule("flow").level(f64(0.25))
    assert (float(level.alpha), float(level.sigma)) == (0.75, 0.25)
    assert entries(schedule("flow")) is None


def test_mixed_ratio_and_log_snr() -> None:
    level = Level(f64(0.8), f64(0.6))
    assert mixed(f64(10.0), level, f64(-1.0)).tolist() == pytest.approx([7.4])
    assert float(ratio(level)) == pytest.approx(0.75)
    assert float(log_snr(level)) == pytest.approx(math.log(16 / 9))
    assert float(ratio(Level(f64(0.0), f64(1.0)))) == math.inf


def grid(name: str, s: Schedule, steps: int, **settings: object) -> torch.Tensor:
    times: torch.Tensor = GRIDS.bind(spec(name, **settings))(s, steps=steps)
    return times


class TestGrids:
    @pytest.mark.parametrize("name", list(GRIDS))
    @pytest.mark.parametrize("over", ["linear", "linear:steps=300", "cosine"])
    @settings(max_examples=30)
    @given(steps=st.integers(1, 300))
    def test_fall_to_zero(self, name: str, over: str, steps: int) -> None:
        times = grid(name, schedule(over), steps)
        assert times.shape == (steps + 1,) and times.dtype == torch.float64
        assert bool((times.diff() < 0).all())
        assert float(times[0]) <= 1 and float(times[-1]) == 0

    @given(st.integers(1, 200))
    def test_uniform_is_even_from_one(self, steps: int) -> None:
        times = grid("uniform", schedule("flow"), steps)
        expected = [1 - i / steps for i in range(steps + 1)]
        assert times.tolist() == pytest.approx(expected, abs=1e-15)
        assert float(times[0]) == 1

    @given(st.integers(2, 1000), st.data())
    def test_strided_hits_entries_only(self, count: int, data: st.DataObject) -> None:
        steps = data.draw(st.integers(1, count))
        times = grid("strided", schedule(f"linear:steps={count}"), steps)
        position = times * count
        assert torch.allclose(position, position.round(), rtol=0, atol=1e-9)
        assert float(times[0]) == 1
        gaps = -position.diff().round()
        assert float(gaps.min()) >= 1 and float(gaps.max() - gaps.min()) <= 1

    def test_strided_by_all_is_the_whole_table(self) -> None:
        times = grid("strided", schedule("linear"), 1000)
        assert (times * 1000).round().long().tolist() == list(range(1000, -1, -1))

    def test_strided_refuses(self) -> None:
        with pytest.raises(InputError, match="at most"):
            grid("strided", schedule("linear:steps=300"), 301)
        with pytest.raises(InputError, match="needs a table"):
            grid("strided", schedule("edm"), 10)

    def test_karras_is_equation_5(self) -> None:
        """σ_i = (σ_max^(1/ρ) + i/(N−1)·(σ_min^(1/ρ) − σ_max^(1/ρ)))^ρ, σ_N = 0."""
        s = schedule("edm")
        got = s.level(grid("karras", s, 18)).sigma
        top, bottom = 80 ** (1 / 7), 0.002 ** (1 / 7)
        expected = [(top + i / 17 * (bottom - top)) ** 7 for i in range(18)]
        assert got[:-1].tolist() == pytest.approx(expected, rel=1e-9)
        assert float(got[-1]) == 0

    @pytest.mark.parametrize("over", ["linear", "flow", "edm"])
    def test_karras_means_sigma_over_alpha(self, over: str) -> None:
        s = schedule(over)
        got = ratio(s.level(grid("karras", s, 5, sigma_max=10.0, sigma_min=0.1, rho=3.0)))
        top, bottom = 10 ** (1 / 3), 0.1 ** (1 / 3)
        expected = [(top + i / 4 * (bottom - top)) ** 3 for i in range(5)]
        assert got[:-1].tolist() == pytest.approx(expected, rel=1e-9)

    def test_karras_keeps_to_a_narrower_schedule(self) -> None:
        times = grid("karras", schedule("linear:steps=300"), 10)
        assert float(times[0]) == pytest.approx(1, abs=1e-12)
        assert bool((times.diff() < 0).all())

    def test_even_in_t_on_edm_is_karras_with_sigma_min_zero(self) -> None:
        s = schedule("edm")
        sigma = s.level(grid("uniform", s, 10)).sigma
        expected = [(80 ** (1 / 7) * (1 - i / 10)) ** 7 for i in range(11)]
        assert sigma.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def test_karras_refuses_an_empty_range(self) -> None:
        with pytest.raises(InputError, match="sigma_min < sigma_max"):
            grid("karras", schedule("edm"), 5, sigma_min=90.0)

    @pytest.mark.parametrize("text", ["karras:rho=0", "karras:sigma_max=-1", "karras:sigma_min=0"])
    def test_karras_refuses_settings_that_are_not_above_zero(self, text: str) -> None:
        with pytest.raises(ConfigError, match="greater than 0"):
            GRIDS.bind(Spec.model_validate(text))
