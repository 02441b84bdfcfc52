"""Likelihoods against the mixture's exact ones, and the bound's terms against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from couette.contracts import Cond, Corruption, Prediction
from couette.errors import InputError
from couette.evaluation import axes, log_likelihood, signs, variational_bound
from couette.evaluation.likelihood import discretized_nll
from couette.exact import Empirical, Mixture
from couette.registry import GRIDS, SCHEDULES
from couette.schedules import Linear, ratio
from mixtures import at, plane, small
from worlds import Constant, draw, schedule

LEAST = 2e-3
WORLDS = ["linear", "cosine", "edm", "flow"]


class Fresh:
    """Numbered draws."""

    def __init__(self, like: Tensor) -> None:
        self.shape, self.count = like.shape, 0

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        self.count += 1
        return draw(*self.shape, seed=self.count)


def exactly(world: Mixture, x: Tensor, cond: Cond, sigma: float = LEAST) -> Tensor:
    """The density of x0 + sigma·eps, from that of x_t = alpha·(x0 + sigma·eps)."""
    t = world.corruption.schedule.time(-2 * torch.tensor(sigma, dtype=torch.float64).log())
    alpha = world.corruption.schedule.level(t).alpha
    return world.log_density(alpha * x, t, cond) + x[0].numel() * alpha.log()


@pytest.mark.parametrize(("make", "label"), [(plane, 1), (small, None)], ids=["class", "small"])
@pytest.mark.parametrize("on", WORLDS)
def test_the_ode_finds_the_exact_likelihood(
    make: Callable[[str], Mixture], on: str, label: int | None
) -> None:
    """To 1 %, and to 0.03 nats point by point."""
    world = make(on)
    x = world.sample(8, seed=5, label=label).x0
    cond = {} if label is None else {"label": torch.full((8,), label)}
    found = log_likelihood(world, x, cond, axes(x), steps=40)
    expected = exactly(world, x, cond)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()


NEAR = 40.0
"""sigma/alpha beyond which a schedule's end is noise enough for likelihoods to 1 %."""


def end_of(on: str) -> float:
    return float(ratio(schedule(on).level(torch.ones((), dtype=torch.float64))))


@pytest.mark.parametrize("on", list(SCHEDULES))
def test_the_ode_finds_the_exact_likelihood_on_every_schedule(on: str) -> None:
    """To 1 % where the schedule ends in noise. One that ends at S = sigma/alpha of 8 to 15 (betas,
    linear-log-snr, scaled-linear) has alpha·x0 left in its end, which is taken for N(0, 1): off by
    z·x0/S in the log, with |z·x0| about a half here."""
    world = plane(on)
    x = world.sample(8, seed=5).x0
    found, expected = log_likelihood(world, x, {}, axes(x), steps=40), exactly(world, x, {})
    gap = (found - expected).abs()
    assert float(gap.max()) < 0.5 / end_of(on) + 0.004
    if end_of(on) > NEAR:
        assert float(gap.mean()) < 0.01 * float(expected.abs().mean())


def test_most_schedules_end_in_noise() -> None:
    """So that the 1 % above is asked of all but three."""
    assert [on for on in SCHEDULES if end_of(on) <= NEAR] == [
        "betas",
        "linear-log-snr",
        "scaled-linear",
    ]


def test_it_is_one_number_whatever_the_schedule_and_the_rest_is_the_solvers() -> None:
    """Order 4: twice the steps, 16 times nearer to the same integral."""
    x = plane().sample(8, seed=5).x0
    whole = log_likelihood(plane("flow"), x, {}, axes(x), steps=128)
    coarse, fine = (log_likelihood(plane("flow"), x, {}, axes(x), steps=n) for n in (32, 64))
    other = log_likelihood(plane("cosine"), x, {}, axes(x), steps=32)
    torch.testing.assert_close(coarse, other, rtol=0, atol=1e-9)
    ratio = (coarse - whole).abs().mean() / (fine - whole).abs().mean()
    assert 3.5 < math.log2(float(ratio)) < 6


