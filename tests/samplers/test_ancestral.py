from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.errors import ConfigError, InputError
from couette.registry import SAMPLERS, SCHEDULES
from worlds import Crooked, Gaussian, OneHot, draw, numbered, run, schedule

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
BAR = (1 - BETAS).cumprod(0)


class Learned(Crooked):
    """Predicts its variance too."""

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return Prediction(super().__call__(x, t, cond).x0, mix=torch.sigmoid(2 * x))


def entry_times(*entries: int) -> Tensor:
    """Times of a table's entries, −1 for the clean end."""
    return (torch.tensor(entries, dtype=torch.float64) + 1) / 1000


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize(("now", "before"), [(999, 998), (400, 399), (1, 0), (980, 960), (20, 0)])
def test_a_step_is_ho_algorithm_2(variance: str, now: int, before: int) -> None:
    """From the betas alone, in terms of eps: x ← (x − β/√(1−ᾱ)·ε)/√(1−β) + √v·z. On a strided
    grid β is 1 − ᾱ_t/ᾱ_u."""
    denoise, x, z = Crooked(Corruption(schedule("linear"))), draw(3, 2, seed=1), draw(3, 2, seed=2)
    times = entry_times(now, before)
    (step,) = run("ddpm", denoise, x, times, lambda t, u: z, variance=variance)
    beta = 1 - BAR[now] / BAR[before]
    eps = (x - BAR[now].sqrt() * denoise(x, times[0], {}).x0) / (1 - BAR[now]).sqrt()
    mean = (x - beta / (1 - BAR[now]).sqrt() * eps) / (1 - beta).sqrt()
    spread = beta if variance == "beta" else (1 - BAR[before]) / (1 - BAR[now]) * beta
    assert torch.allclose(step.x, mean + spread.sqrt() * z, rtol=1e-9, atol=1e-9)
    if now - before == 1:
        assert float(beta) == pytest.approx(float(BETAS[now]), rel=1e-9)


def test_the_last_step_adds_no_noise() -> None:
    denoise, x = Crooked(Corruption(schedule("linear"))), draw(3, 2)
    times = entry_times(0, -1)
    (step,) = run("ddpm", denoise, x, times)
    assert torch.allclose(step.x, step.x0, rtol=0, atol=1e-12)


