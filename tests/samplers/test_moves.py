from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from couette.contracts import Corruption, Level, Prediction
from couette.errors import InputError
from couette.registry import SCHEDULES
from couette.samplers import move, posterior, stretches
from couette.schedules import Table
from worlds import Constant, draw, noised, schedule

names = st.sampled_from(list(SCHEDULES))
inside = st.floats(0.02, 0.98)


def scalar(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


@given(names, st.floats(0.02, 1), st.floats(0, 1))
def test_a_move_with_the_true_picture_keeps_the_noise(name: str, t: float, part: float) -> None:
    """From x_t of any level it lands on x_u of the same x0 and eps."""
    s, u = schedule(name), t * part
    x0, eps = draw(2, 3, seed=1), draw(2, 3, seed=2)
    a, b = s.level(scalar(t)), s.level(scalar(u))
    got = move(noised(s, x0, scalar(t), eps), Prediction(x0), a, b)
    assert torch.allclose(got, noised(s, x0, scalar(u), eps), rtol=0, atol=1e-10)


@given(names, inside, inside)
def test_base_drives_the_noise(name: str, t: float, part: float) -> None:
    """x_u = alpha_u·x0 + sigma_u·eps, with eps = (x_t − alpha_t·base)/sigma_t."""
    s = schedule(name)
    a, b = s.level(scalar(t)), s.level(scalar(t * part))
    x, x0, base = draw(5, seed=1), draw(5, seed=2), draw(5, seed=3)
    expected = b.alpha * x0 + b.sigma * (x - a.alpha * base) / a.sigma
    assert torch.allclose(move(x, Prediction(x0, base), a, b), expected, rtol=1e-9, atol=1e-9)
    same = move(x, Prediction(x0, x0), a, b)
    assert torch.allclose(same, move(x, Prediction(x0), a, b), rtol=1e-9, atol=1e-9)


class TestPosterior:
    @given(names, inside, inside)
    def test_is_bayes(self, name: str, t: float, part: float) -> None:
        """q(x_u | x_t, x_0) ∝ q(x_t | x_u)·q(x_u | x_0), a product of two normals."""
        s = schedule(name)
        a, b = s.level(scalar(t)), s.level(scalar(t * part))
        x, x0 = draw(4, seed=1), draw(4, seed=2)
        got = posterior(a, b)
        alpha = a.alpha / b.alpha
        beta = a.sigma.square() - (alpha * b.sigma).square()
        precision = 1 / b.sigma.square() + alpha.square() / beta
        mean = (b.alpha * x0 / b.sigma.square() + alpha * x / beta) / precision
        assert float(got.beta) == pytest.approx(float(beta), rel=1e-9)
        assert float(got.variance) == pytest.approx(float(1 / precision), rel=1e-6)
        assert torch.allclose(move(x, Prediction(x0), a, got.mean), mean, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("k", [1, 2, 500, 999])
    def test_is_ho_equation_7(self, k: int) -> None:
        """From the betas alone. Entry k of the table, whose neighbour below is k − 1."""
        s = schedule("linear")
        assert isinstance(s, Table)
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        bar = (1 - betas).cumprod(0)
        now, before, beta = bar[k], bar[k - 1], betas[k]
        on_x0 = before.sqrt() * beta / (1 - now)
        on_x = (1 - beta).sqrt() * (1 - before) / (1 - now)
        x, x0 = draw(4, seed=1), draw(4, seed=2)
        a, b = s.level(scalar((k + 1) / 1000)), s.level(scalar(k / 1000))
        got = posterior(a, b)
        mean = move(x, Prediction(x0), a, got.mean)
        assert torch.allclose(mean, on_x0 * x0 + on_x * x, rtol=1e-9, atol=1e-9)
        assert float(got.beta) == pytest.approx(float(beta), rel=1e-9)
        assert float(got.variance) == pytest.approx(
            float((1 - before) / (1 - now) * beta), rel=1e-9
        )

    def test_at_the_clean_end_nothing_is_left_to_chance(self) -> None:
        s = schedule("linear")
        got = posterior(s.level(scalar(0.001)), s.level(scalar(0.0)))
        assert (float(got.variance), float(got.mean.alpha), float(got.mean.sigma)) == (0, 1, 0)
        assert float(got.beta) == pytest.approx(1e-4, rel=1e-9)


class TestStretches:
    def test_go_through_the_grid(self) -> None:
        s = schedule("flow")
        times = torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=torch.float64)
        got = list(stretches(Constant(Corruption(s), 0.0), times))
        assert [(g.index, g.count, float(g.t), float(g.u)) for g in got] == [
            (0, 3, 1.0, 0.5),
            (1, 3, 0.5, 0.25),
            (2, 3, 0.25, 0.0),
        ]
        for g in got:
            for level, t in ((g.a, g.t), (g.b, g.u)):
                assert level == Level(*s.level(t)) and level.alpha.ndim == 0

    @pytest.mark.parametrize(
        "times", [[], [1.0], [0.5, 0.5], [0.2, 0.4], [1.0, 0.2, 0.3], [float("nan"), 0.0]]
    )
    def test_refuse_times_that_do_not_fall(self, times: list[float]) -> None:
        with pytest.raises(InputError, match="each below the one before"):
            list(stretches(Constant(Corruption(schedule("flow")), 0.0), torch.tensor(times)))


def test_times_of_one_noise_level_are_refused() -> None:
    """sigma underflows before t = 0 does."""
    times = torch.linspace(1, 0, 1001, dtype=torch.float64)
    denoise = Constant(Corruption(schedule("edm:rho=150")), 0.3)
    with pytest.raises(InputError, match="have the same noise level"):
        list(stretches(denoise, times))
