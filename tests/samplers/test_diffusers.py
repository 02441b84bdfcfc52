"""The same trajectories as diffusers 0.42: Euler, Heun, LMS, DPM-Solver, UniPC and DEIS.

How theirs is run, and to what it is held, stands in `theirs`. Where their result is not the
method's, the test says why and holds ours to what it should be.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Level, Prediction
from couette.samplers.moves import half_log_snr, move
from samplers.theirs import (
    BETA,
    BY_ENTRY,
    BY_SIGMA,
    DOUBLE,
    EXACT,
    IDS,
    KARRAS,
    LU,
    ROUNDINGS,
    SINGLE,
    SPACINGS,
    STEPS,
    Predicts,
    WholeMultistep,
    X,
    agree,
    between,
    extrapolated,
    made,
    network,
    offered,
    ours,
    scaled,
    slowly,
    theirs,
)
from worlds import run

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy


@SPACINGS
@pytest.mark.parametrize(
    ("name", "scheduler", "within"),
    [
        ("euler", "EulerDiscreteScheduler", SINGLE),
        ("lms", "LMSDiscreteScheduler", SINGLE),
        ("heun", "HeunDiscreteScheduler", DOUBLE),
        slowly("dpm2", "KDPM2DiscreteScheduler", SINGLE),
    ],
)
def test_where_alpha_is_1(
    name: str, scheduler: str, within: float, spacing: dict[str, Any]
) -> None:
    """Their x is x/alpha, ours is x: the same run, in (x/alpha, sigma/alpha)."""
    made_ = made(scheduler, STEPS, **spacing)
    twice, sigmas = name in ("heun", "dpm2"), made_.sigmas.double()
    asked = sigmas.clone()
    if name == "dpm2":
        asked[1::2] = between(sigmas)

    def eps(x: Tensor, i: int) -> Tensor:
        return network(x / (1 + asked[i].square()).sqrt(), asked[i])

    def middles(each: Any) -> None:
        if name == "dpm2":
            each.sigmas_interpol[1::2] = between(each.sigmas)

    steps = sigmas[1 : 2 * STEPS - 1 : 2] if twice else sigmas[1:-1]
    noise = torch.cat((sigmas[:1], steps, sigmas.new_zeros(1)))
    start = X * (1 + noise[0].square()).sqrt()
    xs = theirs(made_, start, eps, change=middles)
    if twice:
        xs = xs.then(lambda xs: [*xs[1::2], xs[-1]])
    mine = ours(Predicts("eps", "linear"), name, noise)
    agree(mine, xs, noise[1:], within, ROUNDINGS if within == SINGLE else 0)


@pytest.mark.parametrize("spacing", [*BY_ENTRY, *BY_SIGMA, LU], ids=[*IDS, "lu"])
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_multistep(order: int, spacing: dict[str, Any]) -> None:
    """Orders 2M and 3M; with few steps theirs would lower the order before the end, too."""
    kind = {2: diffusers.DPMSolverMultistepScheduler, 3: WholeMultistep}[order]
    scheduler = kind(solver_order=order, lower_order_final=False, **spacing)
    scheduler.set_timesteps(STEPS)
    name = "dpmpp-2m" if order == 2 else "dpmpp-3m"
    preserving(name, scheduler, roundings=extrapolated(order, spacing))


def preserving(
    name: str, scheduler: Any, last: int | None = None, roundings: float = ROUNDINGS, **given: Any
) -> None:
    """The run of a scheduler whose x preserves variance, up to its step `last`."""
    noise = scheduler.sigmas.double()
    xs = theirs(scheduler, X, lambda x, i: network(x, noise[i]), last).then(
        scaled(noise[1:][:last])
    )
    mine = ours(Predicts("eps", "linear"), name, noise, **given)[:last]
    agree(mine, xs, noise[1:][:last], roundings=roundings)


@SPACINGS
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc(order: int, variant: str, spacing: dict[str, Any]) -> None:
    """Up to the last step, to sigma = 0. Theirs takes it only with "bh2" and with the order
    lowered, for 3 in the step before, too; ours keeps it until that step."""
    settings = {"solver_order": order, "solver_type": variant, "lower_order_final": False}
    scheduler = made("UniPCMultistepScheduler", STEPS, **settings, **spacing)
    lost = extrapolated(order, spacing)
    preserving("unipc", scheduler, STEPS - 1, lost, order=order, variant=variant)


@SPACINGS
def test_unipc_to_the_end(spacing: dict[str, Any]) -> None:
    scheduler = made("UniPCMultistepScheduler", STEPS, solver_order=2, **spacing)
    preserving("unipc", scheduler, roundings=extrapolated(2, spacing))


@pytest.mark.parametrize(
    "settings",
    [
        {"solver_type": "bh1", "lower_order_final": True},
        {"solver_type": "bh2", "lower_order_final": False},
    ],
    ids=["bh1", "order-kept"],
)
def test_unipc_of_theirs_is_not_finite_at_the_end_otherwise(settings: dict[str, Any]) -> None:
    """There h is infinite. Ours takes a plain move, to the prediction itself."""
    scheduler = made("UniPCMultistepScheduler", STEPS, solver_order=2, **settings)
    noise = scheduler.sigmas.double()
    xs = theirs(scheduler, X, lambda x, i: network(x, noise[i]))
    assert not bool(xs.plain[-1].isfinite().all()) and bool(xs.plain[-2].isfinite().all())
    denoise = Predicts("eps", "linear")
    variant = settings["solver_type"]
    *_, step = run("unipc", denoise, X, denoise.times(noise), order=2, variant=variant)
    assert torch.equal(step.x, step.x0)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("spacing", BY_ENTRY, ids=IDS[:3])
def test_deis(order: int, spacing: dict[str, Any]) -> None:
    """Theirs ends at the table's first sigma, not at 0."""
    settings = {"solver_order": order, "lower_order_final": False, **spacing}
    scheduler = made("DEISMultistepScheduler", STEPS, **settings)
    preserving("deis", scheduler, roundings=12 * ROUNDINGS, order=order)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("spacing", BY_SIGMA, ids=IDS[3:])
