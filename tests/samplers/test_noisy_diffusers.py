"""The same trajectories as diffusers' schedulers that draw noise, with the same noise.

As in test_diffusers, theirs runs as it comes and in double.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Noise
from samplers.theirs import (
    BETA,
    BY_ENTRY,
    BY_SIGMA,
    EXACT,
    IDS,
    LU,
    ROUNDINGS,
    SINGLE,
    STEPS,
    Both,
    Predicts,
    X,
    agree,
    drawn,
    extrapolated,
    made,
    network,
    offered,
    ours,
    scaled,
    seeded,
    seeds,
    slowly,
    theirs,
)

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

DENOISE = Predicts("eps", "linear")
SPACINGS = pytest.mark.parametrize("spacing", [*BY_ENTRY, *BY_SIGMA], ids=IDS)


def at_level(asked: Tensor) -> Callable[[Tensor, int], Tensor]:
    """What the network says of their x/alpha in evaluation i."""
    return lambda x, i: network(x / (1 + asked[i].square()).sqrt(), asked[i])


def start(noise: Tensor) -> Tensor:
    """X as their x/alpha."""
    return X * (1 + noise[0].square()).sqrt()


@pytest.mark.parametrize("spacing", BY_ENTRY, ids=IDS[:3])
@pytest.mark.parametrize("steps", [10, slowly(30)])
def test_euler_ancestral(steps: int, spacing: dict[str, Any]) -> None:
    scheduler = made("EulerAncestralDiscreteScheduler", steps, **spacing)
    noise = scheduler.sigmas.double()
    xs = theirs(
        scheduler,
        start(noise),
        at_level(noise),
        given=lambda x, i: {"generator": seeded(i)},
    )
    mine = ours(DENOISE, "euler-ancestral", noise, seeds())
    agree(mine, xs, noise[1:], roundings=2 * steps)


def test_euler_ancestral_has_no_further_spacings() -> None:
    """Theirs can't be asked for Karras' grid, or any other of sigma."""
    assert offered("EulerAncestralDiscreteScheduler") == {"timestep_spacing"}


@pytest.mark.slow
@SPACINGS
def test_dpm2_ancestral(spacing: dict[str, Any]) -> None:
    scheduler = made("KDPM2AncestralDiscreteScheduler", STEPS, **spacing)
    sigmas = scheduler.sigmas.double()
    noise = torch.cat((sigmas[:1], sigmas[1:-1:2]))
    down, up, middle = ancestral(noise)
    asked = torch.stack((noise[:-1], middle), 1).flatten()

    def recomputed(each: Any) -> None:
        for table, values in ((each.sigmas_down, down), (each.sigmas_up, up)):
            table[: 2 * STEPS : 2][: len(values)] = values
            table[1 : 2 * STEPS : 2][: len(values) - 1] = values[1:]
        each.sigmas_interpol[: 2 * STEPS : 2] = middle
        each.sigmas_interpol[1 : 2 * STEPS - 1 : 2] = middle[1:]

    xs = theirs(
        scheduler,
        start(noise),
        at_level(asked),
        given=lambda x, i: {"generator": seeded(i // 2)},
        change=recomputed,
    ).then(lambda xs: [*xs[1::2], xs[-1]])
    agree(ours(DENOISE, "dpm2-ancestral", noise, seeds()), xs, noise[1:])


def ancestral(noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a step keeps and draws of the next level, and its middle on the way to what it keeps."""
    a, b = noise[:-1], noise[1:]
    up = b * (1 - (b / a).square()).sqrt()
    down = b.square() / a
    return down, up, (a * down).sqrt()


@pytest.mark.parametrize("spacing", [*BY_ENTRY, *BY_SIGMA, LU], ids=[*IDS, "lu"])
@pytest.mark.parametrize("form", ["midpoint", "heun"])
def test_dpmpp_2m_sde(form: str, spacing: dict[str, Any]) -> None:
    settings = {"algorithm_type": "sde-dpmsolver++", "solver_type": form}
    scheduler = made(
        "DPMSolverMultistepScheduler", STEPS, lower_order_final=False, **settings, **spacing
    )
    preserving("dpmpp-2m-sde", scheduler, extrapolated(2, spacing), form=form)


def preserving(name: str, scheduler: Any, roundings: float, **given: Any) -> None:
    """The run of a scheduler whose x preserves variance."""
    noise = scheduler.sigmas.double()
    xs = theirs(
        scheduler,
        X,
        lambda x, i: network(x, noise[i]),
        given=lambda x, i: {"variance_noise": drawn(i)},
    ).then(scaled(noise[1:]))
    agree(ours(DENOISE, name, noise, seeds(), **given), xs, noise[1:], roundings=roundings)


