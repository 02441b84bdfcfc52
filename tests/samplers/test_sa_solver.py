from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from couette.contracts import Corruption
from worlds import Crooked, Gaussian, draw, numbered, run, schedule, silent


def grid(steps: int) -> Tensor:
    return torch.linspace(0.9, 0.1, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
def test_two_steps_are_xue_algorithm_1(on: str) -> None:
    """Predict by one point, evaluate, correct by two with the same noise, keep the evaluation,
    predict by two: the integrals of a line against e^((1 + τ²)λ) in closed form."""
    s, tau, x, z, times = schedule(on), 0.8, draw(3, 2), numbered(3, 2), grid(6)[:3]
    denoise = Crooked(Corruption(s))
    given = {"tau": tau, "predictor": 2, "corrector": 2, "low": 0.0, "high": 1e9}
    out = run("sa-solver", denoise, x, times, numbered(3, 2), **given)
    alpha, sigma = s.level(times)
    lam, c = alpha.log() - sigma.log(), 1 + tau**2

    def step(x: Tensor, i: int, x0: Tensor, slope: Tensor, noise: Tensor) -> Tensor:
        """From i to i + 1 with x0 + slope·(λ − λ_i)."""
        h = lam[i + 1] - lam[i]
        shrunk = sigma[i + 1] / sigma[i] * (-(tau**2) * h).exp()
        spread = sigma[i + 1] * (-torch.expm1(-2 * tau**2 * h)).sqrt()
        line = h + torch.expm1(-c * h) / c
        return (
            shrunk * x + alpha[i + 1] * (-torch.expm1(-c * h) * x0 + line * slope) + spread * noise
        )

    z0, z1 = z(times[0], times[1]), z(times[1], times[2])
    first = denoise(x, times[0], {}).x0
    predicted = step(x, 0, first, torch.zeros_like(x), z0)
    assert torch.allclose(out[0].x, predicted, rtol=1e-9, atol=1e-9)
    second = denoise(predicted, times[1], {}).x0
    slope = (second - first) / (lam[1] - lam[0])
    corrected = step(x, 0, first, slope, z0)
    assert torch.allclose(out[1].x, step(corrected, 1, second, slope, z1), rtol=1e-9, atol=1e-9)


def test_noise_is_drawn_between_low_and_high_alone() -> None:
    """Each step by the level it starts at; a draw a step there, none elsewhere."""
    s = schedule("flow")
    times, asked = torch.linspace(1, 0, 11, dtype=torch.float64), []

    def noise(t: Tensor, u: Tensor) -> Tensor:
        asked.append(round(float(t), 3))
        return draw(3, 2, seed=len(asked))

    run("sa-solver", Crooked(Corruption(s)), draw(3, 2), times, noise, low=0.3, high=1.6)
    assert asked == [0.6, 0.5, 0.4, 0.3]


@pytest.mark.parametrize("predictor", [1, 2, 3, 4])
@pytest.mark.parametrize("corrector", [0, 1, 2, 3, 4])
def test_every_pair_of_orders_runs_from_pure_noise_to_none(predictor: int, corrector: int) -> None:
    denoise, times = Crooked(Corruption(schedule("flow"))), torch.linspace(1, 0, 9).double()
    given = {"predictor": predictor, "corrector": corrector}
    out = run("sa-solver", denoise, draw(3, 2), times, numbered(3, 2), **given)
    assert bool(out[-1].x.isfinite().all())
    again = run("sa-solver", denoise, draw(3, 2), times, silent, tau=0.0, **given)
    assert bool(again[-1].x.isfinite().all())


@pytest.mark.parametrize(("predictor", "corrector", "order"), [(2, 0, 2), (2, 3, 3), (3, 4, 4)])
def test_a_corrector_adds_an_order_on_the_ode(predictor: int, corrector: int, order: int) -> None:
    """tau = 0 on the EDM schedule, against the exact solution."""
    denoise, x, errors = Gaussian(schedule("edm"), 0.3, 0.5), draw(16), []
    for steps in (64, 128):
        times = torch.linspace(0.896, 0.256, steps + 1, dtype=torch.float64)
        given = {"tau": 0.0, "predictor": predictor, "corrector": corrector}
        end = run("sa-solver", denoise, x, times, **given)[-1].x
        a, b = (denoise.corruption.schedule.level(times[k]) for k in (0, -1))
        errors.append(float((end - denoise.carried(x, a, b)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
