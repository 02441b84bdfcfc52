"""Every method that declares an order has it, on a world that is not linear, exactly known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from couette.contracts import Step
from couette.registry import SAMPLERS, SCHEDULES
from couette.samplers.adaptive import BOGACKI_SHAMPINE, DORMAND_PRINCE, Pair
from couette.samplers.runge_kutta import runge_kutta
from couette.schedules import entries, ratio
from worlds import Mixture, f64, run, schedule

ORDERED = [name for name in SAMPLERS if SAMPLERS.trait(name, "order")]
FROM, TO = 0.6, 0.1
"""The interval of sigma/alpha: it begins where the two bumps part, so that the error of a method's
first steps counts from few steps on."""


def grid(world: Mixture, steps: int) -> Tensor:
    """Even in t, so uneven in sigma/alpha and in its logarithm."""
    s = world.corruption.schedule
    ends = s.time(-2 * torch.tensor([FROM, TO], dtype=torch.float64).log())
    return torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)


def distance(world: Mixture, times: Tensor, sampler: Callable[[Tensor], Iterable[Step]]) -> float:
    """How far from the exact answer it carries points from all over the two bumps, on average."""
    a, b = (world.corruption.schedule.level(t) for t in (times[0], times[-1]))
    x = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64) * torch.hypot(*a)
    *_, last = sampler(x)
    return float((last.x - world.carried(x, a, b)).abs().mean())


def error(world: Mixture, times: Tensor, name: str, **given: Any) -> float:
    return distance(world, times, lambda x: run(name, world, x, times, **given))


def measured(on: str, name: str, steps: int, **given: Any) -> float:
    world, errors = Mixture(schedule(on)), []
    for n in (steps, 2 * steps):
        times = grid(world, n)
        times = times.flip(0) if SAMPLERS.trait(name, "inverse") else times
        errors.append(error(world, times, name, **given))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("on", ["linear", "vp", "edm", "ve", "flow"])
@pytest.mark.parametrize("name", ORDERED)
def test_the_order_is_what_is_declared(name: str, on: str) -> None:
    """On a table, whose levels have kinks, and its limit; where alpha is 1, in either time; and on
    the straight line."""
    assert measured(on, name, 64) == pytest.approx(SAMPLERS.trait(name, "order"), abs=0.15)


def levels(world: Mixture, high: float, low: float, steps: int) -> Tensor:
    """Even in (sigma/alpha)^(1/7), as Karras has it, between two of its values.

    They are kept to what the schedule has: up to its end, down to a table's entry 0. It serves on
    every schedule; even times do not where nearly all of the time is spent at the two ends.
    """
    s = world.corruption.schedule
    count = entries(s)
    least, most = ratio(s.level(f64(0 if count is None else 1 / count, 1))).tolist()
    ends = max(low, least) ** (1 / 7), min(high, 0.99 * most) ** (1 / 7)
    return s.time(-14 * torch.linspace(*ends, steps + 1, dtype=torch.float64).flip(0).log())


def order_over(on: str, name: str, high: float, low: float, steps: int) -> float:
    """The order measured between these values of sigma/alpha."""
    world, errors = Mixture(schedule(on)), []
    for n in (steps, 2 * steps):
        times = levels(world, high, low, n)
        errors.append(
            error(world, times.flip(0) if SAMPLERS.trait(name, "inverse") else times, name)
        )
    return math.log2(errors[0] / errors[1])


STEPS = {("pndm", "laplace"): 256, ("deis", "betas"): 1024}
"""Where 128 steps are too few to tell. pndm begins with half steps in t, which on laplace are far
from half in the level; deis' error over three betas changes its sign near 200."""


@pytest.mark.slow
@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("name", ORDERED)
def test_the_order_is_what_is_declared_on_every_schedule(name: str, on: str) -> None:
    """Where the error is all but the leading term's; in other steps than those above."""
    found = order_over(on, name, FROM, TO, STEPS.get((name, on), 128))
    assert found == pytest.approx(SAMPLERS.trait(name, "order"), abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("on", list(SCHEDULES))
@pytest.mark.parametrize("name", ORDERED)
def test_the_order_holds_from_noise_to_nearly_none(name: str, on: str) -> None:
    """From 20 to 0.02, all but pure noise and the last jump.

    A bound from below: a method whose first steps are of a lower order (deis, lms, dpmpp-3m) makes
    them up here, where they are short, so that it is of the order of its later steps until there
    are thousands.
    """
    found = order_over(on, name, 20, 0.02, STEPS.get((name, on), 128))
    assert found > SAMPLERS.trait(name, "order") - 0.15


@pytest.mark.parametrize(
    ("name", "given", "order"),
    [
        ("lms", {"order": 1}, 1),
        ("lms", {"order": 2}, 2),
        ("lms", {"order": 3}, 2),
        ("deis", {"order": 1}, 1),
        ("deis", {"order": 2}, 2),
        ("deis", {"order": 4}, 2),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 2, "variant": "bh1"}, 3),
        ("unipc", {"order": 3}, 3),
        ("unipc", {"order": 3, "variant": "bh1"}, 3),
    ],
    ids=lambda value: str(value),
)
def test_the_order_of_other_settings(name: str, given: dict[str, Any], order: int) -> None:
    """unipc with order 3 is of the fourth but for its first step, of which this interval tells."""
    assert measured("edm", name, 128, **given) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(
    "pair", [DORMAND_PRINCE, BOGACKI_SHAMPINE], ids=["dormand-prince", "bogacki-shampine"]
)
def test_the_pairs_have_their_orders_on_a_fixed_grid(pair: Pair) -> None:
    """The one that is followed, and the one that checks it, an order below."""
    world = Mixture(schedule("edm"))
    check = pair.table._replace(weights=pair.check)
    for table, order in ((pair.table, pair.order), (check, pair.order - 1)):
        errors = [
            distance(world, times, lambda x, t=times, of=table: runge_kutta(world, x, t, {}, of))
            for times in (grid(world, steps) for steps in (8, 32))
        ]
        assert math.log2(errors[0] / errors[1]) / 2 == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", [n for n in SAMPLERS if SAMPLERS.trait(n, "adaptive")])
@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-6])
def test_tolerances_are_kept(name: str, on: str, tolerance: float) -> None:
    """Over nearly all of a schedule. A tolerance is of one step; their errors add up to a few."""
    times = torch.tensor([0.95, 0.9, 0.1], dtype=torch.float64)
    given = {"rtol": tolerance, "atol": tolerance}
    assert error(Mixture(schedule(on)), times, name, **given) < 5 * tolerance