class WholeSDE(diffusers.DPMSolverMultistepScheduler):
    """Theirs with the parabola as it is.

    The mean of ((λ − λ_a)/h)² over the step is 1 − 2·m/H, H = 2h and m = 1 − (1 − e^(−H))/H.
    k-diffusion takes half of it, 1/2 − m/H; diffusers' SDE subtracts that 1/2 where it is to be
    added and takes −1/2 − m/H, near −1 in short steps. And the mean of (λ − λ_a)/h, m, is right.
    """

    def multistep_dpm_solver_third_order_update(self, outputs, *args, sample, **given):  # type: ignore[no-untyped-def]
        x = super().multistep_dpm_solver_third_order_update(outputs, sample=sample, **given)
        S = [self.sigmas[self.step_index + k].double() for k in (1, 0, -1, -2)]
        end, *lams = (-each.log() for each in S)
        h, h0, h1 = end - lams[0], lams[0] - lams[1], lams[1] - lams[2]
        m0, m1, m2 = reversed(outputs)
        bend = ((m0 - m1) / h0 - (m1 - m2) / h1) / (h0 + h1) * h**2
        m = 1 - (1 - (-2 * h).exp()) / (2 * h)
        alpha = (1 + S[0].square()).rsqrt()
        return x + alpha * ((1 - m / h) - (-m / (2 * h) - 0.5)) * bend


@pytest.mark.parametrize("spacing", [*BY_ENTRY, *BY_SIGMA, LU], ids=[*IDS, "lu"])
def test_dpmpp_3m_sde_takes_the_parabola_as_it_is(spacing: dict[str, Any]) -> None:
    """With diffusers' sign put right, and k-diffusion's half made whole, they agree with ours."""
    scheduler = WholeSDE(
        algorithm_type="sde-dpmsolver++", solver_order=3, lower_order_final=False, **spacing
    )
    scheduler.set_timesteps(STEPS)
    preserving("dpmpp-3m-sde", scheduler, extrapolated(3, spacing))


CLOCK = pytest.mark.filterwarnings("ignore:Should have t:UserWarning")
"""torchsde is told its ends in six digits."""


class Heard:
    """What their Brownian tree says in the first run, and the same again in the next."""

    def __init__(self, tree: Callable[..., Tensor], count: int) -> None:
        self.tree, self.count = tree, count
        self.said: list[Tensor] = []
        self.asked = 0

    def __call__(self, sigma: Tensor, following: Tensor) -> Tensor:
        if len(self.said) < self.count:
            self.said.append(self.tree(sigma, following))
        self.asked += 1
        return self.said[(self.asked - 1) % self.count]

    def halves(self, noise: Tensor) -> Noise:
        """z1 and z2 of each step of ours for which theirs draws what was said."""
        draws = []
        for i, (a, b) in enumerate(pairwise(noise[:-1])):
            first, whole = self.said[2 * i : 2 * i + 2]
            q = b / a
            draws += [first, (1 + q).sqrt() * whole - q.sqrt() * first]
        each = iter(draws)
        return lambda t, u: next(each)


@CLOCK
@SPACINGS
def test_dpmpp_sde(spacing: dict[str, Any]) -> None:
    """With the increments of their own Brownian tree.

    Its clock is sigma/alpha, so that the noise of a whole step and of its first half correlate by
    1/sqrt(1 + sqrt(q)), q the factor that sigma/alpha falls by. On the SDE itself, and in ours, it
    is sqrt(q/(1 + q)): the whole step's noise is (sqrt(q)·z1 + z2)/sqrt(1 + q) of two independent
    draws. Here ours is handed the z2 for which that is theirs.
    """
    pytest.importorskip("torchsde")
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    scheduler = made("DPMSolverSDEScheduler", STEPS, **spacing)
    sigmas = scheduler.sigmas.double()
    noise = torch.cat((sigmas[:1], sigmas[1::2]))
    middles = (noise[:-2] * noise[1:-1]).sqrt()
    asked = torch.cat((torch.stack((noise[:-2], middles), 1).flatten(), noise[-2:-1]))
    tree = BrownianTreeNoiseSampler(X, float(noise[-2]), float(noise[0]), seed=3)
    heard = Heard(tree, 2 * (STEPS - 1))
    xs = theirs(
        scheduler,
        start(noise),
        at_level(asked),
        change=lambda each: setattr(each, "noise_sampler", heard),
    ).then(lambda xs: [*xs[1::2], xs[-1]])
    assert heard.asked == 2 * heard.count
    mine = ours(DENOISE, "dpmpp-sde", noise, heard.halves(noise))
    agree(mine, xs, noise[1:], roundings=3 * ROUNDINGS)


