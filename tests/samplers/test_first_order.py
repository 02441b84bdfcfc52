from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.errors import ConfigError, InputError
from couette.registry import SAMPLERS, SCHEDULES
from worlds import Crooked, Gaussian, Mixture, draw, run, schedule

FLOW = Crooked(Corruption(schedule("flow")))


def even(steps: int) -> Tensor:
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(0, 1000))
def test_four_names_for_one_move(steps: int, seed: int) -> None:
    """ddim with eta 0, Euler on the flow dx/dt = (x − x0)/t, the mix, and the course's own loop:
    all of their steps agree to 1e-12."""
    x = draw(3, 2, seed=seed)
    ddim, euler, mix = (run(name, FLOW, x, even(steps)) for name in ("ddim", "euler", "mix"))
    course = velocity = x
    for i in range(steps):
        t = even(steps)[i]
        prediction = FLOW(course, t, {}).x0
        factor = 1 / (steps - i)
        course = course * (1 - factor) + prediction * factor
        velocity = velocity - (velocity - FLOW(velocity, t, {}).x0) / t / steps
        for got in (ddim[i].x, euler[i].x, mix[i].x, velocity):
            assert torch.allclose(got, course, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_euler_is_karras_algorithm_1_without_correction(name: str) -> None:
    """d = (x̂ − x0)/σ, x̂ ← x̂ + (σ' − σ)·d, in x̂ = x/alpha and σ = sigma/alpha."""
    s = schedule(name)
    denoise, times = Crooked(Corruption(s)), torch.linspace(0.9, 0, 12, dtype=torch.float64)
    x = draw(3, 2)
    out = run("euler", denoise, x, times)
    scaled = x / s.level(times[0]).alpha
    for i in range(11):
        a, b = s.level(times[i]), s.level(times[i + 1])
        sigma, following = a.sigma / a.alpha, b.sigma / b.alpha
        slope = (scaled - denoise(scaled * a.alpha, times[i], {}).x0) / sigma
        scaled = scaled + (following - sigma) * slope
        assert torch.allclose(out[i].x, scaled * b.alpha, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_euler_is_of_first_order(name: str) -> None:
    """Against the exact solution for Gaussian pictures: half the step, half the error."""
    denoise = Gaussian(schedule(name), mean=0.3, std=0.5)
    s, x = denoise.corruption.schedule, draw(16)
    errors = []
    for steps in (64, 128):
        times = torch.linspace(0.896, 0.256, steps + 1, dtype=torch.float64)
        end = run("euler", denoise, x, times)[-1].x
        exact = denoise.carried(x, s.level(times[0]), s.level(times[-1]))
        errors.append(float((end - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.08)


class TestEta:
    @pytest.mark.parametrize("on", list(SCHEDULES))
    def test_one_step_is_song_equation_12(self, on: str) -> None:
        s = schedule(on)
        denoise, x, z = Crooked(Corruption(s)), draw(3, 2, seed=1), draw(3, 2, seed=2)
        times = torch.tensor([0.8, 0.5], dtype=torch.float64)
        (step,) = run("ddim", denoise, x, times, lambda t, u: z, eta=0.7)
        a, b = s.level(times[0]), s.level(times[1])
        x0 = denoise(x, times[0], {}).x0
        # Equation 16, σ² = η²·(1 − ᾱ_u)/(1 − ᾱ_t)·(1 − ᾱ_t/ᾱ_u), for any alpha and sigma.
        beta = a.sigma.square() - (a.alpha / b.alpha * b.sigma).square()
        variance = 0.49 * (b.sigma / a.sigma).square() * beta
        eps = (x - a.alpha * x0) / a.sigma
        expected = b.alpha * x0 + (b.sigma.square() - variance).sqrt() * eps + variance.sqrt() * z
        assert torch.allclose(step.x, expected, rtol=1e-9, atol=1e-9)

    def test_one_is_ancestral_sampling(self) -> None:
        """ddpm with the posterior variance, on the same noise, step for step."""
        for on in SCHEDULES:
            denoise, times = Crooked(Corruption(schedule(on))), even(20)
            noise = [draw(3, 2, seed=k) for k in range(20)]
            x = draw(3, 2, seed=99)
            one, other = iter(noise), iter(noise)
            ddim = run("ddim", denoise, x, times, lambda t, u, n=one: next(n), eta=1.0)
            ddpm = run("ddpm", denoise, x, times, lambda t, u, n=other: next(n))
            for mine, theirs in zip(ddim, ddpm, strict=True):
                assert torch.allclose(mine.x, theirs.x, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
    def test_outside_zero_and_one_is_refused(self, eta: float) -> None:
        with pytest.raises(InputError, match="between 0 and 1"):
            run("ddim", FLOW, draw(2, 2), even(3), eta=eta)

    def test_outside_zero_and_one_is_refused_in_settings(self) -> None:
        with pytest.raises(ConfigError, match="takes a number of 1 at most"):
            SAMPLERS.bind(Spec.model_validate("ddim:eta=2"))


class TestInverse:
    @pytest.mark.parametrize("on", ["linear", "flow"])
    def test_ddim_comes_back(self, on: str) -> None:
        """From a picture up to 0.9 and down again: half the step, half the way missed."""
        denoise, x, missed = Mixture(schedule(on)), draw(64, seed=5) / 2, []
        for steps in (100, 200):
            times = torch.linspace(0, 0.9, steps + 1, dtype=torch.float64)
            up = run("ddim-inverse", denoise, x, times)[-1].x
            back = run("ddim", denoise, up, times.flip(0))[-1].x
            missed.append(float((back - x).abs().mean()))
        assert missed[1] < 0.01
        assert missed[0] / missed[1] == pytest.approx(2, rel=0.15)

    def test_is_exactly_back_where_eps_is_constant(self) -> None:
        x, s = draw(3, 2), schedule("linear")

        class Straight:
            corruption = Corruption(s)

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                return Prediction((x - 0.3 * s.level(t).sigma) / s.level(t).alpha)

        denoise = Straight()
        times = torch.tensor([0.1, 0.2, 0.9], dtype=torch.float64)
        steps = run("ddim-inverse", denoise, x, times)
        assert [float(step.t) for step in steps] == [0.2, 0.9]
        back = run("ddim", denoise, steps[-1].x, times.flip(0))[-1].x
        assert torch.allclose(back, x, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("times", [[0.5], [0.5, 0.5], [0.9, 0.5, 0.1], [0.1, math.nan]])
    def test_refuses_times_that_do_not_rise(self, times: list[float]) -> None:
        with pytest.raises(InputError, match="each above the one before"):
            run("ddim-inverse", FLOW, draw(2, 2), torch.tensor(times, dtype=torch.float64))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_diffusers_takes_the_same_steps(steps: int, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(steps)
    noise = [draw(2, 3, 4, 4, seed=k) for k in range(steps)]
    s = schedule("linear")
    denoise = Crooked(Corruption(s))
    indices = scheduler.timesteps.tolist()
    times = torch.tensor([(k + 1) / 1000 for k in indices] + [0.0], dtype=torch.float64)
    x = theirs = draw(2, 3, 4, 4, seed=77)
    ours = run("ddim", denoise, x, times, lambda t, u: noise[int((times == t).nonzero())], eta=eta)
    for i, k in enumerate(indices):
        bar = scheduler.alphas_cumprod[k].double()
        x0 = denoise(theirs, times[i], {}).x0
        eps = (theirs - bar.sqrt() * x0) / (1 - bar).sqrt()
        given = {"variance_noise": noise[i]} if eta else {}
        theirs = scheduler.step(eps, k, theirs, eta=eta, **given).prev_sample
        # Their last step goes to ᾱ of entry 0 of the whole table set to 1: (1, 0), as ours.
        assert torch.allclose(ours[i].x, theirs, rtol=0, atol=2e-5)
