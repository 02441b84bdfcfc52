"""The bound's terms against torch's own distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from couette.contracts import Prediction
from couette.denoiser.variational import LEVELS, bound_term, discretized_nll, normal_kl
from couette.schedules import Linear, posterior
from worlds import draw, noised

GREY = torch.linspace(-1, 1, LEVELS, dtype=torch.float64)
STEPS = 20


def test_kl_is_torchs() -> None:
    apart, own, model = draw(50, seed=1), draw(50, seed=2), draw(50, seed=3)
    first, second = Normal(0.0, (own / 2).exp()), Normal(apart, (model / 2).exp())
    torch.testing.assert_close(normal_kl(apart, own, model), kl_divergence(first, second))


@pytest.mark.parametrize("std", [1e-4, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("mean", [-1.7, -1.0, 0.123, 0.999, 4.0])
def test_the_probabilities_of_all_levels_add_up_to_one(mean: float, std: float) -> None:
    nll = discretized_nll(GREY, torch.tensor(mean).double(), torch.tensor(std**2).double().log())
    assert float((-nll).exp().sum()) == pytest.approx(1, rel=1e-12)


def test_nll_is_the_integral_over_the_bin() -> None:
    mean, std = 0.3, 0.2
    world = Normal(torch.tensor(mean).double(), std)
    near = (GREY - mean).abs() < 3 * std  # beyond, the plain difference cancels
    inside = world.cdf(GREY + 1 / 255) - world.cdf(GREY - 1 / 255)
    nll = discretized_nll(GREY, world.loc, 2 * world.scale.log())
    torch.testing.assert_close(nll[near], -inside[near].log(), rtol=1e-9, atol=0)
    torch.testing.assert_close(nll[0], -world.cdf(GREY[0] + 1 / 255).log())


def test_nll_is_finite_with_a_gradient_far_in_the_tails() -> None:
    mean = torch.full((LEVELS,), 30.0, requires_grad=True)
    log_variance = torch.full((LEVELS,), -9.0, requires_grad=True)
    nll = discretized_nll(GREY.float(), mean, log_variance)
    gradients = torch.autograd.grad(nll.sum(), (mean, log_variance))
    assert bool(nll.isfinite().all()) and bool((nll[:-1] > 1e5).all())
    assert all(bool(each.isfinite().all()) for each in gradients)


def term(entry: int, mix: float, error: float = 0.1) -> float:
    """The term at an entry of a table, for a prediction that is `error` off."""
    x0 = GREY[[40, 128, 200, 255]].reshape(1, 1, 2, 2)
    t = torch.tensor([(entry + 1) / STEPS], dtype=torch.float64)
    p = Prediction(x0 + error, mix=torch.full_like(x0, mix))
    return float(bound_term(Linear(steps=STEPS), x0, t, p))


@pytest.mark.parametrize("entry", [1, 7, STEPS - 1])
@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_a_term_is_the_divergence_of_the_two_reverse_steps(entry: int, mix: float) -> None:
    """From Ho et al. 2020, eqs. 6 and 7, in betas."""
    table = Linear(steps=STEPS)
    beta = float(table.betas[entry])
    bar, before = float(table.alpha_bar[entry]), float(table.alpha_bar[entry - 1])
    least = (1 - before) / (1 - bar) * beta
    gain = math.sqrt(before) * beta / (1 - bar)
    model = math.exp(mix * math.log(beta) + (1 - mix) * math.log(least))
    exact = kl_divergence(
        Normal(torch.zeros(()).double(), math.sqrt(least)),
        Normal(torch.tensor(0.1 * gain).double(), math.sqrt(model)),
    )
    assert term(entry, mix) == pytest.approx(float(exact) / math.log(2), rel=1e-6)


def test_the_first_entry_has_the_likelihood_of_the_grey_levels() -> None:
    table = Linear(steps=STEPS)
    least = (1 - table.alpha_bar[0]) / (1 - table.alpha_bar[1]) * table.betas[1]
    for mix, variance in ((0.0, least), (1.0, table.betas[0])):
        x0 = GREY[[40, 128, 200, 255]]
        nll = discretized_nll(x0, x0 + 0.1, variance.log()).mean()
        assert term(0, mix) == pytest.approx(float(nll) / math.log(2), rel=1e-6)


def test_the_exact_step_diverges_by_nothing() -> None:
    """With the true x0 and mix 0 the model's step is the exact one."""
    assert term(5, 0.0, error=0.0) == pytest.approx(0, abs=1e-12)
    assert term(5, 0.5, error=0.0) > 0


def test_diffusers_learned_variance_is_the_same() -> None:
    """Its `learned_range` reads the same output as the same log-variance."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(STEPS, variance_type="learned_range", clip_sample=False)
    table = Linear(steps=STEPS)
    for entry in (1, 9, STEPS - 1):
        t, s = (
            table.level(torch.tensor((k + 1) / STEPS, dtype=torch.float64))
            for k in (entry, entry - 1)
        )
        back = posterior(t, s)
        for output in (-1.0, 0.3, 1.0):
            log = scheduler._get_variance(entry, predicted_variance=torch.tensor(output))
            mix = (output + 1) / 2
            ours = mix * back.beta.log() + (1 - mix) * back.variance.log()
            assert float(log) == pytest.approx(float(ours), abs=5e-4)  # its table is float32


def test_the_bound_of_a_gaussian_is_its_entropy() -> None:
    """With the exact denoiser and the best variance, which is known, the bound is tight."""
    std, steps, count = 0.25, 200, 1000
    table = Linear(steps=steps, beta_min=0.1 / steps, beta_max=20 / steps)
    x0 = ((std * draw(count, 1, 1, 1) + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1
    times = (torch.arange(steps + 1) / steps).double()
    total = 0.0
    for k in range(1, steps + 1):
        t, s = table.level(times[k]), table.level(times[k - 1])
        back = posterior(t, s)
        power = (t.alpha * std) ** 2 + t.sigma**2
        gain = s.alpha - t.alpha * back.mean.sigma / t.sigma
        best = back.variance + (gain * std * t.sigma) ** 2 / power
        least = back.variance if k > 1 else posterior(*map(table.level, times[[2, 1]])).variance
        mix = (best / least).log() / (back.beta / least).log()
        x = noised(table, x0, times[k], draw(count, 1, 1, 1, seed=k))
        p = Prediction(t.alpha * std**2 / power * x, mix=mix.expand_as(x))
        total += float(bound_term(table, x0, times[k].expand(count), p).mean())
    end = table.level(times[-1])
    prior = 0.5 * float((end.alpha * std) ** 2 + end.sigma**2 - 1 - (end.sigma**2).log())
    entropy = 0.5 * math.log2(2 * math.pi * math.e * std**2) - math.log2(2 / 255)
    assert total + prior / math.log(2) == pytest.approx(entropy, rel=0.01)