def test_random_probes_have_the_traces_mean() -> None:
    """Within four standard errors over many seeds of one point."""
    world = small("cosine")
    x = world.sample(1, seed=5).x0.expand(200, -1, -1, -1)
    keys = torch.stack((torch.arange(200), torch.zeros(200, dtype=torch.int64)), 1)
    probes = signs(0, keys, x)
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    found = log_likelihood(world, x, {}, probes, steps=24)
    expected = log_likelihood(world, x[:1], {}, axes(x[:1]), steps=24)
    error = float(found.std()) / 200**0.5
    assert error > 0
    assert abs(float(found.mean() - expected[0])) < 4 * error
    assert torch.equal(signs(0, keys, x, 3)[:, :5], signs(0, keys[:5], x[:5], 3))


@pytest.mark.slow
def test_many_random_probes_find_the_likelihood_to_one_percent() -> None:
    """Their mean is within 1 % of the trace's, which is more than four of its standard errors, and
    that within 1 % of the exact value."""
    world, count = small(), 30_000
    x = world.sample(6, seed=5).x0[4:5]
    keys = torch.stack((torch.arange(count), torch.zeros(count, dtype=torch.int64)), 1)
    many = x.expand(count, -1, -1, -1)
    found = log_likelihood(world, many, {}, signs(0, keys, many), steps=24)
    whole = float(log_likelihood(world, x, {}, axes(x), steps=24))
    assert 4 * float(found.std()) / count**0.5 < 0.01 * abs(whole)
    assert float(found.mean()) == pytest.approx(whole, rel=0.01)
    assert whole == pytest.approx(float(exactly(world, x, {})), rel=0.01)


def test_a_single_gaussian_has_its_density_to_the_schedules_end() -> None:
    """What is left is only that the walk ends at sigma/alpha = 157, taken for pure noise."""
    world = Mixture(schedule("linear"), torch.zeros(1, 1, 2, 2), 0.5)
    x = draw(4, 1, 2, 2) / 2
    found = log_likelihood(world, x, {}, axes(x), steps=60)
    std = math.hypot(0.5, LEAST)
    expected = Normal(0.0, std).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("on", WORLDS)
@pytest.mark.parametrize("make", [plane, small])
def test_the_bound_bounds_and_comes_near(make: Callable[[str], Mixture], on: str) -> None:
    """Each point's bound, less its exact value, averaged: above 0 by its noise, and small."""
    world = make(on)
    x0 = world.sample(400, seed=7).x0
    exact = -world.log_density(x0, at(0))
    grid = GRIDS["uniform" if on in ("linear", "cosine") else "karras"]
    gaps = []
    for steps in (30, 300):
        times = grid(world.corruption.schedule, steps)
        gap = variational_bound(world, x0, times, {}, Fresh(x0)).total - exact
        error = float(gap.std()) / 400**0.5
        assert float(gap.mean()) > -3 * error
        gaps.append(float(gap.mean()) / x0[0].numel())
    assert gaps[1] < 0.3
    assert gaps[1] < gaps[0]


@pytest.mark.slow
@pytest.mark.parametrize("on", WORLDS)
def test_the_bound_is_tight_with_many_steps(on: str) -> None:
    """Within 0.03 nats of the exact value, beside the noise of the estimate."""
    world = plane(on)
    x0 = world.sample(2000, seed=7).x0
    grid = GRIDS["uniform" if on in ("linear", "cosine") else "karras"]
    times = grid(world.corruption.schedule, 1000)
    gap = variational_bound(world, x0, times, {}, Fresh(x0)).total + world.log_density(x0, at(0))
    error = float(gap.std()) / 2000**0.5
    assert error < 0.05
    assert -3 * error < float(gap.mean()) < 0.03 + 3 * error


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_terms_are_the_divergences_of_ho_et_al(variance: str) -> None:
    """For a constant prediction nothing is random: eqs. 5 to 7, from the betas themselves."""
    table, c = Linear(steps=6, beta_min=0.05, beta_max=0.4), 0.3
    x0 = draw(3, 1, 2, 2) / 2
    bar, betas = table.alpha_bar, table.betas
    before = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
    tilde = (1 - before) / (1 - bar) * betas
    lent = torch.cat((tilde[1:2], tilde[1:]))
    model = betas if variance == "beta" else lent
    terms = torch.zeros(3, dtype=torch.float64)
    for k in range(1, 6):
        on_x0 = before[k].sqrt() * betas[k] / (1 - bar[k])
        q = Normal(on_x0 * x0, tilde[k].sqrt())
        p = Normal(on_x0 * torch.full_like(x0, c), model[k].sqrt())
        terms += kl_divergence(q, p).flatten(1).sum(1)
    start = Normal(bar[-1].sqrt() * x0, (1 - bar[-1]).sqrt())
    prior = kl_divergence(start, Normal(torch.zeros_like(x0), 1.0)).flatten(1).sum(1)
    decoder = -Normal(torch.full_like(x0, c), model[0].sqrt()).log_prob(x0).flatten(1).sum(1)
    times = torch.linspace(1, 0, 7, dtype=torch.float64)
    world = Constant(Corruption(table), c)
    found = variational_bound(world, x0, times, {}, Fresh(x0), variance=variance)  # type: ignore[arg-type]
    torch.testing.assert_close(found.diffusion, terms)
    torch.testing.assert_close(found.prior, prior)
    torch.testing.assert_close(found.decoder, decoder)


