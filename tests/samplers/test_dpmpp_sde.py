from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Prediction
from worlds import Crooked, draw, numbered, run, schedule

SCHEDULES = ["linear", "edm", "flow"]


def grid(steps: int) -> Tensor:
    return torch.linspace(0.95, 0.05, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("form", ["midpoint", "heun"])
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_2m_is_lu_written_out(on: str, form: str, eta: float) -> None:
    """With h, r = h_last/h, D1 = (x0 − x0_last)/r; for any eta as Lu et al. have it for eta = 1."""
    s, x, z, times = schedule(on), draw(3, 2), numbered(3, 2), grid(8)
    denoise = Crooked(Corruption(s))
    out = run("dpmpp-2m-sde", denoise, x, times, numbered(3, 2), eta=eta, form=form)
    alpha, sigma = s.level(times)
    lam = alpha.log() - sigma.log()
    last = None
    for i in range(8):
        h = lam[i + 1] - lam[i]
        whole = (1 + eta) * h
        x0 = denoise(x, times[i], {}).x0
        part = alpha[i + 1] * -torch.expm1(-whole)
        stepped = sigma[i + 1] / sigma[i] * (-eta * h).exp() * x + part * x0
        if last is not None:
            bend = (x0 - last) * h / (lam[i] - lam[i - 1])
            if form == "midpoint":
                stepped = stepped + part / 2 * bend
            else:
                stepped = stepped + alpha[i + 1] * (1 + torch.expm1(-whole) / whole) * bend
        spread = sigma[i + 1] * (-torch.expm1(-2 * eta * h)).sqrt()
        x, last = stepped + spread * z(times[i], times[i + 1]), x0
        assert torch.allclose(out[i].x, x, rtol=1e-9, atol=1e-9)


class Power:
    """A prediction that is a power of λ, whatever x is."""

    def __init__(self, on: str, power: int) -> None:
        self.corruption, self.power = Corruption(schedule(on)), power

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        alpha, sigma = self.corruption.schedule.level(t)
        return Prediction(torch.ones_like(x) * (alpha / sigma).log() ** self.power)


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "given", "power", "eta"),
    [
        ("dpmpp-2m-sde", {"form": "heun", "eta": 0.7}, 1, 0.7),
        ("dpmpp-3m-sde", {"eta": 0.7}, 2, 0.7),
        ("sa-solver", {"tau": 0.7, "predictor": 2, "corrector": 0, "high": 1e9}, 1, 0.49),
        ("sa-solver", {"tau": 0.7, "predictor": 4, "corrector": 0, "high": 1e9}, 3, 0.49),
    ],
)
def test_polynomials_are_integrated_exactly(
    name: str, given: dict[str, Any], power: int, eta: float, on: str
) -> None:
    """Once there are enough predictions, x_b = (sigma_b/sigma_a)·e^(−ηh)·x_a + sigma_b·e^(−ηλ_b)·
    (1 + η)·∫e^((1 + η)λ)·x0 dλ + sigma_b·sqrt(1 − e^(−2ηh))·z, by scipy's quadrature."""
    integrate = pytest.importorskip("scipy.integrate")
    denoise, times = Power(on, power), torch.linspace(0.8, 0.4, 7, dtype=torch.float64)
    alpha, sigma = (part.numpy() for part in denoise.corruption.schedule.level(times))
    lam = np.log(alpha / sigma)
    out = run(name, denoise, draw(3, 2), times, numbered(3, 2, first=0), **given)
    for i in range(power, 6):
        h = lam[i + 1] - lam[i]
        mean, _ = integrate.quad(
            lambda v, end=lam[i + 1]: np.exp((1 + eta) * (v - end)) * v**power,
            lam[i],
            lam[i + 1],
            epsabs=1e-13,
        )
        expected = sigma[i + 1] / sigma[i] * np.exp(-eta * h) * out[i - 1].x
        expected = expected + alpha[i + 1] * (1 + eta) * mean
        spread = sigma[i + 1] * np.sqrt(-np.expm1(-2 * eta * h))
        assert torch.allclose(
            out[i].x, expected + spread * draw(3, 2, seed=i), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_singlestep_is_two_noisy_halves(on: str, eta: float) -> None:
    """Written out: the mean by DPM-Solver++(2S) for the SDE, the noise of two independent halves,
    the first shrunk by sigma_b/sigma_m·e^(−ηh/2) as the second half passes."""
    s, x, z, times = schedule(on), draw(3, 2), numbered(3, 2), grid(5)
    denoise = Crooked(Corruption(s))
    out = run("dpmpp-sde", denoise, x, times, numbered(3, 2), eta=eta)
    alpha, sigma = s.level(times)
    lam = alpha.log() - sigma.log()
    for i in range(5):
        h = lam[i + 1] - lam[i]
        t = s.time(lam[i] + lam[i + 1])
        middle = s.level(t)
        half = middle.sigma * (1 - (-eta * h).exp()).sqrt() * z(times[i], t)
        x0 = denoise(x, times[i], {}).x0
        there = middle.sigma / sigma[i] * (-eta * h / 2).exp() * x + half
        there = there + middle.alpha * (1 - (-(1 + eta) * h / 2).exp()) * x0
        second = denoise(there, t, {}).x0
        x = sigma[i + 1] / sigma[i] * (-eta * h).exp() * x
        x = x + alpha[i + 1] * (1 - (-(1 + eta) * h).exp()) * second
        x = x + sigma[i + 1] / middle.sigma * (-eta * h / 2).exp() * half
        x = x + sigma[i + 1] * (1 - (-eta * h).exp()).sqrt() * z(t, times[i + 1])
        assert torch.allclose(out[i].x, x, rtol=1e-8, atol=1e-8)
