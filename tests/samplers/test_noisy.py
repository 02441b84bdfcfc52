"""What every sampler that draws noise must do: end with the data's distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Level, Prediction
from couette.registry import SAMPLERS
from couette.samplers.noisy import ancestral, diffused
from worlds import (
    Constant,
    Crooked,
    Gaussian,
    Mixture,
    OneHot,
    draw,
    grid,
    numbered,
    run,
    schedule,
)

SCHEDULES = ["linear", "edm", "flow"]
NOISY = [name for name in SAMPLERS if SAMPLERS.trait(name, "noise")]
CLAIMED = [name for name in NOISY if SAMPLERS.trait(name, "weak")]

# Karras' inflated noise makes up for what networks lose; an exact denoiser loses nothing.
PLAIN: dict[str, dict[str, Any]] = {"edm": {"s_noise": 1.0}, "euler-churn": {"s_noise": 1.0}}


def even(steps: int, top: float = 1.0, end: float = 0.0) -> Tensor:
    return torch.linspace(top, end, steps + 1, dtype=torch.float64)


def error(name: str, on: str, times: Tensor, given: dict[str, Any] | None = None) -> float:
    """How far the final variance is off, relative to the truth, for pictures N(0, 0.5²).

    Exact: the sampler is then linear in x and its draws, and each row carries a coefficient.
    Settings are those of `PLAIN` when not given.
    """
    given = PLAIN.get(name, {}) if given is None else given
    denoise = Gaussian(schedule(on), 0.0, 0.5)
    levels = [denoise.corruption.schedule.level(times[k]) for k in (0, -1)]
    start, truth = (denoise.variance(level) for level in levels)
    x = torch.zeros(4 * times.numel() + 20, 1, dtype=torch.float64)
    x[0] = start.sqrt()
    end = run(name, denoise, x, times, OneHot(x), **given)[-1].x
    return float(end.square().sum() / truth - 1)


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", CLAIMED)
def test_the_variance_is_near_the_truth(name: str, on: str) -> None:
    """After 128 steps that leave out the ends: 10/N for weak order 1, 60/N² for 2."""
    bound = {1: 10 / 128, 2: 60 / 128**2}[SAMPLERS.trait(name, "weak")]
    assert abs(error(name, on, even(128, 0.896, 0.256))) < bound


@pytest.mark.slow
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", CLAIMED)
def test_the_variance_converges_at_the_declared_weak_order(name: str, on: str) -> None:
    """Or faster; to 0.2, as the multistep ones are still on their way there."""
    coarse, fine = (abs(error(name, on, even(n, 0.896, 0.256))) for n in (256, 512))
    assert math.log2(coarse / fine) > SAMPLERS.trait(name, "weak") - 0.2


@pytest.mark.slow
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", NOISY)
def test_the_whole_chain_ends_with_the_datas_variance(name: str, on: str) -> None:
    """From pure noise to none in 400 even steps: to 7 % for those of first order, 2 % for others
    (restart's inner steps stay as few as they are, langevin's predictor is of first order)."""
    first = SAMPLERS.trait(name, "weak") == 1 or name in ("euler-churn", "langevin")
    assert abs(error(name, on, even(400))) < (0.07 if first else 0.02)


USUAL = {
    "linear": "strided",
    "cosine": "strided",
    "vp": "karras",
    "edm": "karras",
    "ve": "karras",
    "flow": "uniform",
}
"""The grid that goes with each schedule, as the recipes have it: they run down to sigma = 0."""
WILD = {("dpmpp-3m-sde", on, 10) for on in ("vp", "edm", "ve")}
"""Where a sampler overshoots in so few steps: extrapolating along three of Karras' levels, which
lie far apart, it ends with 7 to 9 times the variance. In 20 steps it does not."""


@pytest.mark.parametrize("on", list(USUAL))
@pytest.mark.parametrize("name", NOISY)
def test_the_moments_come_out_in_forty_steps(name: str, on: str) -> None:
    """Exactly reckoned, from zero-mean noise to none: the variance to a third for those of first
    order and 13 % for others, the mean to a hundredth of the standard deviation."""
    times = grid(USUAL[on], schedule(on), 40)
    first = SAMPLERS.trait(name, "weak") == 1 or name in ("euler-churn", "langevin")
    assert abs(error(name, on, times)) < (1 / 3 if first else 0.13)
    denoise, x = Gaussian(schedule(on), 0.4, 0.5), torch.zeros(1, 1, dtype=torch.float64)
    quiet = lambda t, u: torch.zeros_like(x)  # noqa: E731
    end = run(name, denoise, x, times, quiet, **PLAIN.get(name, {}))[-1].x
    assert float(end) == pytest.approx(0.4, abs=0.005)


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("on", list(USUAL))
@pytest.mark.parametrize("name", NOISY)
def test_few_steps_end_near_the_datas_variance(name: str, on: str, steps: int) -> None:
    """Within a factor of three, with the settings that it has when nothing is asked."""
    times = grid(USUAL[on], schedule(on), steps)
    factor = 1 + error(name, on, times, {})
    if (name, on, steps) in WILD:
        assert 3 < factor < 10
    else:
        assert 0.3 < factor < 3


def mixture(name: str, on: str, steps: int, count: int) -> tuple[float, Tensor, Mixture]:
    """(KS test's p, samples, world) from samples of x_1 of a two-bump mixture, brought to t = 0."""
    stats = pytest.importorskip("scipy.stats")
    denoise, times = Mixture(schedule(on)), even(steps)
    s = denoise.corruption.schedule
    start, end = s.level(times[0]), s.level(times[-1])
    generator = torch.Generator().manual_seed(1)
    whose = torch.multinomial(denoise.shares, count, True, generator=generator)
    x0 = denoise.means[whose] + denoise.stds[whose] * draw(count, seed=2)
    x = start.alpha * x0 + start.sigma * draw(count, seed=3)
    got = run(name, denoise, x, times, numbered(count), **PLAIN.get(name, {}))[-1].x
    test = stats.kstest(got.numpy(), lambda v: denoise.below(torch.from_numpy(v), end).numpy())
    return float(test.pvalue), got, denoise


@pytest.mark.parametrize("name", NOISY)
def test_a_mixture_comes_out(name: str) -> None:
    """Kolmogorov and Smirnov, 1000 samples against the exact distribution: draws are fixed, and
    with fresh ones a sampler without error fails once in a thousand."""
    p, _, _ = mixture(name, "flow", steps=60, count=1000)
    assert p > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", NOISY)
def test_a_mixture_and_its_moments_come_out(name: str, on: str) -> None:
    """As above with 4000 samples in 400 steps. Mean to five standard errors, beyond which fresh
    draws fall once in 1.7 million; variance to five of its own and the chain's 7 % above."""
    p, got, denoise = mixture(name, on, steps=400, count=4000)
    mean = (denoise.shares * denoise.means).sum()
    second = (denoise.shares * (denoise.stds.square() + denoise.means.square())).sum()
    variance = float(second - mean.square())
    assert p > 1e-3
    assert float(got.mean()) == pytest.approx(float(mean), abs=5 * (variance / 4000) ** 0.5)
    assert float(got.var()) == pytest.approx(variance, rel=0.07 + 5 * (2 / 4000) ** 0.5)


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize(
    ("name", "off", "plain"),
    [
        ("ddim", {"eta": 0.0}, "euler"),
        ("euler-ancestral", {"eta": 0.0}, "ddim"),
        ("dpm2-ancestral", {"eta": 0.0}, "dpm2"),
        ("dpmpp-2s-ancestral", {"eta": 0.0}, "dpmpp-2s"),
        ("dpmpp-sde", {"eta": 0.0}, "dpmpp-2s"),
        ("dpmpp-2m-sde", {"eta": 0.0}, "dpmpp-2m"),
        ("dpmpp-3m-sde", {"eta": 0.0}, "dpmpp-3m"),
        ("sa-solver", {"tau": 0.0, "predictor": 1, "corrector": 0}, "ddim"),
        ("edm", {"s_churn": 0.0}, "heun"),
        ("euler-churn", {"s_churn": 0.0}, "euler"),
        ("restart", {"repeats": 0}, "heun"),
    ],
)
def test_without_its_noise_it_is_the_deterministic_one(
    name: str, off: dict[str, Any], plain: str, on: str
) -> None:
    denoise, x = Crooked(Corruption(schedule(on))), draw(3, 2)
    for theirs, ours in zip(
        run(plain, denoise, x, even(9)), run(name, denoise, x, even(9), **off), strict=True
    ):
        assert torch.allclose(ours.x, theirs.x, rtol=1e-10, atol=1e-10)


def test_three_names_for_one_step() -> None:
    """ddpm with the posterior variance, ddim with eta = 1 and euler-ancestral; and the first-order
    form of the SDE solvers."""
    for on in SCHEDULES:
        denoise, x, times = Crooked(Corruption(schedule(on))), draw(3, 2), even(9)
        want = run("ddpm", denoise, x, times, numbered(3, 2))[-1].x
        for name, given in (
            ("ddim", {"eta": 1.0}),
            ("euler-ancestral", {}),
            ("sa-solver", {"predictor": 1, "corrector": 0, "low": 0.0, "high": math.inf}),
            ("langevin", {"corrections": 0}),
        ):
            got = run(name, denoise, x, times, numbered(3, 2), **given)[-1].x
            assert torch.allclose(got, want, rtol=1e-10, atol=1e-10), name


class Based:
    """A denoiser whose eps is driven by a base of its own."""

    def __init__(self, x0: Constant, base: Constant) -> None:
        self.x0, self.base, self.corruption = x0, base, x0.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        return Prediction(self.x0(x, t, cond).x0, self.base(x, t, cond).x0)


@pytest.mark.parametrize("name", NOISY)
def test_base_moves_x_on_the_way_and_not_the_end(name: str) -> None:
    """With constant x0 and base, x at any level is off by alpha·(x0 − base)'s part alone; at
    sigma = 0 nothing of base is left."""
    corruption = Corruption(schedule("flow"))
    x0, base = Constant(corruption, 0.3), Constant(corruption, -0.4)
    x = draw(3, 2)
    guided = run(name, Based(x0, base), x, even(12), numbered(3, 2))
    plain = run(name, x0, x, even(12), numbered(3, 2))
    assert torch.allclose(guided[-1].x, torch.full_like(x, 0.3), rtol=0, atol=1e-12)
    assert float((guided[5].x - plain[5].x).abs().min()) > 1e-2


def level(alpha: float, sigma: float) -> Level:
    return Level(*torch.tensor([alpha, sigma], dtype=torch.float64))


class TestSplits:
    a, b = level(0.3, 0.9), level(0.8, 0.5)

    @pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
    @pytest.mark.parametrize("split", [ancestral, diffused])
    def test_parts_make_up_the_whole(self, split: Any, eta: float) -> None:
        kept, fresh = split(self.a, self.b, eta)
        assert float(kept**2 + fresh**2) == pytest.approx(0.25, rel=1e-12)

    def test_at_full_strength_they_are_one(self) -> None:
        one, other = ancestral(self.a, self.b, 1.0), diffused(self.a, self.b, 1.0)
        assert [float(v) for v in one] == pytest.approx([float(v) for v in other], rel=1e-12)
        # The posterior's own: sigma_b²·alpha_a/(alpha_b·sigma_a) is kept.
        assert float(one.kept) == pytest.approx(0.25 * 0.3 / (0.8 * 0.9), rel=1e-12)

    @pytest.mark.parametrize("split", [ancestral, diffused])
    @pytest.mark.parametrize(("eta", "kept"), [(0.0, 0.5), (1.0, 0.0)])
    def test_from_pure_noise(self, split: Any, eta: float, kept: float) -> None:
        assert float(split(level(0, 1), self.b, eta).kept) == kept

    @pytest.mark.parametrize("split", [ancestral, diffused])
    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_at_the_clean_end_nothing_is_drawn(self, split: Any, eta: float) -> None:
        assert [float(v) for v in split(self.a, level(1, 0), eta)] == [0, 0]

    def test_two_diffused_steps_are_one(self) -> None:
        """What is kept multiplies, and the draws' variances add: the SDE's own property."""
        middle = level(0.5, 0.7)
        early, late = diffused(self.a, middle, 0.6), diffused(middle, self.b, 0.6)
        whole = diffused(self.a, self.b, 0.6)
        carried = late.kept / middle.sigma
        assert float(carried * early.kept) == pytest.approx(float(whole.kept), rel=1e-12)
        variance = (carried * early.fresh) ** 2 + late.fresh**2
        assert float(variance) == pytest.approx(float(whole.fresh**2), rel=1e-12)
