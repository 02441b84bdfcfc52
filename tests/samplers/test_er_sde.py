from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Prediction
from worlds import Crooked, Gaussian, draw, numbered, run, schedule

SCHEDULES = ["linear", "edm", "flow"]


def phi(s: np.ndarray) -> np.ndarray:
    return s * (np.exp(s**0.3) + 10)


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("order", [1, 2])
def test_is_cui_written_out(on: str, order: int) -> None:
    """In s = sigma/alpha: r = phi(s_b)/phi(s_a), and for order 2 the Taylor term
    (s_b − s_a + phi(s_b)·∫ds/phi)·(x0 − x0_last)/(s_a − s_last), the integral by scipy."""
    integrate = pytest.importorskip("scipy.integrate")
    world, x, z = schedule(on), draw(3, 2), numbered(3, 2)
    times = torch.linspace(0.9, 0.2, 8, dtype=torch.float64)
    denoise = Crooked(Corruption(world))
    out = run("er-sde", denoise, x, times, numbered(3, 2), order=order)
    alpha, sigma = (part.numpy() for part in world.level(times))
    s = sigma / alpha
    last = None
    for i in range(7):
        r = phi(s[i + 1]) / phi(s[i])
        x0 = denoise(x, times[i], {}).x0
        stepped = alpha[i + 1] * (r * x / alpha[i] + (1 - r) * x0)
        if order == 2 and last is not None:
            whole, _ = integrate.quad(lambda v: 1 / phi(v), s[i + 1], s[i], epsabs=1e-14)
            bend = s[i + 1] - s[i] + phi(s[i + 1]) * whole
            stepped = stepped + alpha[i + 1] * bend * (x0 - last) / (s[i] - s[i - 1])
        spread = alpha[i + 1] * math.sqrt(s[i + 1] ** 2 - (s[i] * r) ** 2)
        x, last = stepped + spread * z(times[i], times[i + 1]), x0
        assert torch.allclose(out[i].x, x, rtol=1e-8, atol=1e-8)


class Parabola:
    """A prediction that is s², whatever x is."""

    def __init__(self, on: str) -> None:
        self.corruption = Corruption(schedule(on))

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        alpha, sigma = self.corruption.schedule.level(t)
        return Prediction(torch.ones_like(x) * (sigma / alpha).square())


@pytest.mark.parametrize("on", SCHEDULES)
def test_third_order_takes_the_whole_parabola(on: str) -> None:
    """x0 = s² is integrated exactly: alpha_b·phi(s_b)·∫x0 d(1/phi). The authors' third-order step
    is the Taylor polynomial whose slope is the last difference, which is off by half a step's
    curvature; ours is the parabola itself."""
    integrate = pytest.importorskip("scipy.integrate")
    denoise, times = Parabola(on), torch.linspace(0.8, 0.4, 6, dtype=torch.float64)
    alpha, sigma = (part.numpy() for part in denoise.corruption.schedule.level(times))
    s = sigma / alpha
    still = lambda t, u: torch.zeros(2).double()  # noqa: E731
    out = run("er-sde", denoise, draw(2), times, still)
    for i in range(2, 5):
        r = phi(s[i + 1]) / phi(s[i])
        # By parts: phi_b·∫s² d(1/phi) = s_b² − r·s_a² + phi_b·∫2s/phi ds.
        rest, _ = integrate.quad(lambda v: 2 * v / phi(v), s[i + 1], s[i], epsabs=1e-14)
        mean = s[i + 1] ** 2 - r * s[i] ** 2 + phi(s[i + 1]) * rest
        expected = alpha[i + 1] * (r * out[i - 1].x / alpha[i] + mean)
        assert torch.allclose(out[i].x, expected, rtol=1e-8, atol=1e-8)


def test_little_of_the_noise_is_new_at_low_levels() -> None:
    """The share drawn in a step that halves s, high up and low down."""
    world = schedule("edm")

    def fresh(s: float) -> float:
        times = world.time(-2 * torch.tensor([s, s / 2]).double().log())
        x = torch.zeros(2).double()
        denoise = Crooked(Corruption(world))
        ends = [
            run("er-sde", denoise, x, times, lambda t, u, z=z: torch.full((2,), z).double())
            for z in (0.0, 1.0)
        ]
        return float((ends[1][0].x - ends[0][0].x)[0]) / (s / 2)

    assert fresh(0.01) < 0.15 < 0.7 < fresh(40.0)


@pytest.mark.parametrize("text", ["vp:beta_max=2000", "laplace:scale=10", "edm:sigma_max=1e12"])
@pytest.mark.parametrize("steps", [3, 50])
def test_noise_however_strong_is_finite(text: str, steps: int) -> None:
    """g = e^(s^0.3) is beyond float64 above s = 3·10⁹."""
    s = schedule(text)
    start, times = s.level(torch.ones(()).double()), torch.linspace(1, 0, steps + 1).double()
    x = draw(6) * torch.hypot(start.alpha, start.sigma)
    last = run("er-sde", Gaussian(s, 0.4, 0.3), x, times, numbered(6))[-1].x
    assert bool(last.isfinite().all())
