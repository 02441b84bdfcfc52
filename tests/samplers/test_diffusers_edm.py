"""The same trajectories as diffusers' schedulers for EDM and for flows, begun as theirs are.

As in test_diffusers, theirs runs as it comes and in double.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Step
from couette.schedules import Table
from samplers.theirs import (
    BY_SIGMA,
    EXACT,
    IDS,
    STEPS,
    Predicts,
    Whole,
    X,
    agree,
    drawn,
    edm,
    made,
    network,
    offered,
    ours,
    reached,
    scaled,
    seeded,
    seeds,
    theirs,
)
from worlds import run, schedule

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy

SHAPES = pytest.mark.parametrize("shape", ["karras", "exponential"])


class WholeEDM(Whole, diffusers.EDMDPMSolverMultistepScheduler):
    pass


@SHAPES
@pytest.mark.parametrize("name", ["euler", "dpmpp-2m", "dpmpp-3m"])
def test_edm(name: str, shape: str) -> None:
    """Of 3M theirs takes half of the parabola's second term, as elsewhere; here it is whole."""
    scheduler: Any = {
        "euler": diffusers.EDMEulerScheduler(sigma_schedule=shape),
        "dpmpp-2m": diffusers.EDMDPMSolverMultistepScheduler(sigma_schedule=shape),
        "dpmpp-3m": WholeEDM(sigma_schedule=shape, solver_order=3, lower_order_final=False),
    }[name]
    scheduler.set_timesteps(STEPS)
    noise = scheduler.sigmas.double()
    start = X * (1 + noise[0].square()).sqrt()
    xs = theirs(scheduler, start, lambda x, i: F(x, noise[i]))
    agree(ours(Predicts("edm", "edm"), name, noise), xs, noise[1:])


def F(x: Tensor, sigma: Tensor) -> Tensor:
    """What the network says of x at this level."""
    return network(x / (sigma.square() + 0.25).sqrt(), sigma)


@SHAPES
@pytest.mark.parametrize("form", ["midpoint", "heun"])
def test_edm_dpm_solver_sde(form: str, shape: str) -> None:
    settings = {"sigma_schedule": shape, "algorithm_type": "sde-dpmsolver++", "solver_type": form}
    scheduler = made("EDMDPMSolverMultistepScheduler", STEPS, **settings)
    noise = scheduler.sigmas.double()
    xs = theirs(
        scheduler,
        X * (1 + noise[0].square()).sqrt(),
        lambda x, i: F(x, noise[i]),
        given=lambda x, i: {"generator": seeded(i)},
    )
    mine = ours(Predicts("edm", "edm"), "dpmpp-2m-sde", noise, seeds(), form=form)
    agree(mine, xs, noise[1:])


def test_edm_dpm_solver_sde_of_order_3_is_not_theirs_to_take() -> None:
    """Its third step has no formula for it and fails; ours takes the parabola's."""
    settings = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    scheduler = made("EDMDPMSolverMultistepScheduler", STEPS, **settings)
    noise = scheduler.sigmas.double()
    with pytest.raises(UnboundLocalError, match="x_t"):
        theirs(scheduler, X, lambda x, i: F(x, noise[i]))
    mine = ours(Predicts("edm", "edm"), "dpmpp-3m-sde", noise, seeds())
    assert len(mine) == STEPS and bool(torch.stack(mine).isfinite().all())


CHURN = {"s_churn": 5.0, "s_noise": 1.01}


def test_edm_euler_with_churn() -> None:
    """Their step adds its noise after the network has been asked; here the network is asked of the
    noised picture at the raised level, as in Karras' algorithm 2."""
    scheduler = made("EDMEulerScheduler", STEPS)
    noise = scheduler.sigmas.double()
    denoise = Predicts("edm", "edm:sigma_max=200")

    def given(x: Tensor, i: int) -> dict[str, Any]:
        sigma = noise[i]
        if 0.05 <= sigma <= 50:
            raised = sigma * (1 + min(5 / STEPS, 2**0.5 - 1))
            x = x + 1.01 * (raised**2 - sigma**2).sqrt() * drawn(i)
            sigma = raised
        window = {"s_tmin": 0.05, "s_tmax": 50.0, "generator": seeded(i)}
        return {**CHURN, **window, "pred_original_sample": edm(x, sigma)}

    start = X * denoise.corruption.schedule.level(denoise.times(noise[:1])).sigma
    xs = theirs(scheduler, start, lambda x, i: torch.zeros_like(x), given=given)
    inside = [i for i, S in enumerate(noise[:-1]) if 0.05 <= S <= 50]
    draws = iter(inside)
    times = denoise.times(noise)
    out = run(
        "euler-churn",
        denoise,
        start,
        times,
        lambda t, u: drawn(next(draws)),
        **CHURN,
        s_min=0.05,
        s_max=50.0,
    )
    agree([step.x for step in out], xs, noise[1:])


def karras_ve(steps: int) -> tuple[Any, Tensor]:
    """Theirs and the levels that it means: it lists their squares."""
    from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

    scheduler = KarrasVeScheduler()
    scheduler.set_timesteps(steps)
    return scheduler, scheduler.schedule.double().sqrt().flip(0)