@CLOCK
def test_the_clock_of_their_tree_is_sigma() -> None:
    """The noise of a whole step is that of its halves by their lengths in sigma/alpha, which makes
    the correlation above; the SDE's own clock has it fall with q."""
    pytest.importorskip("torchsde")
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    a, b = torch.tensor(8.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    middle, q = (a * b).sqrt(), b / a
    tree = BrownianTreeNoiseSampler(torch.zeros(50_000, dtype=torch.float64), 0.01, 100.0, seed=3)
    first, second, whole = tree(a, middle), tree(middle, b), tree(a, b)
    expected = (first + q**0.25 * second) / (1 + q.sqrt()).sqrt()
    assert torch.allclose(whole, expected, rtol=0, atol=1e-4)
    together = float(torch.corrcoef(torch.stack((first, whole)))[0, 1])
    assert abs(together - float(1 / (1 + q.sqrt()).sqrt())) < 0.01
    assert abs(together - float((q / (1 + q)).sqrt())) > 0.5


ORDERS = [(1, 1), (2, 2), slowly(3, 3), (3, 4), slowly(4, 4)]


def stochastic_adams(
    predictor: int, corrector: int, spacing: dict[str, Any], **given: Any
) -> tuple[Any, Tensor]:
    scheduler = diffusers.SASolverScheduler(
        predictor_order=predictor,
        corrector_order=corrector,
        lower_order_final=False,
        **given,
        **spacing,
    )
    scheduler.set_timesteps(STEPS)
    return scheduler, scheduler.sigmas.double()


def integrated(scheduler: Any) -> None:
    """Theirs replaces the integral of the line, wherever the order is 2, by its leading term h²/2
    "to slightly improve" few steps; that isn't in the paper, is infinite on a step to sigma = 0
    (they stop at the first entry), and is taken back here."""
    given = scheduler.get_coefficients_fn

    def without(order: int, start: Tensor, end: Tensor, lams: list[Tensor], tau: Any) -> Any:
        found = given(order, start, end, lams, tau)
        if order == 2:
            c, h = 1 + tau**2, end - start
            line = (c * h - 1 + (-c * h).exp()) / c**2
            added = (c * end).exp() * (h**2 / 2 - line) / (lams[0] - lams[1])
            return [found[0] - added, found[1] + added]
        return found

    scheduler.get_coefficients_fn = without


def adams_run(scheduler: Any, noise: Tensor) -> Both:
    return theirs(
        scheduler,
        X,
        lambda x, i: network(x, noise[i]),
        given=lambda x, i: {"generator": seeded(i)},
        change=integrated,
    )


@pytest.mark.parametrize("spacing", BY_ENTRY, ids=IDS[:3])
@pytest.mark.parametrize(("predictor", "corrector"), ORDERS)
def test_sa_solver(predictor: int, corrector: int, spacing: dict[str, Any]) -> None:
    scheduler, noise = stochastic_adams(
        predictor, corrector, spacing, tau_func=lambda t: torch.tensor(0.7, dtype=torch.float64)
    )
    xs = adams_run(scheduler, noise).then(scaled(noise[1:]))
    settings = {"tau": 0.7, "predictor": predictor, "corrector": corrector, "low": 0, "high": 1e9}
    mine = ours(DENOISE, "sa-solver", noise, seeds(), **settings)
    agree(mine, xs, noise[1:], roundings=lost(predictor, corrector, spacing))


def lost(predictor: int, corrector: int, spacing: dict[str, Any]) -> float:
    return extrapolated(3, BETA) if max(predictor, corrector) > 2 else extrapolated(2, spacing)


@pytest.mark.parametrize("spacing", BY_SIGMA, ids=IDS[3:])
@pytest.mark.parametrize(("predictor", "corrector"), ORDERS)
def test_sa_solver_repeats_the_last_sigma(
    predictor: int, corrector: int, spacing: dict[str, Any]
) -> None:
    """With these spacings theirs asks the network once more where it stands, corrects the step that
    led there and stays; ours goes on to sigma = 0 from the same place, along that prediction.

    Between quantiles of the beta distribution λ falls in steps so uneven that a cubic magnifies
    rounding. What their closed form of the integral loses in float64, 1e-11 of sigma, is up to 1e-4
    of it after the long step to the last level, and float32 leaves nothing there to compare. Ours
    is moved by 1e-7 of it, if its grid is moved by 1e-15.
    """
    scheduler, noise = stochastic_adams(
        predictor, corrector, spacing, tau_func=lambda t: torch.tensor(0.7, dtype=torch.float64)
    )
    assert noise[-1] == noise[-2] > 0
    xs = adams_run(scheduler, noise).then(scaled(noise[1:]))
    settings = {"tau": 0.7, "predictor": predictor, "corrector": corrector, "low": 0, "high": 1e9}
    grid = torch.cat((noise[:-1], noise.new_zeros(1)))
    mine = ours(DENOISE, "sa-solver", grid, seeds(), **settings)
    uneven = spacing == BETA and max(predictor, corrector) > 2
    roundings = float("inf") if uneven else lost(predictor, corrector, spacing)
    exact = SINGLE if uneven else EXACT
    agree(mine[:-2], xs.then(lambda xs: xs[:-2]), grid[1:-2], roundings=roundings)
    agree(mine[:-1], xs.then(lambda xs: xs[:-1]), grid[1:-1], roundings=roundings, exact=exact)
    last, x = noise[-1], xs.wide[-2]
    end = x - last * network(x / (1 + last.square()).sqrt(), last)
    assert float((mine[-1] - end).abs().max()) <= 2 * exact * float(last)