def test_deis_repeats_the_last_sigma(order: int, spacing: dict[str, Any]) -> None:
    """With these spacings theirs asks the network once more where it stands, and stays there; ours
    goes on to sigma = 0, along that prediction. Of order 3 on "beta" float32 leaves theirs no digit
    below the last sigma: see `extrapolated`."""
    settings = {"solver_order": order, "lower_order_final": False, **spacing}
    scheduler = made("DEISMultistepScheduler", STEPS, **settings)
    noise = scheduler.sigmas.double()
    assert noise[-1] == noise[-2] > 0
    xs = theirs(scheduler, X, lambda x, i: network(x, noise[i]))
    for each in xs:
        torch.testing.assert_close(each[-1], each[-2], rtol=1e-12, atol=0)
    xs = xs.then(scaled(noise[1:]))
    last = noise[-1]
    done = xs.then(
        lambda xs: [*xs[:-1], xs[-1] - last * network(xs[-1] / (1 + last**2).sqrt(), last)]
    )
    grid = torch.cat((noise[:-1], noise.new_zeros(1)))
    mine = ours(Predicts("eps", "linear"), "deis", grid, order=order)
    uneven = order == 3 and spacing == BETA
    exact = DOUBLE if uneven else EXACT
    roundings = float("inf") if uneven else extrapolated(order, spacing)
    agree(mine, done, grid[1:], roundings=roundings, exact=exact)


ODD = 11
"""Their pairs of steps and the last one, which goes to sigma = 0 on its own."""


@pytest.mark.parametrize("spacing", [{}, *BY_SIGMA], ids=["linspace", *IDS[3:]])
def test_dpm_solver_singlestep(spacing: dict[str, Any]) -> None:
    """Two of their steps are one of ours, once the level between them lies halfway in log sigma."""
    scheduler = made("DPMSolverSinglestepScheduler", ODD, lower_order_final=True, **spacing)

    def halved(each: Any) -> None:
        each.sigmas[1:-1:2] = between_ends(each.sigmas)

    ends = scheduler.sigmas.double()[::2]
    ends = torch.cat((ends, ends.new_zeros(1)))
    asked = scheduler.sigmas.double()
    asked[1:-1:2] = between_ends(asked)
    xs = theirs(scheduler, X, lambda x, i: network(x, asked[i]), change=halved)
    xs = xs.then(lambda xs: scaled(ends[1:])([*xs[1::2], xs[-1]]))
    agree(ours(Predicts("eps", "linear"), "dpmpp-2s", ends), xs, ends[1:])


def between_ends(sigmas: Tensor) -> Tensor:
    """Halfway between every other level and the next but one."""
    return (sigmas[:-2:2] * sigmas[2::2]).sqrt()


@pytest.mark.parametrize("spacing", [{}, KARRAS, BETA], ids=["linspace", "karras", "beta"])
def test_dpm_solver_singlestep_looks_where_the_next_level_is(spacing: dict[str, Any]) -> None:
    """The paper's 2S looks halfway in λ, as ours does; theirs at its own next level, at a share r
    of the step, and moves along m0 + (m1 − m0)/(2r). Only an exponential grid has r = 1/2."""
    scheduler = made("DPMSolverSinglestepScheduler", ODD, lower_order_final=True, **spacing)
    noise = scheduler.sigmas.double()
    xs = theirs(scheduler, X, lambda x, i: network(x, noise[i])).wide
    denoise = Predicts("eps", "linear")
    levels = [preserved(S) for S in noise]
    shares = []
    for i in range(0, ODD - 1, 2):
        a, middle, b = levels[i : i + 3]
        start = xs[i - 1] if i else X
        first, second = (
            denoise(x, denoise.times(noise[k]), {}).x0 for k, x in ((i, start), (i + 1, xs[i]))
        )
        r = (half_log_snr(middle) - half_log_snr(a)) / (half_log_snr(b) - half_log_snr(a))
        along = Prediction(first + (second - first) / (2 * r))
        assert float((move(start, along, a, b) - xs[i + 1]).abs().max()) <= 1e-6 * b.sigma
        shares.append(float(r))
    assert max(abs(r - 0.5) for r in shares) > 0.05


def preserved(S: Tensor) -> Level:
    """Variance-preserving, at sigma/alpha = S."""
    alpha = (1 + S.square()).rsqrt()
    return Level(alpha, S * alpha)


def test_dpm_solver_singlestep_has_no_further_spacings() -> None:
    """Its entries are linspace's: "leading" and "trailing" can't be asked for."""
    assert offered("DPMSolverSinglestepScheduler") == {key for each in BY_SIGMA for key in each}