def exact_variances(
    name: str, std: float, start: float, times: Tensor, **given: str
) -> list[float]:
    """The exact variance of x after every step, for pictures N(0, std²) and x_T of variance start.

    The sampler is then linear in x_T and in its draws; each row carries one of their coefficients.
    """
    x = torch.zeros(times.numel() + 1, 1, dtype=torch.float64)
    x[0] = start**0.5
    out = run("ddpm", Gaussian(schedule(name), 0.0, std), x, times, OneHot(x), **given)
    return [float(step.x.square().sum()) for step in out]


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_beta_is_exact_for_standard_normal_data(steps: int) -> None:
    """Ho et al. 2020, sec. 3.2. x_t is N(0, 1) throughout, in however few steps, up to the last,
    which adds no noise."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    variances = exact_variances("linear", 1.0, 1.0, times, variance="beta")
    assert variances[:-1] == pytest.approx([1] * (steps - 1), abs=1e-12)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_posterior_is_exact_for_a_single_point(name: str) -> None:
    """Ho et al. 2020, sec. 3.2: x_u has the forward process' variance sigma_u² after every step."""
    s, times = schedule(name), torch.linspace(1, 0, 21, dtype=torch.float64)
    sigmas = s.level(times).sigma.square().tolist()
    variances = exact_variances(name, 0.0, sigmas[0], times, variance="posterior")
    assert variances == pytest.approx(sigmas[1:], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_many_steps_reach_the_datas_variance(variance: str) -> None:
    """T = 1000 on N(0, 0.3²), from N(0, 1): within 3 %, and closer than in 250 and in 100
    strided steps, by about the ratio of the steps."""
    errors = []
    for steps in (100, 250, 1000):
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        end = exact_variances("linear", 0.3, 1.0, times, variance=variance)[-1]
        errors.append(abs(end / 0.09 - 1))
    assert errors[2] < 0.03
    assert errors[0] > 1.8 * errors[1] > 3 * errors[2]


def test_the_datas_mean_comes_out() -> None:
    """Without noise the mean is carried: exact where x_T begins at its own mean."""
    denoise = Gaussian(schedule("linear"), 0.7, 0.3)
    times = torch.linspace(1, 0, 101, dtype=torch.float64)
    start = (0.7 * denoise.corruption.schedule.level(times[0]).alpha).reshape(1)
    end = run("ddpm", denoise, start, times, lambda t, u: torch.zeros(1).double())[-1].x
    assert float(end) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("beta", "fixed_large"), ("posterior", "fixed_small"), ("learned", "learned_range")],
)
@pytest.mark.parametrize("steps", [20, 1000])
def test_diffusers_takes_the_same_steps(ours: str, theirs: str, steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(clip_sample=False, variance_type=theirs)
    scheduler.set_timesteps(steps)
    indices = scheduler.timesteps.tolist()
    times = entry_times(*indices, -1)
    denoise = Learned(Corruption(schedule("linear")))
    x = other = draw(2, 1, 3, 3, seed=77)
    mine, their = (torch.Generator().manual_seed(5) for _ in range(2))

    def noise(t: Tensor, u: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=mine, dtype=torch.float64)

    out = run("ddpm", denoise, x, times, noise, variance=ours)
    for i, k in enumerate(indices):
        bar = scheduler.alphas_cumprod[k].double()
        x0, _, mix = denoise(other, times[i], {})
        eps = (other - bar.sqrt() * x0) / (1 - bar).sqrt()
        said = torch.cat((eps, 2 * mix - 1), 1) if ours == "learned" else eps
        other = scheduler.step(said, k, other, generator=their).prev_sample
        assert torch.allclose(out[i].x, other, rtol=0, atol=2e-4)


def test_an_unknown_variance_is_refused() -> None:
    with pytest.raises(ConfigError, match="'beta', 'posterior' or 'learned'"):
        SAMPLERS.bind(Spec.model_validate("ddpm:variance=big"))


class TestLearnedVariance:
    times = entry_times(700, 650)

    @pytest.mark.parametrize(("mix", "like"), [(0.0, "posterior"), (1.0, "beta")])
    def test_its_ends_are_the_fixed_variances(self, mix: float, like: str) -> None:
        plain, x, z = Crooked(Corruption(schedule("linear"))), draw(3, 2), draw(3, 2, seed=5)
        ends = At(plain, mix)
        (ours,) = run("ddpm", ends, x, self.times, lambda t, u: z, variance="learned")
        (fixed,) = run("ddpm", plain, x, self.times, lambda t, u: z, variance=like)
        assert torch.allclose(ours.x, fixed.x, rtol=0, atol=1e-12)

    def test_between_them_is_nichol_equation_15(self) -> None:
        plain, x, z = Crooked(Corruption(schedule("linear"))), draw(3, 2), draw(3, 2, seed=5)
        still = lambda t, u: torch.zeros_like(x)  # noqa: E731
        (ours,) = run("ddpm", At(plain, 0.3), x, self.times, lambda t, u: z, variance="learned")
        (mean,) = run("ddpm", plain, x, self.times, still)
        beta = 1 - BAR[700] / BAR[650]
        posterior = (1 - BAR[650]) / (1 - BAR[700]) * beta
        spread = torch.exp((0.3 * beta.log() + 0.7 * posterior.log()) / 2)
        assert torch.allclose(ours.x - mean.x, spread * z, rtol=1e-9, atol=0)

    def test_a_model_without_it_is_refused(self) -> None:
        with pytest.raises(InputError, match="predicts its variance"):
            denoise = Crooked(Corruption(schedule("linear")))
            run("ddpm", denoise, draw(3, 2), self.times, variance="learned")


class At:
    """A denoiser whose learned variance is the same everywhere."""

    def __init__(self, denoise: Crooked, mix: float) -> None:
        self.denoise, self.mix, self.corruption = denoise, mix, denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return self.denoise(x, t, cond)._replace(mix=torch.full_like(x, self.mix))


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
@pytest.mark.parametrize("kind", ["dpm2-ancestral", "dpmpp-2s-ancestral"])
def test_two_stage_steps_are_those_of_k_diffusion(on: str, kind: str) -> None:
    """Written out in x̂ = x/alpha and σ = sigma/alpha, with their sigma_down and sigma_up."""
    s, eta, x = schedule(on), 0.8, draw(3, 2)
    denoise, times = Crooked(Corruption(s)), torch.linspace(0.9, 0, 8, dtype=torch.float64)
    out = run(kind, denoise, x, times, numbered(3, 2), eta=eta)
    noise = numbered(3, 2)

    def predicted(scaled: Tensor, sigma: Tensor) -> Tensor:
        t = s.time(-2 * sigma.log())
        return denoise(scaled * s.level(t).alpha, t, {}).x0

    levels = s.level(times)
    sigmas, scaled = levels.sigma / levels.alpha, x / levels.alpha[0]
    for i in range(7):
        here, there = sigmas[i], sigmas[i + 1]
        up = eta * (there**2 * (here**2 - there**2) / here**2).sqrt()
        down = (there**2 - up**2).sqrt()
        x0 = predicted(scaled, here)
        if down == 0:
            scaled = x0
        else:
            middle = (here * down).sqrt()
            halfway = scaled + (scaled - x0) / here * (middle - here)
            second = predicted(halfway, middle)
            if kind == "dpm2-ancestral":
                scaled = scaled + (halfway - second) / middle * (down - here)
            else:
                scaled = down / here * scaled + (1 - down / here) * second
            scaled = scaled + up * noise(times[i], times[i + 1])
        assert torch.allclose(out[i].x, scaled * levels.alpha[i + 1], rtol=1e-8, atol=1e-8)
