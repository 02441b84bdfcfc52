from __future__ import annotations

import math

import pytest
import torch

from couette.contracts import Cond, Corruption, Prediction
from couette.registry import GRIDS, SCHEDULES
from worlds import Crooked, Gaussian, draw, run, schedule


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_is_of_second_order(name: str) -> None:
    """Against the exact solution for Gaussian pictures: half the step, a quarter of the error."""
    denoise = Gaussian(schedule(name), mean=0.3, std=0.5)
    s, x = denoise.corruption.schedule, draw(16)
    errors = []
    for steps in (64, 128):
        times = torch.linspace(0.896, 0.256, steps + 1, dtype=torch.float64)
        end = run("heun", denoise, x, times)[-1].x
        exact = denoise.carried(x, s.level(times[0]), s.level(times[-1]))
        errors.append(float((end - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_is_karras_algorithm_1(name: str) -> None:
    """With S_churn = 0, in x̂ = x/alpha and σ = sigma/alpha; the step to σ = 0 is Euler's."""
    s = schedule(name)
    denoise, times = Crooked(Corruption(s)), torch.linspace(0.9, 0, 12, dtype=torch.float64)
    x = draw(3, 2)
    out = run("heun", denoise, x, times)
    scaled = x / s.level(times[0]).alpha
    for i in range(11):
        a, b = s.level(times[i]), s.level(times[i + 1])
        sigma, following = a.sigma / a.alpha, b.sigma / b.alpha
        slope = (scaled - denoise(scaled * a.alpha, times[i], {}).x0) / sigma
        guess = scaled + (following - sigma) * slope
        if following > 0:
            end = (guess - denoise(guess * b.alpha, times[i + 1], {}).x0) / following
            guess = scaled + (following - sigma) * (slope + end) / 2
        scaled = guess
        assert torch.allclose(out[i].x, scaled * b.alpha, rtol=1e-9, atol=1e-9)


def test_evaluates_twice_a_step_but_once_at_the_end() -> None:
    denoise, calls = Crooked(Corruption(schedule("edm"))), []

    class Counted:
        corruption = denoise.corruption

        def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Cond) -> Prediction:
            calls.append(float(t))
            return denoise(x, t, cond)

    times = torch.tensor([1.0, 0.5, 0.2, 0.0], dtype=torch.float64)
    run("heun", Counted(), draw(2, 2), times)
    assert calls == [1.0, 0.5, 0.5, 0.2, 0.2]


def test_starts_from_nothing_but_noise() -> None:
    """On the flow alpha is 0 at t = 1: the first step is plain, the rest of second order."""
    denoise = Gaussian(schedule("flow"), mean=0.3, std=0.5)
    s, x = denoise.corruption.schedule, draw(64)
    times = torch.linspace(1, 0, 41, dtype=torch.float64)
    out = run("heun", denoise, x, times)
    assert all(bool(step.x.isfinite().all()) for step in out)
    plain = run("euler", denoise, x, times[:2])
    assert torch.equal(out[0].x, plain[0].x)
    exact = denoise.carried(x, s.level(times[0]), s.level(times[-1]))
    assert torch.allclose(out[-1].x, exact, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("steps", "within"), [(18, 0.06), (36, 0.015), (72, 0.004)])
def test_karras_grid_reaches_the_datas_spread(steps: int, within: float) -> None:
    """All the way from σ = 80 to 0; each doubling leaves a quarter of the error."""
    denoise = Gaussian(schedule("edm"), mean=0.0, std=0.5)
    times = GRIDS["karras"](denoise.corruption.schedule, steps)
    x = torch.full((1,), 80.0, dtype=torch.float64)
    assert float(run("heun", denoise, x, times)[-1].x) == pytest.approx(0.5, rel=within)


def test_base_is_corrected_like_x0() -> None:
    """A base that equals x0 changes nothing."""
    plain = Crooked(Corruption(schedule("flow")))

    class Based:
        corruption = plain.corruption

        def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Cond) -> Prediction:
            x0 = plain(x, t, cond).x0
            return Prediction(x0, x0.clone())

    times = torch.linspace(0.9, 0, 8, dtype=torch.float64)
    x = draw(3, 2)
    mine, theirs = run("heun", Based(), x, times)[-1].x, run("heun", plain, x, times)[-1].x
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)