@pytest.mark.parametrize(("mix", "like"), [(0.0, "posterior"), (1.0, "beta")])
def test_a_learned_variance_lies_between(mix: float, like: str) -> None:
    class Learned(Constant):
        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return super().__call__(x, t, cond)._replace(mix=torch.full_like(x, mix))

    corruption = Corruption(schedule("linear:steps=20"))
    x0, times = draw(2, 1, 2, 2), torch.linspace(1, 0, 21, dtype=torch.float64)
    learned = variational_bound(Learned(corruption, 0.2), x0, times, {}, Fresh(x0))
    fixed = variational_bound(Constant(corruption, 0.2), x0, times, {}, Fresh(x0), variance=like)  # type: ignore[arg-type]
    torch.testing.assert_close(learned.total, fixed.total)


@pytest.mark.parametrize("mean", [-1.7, 0.02, 0.999])
@pytest.mark.parametrize("std", [1e-3, 0.05, 3.0])
def test_the_grey_levels_share_all_the_probability(mean: float, std: float) -> None:
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    one = torch.ones_like(levels)
    nats = discretized_nll(levels, mean * one, 2 * math.log(std) * one)
    assert bool(nats.isfinite().all())
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_the_range_of_the_grey_levels_is_only_a_scale() -> None:
    """The same pictures in [0, 1] as in [-1, 1], under noise half as large."""
    worlds = Constant(Corruption(schedule("edm")), 0.1), Constant(Corruption(schedule("edm")), 0.55)
    x0 = (draw(2, 1, 3, 3) / 2).clamp(-1, 1)
    wide = torch.tensor([0.4, 0.1, 0.0], dtype=torch.float64)
    schedule_ = worlds[0].corruption.schedule
    narrow = schedule_.time(-2 * (schedule_.level(wide).sigma / 2).log()).nan_to_num(0)
    one = variational_bound(worlds[0], x0, wide, {}, Fresh(x0), range_of=(-1, 1))
    other = variational_bound(worlds[1], (x0 + 1) / 2, narrow, {}, Fresh(x0), range_of=(0, 1))
    torch.testing.assert_close(one.decoder, other.decoder)
    torch.testing.assert_close(one.diffusion, other.diffusion)


def test_a_memoriser_is_sure_of_what_it_knows_and_of_nothing_else() -> None:
    known, other = draw(5, 1, 3, 3), draw(5, 1, 3, 3, seed=1)
    world = Empirical(schedule("flow"), known)
    found = [log_likelihood(world, x, {}, axes(x), sigma=0.05, steps=40) for x in (known, other)]
    sure = 9 * (-0.5 * math.log(2 * math.pi) - math.log(0.05)) - math.log(5)
    torch.testing.assert_close(found[0], torch.full_like(found[0], sure), rtol=0, atol=0.2)
    assert float(found[1].max()) < -500


def test_what_is_refused() -> None:
    x = draw(1, 1, 2, 2)
    uniform = Constant(Corruption(schedule("flow"), "uniform"), 0.0)
    times = torch.linspace(1, 0, 3, dtype=torch.float64)
    with pytest.raises(InputError, match="needs normal noise"):
        log_likelihood(uniform, x, {}, axes(x))
    with pytest.raises(InputError, match="needs normal noise"):
        variational_bound(uniform, x, times, {}, Fresh(x))
    with pytest.raises(InputError, match="needs times that fall to 0"):
        variational_bound(plane(), x, times[:2], {}, Fresh(x))
    for sigma in (0.0, 100.0):
        with pytest.raises(InputError, match="a sigma above 0 and below the schedule's 80"):
            log_likelihood(plane("edm"), x, {}, axes(x), sigma=sigma)
