from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from couette.config import Spec
from couette.contracts import Corruption, Level
from couette.errors import InputError
from couette.registry import GRIDS
from worlds import Constant, Crooked, Gaussian, OneHot, draw, numbered, run, schedule

CHURN = {"s_churn": 4.0, "s_min": 0.1, "s_max": 30.0, "s_noise": 1.05}


class Scaled:
    """A denoiser as Karras et al. write one: of x̂ = x/alpha and σ = sigma/alpha."""

    def __init__(self, on: str) -> None:
        self.schedule = schedule(on)
        self.denoise = Crooked(Corruption(self.schedule))

    def time(self, sigma: Tensor) -> Tensor:
        return self.schedule.time(-2 * sigma.log())

    def alpha(self, sigma: Tensor) -> Tensor:
        return self.schedule.level(self.time(sigma)).alpha

    def slope(self, scaled: Tensor, sigma: Tensor) -> Tensor:
        x0 = self.denoise(scaled * self.alpha(sigma), self.time(sigma), {}).x0
        return (scaled - x0) / sigma

    def heun(self, scaled: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
        slope = self.slope(scaled, sigma)
        guess = scaled + (following - sigma) * slope
        if following == 0:
            return guess
        return scaled + (following - sigma) * (slope + self.slope(guess, following)) / 2


def ratio(level: Level) -> Tensor:
    return level.sigma / level.alpha


@pytest.mark.parametrize("name", ["edm", "euler-churn"])
@pytest.mark.parametrize("on", ["linear", "edm:sigma_max=200", "flow"])
def test_is_karras_algorithm_2(on: str, name: str) -> None:
    world = Scaled(on)
    times = GRIDS["karras"](world.schedule, 9, sigma_max=60.0)
    sigmas = ratio(world.schedule.level(times))
    x, z = draw(3, 2), numbered(3, 2)
    out = run(name, world.denoise, x, times, numbered(3, 2), **CHURN)
    scaled, churned = x / world.alpha(sigmas[0]), 0
    for i in range(9):
        sigma, following = sigmas[i], sigmas[i + 1]
        if 0.1 <= sigma <= 30:
            raised = sigma * (1 + min(4 / 9, math.sqrt(2) - 1))
            scaled = scaled + (raised**2 - sigma**2).sqrt() * 1.05 * z(sigma, sigma)
            sigma, churned = raised, churned + 1
        if name == "edm":
            scaled = world.heun(scaled, sigma, following)
        else:
            scaled = scaled + (following - sigma) * world.slope(scaled, sigma)
        alpha = world.schedule.level(times[i + 1]).alpha
        assert torch.allclose(out[i].x, scaled * alpha, rtol=1e-8, atol=1e-8)
    assert 3 < churned < 8


@pytest.mark.parametrize("name", ["edm", "euler-churn"])
def test_goes_up_no_further_than_the_schedules_end(name: str) -> None:
    """At t = 1 there is nowhere to go, just below it only to 1: the variance stays the true one."""
    denoise = Gaussian(schedule("edm"), 0.0, 0.5)
    s, times = denoise.corruption.schedule, torch.tensor([0.999, 0.998]).double()
    x = torch.zeros(3, 1, dtype=torch.float64)
    x[0] = denoise.variance(s.level(times[0])).sqrt()
    (step,) = run(name, denoise, x, times, OneHot(x), s_churn=1.0, s_max=90.0, s_noise=1.0)
    fresh = (80**2 - s.level(times[0]).sigma ** 2).sqrt()
    assert float(step.x[1] / fresh) == pytest.approx(float(step.x[0] / x[0]), rel=1e-9)
    truth = denoise.variance(s.level(times[1]))
    assert float(step.x.square().sum()) == pytest.approx(float(truth), rel=1e-4)
    (top,) = run(name, denoise, x, torch.tensor([1.0, 0.998]).double(), s_churn=1.0, s_max=90.0)
    assert not bool(top.x[1:].any())


RESTART = {"low": 0.2, "high": 1.5, "repeats": 3, "inner": 4}


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
def test_restart_is_xu_written_out(on: str) -> None:
    """Heun throughout, and K times noise to t_max and N_restart − 1 steps of Heun on Karras' grid
    at the time nearest to t_min."""
    world = Scaled(on)
    times = GRIDS["karras"](world.schedule, 9, sigma_max=60.0)
    sigmas = ratio(world.schedule.level(times))
    x, z = draw(3, 2), numbered(3, 2)
    out = run("restart", world.denoise, x, times, numbered(3, 2), **RESTART)
    nearest = int((sigmas - 0.2).abs().argmin())
    low, high = sigmas[nearest], torch.tensor(1.5).double()
    part = torch.arange(5, dtype=torch.float64) / 4
    loop = (high ** (1 / 7) + part * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    scaled = x / world.alpha(sigmas[0])
    for i in range(9):
        scaled = world.heun(scaled, sigmas[i], sigmas[i + 1])
        for _ in range(3 if i + 1 == nearest else 0):
            scaled = scaled + (high**2 - low**2).sqrt() * z(high, low)
            for k in range(4):
                scaled = world.heun(scaled, loop[k], loop[k + 1])
        alpha = world.schedule.level(times[i + 1]).alpha
        assert torch.allclose(out[i].x, scaled * alpha, rtol=1e-8, atol=1e-8)


def test_restart_forgets_an_error_made_above() -> None:
    """Of an offset the exact way down from `high` leaves a known share, once for each restart; the
    sampler is linear on N(0, 0.5²), so the noise is left out."""
    denoise = Gaussian(schedule("edm"), 0.0, 0.5)
    times = GRIDS["karras"](denoise.corruption.schedule, 40)
    still = lambda t, u: torch.zeros(1).double()  # noqa: E731
    left = []
    for repeats in (0, 1, 2):
        given = {"low": 0.01, "high": 2.0, "repeats": repeats, "inner": 60}
        left.append(run("restart", denoise, torch.ones(1).double(), times, still, **given)[-1].x)
    # The flow's from sigma = 2 to 0.01: sqrt((0.5² + 0.01²)/(0.5² + 2²)).
    share = math.sqrt(0.2501 / 4.25)
    assert float(left[1] / left[0]) == pytest.approx(share, rel=2e-2)
    assert float(left[2] / left[1]) == pytest.approx(share, rel=2e-2)


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
@pytest.mark.parametrize("end", [0.0, 0.6])
def test_restart_on_grids_that_hardly_have_a_place_for_it(on: str, end: float) -> None:
    """One step to 0 restarts there; a grid that ends above `high` never does."""
    world = Scaled(on)
    out = run(
        "restart",
        world.denoise,
        draw(3, 2),
        torch.tensor([0.9, end]).double(),
        numbered(3, 2),
        repeats=1,
    )
    plain = run("heun", world.denoise, draw(3, 2), torch.tensor([0.9, end]).double())
    assert bool(out[-1].x.isfinite().all())
    moved = ratio(world.schedule.level(torch.tensor(end))) < 0.3
    assert torch.equal(out[-1].x, plain[-1].x) != bool(moved)


def test_restart_needs_low_below_high() -> None:
    with pytest.raises(InputError, match=r"so 0\.5 must be below 0\.3"):
        run("restart", Scaled("flow").denoise, draw(2, 2), torch.tensor([1.0, 0.0]), low=0.5)


@pytest.mark.parametrize(
    "text", ["edm:s_min=5,s_max=1", "euler-churn:s_min=1,s_max=1", "restart:low=1,high=0.5"]
)
def test_a_range_that_holds_no_noise_level_is_refused(text: str) -> None:
    """Such settings would draw as if there were no noise, without a word."""
    asked = Spec.model_validate(text)
    times = torch.linspace(0.9, 0, 5, dtype=torch.float64)
    with pytest.raises(InputError, match=r"must be below .*; exchange them"):
        run(
            asked.name,
            Constant(Corruption(schedule("edm")), 0.3),
            draw(2),
            times,
            numbered(2),
            **{name: float(value) for name, value in asked.settings.items()},
        )