@pytest.fixture
def drawn_in_double() -> Iterator[None]:
    """Their noise has torch's default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("drawn_in_double")
def test_karras_ve() -> None:
    """Theirs is a pipeline's loop over sigmas; its network says (x0 − x)/sigma."""
    scheduler, levels = karras_ve(STEPS)
    noise = torch.cat((levels, levels.new_zeros(1)))
    start, xs = X * noise[0], []
    x = start
    for i, (sigma, following) in enumerate(pairwise(noise)):
        raised, top = scheduler.add_noise_to_input(x, sigma, generator=seeded(i))
        first = scheduler.step((edm(raised, top) - raised) / top, top, following, raised)
        x = first.prev_sample
        if following > 0:
            said = (edm(x, following) - x) / following
            x = scheduler.step_correct(
                said, top, following, raised, x, first.derivative
            ).prev_sample
        xs.append(x)
    inside = iter([i for i, S in enumerate(levels) if 0.05 <= S <= 50])
    denoise = Predicts("edm", "edm:sigma_max=200")
    out: list[Step] = run(
        "edm",
        denoise,
        start,
        denoise.times(noise),
        lambda t, u: drawn(next(inside)),
        s_churn=80.0,
        s_noise=1.007,
    )
    for step, other, S in zip(out, xs, reached(noise[1:]), strict=True):
        assert float((step.x - other).abs().max()) <= EXACT * S


def test_karras_ve_of_theirs_takes_the_squares_for_its_levels() -> None:
    """Its pipeline begins at sigma_max² = 10,000, with a picture noised to 100, and ends at
    sigma_min². Our grid is the one between sigma_max and sigma_min."""
    scheduler, levels = karras_ve(STEPS)
    listed = scheduler.schedule.double()
    assert listed[-1] == 100**2 and scheduler.init_noise_sigma == 100
    expected = torch.logspace(2, torch.tensor(0.02).log10(), STEPS, dtype=torch.float64)
    assert torch.allclose(levels, expected, rtol=1e-6, atol=0)


SPACINGS = pytest.mark.parametrize("spacing", [{}, *BY_SIGMA], ids=["even", *IDS[3:]])


@SPACINGS
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift: float, spacing: dict[str, Any]) -> None:
    """From alpha = 0."""
    scheduler = made("FlowMatchEulerDiscreteScheduler", STEPS, shift=shift, **spacing)
    sigma = scheduler.sigmas.double()
    xs = theirs(scheduler, X, lambda x, i: network(x, sigma[i]))
    xs = xs.then(lambda xs: [x / (1 - each) for x, each in zip(xs, sigma[1:], strict=True)])
    noise = sigma / (1 - sigma)
    agree(ours(Predicts("velocity", "flow"), "euler", noise), xs, noise[1:])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_heun(shift: float) -> None:
    """Theirs takes the mean of two velocities, from alpha = 0 on: ours along them."""
    scheduler = made("FlowMatchHeunDiscreteScheduler", STEPS, shift=shift)
    assert not offered("FlowMatchHeunDiscreteScheduler")
    asked = scheduler.sigmas.double()
    sigma = torch.cat((asked[:1], asked[1:-1:2], asked[-1:]))
    xs = theirs(scheduler, X, lambda x, i: network(x, asked[i]))
    ends = xs.then(lambda xs: [*xs[1::2], xs[-1]])
    scaled_ = ends.then(lambda xs: [x / (1 - S) for x, S in zip(xs, sigma[1:], strict=True)])
    noise = sigma / (1 - sigma)
    mine = ours(Predicts("velocity", "flow"), "heun", noise, along="velocity")
    agree(mine, scaled_, noise[1:])


def test_flow_match_heun_is_karras_method_as_if_alpha_were_1() -> None:
    """The mean of two eps, on the schedule where velocity is eps."""
    scheduler = made("FlowMatchHeunDiscreteScheduler", STEPS)
    asked = scheduler.sigmas.double()
    sigma = torch.cat((asked[:1], asked[1:-1:2], asked[-1:]))
    start = X * (1 + sigma[0].square()).sqrt()
    xs = theirs(scheduler, start, lambda x, i: network(x, asked[i]))
    mine = ours(Predicts("velocity", "edm"), "heun", sigma)
    agree(mine, xs.then(lambda xs: [*xs[1::2], xs[-1]]), sigma[1:])


def test_ipndm() -> None:
    """Theirs predicts v on levels of its own; here on a table's, from below pure noise."""
    s = schedule("linear")
    assert isinstance(s, Table)
    level = s.level(torch.linspace(0.6, 0, STEPS + 1, dtype=torch.float64))
    scheduler = made("IPNDMScheduler", STEPS, trained_betas=level.sigma.tolist())

    def of_power_1(each: Any) -> None:
        each.alphas = (1 - each.betas.square()).sqrt()

    sigma = scheduler.betas.double()
    alpha = (1 - sigma.square()).sqrt()

    def v(x: Tensor, i: int) -> Tensor:
        return (network(x, sigma[i] / alpha[i]) - sigma[i] * x) / alpha[i]

    noise = sigma / alpha
    xs = theirs(scheduler, X, v, change=of_power_1).then(scaled(noise[1:]))
    agree(ours(Predicts("eps", "linear"), "ipndm", noise), xs, noise[1:])


def test_ipndm_from_pure_noise() -> None:
    """Their first step divides by alpha = 0 and so forgets what was predicted, whatever it was;
    ours moves along it, to alpha_u·x0 + sigma_u·x."""
    firsts = []
    for value in (-5.0, 5.0):
        scheduler = made("IPNDMScheduler", STEPS)
        firsts.append(theirs(scheduler, X, lambda x, i, v=value: torch.full_like(x, v)).plain[0])
    assert torch.equal(*firsts)
    times = torch.tensor([1.0, 0.7], dtype=torch.float64)
    denoise = Predicts("velocity", "flow")
    (step,) = run("ipndm", denoise, X, times)
    x0 = X - network(X, times[0])
    assert torch.allclose(step.x, 0.3 * x0 + 0.7 * X, rtol=0, atol=1e-12)
